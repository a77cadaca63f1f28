"""One run in MLflow for a release that `train --mlflow` published. The only module that imports mlflow.

Parameters, digests, versions and figures are read from the release: its pack, and its entry in the registry, whose
`fleet_toml` is what was trained. They suffice to train it again, so MLflow is where runs are looked at and compared,
and is never needed. The pack stays in the registry, which verifies it; MLflow gets its digest and size.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wheeltapper.errors import Refused, UsageError
from wheeltapper.pack import Pack, open_pack
from wheeltapper.spec import to_json
from wheeltapper_command.progress import Progress

if TYPE_CHECKING:
    from wheeltapper_trainer.training import Order, Trained

EXPERIMENT = "wheeltapper"

# MLflow's own limits: names and values longer than these, and larger requests, are refused by its server.
_KEY_CHARACTERS_MAX = 250
_VALUE_CHARACTERS_MAX = 6_000
_BATCH = 100  # parameters in a request; it takes as many tags, and more metrics

# A server that hangs costs three tries of 20 s, not MLflow's eight of two minutes. The environment goes before these.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a plant's network tells nobody outside what it trains
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is the result's
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True, slots=True)
class Record:
    """What one run holds, in MLflow's own shapes. `files`: name → text. Nothing in it is a path of this machine."""

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Mapping[str, str]


class Tracker:
    """A server that answered, and the experiment whose runs it is to keep."""

    def __init__(self, uri: str, experiment: str = EXPERIMENT) -> None:
        """Ask the server before any work starts; it creates nothing yet.

        Raises UsageError (no address of a server, or mlflow is not installed) or Refused (no answer, or not MLflow's).
        """
        _check_address(uri)
        mlflow = _mlflow()
        self._mlflow = mlflow
        self._experiment = experiment
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        try:
            self._client.search_experiments(max_results=1)
            found = self._client.get_experiment_by_name(experiment)
        except mlflow.MlflowException as error:
            raise Refused(
                f"--mlflow: expected an MLflow server at {uri}, found: {_first_line(error)}",
                "start it, or mend the address; nothing was trained yet, and --mlflow can be left out",
            ) from None
        if found is not None and found.lifecycle_stage != "active":
            raise Refused(
                f"--mlflow-experiment: expected an experiment that takes runs, found {experiment!r} deleted",
                "restore it in MLflow, or choose another name",
            )

    def log(self, record: Record) -> str:
        """Write one run and return its id. Raises what MLflow or its artefact store raises; the run then is FAILED."""
        client, entities = self._client, self._mlflow.entities
        found = client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else client.create_experiment(self._experiment)
        run_id = str(client.create_run(experiment, run_name=record.name).info.run_id)
        ended = "FAILED"
        try:
            now_ms = time.time_ns() // 1_000_000
            for params in _batches(record.params):
                client.log_batch(run_id, params=[entities.Param(key, value) for key, value in params])
            for tags in _batches(record.tags):
                client.log_batch(run_id, tags=[entities.RunTag(key, value) for key, value in tags])
            for metrics in _batches(record.metrics):
                client.log_batch(run_id, metrics=[entities.Metric(key, value, now_ms, 0) for key, value in metrics])
            for name, text in record.files.items():
                client.log_text(run_id, text, name)
            ended = "FINISHED"
        finally:
            client.set_terminated(run_id, ended)
        return run_id


def log_finished(tracker: Tracker, order: Order, trained: Trained, progress: Progress) -> dict[str, str]:
    """Log a finished training: {"run": id} or {"error": why not}. It never raises: the release is published already."""
    try:
        record = record_of(
            open_pack(trained.release.pack_path),
            trained.release.entry.document,
            trained.evaluation,
            trained.result,
            order.report.read_text(encoding="utf-8"),
            places_of(order.history, order.run_dir, order.registry),
        )
        return {"run": tracker.log(record)}
    except Exception as error:  # whatever a server or its artefact store does, the release stands
        reason = f"{type(error).__name__}: {_first_line(error)}"
        progress.say(f"warning: the release is published, but MLflow has no whole record of it: {reason}")
        return {"error": reason}


def record_of(
    pack: Pack,
    entry: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    result: Mapping[str, Any],
    report: str,
    places: Mapping[str, str],
) -> Record:
    """What a release says of itself, its evaluation and its report, as one run.

    entry: the release's in the registry. result: as `train -o json` prints it. report: the page. places: path or
    address → the word that stands for it, as reasons and reports name files where they lay.
    """
    shown = {key: value for key, value in result.items() if key != "report"}
    lineage = pack.lineage
    files = {
        "evaluation.json": _json(evaluation),
        "training.json": _json(shown),
        "quarantined.csv": _table(result["quarantined"]),
        "report.html": report,
    }
    if "fleet_toml" in entry["details"]:
        files["fleet.toml"] = entry["details"]["fleet_toml"]
    tags = {
        "fleet": pack.fleet,
        "release": str(entry["release"]),
        "pack": entry["pack"],  # of the file, as the registry names it
        "pack_bytes": str(pack.size_bytes),
        "data": lineage["data"],
        "config": lineage["config"],
        "gates": "none" if not entry["gates"] else "passed" if all(g["passed"] for g in entry["gates"]) else "failed",
        **{f"version.{name}": version for name, version in lineage["versions"].items()},
    }
    return Record(
        f"{pack.fleet} release {entry['release']}",
        params_of(pack),
        {f"wheeltapper.{name}": value for name, value in tags.items()},
        metrics_of(pack, result),
        {name: _without(text, places) for name, text in files.items()},
    )


def params_of(pack: Pack) -> dict[str, str]:
    """The seed, and of every class model and alarm parameters, windows, statistics and the cut: `class/model/eta`."""
    found: dict[str, Any] = {"seed": pack.seed}
    splits = {split["asset_class"]: split for split in pack.lineage["split"]}
    for one in pack.classes:
        spec = to_json(one.spec)
        chosen = {name: spec[name] for name in ("model", "alarm", "windows", "statistics", "cadence_us")}
        cut = _cut(splits[one.name]) if one.name in splits else {}
        found |= _flat({**chosen, "split": cut}, _part(one.name))
    return {key[:_KEY_CHARACTERS_MAX]: str(value)[:_VALUE_CHARACTERS_MAX] for key, value in found.items()}


def metrics_of(pack: Pack, result: Mapping[str, Any]) -> dict[str, float]:
    """The served figures of every output as `class/output/figure`, the totals, counts, and seconds. Unknown ones are
    left out: MLflow has no null."""
    served = {
        one.name: {output.name: dict(output.metrics) for output in one.outputs if output.metrics}
        for one in pack.classes
    }
    counts = {name: value for name, value in result.items() if name != "release"}
    run = {**counts, "metrics": {}, "tuning": {}, "quarantined": {}}
    found = _flat(served) | _flat({"totals": result["metrics"], "run": run})  # a class may be called "run" as well
    return {
        key[:_KEY_CHARACTERS_MAX]: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def places_of(history: str, run_dir: Path, registry: Path) -> dict[str, str]:
    """What stands in a record for places of this machine, and for a history's address, which may hold a key."""
    return {
        history: "HISTORY",
        str(run_dir.absolute()): "RUN",
        str(registry.absolute()): "REGISTRY",
        str(Path.home()): "~",
    }


def _flat(document: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """Nested objects as one, keys joined by /; what is not known (null) is left out, lists are written as JSON."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        key = f"{under}/{_part(name)}" if under else _part(name)
        if isinstance(value, Mapping):
            found |= _flat(value, key)
        elif value is not None:
            found[key] = json.dumps(value) if isinstance(value, list) else value
    return found


def _part(name: str) -> str:
    """A name as a part of an MLflow key: `failure:bearing` becomes `failure.bearing`, which servers on Windows take."""
    return re.sub(r"[^\w.-]", "_", name.replace(":", "."))


def _cut(split: Mapping[str, Any]) -> dict[str, Any]:
    """Where training ends, in a person's words: times in UTC, or how many assets are held back."""
    if split["by"] == "time":
        return {"by": "time", "valid_from": _time(split["valid_from_us"]), "test_from": _time(split["test_from_us"])}
    return {"by": "asset", **{name: len(split[name]) for name in ("valid_assets", "test_assets")}}


def _time(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _table(quarantined: Mapping[str, str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("asset", "reason"), *sorted(quarantined.items())])
    return out.getvalue()


def _without(text: str, places: Mapping[str, str]) -> str:
    """`text` with words for places; the longest first, as one may lie in another."""
    for place in sorted(places, key=len, reverse=True):
        for written in {place, html.escape(place), json.dumps(place, ensure_ascii=False)[1:-1]}:
            text = text.replace(written, places[place])
    return text


def _batches(pairs: Mapping[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    left = iter(pairs.items())
    while batch := list(islice(left, _BATCH)):
        yield batch


def _check_address(uri: str) -> None:
    """Raises UsageError unless `uri` is that of a server. Its password, if it wants one, is the environment's."""
    hint = "give a server's address, such as http://mlflow.plant:5000"
    try:
        parts = urlsplit(uri)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        found = False
    if not found:
        raise UsageError(f"--mlflow: expected http:// or https:// and a host, found {uri!r}", hint)
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "--mlflow: expected an address without a name and password, found one with them",
            "put them into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, which no list of processes shows",
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:500]


def _mlflow() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)  # MLflow has no other way to say it
    try:
        import mlflow  # noqa: PLC0415  an extra that only --mlflow needs
    except ModuleNotFoundError:
        raise UsageError(
            "--mlflow needs the MLflow client, which is not installed", "pip install 'wheeltapper-trainer[mlflow]'"
        ) from None
    return mlflow
