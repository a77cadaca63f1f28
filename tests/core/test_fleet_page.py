"""docs/fleet-toml.md and examples/ say what the reader accepts."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from wheeltapper.config import METRICS, load_fleet, parse_fleet
from wheeltapper.spec import STATISTICS, AlarmSpec, ModelSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fleet-toml.md").read_text()


def test_the_page_opens_with_a_file_that_works() -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    spec = parse_fleet(example.group(1))
    assert [target.name for target in spec.classes[0].targets] == ["failure:bearing", "anomaly"]


def test_the_page_names_every_key_statistic_and_metric() -> None:
    words = {f.name for f in fields(ModelSpec)} | {f.name.removesuffix("_us") for f in fields(AlarmSpec)}
    words |= set(STATISTICS) | {metric for metrics in METRICS.values() for metric in metrics}
    assert [word for word in sorted(words) if f"`{word}`" not in PAGE] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/fleet.toml")), ids=lambda path: path.parent.name)
def test_an_example_loads(path: Path) -> None:
    assert load_fleet(path).name == path.parent.name
