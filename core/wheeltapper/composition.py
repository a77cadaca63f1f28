"""What a composed pack is made of: each class whole from one pack, single assets from another; and whether that may be.

A class is taken whole. An asset is taken with everything that decides its scores (heads and all that they continue,
levels, attributes, its own start) and put among the others of its class, whose features it must therefore share to the
bit. Its alarms are its class's: docs/decisions/0017-composed-releases.md says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wheeltapper.errors import NotFound, Refused
from wheeltapper.pack import Output, Pack, PackClass
from wheeltapper.release_diff import changes
from wheeltapper.spec import ClassSpec, ModelSpec, to_json, without_alarms

_CHANGES_SHOWN = 3
_ALARM_SETTINGS = ("threshold", "hold", "hysteresis")


@dataclass(frozen=True, slots=True)
class Source:
    """A pack to take from. name: what messages call it ("release 3"); sha256: of its file, its name in the registry."""

    name: str
    sha256: str
    pack: Pack

    def known(self, asset_class: str) -> PackClass:
        """The class of that name. Raises NotFound."""
        try:
            return self.pack.class_named(asset_class)
        except KeyError:
            names = ", ".join(one.name for one in self.pack.classes)
            raise NotFound(
                f"class {asset_class!r}: expected one of {self.name} ({names}), found none of that name",
                "`wheeltapper release list` shows the releases, `wheeltapper inspect` what is in a pack",
            ) from None


@dataclass(frozen=True, slots=True)
class Parts:
    """Where each part comes from. classes: all of the composed pack's, in its order; assets: re-pointed ones, each with
    its class."""

    base: Source
    classes: Mapping[str, Source]
    assets: Mapping[str, tuple[str, Source]]

    def sources(self) -> list[Source]:
        """Everything that something is taken from, each once, those of classes first."""
        found = [*self.classes.values(), *(source for _, source in self.assets.values())]
        return list({source.sha256: source for source in found}.values())

    def members(self) -> Iterator[tuple[str, str, Source]]:
        """(class, asset, where it comes from) of every asset, class by class in the order of ids. Raises Refused."""
        taken: dict[str, str] = {}
        for name, source in self.classes.items():
            index, pack = source.known(name).index, source.pack
            own = {pack.asset_id(i): source for i in np.flatnonzero(pack.asset_class == index).tolist()}
            own |= {asset: other for asset, (of_class, other) in self.assets.items() if of_class == name}
            for asset in sorted(own, key=str.encode):
                if asset in taken:
                    raise Refused(
                        f"asset {asset}: expected it in one class, found it in {taken[asset]} and in {name}",
                        "re-point both classes to the same release",
                    )
                taken[asset] = name
                yield name, asset, own[asset]


def parts_of(base: Source, classes: Mapping[str, Source], assets: Mapping[str, Source]) -> Parts:
    """The parts of `base` with these classes and assets from elsewhere. A class that is new to it comes last.

    Raises NotFound where a source lacks what is asked of it, Refused where parts do not fit together.
    """
    for source in (*classes.values(), *assets.values()):
        _check_alike(base, source)
    for name, source in classes.items():
        source.known(name)
    names = [one.name for one in base.pack.classes]
    names += sorted(set(classes) - set(names))
    whole = {name: classes.get(name, base) for name in names}
    moved = {asset: (_class_of(asset, source, whole), source) for asset, source in sorted(assets.items())}
    alike: set[tuple[str, str]] = set()
    for asset, (name, source) in moved.items():
        if (name, source.sha256) not in alike:
            _check_same_features(asset, whole[name], source, name)
            alike.add((name, source.sha256))
    return Parts(base, whole, moved)


def alarm_changes(parts: Parts) -> list[dict[str, Any]]:
    """Where a re-pointed asset's scores now meet other alarm settings than in the release they come from.

    Each is {"class", "output", "what", "before", "after", "assets"}: before in their release, after in their class.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    of_sha = {source.sha256: source for source in parts.sources()}
    for asset, (name, source) in parts.assets.items():
        groups.setdefault((name, source.sha256), []).append(asset)
    return [
        {"class": name, "output": ours.name, "what": what, "before": before, "after": after, "assets": found}
        for (name, sha256), found in groups.items()
        for theirs, ours in _output_pairs(of_sha[sha256].known(name), parts.classes[name].known(name))
        for what in _ALARM_SETTINGS
        if (before := getattr(theirs, what)) != (after := getattr(ours, what))
    ]


def _output_pairs(one: PackClass, other: PackClass) -> Iterator[tuple[Output, Output]]:
    return zip(one.outputs, other.outputs, strict=True)


def _class_of(asset: str, source: Source, classes: Mapping[str, Source]) -> str:
    """The class of the composed pack that an asset of `source` belongs to."""
    index = source.pack.asset_index(asset)
    if index < 0:
        raise NotFound(
            f"asset {asset!r}: expected one of the {source.pack.asset_count:,} assets of {source.name}, found none",
            "an asset that a release does not know has nothing to take; re-point its class",
        )
    name = source.pack.classes[int(source.pack.asset_class[index])].name
    if name not in classes:
        raise Refused(
            f"asset {asset}: expected its class {name!r} in the composed pack, found {', '.join(classes)}",
            "re-point its class as well",
        )
    return name


def _check_alike(base: Source, source: Source) -> None:
    for what in ("fleet", "kernels"):
        expected, found = getattr(base.pack, what), getattr(source.pack, what)
        if found != expected:
            raise Refused(
                f"{source.name}: expected the {what} {expected!r} of {base.name}, found {found!r}",
                "one pack is of one fleet and of one feature code; train again with this version",
            )


def _check_same_features(asset: str, here: Source, there: Source, name: str) -> None:
    """Raises Refused unless a row of features means the same to the bit in both, and the outputs are the same."""
    expected, found = here.known(name), there.known(name)
    differs = [
        f"{change['key']} {change['after']} instead of {change['before']}"
        for change in changes(to_json(_learnt_on(expected.spec)), to_json(_learnt_on(found.spec)))
    ]
    differs += [
        f"output {theirs.name} as {_meaning(theirs)} instead of {_meaning(ours)}"
        for ours, theirs in (_output_pairs(expected, found) if not differs else ())
        if _meaning(ours) != _meaning(theirs)
    ]
    if not differs and _regimes(expected) != _regimes(found):
        differs = ["operating regimes that were learnt otherwise"]
    if differs:
        more = f" and {len(differs) - _CHANGES_SHOWN} more" if len(differs) > _CHANGES_SHOWN else ""
        raise Refused(
            f"asset {asset} of {there.name}: expected class {name!r} with the features of {here.name}, "
            f"found {'; '.join(differs[:_CHANGES_SHOWN])}{more}",
            f"its heads would read other numbers than they learnt from; re-point the whole class {name!r}",
        )


def _learnt_on(spec: ClassSpec) -> ClassSpec:
    """The class without what changes neither a feature nor the meaning of an output."""
    return replace(without_alarms(spec), model=ModelSpec())


def _meaning(output: Output) -> tuple[Any, ...]:
    return (output.name, output.kind, output.begin, output.end, output.unit, output.code, output.cap)


def _regimes(known: PackClass) -> list[tuple[tuple[int, ...], bytes]]:
    regimes = known.regimes
    arrays = (regimes.centroids, regimes.scale, regimes.mean, regimes.inverse_std)
    return [(array.shape, array.tobytes()) for array in arrays]
