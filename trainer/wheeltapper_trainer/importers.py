"""`wheeltapper import`: foreign data → a history with its fleet.toml. Each source has a module that only reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wheeltapper.config import fleet_toml
from wheeltapper.errors import NotFound, UsageError

from wheeltapper_trainer.history import write_table
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.import_anomaly import read_nab, read_skab, read_smd
from wheeltapper_trainer.import_azure import read_azure
from wheeltapper_trainer.import_cmapss import read_cmapss
from wheeltapper_trainer.import_csv import read_plain
from wheeltapper_trainer.records import Imported

_READERS: dict[str, Callable[[Path], Imported]] = {
    "azure-pdm": read_azure,
    "csv": read_plain,
    "nab": read_nab,
    "skab": read_skab,
    "smd": read_smd,
}
KINDS = ("cmapss", *_READERS)


def import_history(kind: str, source: Path, out: Path, subset: str = "") -> dict[str, Any]:
    """Write the history of `source` to `out`, with its fleet.toml and, where the data has them, labels.parquet.

    Returns what was written. UsageError, NotFound, HistoryError (with file, row and column) before anything is; Refused
    where `out` is not empty.
    """
    if subset and kind != "cmapss":
        raise UsageError(f"--subset belongs to cmapss, found it with {kind}", "leave it out")
    if not source.exists():
        raise NotFound(f"no file or folder {source}")
    imported = read_cmapss(source, subset or "FD001") if kind == "cmapss" else _READERS[kind](source)
    with HistoryWriter(out, imported.sensors) as writer:
        for asset, times, values in imported.readings:
            writer.add(asset, times, values)
        writer.add_events(imported.events)
        (writer.folder / "fleet.toml").write_text(fleet_toml(imported.fleet), encoding="utf-8")
        if imported.labels:
            write_table(writer.folder / "labels.parquet", imported.labels)
        failures = sum(event[2] == "failure" for event in imported.events)
        return {**writer.written(), "failures": failures, "labels": bool(imported.labels)}
