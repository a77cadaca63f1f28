"""The journey of a command: words → verb → outcome → stdout and exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from wheeltapper_command.errors import CommandError, Exit
from wheeltapper_command.progress import Progress
from wheeltapper_command.verb import Verb

GROUP = "wheeltapper.verbs"


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    verbs = load_verbs()
    options = parser(verbs).parse_args(words)
    verb: Verb = options.verb
    progress = Progress(quiet=options.quiet)
    try:
        outcome = verb.run(options, progress)
    except CommandError as error:
        if options.debug:
            raise
        return _report(error, options.output)
    except KeyboardInterrupt:
        sys.stderr.write("\nwheeltapper: stopped\n")
        return Exit.FAILED
    except BrokenPipeError:
        return Exit.FAILED
    except Exception as error:
        if options.debug:
            raise
        fault = CommandError(f"{type(error).__name__}: {error}", "a fault of wheeltapper itself; --debug shows where")
        return _report(fault, options.output)
    if options.output == "json":
        if outcome.result:  # a server has printed its object when it was ready
            sys.stdout.write(json.dumps(outcome.result, allow_nan=False) + "\n")
    elif outcome.text:
        sys.stdout.write(outcome.text.rstrip("\n") + "\n")
    return int(outcome.exit_code)


def load_verbs() -> list[Verb]:
    """The verbs of every installed package, by name. A package that cannot be imported takes only its own away."""
    verbs: list[Verb] = []
    for point in entry_points(group=GROUP):
        try:
            verbs.append(point.load())
        except Exception as error:  # whatever a broken package raises, the others must work: they may be the repair
            package = point.dist.name if point.dist else point.module
            sys.stderr.write(
                f"wheeltapper: warning: no verb {point.name!r}, package {package} cannot be imported: "
                f"{type(error).__name__}: {error}\n"
            )
    return sorted(verbs, key=lambda verb: verb.name)


def parser(verbs: Sequence[Verb]) -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="wheeltapper", description="Fleet predictive maintenance.")
    words = root.add_subparsers(metavar="VERB", required=True)
    for verb in verbs:
        own = words.add_parser(
            verb.name,
            help=verb.summary.replace("%", "%%"),  # argparse formats its help texts
            description=verb.summary,
            epilog=f"example: {verb.example}",
            aliases=list(verb.aliases),
        )
        verb.arguments(own)
        for leaf in _leaves(own):
            leaf.add_argument(
                "-o", "--output", choices=("text", "json"), default="text", help="json: one object on stdout"
            )
            leaf.add_argument("--quiet", action="store_true", help="no progress on stderr")
            leaf.add_argument("--debug", action="store_true", help="show a traceback where something fails")
            leaf.set_defaults(verb=verb)
    return root


def _leaves(own: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers that see the last word: a verb's own, or those of its sub-words (`release list`)."""
    below = [a for a in own._actions if isinstance(a, argparse._SubParsersAction)]
    return [leaf for action in below for child in action.choices.values() for leaf in _leaves(child)] or [own]


def _report(error: CommandError, output: str) -> int:
    sys.stderr.write(f"wheeltapper: {error}\n")
    if error.hint:
        sys.stderr.write(f"  mend: {error.hint}\n")
    if output == "json":
        document = {"error": str(error), "hint": error.hint, "exit_code": int(error.exit_code)}
        sys.stdout.write(json.dumps(document) + "\n")
    return int(error.exit_code)
