"""`wheeltapper evaluate`: a published release against the test part of a history, by the rules of its training.

Its pack scores the history as it would serve it, and once more with every own head replaced by its class's. The split
is the one in the pack's lineage, so on the history it was trained with the test part is what it has never seen, and on
a later history everything after its training is.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.composed_lineage import is_composed
from wheeltapper.errors import NotFound, Refused
from wheeltapper.outputs import Why
from wheeltapper.pack import Pack, PackClass
from wheeltapper.spec import FleetSpec
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.evaluation import evaluate
from wheeltapper_trainer.final_answers import final_answers
from wheeltapper_trainer.history import History
from wheeltapper_trainer.inputs import asset_rows, failure_codes
from wheeltapper_trainer.job import TEST, Chunk, ClassSplit, TrainJob, save_arrays, slots_of
from wheeltapper_trainer.records import Asset, AssetReadings, Events
from wheeltapper_trainer.threads import in_order
from wheeltapper_trainer.thresholds import Threshold

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Examined:
    """One class of a pack on a history: `class_only` is the pack with every own head replaced by its class's."""

    job: TrainJob
    pack: Pack
    class_only: Pack
    known: PackClass
    release: int
    codes: frozenset[str]  # components that ever failed on its assets


def evaluate_pack(pack: Pack, release: int, uri: str, cpus: int, progress: Progress) -> dict[str, Any]:
    """The Evaluation document of a pack on a history's test part.

    A pack holds only own heads that were kept, so its level "own" is what answers. Raises Refused where the pack does
    not say its split, NotFound or HistoryError where the history does not fit its classes.
    """
    history = History.open(uri)
    assets = {one.name: [a for a in history.assets() if a.asset_class == one.name] for one in pack.classes}
    progress.start("evaluating", sum(len(own) for own in assets.values()), "assets")
    with tempfile.TemporaryDirectory(prefix="wheeltapper-") as folder:
        fleet = FleetSpec(pack.fleet, tuple(one.spec for one in pack.classes), pack.seed)
        counts = tuple((name, len(own)) for name, own in assets.items())
        job = TrainJob(uri, folder, fleet, _splits(pack), counts, pack.seed)
        chunks = [
            _score_class(job, pack, release, one, history, assets[one.name], cpus, progress) for one in pack.classes
        ]
        progress.finish()
        document = evaluate(job, chunks, _thresholds(pack))
    if not any(output["rows"] for entry in document["classes"] for output in entry["outputs"]):
        raise NotFound(f"{uri} has no reading in the test part of release {release}", "bring a later history")
    for entry in document["classes"]:  # what only the training run knows
        for output in entry["outputs"]:
            del output["validation"], output["threshold_by"]
        for head in entry["heads"]:
            del head["tried"], head["validation_loss"]
        del entry["features"]
    return document


def _score_class(
    job: TrainJob,
    pack: Pack,
    release: int,
    known: PackClass,
    history: History,
    assets: Sequence[Asset],
    cpus: int,
    progress: Progress,
) -> Chunk:
    """Score a class's assets into the file that the ASSET stage would have left, and return its chunk."""
    events = history.events()
    by_id = {asset.asset_id: asset for asset in assets}
    class_only = dataclasses.replace(pack, asset_heads=pack.class_heads[pack.asset_class])
    examined = _Examined(job, pack, class_only, known, release, failure_codes(events, by_id))
    sensors = [sensor.name for sensor in known.spec.sensors]
    calls = (
        (by_id[found.asset_id], found, events.of_asset(found.asset_id)) for found in history.read(list(by_id), sensors)
    )
    done: list[Arrays] = []
    for arrays in in_order(cpus, partial(_score_asset, examined), calls):
        done.append(arrays)
        progress.advance()
    chunk = Chunk(known.name, tuple(by_id), 0, known.name)
    save_arrays(job.chunk_path(chunk), _joined(known, done))
    for slot in slots_of(known.spec):
        save_arrays(job.class_path(known.name, slot.index), {"gains": np.zeros(known.features)})
    return chunk


def _score_asset(examined: _Examined, asset: Asset, readings: AssetReadings, events: Events) -> Arrays:
    """The test rows of one asset as the ASSET stage stores them."""
    spec, pack = examined.known.spec, examined.pack
    rows = asset_rows(examined.job, spec, examined.known.regimes, asset, readings, events, examined.codes)
    sensors = [sensor.name for sensor in spec.sensors]
    answers, of_class = (
        final_answers(which, examined.release, asset, sensors, readings, events)
        for which in (pack, examined.class_only)
    )
    test = (rows.parts == TEST).any(axis=1)
    at = np.searchsorted(answers.times, rows.times[test])
    index = pack.asset_index(asset.asset_id)
    reasons = pack.asset_reasons[index] if index >= 0 else np.full(examined.known.slots, Why.UNKNOWN_ASSET, np.uint8)
    return {
        "asset_ids": np.array([asset.asset_id]),
        "failure_times": rows.failure_times,
        "failure_codes": rows.failure_codes,
        "reasons": reasons[None, : examined.known.slots],
        "times": rows.times[test],
        "labels": rows.labels[test],
        "raw_labels": rows.raw_labels[test],
        "parts": rows.parts[test],
        "levels": answers.levels[at],
        "values": answers.values[at],
        "class_values": of_class.values[at],
        "own_values": answers.values[at],
    }


def _joined(known: PackClass, done: Sequence[Arrays]) -> Arrays:
    if not done:
        return {"asset_ids": np.empty(0, np.str_)}
    joined = {name: np.concatenate([arrays[name] for arrays in done]) for name in done[0]}
    shape = (len(done), known.slots)
    return joined | {
        "row_begin": np.cumsum([0, *(len(arrays["times"]) for arrays in done)]),
        "failure_begin": np.cumsum([0, *(len(arrays["failure_times"]) for arrays in done)]),
        "tried": np.zeros(shape, np.bool_),
        "losses": np.full((*shape, 2), np.nan, np.float32),
    }


def _splits(pack: Pack) -> tuple[ClassSplit, ...]:
    """The split its lineage keeps. Raises Refused where it has none, or not for every class."""
    kept = {split["asset_class"]: split for split in pack.lineage.get("split", ())}
    missing = [one.name for one in pack.classes if one.name not in kept]
    if missing:
        mixed = "it is composed of releases that split in different ways; evaluate those"
        hint = mixed if is_composed(pack) else "train it with this version"
        raise Refused(f"the pack does not say where the test part of {missing} begins", hint)
    return tuple(_split(kept[one.name]) for one in pack.classes)


def _split(kept: Mapping[str, Any]) -> ClassSplit:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}
    return ClassSplit(**fields)


def _thresholds(pack: Pack) -> list[Threshold]:
    return [
        Threshold(one.name, output.name, float("nan") if output.threshold is None else output.threshold, 0.0, 0, 0)
        for one in pack.classes
        for output in one.outputs
    ]
