"""A forest gathered on disk: trees go to files as they come and are mapped as one forest, so memory does not grow."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from wheeltapper.forest import NODE, Forest, Trees, frozen


class ForestFile:
    """Writes heads' trees behind one another into two files of `folder`; a context manager that closes them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = (folder / "nodes", folder / "covers")
        self._nodes, self._covers = (path.open("wb") for path in self._paths)
        self._node_count = 0
        self._begins: list[NDArray[np.int64]] = []
        self._depths: list[NDArray[np.uint8]] = []
        self._heads: list[tuple[int, np.float32]] = []  # (parent, base)

    def __enter__(self) -> ForestFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nodes.close()
        self._covers.close()

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, trees: Trees, base: float | np.float32 = 0.0, parent: int = -1) -> int:
        """The number of the new head. ValueError where its parent does not stand before it."""
        if not -1 <= parent < len(self._heads):
            raise ValueError(f"head {len(self._heads)}: expected a parent before it or -1, found {parent}")
        self._nodes.write(np.ascontiguousarray(trees.nodes).tobytes())
        self._covers.write(np.ascontiguousarray(trees.cover).tobytes())
        self._begins.append(trees.begin[:-1] + self._node_count)
        self._depths.append(trees.depth)
        self._heads.append((parent, np.float32(base)))
        self._node_count += len(trees.nodes)
        return len(self._heads) - 1

    def forest(self) -> Forest:
        """All heads added so far: `build_forest` of the same, its nodes and covers mapped from the files."""
        self._nodes.flush()
        self._covers.flush()
        nodes, covers = (
            np.asarray(np.memmap(path, kind, "r")) if self._node_count else np.zeros(0, kind)
            for path, kind in zip(self._paths, (NODE, np.dtype(np.float32)), strict=True)
        )
        ends = np.cumsum([len(depth) for depth in self._depths], dtype=np.int64)
        first = np.concatenate([np.zeros(1, np.int64), ends])[: len(self._heads)]
        return frozen(
            Forest(
                nodes,
                covers,
                np.concatenate([*self._begins, np.array([self._node_count], np.int64)]),
                np.concatenate([np.zeros(0, np.uint8), *self._depths]),
                np.stack([first, ends], axis=1) if self._heads else np.zeros((0, 2), np.int64),
                np.array([parent for parent, _ in self._heads], np.int32),
                np.array([base for _, base in self._heads], np.float32),
            )
        )
