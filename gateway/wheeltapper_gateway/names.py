"""Names as a scorer takes them: it refuses an Open for one bad name, and with it all that the gateway holds."""

from __future__ import annotations

from collections.abc import Iterable

from wheeltapper_command.errors import UsageError

NAMES_MAX = 4_096  # sensors, attributes or event codes of one Open
_BYTES_MAX = 256


def fault(name: object) -> str:
    """Why no scorer takes a gateway, an asset, a sensor or an attribute of this name; empty where one does."""
    if not isinstance(name, str):
        return f"{name!r}, which is no text"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"{name[:40]!r}, which UTF-8 cannot write"
    return "" if 0 < size <= _BYTES_MAX else f"one of {size} bytes: {name[:40]!r}"


def code_fault(code: object) -> str:
    """The same of an event code."""
    if found := fault(code):
        return found
    return "" if all(str(code).partition(":")) else repr(code)


def check_names(what: str, names: Iterable[object]) -> None:
    """Raises UsageError for the first name that no scorer takes."""
    for name in names:
        if found := fault(name):
            raise UsageError(f"{what}: expected a name of 1 to {_BYTES_MAX} bytes of UTF-8, found {found}")


def check_codes(codes: Iterable[object]) -> None:
    """Raises UsageError for the first event code that no scorer takes."""
    for code in codes:
        if found := code_fault(code):
            raise UsageError(
                f'event code: expected "kind:code" of up to {_BYTES_MAX} bytes of UTF-8, found {found}',
                'say for example "maintenance:bearing"',
            )


def check_count(what: str, count: int) -> None:
    """Raises UsageError where an Open would have more names than a scorer reads."""
    if count > NAMES_MAX:
        raise UsageError(f"{what}: expected at most {NAMES_MAX:,} different names, found {count:,}")
