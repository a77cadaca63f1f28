"""The command line itself: help for everything, exit codes, one JSON object, errors that say how to mend them."""

from __future__ import annotations

import argparse
import io
import json

import pytest
from wheeltapper_command import main as command
from wheeltapper_command.errors import CommandError, Exit, NotFound, Refused, UsageError
from wheeltapper_command.progress import Progress, clock
from wheeltapper_command.table import table
from wheeltapper_command.verb import Outcome, Verb

VERBS = {verb.name: verb for verb in command.load_verbs()}


def run(monkeypatch: pytest.MonkeyPatch, outcome: Outcome | BaseException, *words: str) -> int:
    def work(options: argparse.Namespace, progress: Progress) -> Outcome:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    verb = Verb("tap", "strike a wheel", "wheeltapper tap", lambda parser: None, work)
    monkeypatch.setattr(command, "load_verbs", lambda: [verb])
    return command.main(["tap", *words])


def test_the_verbs_of_every_package_are_there() -> None:
    expected = {
        "demo",
        "simulate",
        "import",
        "train",
        "tune",
        "evaluate",
        "release",
        "score",
        "serve",
        "replay",
        "inspect",
    }
    assert set(VERBS) >= expected


@pytest.mark.parametrize("name", [None, *VERBS])
def test_every_verb_has_help_and_an_example(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"] if name is None else [name, "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    if name is not None:
        assert " ".join(VERBS[name].summary.split()) in text
        assert "example: wheeltapper " + name in text


@pytest.mark.parametrize(
    ("error", "code"),
    [(CommandError("x"), 1), (UsageError("x"), 2), (NotFound("x"), 4), (Refused("x"), 5), (ValueError("x"), 1)],
)
def test_errors_become_exit_codes_and_say_how_to_mend(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(error, CommandError):
        error.hint = "turn it off and on"
    assert run(monkeypatch, error, "-o", "json") == code
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["exit_code"] == code
    assert "x" in document["error"]
    assert "Traceback" not in shown.err
    if isinstance(error, CommandError):
        assert "mend: turn it off and on" in shown.err
    with pytest.raises(type(error)):
        run(monkeypatch, error, "--debug")


def test_json_is_one_object_and_text_is_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome({"wheels": 8}, "eight wheels ring true", Exit.PARTIAL)
    assert run(monkeypatch, outcome, "-o", "json") == 3
    assert json.loads(capsys.readouterr().out) == {"wheels": 8}
    assert run(monkeypatch, outcome) == 3
    assert capsys.readouterr().out == "eight wheels ring true\n"
    assert run(monkeypatch, KeyboardInterrupt()) == 1


def test_progress_shows_rate_and_time_left_and_can_be_quiet() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start("training", 4, "heads")
    progress.advance(4)
    progress.finish("1 failed")
    assert "training" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].startswith("training: 4 heads in 0.0 s · 1 failed")
    silent = io.StringIO()
    quiet = Progress(silent, quiet=True)
    quiet.start("x", 1, "y")
    quiet.advance()
    quiet.finish()
    assert silent.getvalue() == ""
    assert [clock(s) for s in (4.21, 185, 7800)] == ["4.2 s", "3:05 min", "2:10 h"]


def test_tables_align_numbers_right_and_words_left() -> None:
    text = table(("asset", "alarms"), [("pump", 12), ("fan", 3)])
    assert text.splitlines() == ["asset  alarms", "─────  ──────", "pump       12", "fan         3"]
    assert "–" in table(("a",), [(None,)])


def test_a_package_that_cannot_be_imported_takes_only_its_own_verbs_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        name, module, dist = "serve", "wheeltapper_gone.verbs:serve", None

        def load(self) -> Verb:
            raise ImportError("no libgone.so")

    whole = [point for point in command.entry_points(group=command.GROUP) if point.name in ("inspect", "release")]
    monkeypatch.setattr(command, "entry_points", lambda group: [Broken(), *whole])
    assert [verb.name for verb in command.load_verbs()] == ["inspect", "release"]
    told = capsys.readouterr().err
    assert all(word in told for word in ("'serve'", "wheeltapper_gone", "no libgone.so")), told
