"""Exit codes, and the errors that become them. Each error says what was expected, what was found, how to mend it."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NOT_FOUND = 4
    REFUSED = 5


class CommandError(Exception):
    """What a user can mend. `hint` says how; the message says what was expected and found."""

    exit_code = Exit.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(CommandError):
    """The words of the command line, or a configuration file, do not make a job."""

    exit_code = Exit.USAGE


class NotFound(CommandError):  # noqa: N818  reads as what it says
    """Something named does not exist."""

    exit_code = Exit.NOT_FOUND


class Refused(CommandError):  # noqa: N818  reads as what it says
    """The product declines to do it: a gate failed, a pack is altered, a check did not hold."""

    exit_code = Exit.REFUSED
