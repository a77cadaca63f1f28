"""A fleet.toml with other model parameters, everything else as somebody wrote it, comments too."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wheeltapper.config import fleet_toml, parse_fleet
from wheeltapper.errors import ConfigError
from wheeltapper.spec import FleetSpec

_SECTION = re.compile(r"^\s*\[")
_KEY = re.compile(r"^(\s*)([A-Za-z_]+)(\s*=\s*)([^#\n]*?)(\s*(?:#.*)?)$")


def tuned_text(text: str, tuned: FleetSpec, parameters: Mapping[str, Mapping[str, float]]) -> str:
    """`text` with `parameters` (class → name → value) in its `[classes.NAME.model]` tables, so that it is `tuned`.

    A file that says its models in another way (inline tables, quoted keys) is written anew, without its comments.
    """
    lines = text.splitlines()
    for name, values in parameters.items():
        _put(lines, f"classes.{name}.model", values)
    found = "\n".join(lines) + "\n"
    try:
        same = parse_fleet(found) == tuned
    except ConfigError:
        same = False
    return found if same else fleet_toml(tuned)


def _put(lines: list[str], section: str, values: Mapping[str, float]) -> None:
    """Set keys of one table in place; those it lacks are added at its end, and a table that is not there at the end."""
    begin = next((i for i, line in enumerate(lines) if _header(line) == section), None)
    if begin is None:
        lines += ["", f"[{section}]", *(f"{name} = {_number(value)}" for name, value in values.items())]
        return
    end = next((i for i in range(begin + 1, len(lines)) if _SECTION.match(lines[i])), len(lines))
    missing = dict(values)
    for i in range(begin + 1, end):
        line = _KEY.match(lines[i])
        if line and line[2] in missing:
            lines[i] = f"{line[1]}{line[2]}{line[3]}{_number(missing.pop(line[2]))}{line[5]}"
    last = max(i for i in range(begin, end) if i == begin or _KEY.match(lines[i]))
    lines[last + 1 : last + 1] = [f"{name} = {_number(value)}" for name, value in missing.items()]


def _header(line: str) -> str:
    found = re.match(r"^\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$", line)
    return found[1] if found else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)
