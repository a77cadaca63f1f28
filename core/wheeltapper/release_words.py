"""What the words of `wheeltapper release` share: the registry they open, the releases they name, who decides."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wheeltapper.registry import Registry, Release


def signed(parser: argparse.ArgumentParser) -> None:
    """The options of every word that adds an entry."""
    parser.add_argument("--why", required=True, metavar="TEXT", help="the reason, for the audit log")
    parser.add_argument("--by", default="", metavar="NAME", help="who decides; default: the login name")
    parser.add_argument("--key", type=Path, default=None, metavar="FILE", help="the private key to sign with")


def registry_of(options: argparse.Namespace) -> Registry:
    from wheeltapper.registry import Registry  # noqa: PLC0415  a verb imports what it needs when it runs
    from wheeltapper.signing import Signer  # noqa: PLC0415

    key = getattr(options, "key", None)
    return Registry(options.registry, signer=Signer.from_file(key) if key else None)


def find(registry: Registry, word: str) -> Release:
    """A release by its number or by the stage that holds it."""
    return registry.release(int(word)) if word.isdecimal() else registry.resolve(word)


def who(options: argparse.Namespace) -> str:
    from wheeltapper.errors import UsageError  # noqa: PLC0415  a verb imports what it needs when it runs

    if options.by:
        return str(options.by)
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise UsageError("expected to find a login name, found none", "say who decides with --by NAME") from None


def move(document: Any) -> str:
    """What an entry moved, in words."""
    if document["stage"] is None:
        return ""
    before = "nothing" if document["from"] is None else f"release {document['from']}"
    return f"{before} → release {document['to']}"


def gates_in_words(gates: Sequence[Mapping[str, Any]]) -> str:
    failed = sum(not gate["passed"] for gate in gates)
    return "none" if not gates else f"{failed} of {len(gates)} failed" if failed else f"{len(gates)} passed"
