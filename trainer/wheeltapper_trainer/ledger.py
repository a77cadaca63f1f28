"""The run folder's memory: which work is finished, named by the digest of everything it was computed from.

    RUN/done/<stage>/<digest>.json   {"result": …, "files": {path: sha256}, "assets": {asset: key}}
    RUN/finished.json                when the last runs that ended well began, in ns since 1970
    RUN/log.jsonl                    one line for every task that ended: what it did, how long it took, what failed

An entry is written after its files. Finding one means: the same data, fleet, versions and seed led to exactly these
files, and they are still whole; so a killed run goes on where it stopped. The work of a chunk is found asset by asset,
each under a key of its own: an unchanged asset is not trained again, whatever became of its neighbours and however
the fleet is cut into chunks today.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from wheeltapper.durable import replace, sha256_of, write_temporary
from wheeltapper.errors import UsageError

Result = TypeVar("Result")

_PARTS = (
    "done",
    "regimes",
    "samples",
    "class",
    "chunks",
    "pack",
)  # folders a run makes, and the only ones it ever removes
_MARK = "wheeltapper-run"
_FINISHED = "finished.json"


@dataclass(frozen=True, slots=True)
class Found(Generic[Result]):
    """A finished chunk: its digest, which of its assets still are what they were, and its result."""

    digest: str
    asset_ids: tuple[str, ...]
    result: Result


class Ledger:
    """The run folder at `path`. `resume` keeps what is finished there; otherwise a run begins afresh."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.found = 0
        self._began_ns = time.time_ns()
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
        entry = self._read(stage, digest, kind)
        if entry is None or not self._whole(entry[1]):
            return None
        self.found += 1
        self._used(stage, digest)
        return entry[0]

    def search(self, stage: str, kind: type[Result], keys: Mapping[str, str]) -> list[Found[Result]]:
        """The finished chunks of a stage that hold assets under just the keys asked for (asset → key).

        Each asset is found once; the fullest chunks come first.
        """
        entries: list[tuple[tuple[str, ...], str, Result, dict[str, str]]] = []
        for path in sorted((self.path / "done" / stage).glob("*.json")):
            entry = self._read(stage, path.stem, kind)
            if entry is not None:
                result, files, assets = entry
                there = tuple(asset_id for asset_id, key in assets.items() if keys.get(asset_id) == key)
                entries.append((there, path.stem, result, files))
        found: list[Found[Result]] = []
        taken: set[str] = set()
        for there, digest, result, files in sorted(entries, key=lambda entry: (-len(entry[0]), entry[1])):
            fresh = tuple(asset_id for asset_id in there if asset_id not in taken)
            if fresh and self._whole(files):
                found.append(Found(digest, fresh, result))
                taken.update(fresh)
                self._used(stage, digest)
        self.found += len(found)
        return found

    def store(
        self, stage: str, digest: str, result: Any, files: Sequence[Path], assets: Mapping[str, str] | None = None
    ) -> None:
        """Remember `result` (a dataclass of plain values), its files, all below the run folder, and asset → key."""
        document = {
            "result": dataclasses.asdict(result),
            "files": {str(file.relative_to(self.path)): sha256_of(file) for file in files},
            "assets": dict(assets or {}),
        }
        entry = self._entry(stage, digest)
        entry.parent.mkdir(parents=True, exist_ok=True)
        replace(write_temporary(entry.parent, entry.name, [json.dumps(document, sort_keys=True).encode()]), entry)
        self._used(stage, digest)

    def prune(self, keep_runs: int) -> int:
        """Forget what none of the last `keep_runs` runs that ended well has used, this one being the newest of them.

        Returns how many entries went, with their files. What a run finds or stores counts as used by it.
        """
        mark = self.path / _FINISHED
        began = [*(json.loads(mark.read_bytes()) if mark.exists() else []), self._began_ns][-keep_runs:]
        replace(write_temporary(self.path, mark.name, [json.dumps(began).encode()]), mark)
        if len(began) < keep_runs:
            return 0
        old, needed = list[tuple[Path, list[str]]](), set[str]()
        for entry in (self.path / "done").glob("*/*.json"):
            files = list(json.loads(entry.read_bytes())["files"])
            if entry.stat().st_mtime_ns < began[0]:
                old.append((entry, files))
            else:
                needed.update(files)
        for entry, files in old:
            for name in set(files) - needed:
                (self.path / name).unlink(missing_ok=True)
            entry.unlink()  # last: killed in between, an entry without its files is not believed, and goes next time
        return len(old)

    def log(self, stage: str, **facts: Any) -> None:
        """Add a line to the run's log, which people read and nothing depends on."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps({"at": at, "stage": stage, **facts}) + "\n")

    def _read(
        self, stage: str, digest: str, kind: type[Result]
    ) -> tuple[Result, dict[str, str], dict[str, str]] | None:
        try:
            document = json.loads(self._entry(stage, digest).read_bytes())
            return kind(**_tuples(document["result"])), dict(document["files"]), dict(document["assets"])
        except (OSError, ValueError, KeyError, TypeError):  # a half or foreign entry is no entry
            return None

    def _used(self, stage: str, digest: str) -> None:
        """Say so by the entry's time, which `prune` looks at. (The system's own stamp may lie a tick in the past.)"""
        now = time.time_ns()
        os.utime(self._entry(stage, digest), ns=(now, now))

    def _whole(self, files: Mapping[str, str]) -> bool:
        try:
            return all(sha256_of(self.path / name) == sha for name, sha in files.items())
        except OSError:  # a file that is gone, or cannot be read any more
            return False

    def _entry(self, stage: str, digest: str) -> Path:
        return self.path / "done" / stage / f"{digest}.json"


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
