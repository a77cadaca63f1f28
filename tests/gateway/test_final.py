"""Of all that was answered to a reading, the last word: status, scores, reasons, and every bit of them in a file."""

from __future__ import annotations

import csv
import dataclasses
import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from wheeltapper_gateway.delivery import Delivery
from wheeltapper_gateway.final import FinalAnswers, joined, write_answers
from wheeltapper_gateway.wire import Columns, Reasons, Scores


def delivery(rows: list[tuple[int, int, float]], revision: bool = False, why: float | None = None) -> Delivery:
    """One answer per (time, status, score) of one asset; alarm and health are 2 and 4 at first, 0 in a revision.
    `why`: every row has two reasons, of this contribution and a tenth of it."""
    count = len(rows)
    told = range(2 * count) if why is not None else ()
    scores = Scores(
        1,
        2 if revision else 1,
        array("I", [0] * count),
        array("q", [time for time, _, _ in rows]),
        bytes(status for _, status, _ in rows),
        array("f", [score for _, _, score in rows]),
        bytes([3]) * count,
        bytes([0 if revision else 2]) * count,
        bytes([0 if revision else 4]) * count,
        array("f"),
        Reasons(
            array("I", [i // 2 for i in told]),
            array("I", [0 for _ in told]),
            array("I", [1 - i % 2 for i in told]),
            array("f", [(why or 0) / (1, 10)[i % 2] for i in told]),
        ),
    )
    return Delivery(scores, ["pump-a"] * count, Columns(("rul",), (), ("age", "mean(oil, 4h)")), revision, 0.001)


OK, DUPLICATE, SUPERSEDED, TOO_LATE = 0, 1, 2, 3


@pytest.mark.parametrize(
    ("answers", "status", "score", "revisions"),
    [
        ([(OK, 1.0, False), (DUPLICATE, 2.0, False)], "OK", 2.0, 0),
        ([(TOO_LATE, 9.0, False), (DUPLICATE, 1.0, False)], "TOO_LATE", 9.0, 0),
        ([(OK, 1.0, False), (OK, 2.0, True), (OK, 3.0, True)], "OK", 3.0, 2),
        ([(OK, 1.0, False), (SUPERSEDED, 2.0, True)], "SUPERSEDED", 2.0, 1),
        ([(OK, 1.0, False), (TOO_LATE, 9.0, False)], "OK", 1.0, 0),
        ([(TOO_LATE, 9.0, False), (OK, 1.0, False)], "OK", 1.0, 0),
        ([(OK, 1.0, False), (OK, 2.0, True), (DUPLICATE, 2.0, False)], "OK", 2.0, 1),
        ([(DUPLICATE, 4.0, False)], "DUPLICATE", 4.0, 0),
    ],
)
def test_the_final_answer(answers: list[tuple[int, float, bool]], status: str, score: float, revisions: int) -> None:
    final = FinalAnswers(["pump-a"], 0)
    final.add(delivery([(5, OK, 50.0)]))
    for found, value, revision in answers:
        final.add(delivery([(3, found, value)], revision))
    table = final.columns()
    assert list(table["time"]) == [3, 5]
    row = table["status"][0], table["score:rul"][0], table["revisions"][0]
    assert row == (status, score, revisions)
    assert list(table["level"]) == [3, 3]
    assert (list(table["alarm:rul"]), list(table["health"])) == ([2, 2], [4, 4])


def test_answers_keep_every_bit_of_a_float(tmp_path: Path) -> None:
    numbers = array("f", [0.1, -0.0, 1e-45, 3.4e38, float("nan")])
    table: dict[str, Any] = {"time": array("q", range(5)), "score:rul": numbers}
    write_answers(tmp_path / "a.csv", table)
    cells = [row["score:rul"] for row in csv.DictReader((tmp_path / "a.csv").open())]
    assert array("f", map(float, cells[:4])).tobytes() == numbers[:4].tobytes()
    assert cells[4] == ""
    write_answers(tmp_path / "a.jsonl", table)
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[4])["score:rul"] is None


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([(0.5, False)], "mean(oil, 4h) +0.5; age +0.05"),
        ([(-123.456, False)], "mean(oil, 4h) -123; age -12.3"),
        ([(0.5, False), (None, True)], "mean(oil, 4h) +0.5; age +0.05"),  # an alarm that rang is explained once
        ([(0.5, False), (0.25, True)], "mean(oil, 4h) +0.25; age +0.025"),
        ([(None, False), (0.25, True)], "mean(oil, 4h) +0.25; age +0.025"),
        ([(None, False)], ""),
    ],
)
def test_reasons_are_those_of_the_latest_answer_that_gave_any(
    answers: list[tuple[float | None, bool]], text: str
) -> None:
    final = FinalAnswers(["pump-a"], 2, with_reasons=True)
    final.add(delivery([(1, OK, 10.0), (5, OK, 50.0)], why=7.0))  # the first is of the warm-up
    for why, revision in answers:
        final.add(delivery([(3, OK, 1.0)], revision, why))
    assert final.columns()["reasons:rul"] == [text, "mean(oil, 4h) +7; age +0.7"]
    assert list(final.columns())[-3:] == ["score:rul", "alarm:rul", "reasons:rul"]


def test_classes_without_an_output_have_no_reasons_of_it() -> None:
    one, other = FinalAnswers(["b"], 0, with_reasons=True), FinalAnswers(["a"], 0, with_reasons=True)
    for final, output in ((one, "rul"), (other, "failure")):
        sent = delivery([(1, OK, 10.0)], why=7.0)
        named = dataclasses.replace(sent.columns, outputs=(output,))
        final.add(dataclasses.replace(sent, columns=named, assets=["b" if final is one else "a"]))
    table = joined([one.columns(), other.columns()])
    assert table["asset_id"] == ["a", "b"]
    assert table["reasons:rul"] == ["", "mean(oil, 4h) +7; age +0.7"]
    assert table["reasons:failure"] == ["mean(oil, 4h) +7; age +0.7", ""]
