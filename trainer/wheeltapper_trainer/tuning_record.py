"""`trials.json`: every trial of a search, its parameters, folds and figures. No times and no paths: the same search
writes the same bytes.

    {"format": 1, "fleet", "config", "data", "seed", "folds", "batch", "software": {...}, "space": {...},
     "classes": [{"name", "judged": {slot: [fold, …]}, "unjudged": {slot: reason}, "chosen", "gain", "gain_error",
                  "trials": [{"number", "parameters", "objective", "folds": [{slot: {...}} or null], "reason"}]}]}

Trial 0 has the parameters that the fleet.toml had. An objective is the mean of a trial's losses over those of trial 0:
below 1 is better. `chosen` is the best trial, or 0 where the best gains less than one standard error over the folds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from wheeltapper.durable import replace, write_temporary
from wheeltapper.errors import ConfigError, NotFound, Refused
from wheeltapper.spec import FleetSpec

FORMAT = 1
FILE_BYTES_MAX = 2 << 20  # it is kept in a release's entry, which may have 4 MiB

Document = dict[str, Any]


def save_trials(path: Path, document: Mapping[str, Any]) -> None:
    """Write the record, whole or not at all."""
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
    replace(write_temporary(path.parent, path.name, [text.encode()]), path)


def load_trials(path: Path) -> Document:
    """A record. Raises NotFound where there is none, ConfigError where it is none of this version."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound(f"no record of trials at {path}", "`wheeltapper tune` writes one") from None
    try:
        found = json.loads(raw) if len(raw) <= FILE_BYTES_MAX else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("classes"), list):
        raise ConfigError(
            f"{path}: expected the trials of a `wheeltapper tune` of this version, at most {FILE_BYTES_MAX:,} bytes",
            "tune again, or train without it",
        )
    return found


def objective_of(folds: Sequence[Any], first: Sequence[Any]) -> tuple[float, list[float]]:
    """(mean over folds, by fold): a trial's losses over those of trial 0, mean over slots; 1 where both are nothing."""
    by_fold = [
        float(np.mean([_share(one[slot]["loss"], then[slot]["loss"]) for slot in sorted(then)]))
        for one, then in zip(folds, first, strict=True)
        if then
    ]
    return float(np.mean(by_fold)), by_fold


def choose(trials: Sequence[Mapping[str, Any]]) -> tuple[int, float, float]:
    """(the chosen trial, its gain, the gain's standard error over the folds): 0 unless another gains more than that."""
    finished = [trial for trial in trials if trial["objective"] is not None]
    best = min(finished, key=lambda trial: (trial["objective"], trial["number"]))
    _, by_fold = objective_of(best["folds"], trials[0]["folds"])
    gains = 1.0 - np.array(by_fold)
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("inf")
    return (best["number"] if gains.mean() > error else 0), float(gains.mean()), error


def tuning_of(spec: FleetSpec, path: Path, *, asked: bool) -> tuple[Document, Document] | None:
    """(summary for the pack's lineage, the whole record for the release) of the trials that led to `spec`.

    None where there are none, or, unless they were `asked` for, where the fleet's parameters are not what they chose.
    Raises Refused where they were asked for and do not fit, and what `load_trials` raises.
    """
    if not asked and not path.exists():
        return None
    try:
        record = load_trials(path)
    except ConfigError:
        if asked:
            raise
        return None  # some other file of that name
    models = {one.name: one.model for one in spec.classes}
    for entry in record["classes"]:
        chosen = entry["trials"][entry["chosen"]]["parameters"]
        model = models.get(entry["name"])
        other = [name for name, value in chosen.items() if model is None or getattr(model, name) != value]
        if other and asked:
            raise Refused(
                f"{path} chose other parameters for class {entry['name']!r} than fleet.toml has: {', '.join(other)}",
                "train the fleet.toml that was written beside it, or without --tuning",
            )
        if other:
            return None
    summary = {
        "trials": hashlib.sha256(path.read_bytes()).hexdigest(),
        "seed": record["seed"],
        "classes": {
            entry["name"]: {"trials": len(entry["trials"]), "chosen": entry["chosen"], "gain": entry["gain"]}
            for entry in record["classes"]
        },
    }
    return summary, record


def _share(loss: float, then: float) -> float:
    if then > 0:
        return loss / then
    return 1.0 if loss == then else 2.0
