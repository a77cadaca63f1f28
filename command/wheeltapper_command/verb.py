"""What a package contributes to the command line: a `Verb`, found through the entry points `wheeltapper.verbs`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wheeltapper_command.errors import Exit
from wheeltapper_command.progress import Progress


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a verb ended: `result` for `-o json` (empty: printed already), `text` for people, and the exit code."""

    result: Mapping[str, Any]
    text: str = ""
    exit_code: int = Exit.DONE


@dataclass(frozen=True, slots=True)
class Verb:
    """One word of the command. `arguments` fills its parser, `run` does the work and imports what it needs itself,
    so that listing the verbs stays instant."""

    name: str
    summary: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Progress], Outcome]
    aliases: tuple[str, ...] = field(default=())
