"""What changed from one pack to another: sizes, classes, what each output promises, settings, lineage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wheeltapper_command.table import table

_SIZES = ("assets", "heads", "trees", "bytes", "bytes_per_head")
_SETTINGS_SHOWN_MAX = 40


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The changes between two descriptions of packs (`wheeltapper.inspect.describe`), as a JSON object.

    Each change is {"class", "output" or "key", "what", "before", "after"}; None stands for "not there".
    """
    classes_before = _by_name(before.get("classes", ()))
    classes_after = _by_name(after.get("classes", ()))
    outputs: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    for name in [name for name in classes_after if name in classes_before]:
        one, other = classes_before[name], classes_after[name]
        outputs.extend({"class": name, **change} for change in _output_changes(one, other))
        settings.extend({"class": name, **change} for change in changes(one.get("spec", {}), other.get("spec", {})))
    sizes = [{"what": key, "before": before.get(key), "after": after.get(key)} for key in _SIZES]
    for level, heads in _heads(after).items():
        sizes.append({"what": f"{level} heads", "before": _heads(before).get(level), "after": heads})
    return {
        "same_pack": before.get("sha256") == after.get("sha256"),
        "sizes": sizes,
        "classes_added": [name for name in classes_after if name not in classes_before],
        "classes_removed": [name for name in classes_before if name not in classes_after],
        "outputs": outputs,
        "settings": settings,
        "lineage": list(changes(before.get("lineage", {}), after.get("lineage", {}))),
    }


def difference_text(found: Mapping[str, Any], before: str, after: str) -> str:
    """The same for people."""
    if found["same_pack"]:
        return f"{before} and {after} are the same pack."
    parts = [table(["", before, after], [[row["what"], row["before"], row["after"]] for row in found["sizes"]])]
    parts += [
        f"classes {what}: {', '.join(names)}" for what in ("added", "removed") if (names := found[f"classes_{what}"])
    ]
    if found["outputs"]:
        rows = [
            [f"{c['class']}/{c['output']}", c["what"], _shown(c["before"]), _shown(c["after"])]
            for c in found["outputs"]
        ]
        parts.append(table(["output", "what", before, after], rows))
    changes = [(f"{c['class']}.{c['key']}", c["before"], c["after"]) for c in found["settings"]]
    # What a composed pack is made of is said in releases, by `release diff`.
    mixed = any(change["key"].startswith("composed.") for change in found["lineage"])
    lineage = [] if mixed else found["lineage"]
    changes += [(f"lineage.{c['key']}", c["before"], c["after"]) for c in lineage]
    if changes:
        rows = [[key, _shown(old), _shown(new)] for key, old, new in changes[:_SETTINGS_SHOWN_MAX]]
        parts.append(table(["setting", before, after], rows))
    if len(changes) > _SETTINGS_SHOWN_MAX:
        parts.append(f"… and {len(changes) - _SETTINGS_SHOWN_MAX} more settings; -o json shows all")
    return "\n\n".join(parts)


def _output_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    old, new = _by_name(before.get("outputs", ())), _by_name(after.get("outputs", ()))
    for name in [*new, *(name for name in old if name not in new)]:
        for change in changes(old.get(name, {}), new.get(name, {})):
            if change["key"] != "name":
                yield {"output": name, "what": change["key"], "before": change["before"], "after": change["after"]}


def changes(before: Any, after: Any) -> Iterator[dict[str, Any]]:
    """Where two JSON values differ, by dotted key."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for key in [*new, *(key for key in old if key not in new)]:
        if old.get(key) != new.get(key):
            yield {"key": key, "before": old.get(key), "after": new.get(key)}


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value under its dotted key; entries that have a name go by it, so that an insertion moves nothing."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        for position, item in enumerate(value):
            name = item.get("name", position) if isinstance(item, Mapping) else position
            yield from _leaves(item, f"{at}[{name}]")
    else:
        yield at, value


def _heads(pack: Mapping[str, Any]) -> dict[str, int]:
    """Heads by level, over all classes."""
    heads: dict[str, int] = {}
    for one in pack.get("classes", ()):
        for level in one.get("levels", ()):
            heads[level["level"]] = heads.get(level["level"], 0) + level["heads"]
    return heads


def _by_name(entries: Any) -> dict[str, Mapping[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        curve = any(isinstance(item, (list, tuple)) for item in value)
        return f"{len(value)} points" if curve else ", ".join(map(str, value))
    return str(value)
