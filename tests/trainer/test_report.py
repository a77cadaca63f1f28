"""The report is one page that needs no network, shows the document's own figures, and lets no name become markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from wheeltapper.spec import AlarmSpec, ClassSpec, FleetSpec, Sensor, Target
from wheeltapper_trainer.job import TrainJob
from wheeltapper_trainer.report import interval, number, write_report
from wheeltapper_trainer.wording import verdict

HOUR = 3_600_000_000
EVIL = '<script src="http://evil.example/x.js"></script>$\\alpha$'


def figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def levels(first: float, name: str) -> dict[str, dict[str, dict[str, float | None]]]:
    names = ("rmse", "mae", "rmse_last", "phm08_last", "pr_auc", "roc_auc", "brier", "base_rate", "recall", "precision")
    names += ("lead_median_hours", "cases_per_asset_week", "false_per_asset_week", "failures", "warned")
    names += ("false_per_asset_week_high",)
    own = {metric: figure(first + i / 7, first + i / 9, first + i / 5) for i, metric in enumerate(names)}
    other = {**own, name: figure(first / 3)}
    return {"answering": own, "class": other, "own": {**own, name: figure(None)}}


def document() -> dict[str, Any]:
    failure = {
        "name": f"failure:{EVIL}",
        "kind": "failure",
        "unit": "probability",
        "threshold": 0.4375,
        "validation": {"cases_per_asset_week_high": 0.71875, "warned_share_low": 0.640625},
        "rows": 100,
        "rows_known": 91,
        "levels": levels(0.31, "pr_auc"),
        "calibration": [
            {"predicted": 0.001, "observed": 0.0, "rows": 50},
            {"predicted": 0.4, "observed": 0.5, "rows": 9},
        ],
        "lead_hours": [5.0, 30.0],
    }
    rul = {**failure, "name": "rul", "kind": "rul", "unit": "hours", "calibration": [], "levels": levels(12.5, "rmse")}
    features = [
        {"feature": f"slope({EVIL}, 24h)", "source": EVIL, "statistic": "slope", "window": 24, "gain": 0.21},
        {"feature": "last(load)", "source": "load", "statistic": "last", "window": 0, "gain": 0.07},
        {"feature": "slope(load, 6h)", "source": "load", "statistic": "slope", "window": 6, "gain": 0.05},
    ]
    one = {
        "name": "pump",
        "assets": 4,
        "outputs": [rul, failure],
        "heads": [{"slot": "rul", "tried": 3, "kept": 1, "why": {"OWN_HEAD_KEPT": 1, "DID_NOT_BEAT_CLASS": 2}}],
        "features": features,
        "worst_assets": [{"asset_id": EVIL, "failures": 2, "missed": 1, "false_cases": 3, "own_heads": 0}],
    }
    totals = {
        "failures": 7,
        "failures_warned": 5,
        "lead_median_hours": 30.25,
        "lead_hours": [5.0, 30.25, 50.0],
        "false_alarms_per_asset_week": 0.1234567,
    }
    return {"fleet": EVIL, "totals": totals, "classes": [one]}


RESULT: dict[str, Any] = {
    "release": 3,
    "pack": "ab" * 32,
    "assets": 4,
    "assets_failed": 1,
    "heads_trained": 11,
    "heads_kept": 6,
    "asset_heads_kept": 4,
    "pack_bytes": 123_456,
    "bytes_per_head": 20_576.0,
    "readings": 1000,
    "train_seconds": 61.5,
    "seconds": {"start": 1.5, "read": 2.5, "features": 3.5, "fit": 4.5, "pack": 5.5, "wait": 6.5},
    "gates": [{"output": "rul", "metric": "rmse", "found": 12.5, "at_most": 9.0, "at_least": None, "passed": False}],
    "quarantined": {EVIL: f"ValueError: {EVIL}"},
}
LINEAGE = {"data": "d" * 64, "config": "c" * 64, "seed": 7, "versions": {"xgboost": "3.2"}}
CHANGES = {
    "same_pack": False,
    "sizes": [{"what": "heads", "before": 5, "after": 6}],
    "classes_added": [EVIL],
    "classes_removed": [],
    "outputs": [{"class": "pump", "output": "rul", "what": "metrics.rmse", "before": 13.75, "after": 12.5}],
    "settings": [{"class": "pump", "key": "windows", "before": None, "after": EVIL}],
    "lineage": [],
}


class Page(HTMLParser):
    """Tags, attributes, shown values and text of a page; a page that does not close what it opens is refused."""

    VOID = frozenset({"meta", "br", "hr", "link", "img", "path", "use", "rect", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.values: set[str] = set()
        self.ids: set[str] = set()
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.values |= {value or "" for name, value in attrs if name == "data-value"}
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    write_report(path, job(), document(), RESULT, LINEAGE, 2, CHANGES)
    return path.read_text(encoding="utf-8")


def job() -> TrainJob:
    targets = (Target("rul", "rul", cap=100.0), Target("failure", "failure:x", "x", horizon_us=HOUR))
    spec = ClassSpec(
        "pump", (Sensor("load"),), HOUR, (6,), ("slope",), 0, 0, targets, alarm=AlarmSpec(lead_us=4 * HOUR)
    )
    return TrainJob("history", "run", FleetSpec("fleet", (spec,)), (), (("pump", 4),), 7)


def test_the_page_needs_nothing_from_elsewhere(written: str) -> None:
    page = Page(written)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("src", "srcset", "action", "formaction", "background")
        assert not name.startswith("on")
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
        assert not re.search(r"url\(\s*['\"]?(?!#)", value)
    [style] = re.findall(r"<style>.*?</style>", written.split("</head>", maxsplit=1)[0], re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


def test_names_stay_names(written: str) -> None:
    page = Page(written)
    assert "<script" not in written.lower()
    # As they are, in class, output, feature, machine, reason, setting and plot.
    assert sum(EVIL in text for text in page.text) >= 7


def test_every_figure_is_the_documents_own(written: str) -> None:
    page, found = Page(written), document()
    totals = found["totals"]
    wanted = {str(totals[name]) for name in ("failures_warned", "lead_median_hours", "false_alarms_per_asset_week")}
    for output in found["classes"][0]["outputs"]:
        own = output["levels"]["answering"]
        shown = {"rul": ("rmse", "mae", "rmse_last", "phm08_last"), "failure": ("pr_auc", "roc_auc", "brier")}
        alarms = ("recall", "precision", "lead_median_hours", "cases_per_asset_week", "false_per_asset_week")
        wanted |= {str(own[name]["value"]) for name in (*shown[output["kind"]], *alarms)} | {str(output["threshold"])}
        wanted |= {str(own["false_per_asset_week_high"]["value"]), *map(str, output["validation"].values())}
        judged = "rmse" if output["kind"] == "rul" else "pr_auc"
        wanted |= {str(output["levels"][level][judged]["value"]) for level in ("answering", "class", "own")}
    wanted |= {str(RESULT[name]) for name in ("assets", "heads_kept", "pack_bytes", "train_seconds")}
    wanted |= {str(seconds) for seconds in RESULT["seconds"].values()}
    wanted |= {str(feature["gain"]) for feature in found["classes"][0]["features"]}
    wanted |= {str(0.07 + 0.05)}  # of the sensor "load", over its statistics
    assert wanted <= page.values


def test_every_section_is_there_and_plots_follow_the_page(written: str) -> None:
    sections = {"figures", "gates", "lead", "alarms", "metrics", "levels", "calibration", "worst", "features"}
    assert sections | {"changes", "time", "quarantined", "lineage"} <= Page(written).ids
    assert written.count("<svg") == 2
    drawings = "".join(re.findall(r"<svg.*?</svg>", written, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()
    assert "currentColor" in drawings
    assert "prefers-color-scheme: dark" in written
    assert "Against release 2" in written
    assert "failed: this release must not reach production" in written


def test_the_same_run_gives_the_same_page(written: str, tmp_path: Path) -> None:
    write_report(tmp_path / "again.html", job(), document(), RESULT, LINEAGE, 2, CHANGES)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == written


def test_a_run_without_test_or_production_is_told_too(tmp_path: Path) -> None:
    found = document()
    empty = dict.fromkeys(("lead_median_hours", "false_alarms_per_asset_week"))
    found["totals"] |= {"failures": 0, "failures_warned": 0, "lead_hours": [], **empty}
    found["classes"][0] |= {"features": [], "worst_assets": []}
    for output in found["classes"][0]["outputs"]:
        output["calibration"] = []
        output["levels"] = {
            level: {name: figure(None) for name in figures} for level, figures in output["levels"].items()
        }
    write_report(tmp_path / "r.html", job(), found, {**RESULT, "gates": [], "quarantined": {}}, LINEAGE)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "There was nothing to test on" in text
    assert "Nothing is in production yet" in text
    assert not {"lead", "calibration", "gates", "quarantined"} & Page(text).ids


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0"), (3.0, "3"), (12345.6, "12,346"), (99.96, "100.0"), (0.5, "0.50"), (0.00123, "0.0012")],
)
def test_numbers_show_the_digits_that_matter(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_an_interval_shows_where_it_is_known() -> None:
    assert interval(figure(1.0, 0.5, 2.0)) == "0.50 – 2"
    assert interval(figure(1.0)) == ""
    assert interval(figure(1.0, 1.0, 1.0)) == ""


def test_the_verdict_is_a_sentence() -> None:
    totals = document()["totals"]
    assert verdict(totals, {"gates": []}) == (
        "5 of 7 failures of the test part would have been announced, half of them 30 hours or more ahead, "
        "at 0.12 false alarms per machine and week."
    )
