"""The run folder's memory: which work is finished, named by the digest of everything it was computed from.

    RUN/done/<stage>/<digest>.json   {"result": …, "files": {path: sha256}}

An entry is written after its files. Finding one means: the same data, fleet, versions and seed led to exactly these
files, and they are still whole; so a killed run goes on where it stopped, and an unchanged asset is not trained again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from wheeltapper.durable import replace, sha256_of, write_temporary
from wheeltapper.errors import UsageError

Result = TypeVar("Result")

_PARTS = ("done", "regimes", "samples", "class", "chunks")  # folders a run makes, and the only ones it ever removes
_MARK = "wheeltapper-run"


class Ledger:
    """The run folder at `path`. `resume` keeps what is finished there; otherwise a run begins afresh."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.found = 0
        path.mkdir(parents=True, exist_ok=True)
        mark = path / _MARK
        if not mark.exists() and any(path.iterdir()):
            raise UsageError(
                f"{path} is not empty and is not a run folder",
                "give --run-dir an empty folder, or one of an earlier run",
            )
        mark.touch()
        if not resume:
            for name in _PARTS:
                shutil.rmtree(path / name, ignore_errors=True)

    def find(self, stage: str, digest: str, kind: type[Result]) -> Result | None:
        """The result stored under `digest`, or None where there is none or a file of it is gone or altered."""
        try:
            document = json.loads(self._entry(stage, digest).read_bytes())
            whole = all(sha256_of(self.path / name) == sha for name, sha in document["files"].items())
            result = kind(**_tuples(document["result"])) if whole else None
        except (OSError, ValueError, KeyError, TypeError):  # a half or foreign entry is no entry
            return None
        self.found += result is not None
        return result

    def store(self, stage: str, digest: str, result: Any, files: Sequence[Path]) -> None:
        """Remember `result` (a dataclass of plain values) and its files, all below the run folder."""
        document = {
            "result": dataclasses.asdict(result),
            "files": {str(file.relative_to(self.path)): sha256_of(file) for file in files},
        }
        entry = self._entry(stage, digest)
        entry.parent.mkdir(parents=True, exist_ok=True)
        replace(write_temporary(entry.parent, entry.name, [json.dumps(document, sort_keys=True).encode()]), entry)

    def _entry(self, stage: str, digest: str) -> Path:
        return self.path / "done" / stage / f"{digest}.json"


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
