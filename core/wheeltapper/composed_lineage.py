"""Where the parts of a composed pack were trained, as its lineage says it:

    composed   {"classes": {name: sha256 of the pack it was trained in}, "assets": {re-pointed asset: likewise}}
    sources    {sha256: that pack's own lineage, without its split}
    split      for each class where its test part begins, for its re-pointed assets as well

Composing from composed packs names those that were trained, however many steps lie between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wheeltapper.composition import Parts, Source
from wheeltapper.pack import Pack

_OF_A_WHOLE = ("split", "composed", "sources")
_SPLIT_KEYS = {"by", "valid_from_us", "test_from_us", "valid_assets", "test_assets"}


def is_composed(pack: Pack) -> bool:
    return "composed" in pack.lineage


def trained_asset(pack: Pack, asset: str, asset_class: str) -> str | None:
    """The sha256 of the pack that trained an asset; None where `pack` was trained as a whole."""
    composed = _mapping(pack.lineage.get("composed"))
    found = _mapping(composed.get("assets")).get(asset, _mapping(composed.get("classes")).get(asset_class))
    return None if found is None else str(found)


def origins(parts: Parts) -> tuple[dict[str, str], dict[str, str]]:
    """The sha256 of the pack that trained each class, and each asset that is not from its class's."""
    classes = {name: _trained_class(source, name) for name, source in parts.classes.items()}
    assets = {
        asset: sha256
        for name, source in parts.classes.items()
        for asset, sha256 in _mapping(_mapping(source.pack.lineage.get("composed")).get("assets")).items()
        if asset not in parts.assets and _class_name(source.pack, asset) == name
    }
    for asset, (name, source) in parts.assets.items():
        found = _mapping(_mapping(source.pack.lineage.get("composed")).get("assets")).get(asset)
        sha256 = found or _trained_class(source, name)
        if sha256 != classes[name]:
            assets[asset] = sha256
    return classes, dict(sorted(assets.items()))


def unmixed(parts: Parts) -> Source | None:
    """The one trained pack that everything comes from after all, as after taking back what was re-pointed; or None."""
    classes, assets = origins(parts)
    for source in parts.sources():
        whole = [one.name for one in source.pack.classes] == list(classes)
        if whole and not assets and not is_composed(source.pack) and set(classes.values()) == {source.sha256}:
            return source
    return None


def lineage_of(parts: Parts) -> dict[str, Any]:
    """The composed pack's lineage."""
    pure = unmixed(parts)
    if pure is not None:
        return dict(pure.pack.lineage)
    classes, assets = origins(parts)
    known: dict[str, Any] = {}
    for source in parts.sources():
        lineage = source.pack.lineage
        if is_composed(source.pack):
            known |= _mapping(lineage.get("sources"))
        else:
            known[source.sha256] = {key: value for key, value in lineage.items() if key not in _OF_A_WHOLE}
    used = {*classes.values(), *assets.values()}
    splits = (_split(parts, name) for name in classes)
    return {
        "composed": {"classes": classes, "assets": assets},
        "sources": {sha256: lineage for sha256, lineage in sorted(known.items()) if sha256 in used},
        "split": [split for split in splits if split is not None],
    }


def _trained_class(source: Source, name: str) -> str:
    classes = _mapping(_mapping(source.pack.lineage.get("composed")).get("classes"))
    return str(classes.get(name, source.sha256))


def _class_name(pack: Pack, asset: str) -> str | None:
    index = pack.asset_index(asset)
    return None if index < 0 else pack.classes[int(pack.asset_class[index])].name


def _split(parts: Parts, name: str) -> dict[str, Any] | None:
    """Where the test part of a class begins, so that none of the heads that answer was trained on it.

    By time: where the last of its sources begins to test. By asset: each asset as its own source has it. None, and it
    cannot be evaluated, where a source does not say, or one splits by time and another by asset.
    """
    found = _split_of(parts.classes[name].pack, name)
    for asset, (of_class, source) in parts.assets.items():
        other = _split_of(source.pack, name) if of_class == name else found
        if found is None or other is None or found.get("by") != other.get("by"):
            return None
        if of_class == name:
            found = _later(found, other) if found["by"] == "time" else _with_asset(found, other, asset)
    return found


def _later(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    cuts = ("valid_from_us", "test_from_us")
    return {**one, **{key: max(one[key], other[key]) for key in cuts}}


def _with_asset(one: Mapping[str, Any], other: Mapping[str, Any], asset: str) -> dict[str, Any]:
    def held(key: str) -> list[str]:
        rest: Sequence[str] = [known for known in one[key] if known != asset]
        return sorted([*rest, asset]) if asset in other[key] else list(rest)

    return {**one, "valid_assets": held("valid_assets"), "test_assets": held("test_assets")}


def _split_of(pack: Pack, name: str) -> dict[str, Any] | None:
    """The class's entry in `split`, as `wheeltapper_trainer.lineage` writes it."""
    entries = pack.lineage.get("split")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and entry.get("asset_class") == name:
            return dict(entry) if entry.keys() >= _SPLIT_KEYS else None
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
