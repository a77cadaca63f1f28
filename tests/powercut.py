"""What a power cut may leave of a piece of work: the file operations that it really did, and the disks they may become.

The model is a strict one. Of a file, what was not synced is gone, there or torn. A name (made, linked, renamed or
removed) whose folder was not synced is there or not; the names of one folder change in the order in which they were
changed, those of two folders in any, so that a rename from one to another may have happened in either alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import posix
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIXTURES = 12  # seeded, beside the regular ways to cut

Tree = dict[str, bytes | None]  # path below the root → content; None: a folder
Step = Callable[[], object]
Share = Callable[["_File | _Folder"], float]  # how many of the steps since the last sync survive


@dataclass(eq=False)
class _File:
    """Content that survives, and what was done to it since: bytes that were appended, or to what size it was cut."""

    safe: bytes = b""
    since: list[bytes | int] = field(default_factory=list)

    def content(self, steps: float) -> bytes:
        """After so many of the steps since; of the last, if it is a part of one, so much."""
        found = self.safe
        for number, step in enumerate(self.since):
            share = min(1.0, steps - number)
            if share <= 0:
                break
            found = found[:step] if isinstance(step, int) else found + step[: int(share * len(step))]
        return found

    def sync(self) -> None:
        self.safe, self.since = self.content(len(self.since)), []


@dataclass(eq=False)
class _Folder:
    """Names that survive, and what changed since: one step gives names to a file or folder, or takes them."""

    safe: dict[str, _File | _Folder] = field(default_factory=dict)
    since: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def names(self, steps: float) -> dict[str, _File | _Folder]:
        found: dict[str, _File | _Folder | None] = dict(self.safe)
        for step in self.since[: round(steps)]:
            found |= step
        return {name: what for name, what in found.items() if what is not None}

    def sync(self) -> None:
        self.safe, self.since = self.names(len(self.since)), []


class Recording:
    """The operations below a folder, as `record` saw them."""

    def __init__(self, root: Path) -> None:
        self.operations: list[str] = []
        self._marks: list[tuple[int, str]] = []  # how many operations had happened, what was said then
        self._steps: list[Step] = []
        self.top = _as_found(root)

    def mark(self, said: str) -> None:
        """Say something of the work, such as that a call has returned."""
        self._marks.append((len(self.operations), said))

    def note(self, operation: str, step: Step) -> None:
        self.operations.append(operation)
        self._steps.append(step)

    def disks(self) -> Iterator[tuple[str, set[str], Tree]]:
        """Every disk that a cut may leave: behind which operation, the marks made before it, and what is there. Those
        that are the same in marks and content come once. To be asked once."""
        seen = set()
        for happened in range(len(self._steps) + 1):
            if happened:
                self._steps[happened - 1]()
            said = {what for at, what in self._marks if at <= happened}
            where = f"operation {happened}: {self.operations[happened - 1] if happened else 'none'}"
            for way, share in _ways(happened):
                tree = _after(self.top, share)
                if (key := (len(said), tuple(sorted(tree.items(), key=str)))) not in seen:
                    seen.add(key)
                    yield f"{where}, {way}", said, tree


@contextlib.contextmanager
def record(root: Path) -> Iterator[Recording]:
    """Record what is done below `root` while the context lasts. Only calls that reach the system are recorded: an
    `os.fsync` that somebody has put another function in place of is none. Other ways to write are not known, and fail.
    """
    recording = Recording(root)
    watcher = _Watcher(recording, root)
    calls = {name: getattr(watcher, name) for name in vars(_Watcher) if not name.startswith("_")}
    calls |= {name: watcher._unknown(name) for name in _UNKNOWN if hasattr(posix, name)}
    before = {name: getattr(os, name) for name in calls}
    io_open = io.open
    try:
        for name, call in calls.items():
            if before[name] is getattr(posix, name):
                setattr(os, name, call)
        io.open = watcher._only_read(io_open)  # what pathlib opens with
        yield recording
    finally:
        for name, call in before.items():
            setattr(os, name, call)
        io.open = io_open


def lay(tree: Tree, path: Path) -> Path:
    """The disk as a new folder."""
    path.mkdir()
    for name in sorted(tree):
        content = tree[name]
        if content is None:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(content)
    return path


_UNKNOWN = ("pwrite", "pwritev", "rmdir", "symlink", "ftruncate", "mkfifo", "mknod", "copy_file_range")
_WRITABLE = os.O_WRONLY | os.O_RDWR


class _Watcher:
    """The calls of `os` that change files or make them safe: done, and noted."""

    def __init__(self, recording: Recording, root: Path) -> None:
        self._recording = recording
        self._root = root.absolute()
        self._now: dict[Path, _File | _Folder] = {}  # by path, as of now
        self._handles: dict[int, tuple[_File | _Folder, str]] = {}
        self._add(self._root, recording.top)

    def open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        handle = posix.open(path, flags, mode, **more)
        if not self._is_below(path):
            return handle
        place = Path(path).absolute()
        what = self._now.get(place)
        if what is None:
            what = _File()
            self._name(f"create {self._shown(place)}", {place: what})
        elif isinstance(what, _File) and flags & os.O_TRUNC:
            self._recording.note(f"empty {self._shown(place)}", lambda: what.since.append(0))
        elif isinstance(what, _File) and flags & _WRITABLE and not flags & os.O_APPEND and what.safe:
            raise AssertionError(f"a file with content is written from its start: {place}")
        self._handles[handle] = what, self._shown(place)
        return handle

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)
        posix.close(handle)

    def write(self, handle: int, data: Any) -> int:
        written = posix.write(handle, data)
        self._append(handle, bytes(data)[:written])
        return written

    def writev(self, handle: int, parts: Sequence[Any]) -> int:
        written = posix.writev(handle, parts)
        self._append(handle, b"".join(parts)[:written])
        return written

    def truncate(self, path: Any, length: int) -> None:
        posix.truncate(path, length)
        if self._is_below(path):
            what = self._now[place := Path(path).absolute()]
            self._recording.note(f"cut {self._shown(place)} to {length}", lambda: what.since.append(length))  # type: ignore[arg-type]

    def fsync(self, handle: int) -> None:
        posix.fsync(handle)
        self._sync(handle)

    def fdatasync(self, handle: int) -> None:
        posix.fdatasync(handle)
        self._sync(handle)

    def replace(self, old: Any, new: Any) -> None:
        posix.replace(old, new)
        if self._is_below(old) or self._is_below(new):
            places = Path(old).absolute(), Path(new).absolute()
            shown = " to ".join(map(self._shown, places))
            self._name(f"rename {shown}", {places[0]: None, places[1]: self._now[places[0]]})

    rename = replace

    def link(self, old: Any, new: Any) -> None:
        posix.link(old, new)
        if self._is_below(new):
            place = Path(new).absolute()
            self._name(f"link {self._shown(place)}", {place: self._now[Path(old).absolute()]})

    def unlink(self, path: Any) -> None:
        posix.unlink(path)
        if self._is_below(path):
            place = Path(path).absolute()
            self._name(f"remove {self._shown(place)}", {place: None})

    remove = unlink

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        posix.mkdir(path, mode)
        if self._is_below(path):
            place = Path(path).absolute()
            self._name(f"make the folder {self._shown(place)}", {place: _Folder()})

    def _unknown(self, name: str) -> Callable[..., object]:
        def call(*arguments: Any, **named: Any) -> object:
            raise AssertionError(f"os.{name} is not recorded")

        return call

    def _only_read(self, io_open: Any) -> Any:
        def call(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if set(mode) & set("wax+") and not isinstance(file, int) and self._is_below(file):
                raise AssertionError(f"{file} is written in a way that is not recorded")
            return io_open(file, mode, *arguments, **named)

        return call

    def _name(self, shown: str, changes: dict[Path, _File | _Folder | None]) -> None:
        by_folder: dict[Path, dict[str, _File | _Folder | None]] = {}
        for place, what in changes.items():
            by_folder.setdefault(place.parent, {})[place.name] = what
            if what is None:
                del self._now[place]
            else:
                self._now[place] = what
        folders = [(self._now[folder], step) for folder, step in by_folder.items()]
        self._recording.note(shown, lambda: [folder.since.append(step) for folder, step in folders])  # type: ignore[arg-type]

    def _append(self, handle: int, data: bytes) -> None:
        if handle in self._handles:
            what, shown = self._handles[handle]
            self._recording.note(f"append {len(data)} to {shown}", lambda: what.since.append(data))  # type: ignore[arg-type]

    def _sync(self, handle: int) -> None:
        if handle in self._handles:
            what, shown = self._handles[handle]
            self._recording.note(f"sync {shown}", what.sync)

    def _add(self, place: Path, what: _File | _Folder) -> None:
        self._now[place] = what
        if isinstance(what, _Folder):
            for name, below in what.safe.items():
                self._add(place / name, below)

    def _is_below(self, path: Any) -> bool:
        return Path(path).absolute().is_relative_to(self._root)

    def _shown(self, place: Path) -> str:
        return str(place.relative_to(self._root))


def _as_found(path: Path) -> _Folder:
    """What is there as the recording begins, all of it safe."""
    return _Folder({one.name: _as_found(one) if one.is_dir() else _File(one.read_bytes()) for one in path.iterdir()})


def _after(folder: _Folder, share: Share) -> Tree:
    tree: Tree = {}
    for name, what in folder.names(share(folder)).items():
        if isinstance(what, _Folder):
            tree[name] = None
            tree |= {f"{name}/{below}": content for below, content in _after(what, share).items()}
        else:
            tree[name] = what.content(share(what))
    return tree


def _ways(seed: int) -> Iterator[tuple[str, Share]]:
    """How much survives."""
    for way, names, data in (("nothing kept", 0, 0), ("all kept", 1, 1), ("names without data", 1, 0),
                             ("names with half the data", 1, 0.5), ("data without names", 0, 1)):  # fmt: skip
        yield way, _share(lambda what, names=names, data=data: names if isinstance(what, _Folder) else data)  # type: ignore[misc]
    for mixture in range(MIXTURES):
        rng = random.Random(f"{seed} {mixture}")
        yield f"mixture {mixture}", _share(lambda what, rng=rng: rng.choice((0.0, 0.5, 1.0, rng.random())))  # type: ignore[misc]


def _share(draw: Share) -> Share:
    """Drawn once for each file or folder, however many names it has."""
    drawn: dict[int, float] = {}
    return lambda what: drawn.setdefault(id(what), draw(what)) * len(what.since)
