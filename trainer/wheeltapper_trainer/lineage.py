"""Where a pack comes from: data, settings, software. No times and no paths, so equal runs make equal packs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wheeltapper.features import KERNELS
from wheeltapper.spec import digest

from wheeltapper_trainer.job import TrainJob


def versions() -> dict[str, str]:
    """The software whose results a pack holds."""
    return {
        "wheeltapper": version("wheeltapper"),
        "trainer": version("wheeltapper-trainer"),
        "kernels": KERNELS,
        "xgboost": _first_version("xgboost-cpu", "xgboost"),
        "numpy": version("numpy"),
        "numba": version("numba"),
    }


def lineage_of(job: TrainJob, contents: Mapping[str, str], tuning: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the pack's meta keeps: digests of data and settings, the split, versions, seed.

    `contents`: asset → content digest, of those that could be read; `tuning`: which trials chose the parameters.
    """
    data = json.dumps(sorted(contents.items()), separators=(",", ":")).encode()
    return {
        "data": hashlib.sha256(data).hexdigest(),
        "config": digest(job.spec),
        "split": [_split(dataclasses.asdict(split)) for split in job.splits],
        "seed": job.seed,
        "versions": versions(),
        **({} if tuning is None else {"tuning": tuning}),
    }


def _split(split: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in split.items()}


def _first_version(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
