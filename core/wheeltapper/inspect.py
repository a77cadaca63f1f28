"""`wheeltapper inspect PACK`: what is inside a pack, and which head answers for an asset, and why."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wheeltapper_command.progress import Progress
from wheeltapper_command.table import table
from wheeltapper_command.verb import Outcome, Verb

from wheeltapper.errors import NotFound

if TYPE_CHECKING:
    from wheeltapper.pack import Pack, PackClass

_NODE_BYTES = 8
_SHA256_SHOWN = 12
_LINEAGE_ROWS_MAX = 20  # of one key, as of the assets that were re-pointed


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pack", metavar="PACK", help="a pack file")
    parser.add_argument("--asset", metavar="ID", help="show which head answers for this asset, and why")


def _run(options: argparse.Namespace, _progress: Progress) -> Outcome:
    from wheeltapper.durable import sha256_of  # noqa: PLC0415  a verb imports what it needs when it runs
    from wheeltapper.pack import open_pack  # noqa: PLC0415

    pack = open_pack(options.pack)
    if options.asset is not None:
        result = describe_asset(pack, options.asset)
        return Outcome(result, _asset_text(result))
    result = {"file_sha256": sha256_of(Path(options.pack)), **describe(pack)}
    return Outcome(result, _text(result))


def describe(pack: Pack) -> dict[str, Any]:
    """A pack as a JSON object: sizes, heads per class and level, outputs with thresholds, lineage."""
    heads = len(pack.forest.head_parent)
    return {
        "sha256": pack.sha256,
        "format": pack.meta["format"],
        "bytes": pack.size_bytes,
        "fleet": pack.fleet,
        "seed": pack.seed,
        "kernels": pack.kernels,
        "assets": pack.asset_count,
        "heads": heads,
        "trees": len(pack.forest.tree_depth),
        "nodes": len(pack.forest.nodes),
        "bytes_per_head": round(pack.size_bytes / heads, 1) if heads else None,
        "classes": [_describe_class(pack, one) for one in pack.classes],
        "lineage": pack.lineage,
    }


def describe_asset(pack: Pack, asset_id: str) -> dict[str, Any]:
    """Who answers for one asset, slot by slot. Raises NotFound where the pack does not know it.

    `trained_in`: the pack that trained it, where this one was composed of several; else None.
    """
    from wheeltapper.composed_lineage import trained_asset  # noqa: PLC0415  as in `_run`
    from wheeltapper.outputs import Why  # noqa: PLC0415
    from wheeltapper.spec import LEVELS  # noqa: PLC0415

    index = pack.asset_index(asset_id)
    if index < 0:
        raise NotFound(
            f"asset {asset_id!r}: expected one of the pack's {pack.asset_count} assets, found none of that name",
            "an asset the pack does not know is answered by its class; train again to give it heads of its own",
        )
    one = pack.classes[int(pack.asset_class[index])]
    answers = []
    for output in one.outputs:
        target = one.spec.targets[one.outputs.index(output)]
        watched = target.watched() if output.kind == "anomaly" else (("", 0, ""),)
        for slot, (statistic, _, sensor) in zip(range(output.begin, output.end), watched, strict=True):
            head = int(pack.asset_heads[index, slot])
            why = Why(int(pack.asset_reasons[index, slot]))
            answers.append(
                {
                    "output": output.name,
                    "sensor": sensor,
                    "statistic": statistic,
                    "level": LEVELS[int(pack.head_level[head])] if head >= 0 else LEVELS[0],
                    "head": head,
                    "trees_own": _trees(pack, head),
                    "trees_all": sum(_trees(pack, link) for link in _chain(pack, head)),
                    "reason": why.name,
                    "why": why.words(),
                }
            )
    statics = dict(zip(one.spec.statics, pack.asset_statics[index].tolist(), strict=False))
    known = {name: value if value == value else None for name, value in statics.items()}  # noqa: PLR0124  NaN
    return {
        "asset": asset_id,
        "asset_class": one.name,
        "trained_in": trained_asset(pack, asset_id, one.name),
        "statics": known,
        "answers": answers,
    }


def _describe_class(pack: Pack, one: PackClass) -> dict[str, Any]:
    from wheeltapper.outputs import Why  # noqa: PLC0415  as in `_run`
    from wheeltapper.spec import LEVELS, to_json  # noqa: PLC0415

    mine = pack.asset_class == one.index
    answering = pack.asset_heads[mine][:, : one.slots]
    reasons = pack.asset_reasons[mine][:, : one.slots]
    own = (answering >= 0) & (pack.head_level[answering] == LEVELS.index("asset")) if answering.size else answering < -1
    return {
        "name": one.name,
        "assets": int(mine.sum()),
        "sensors": len(one.spec.sensors),
        "features": one.features,
        "levels": [_describe_level(pack, one, level) for level in range(1, len(LEVELS))],
        "reasons": {why.name: int((reasons == why).sum()) for why in Why if (reasons == why).any()},
        "outputs": [
            {
                "name": output.name,
                "kind": output.kind,
                "unit": output.unit,
                "heads_per_asset": output.end - output.begin,
                "answered_by_own_head": int(own[:, output.begin : output.end].sum()),
                "threshold": output.threshold,
                "hold": output.hold,
                "hysteresis": output.hysteresis,
                "metrics": dict(output.metrics),
            }
            for output in one.outputs
        ],
        "spec": to_json(one.spec),
    }


def _describe_level(pack: Pack, one: PackClass, level: int) -> dict[str, Any]:
    from wheeltapper.spec import LEVELS  # noqa: PLC0415  as in `_run`

    chosen = pack.forest.head_trees[(pack.head_class == one.index) & (pack.head_level == level)]
    begin = pack.forest.tree_begin
    nodes = int((begin[chosen[:, 1]] - begin[chosen[:, 0]]).sum())
    return {
        "level": LEVELS[level],
        "heads": len(chosen),
        "trees": int((chosen[:, 1] - chosen[:, 0]).sum()),
        "nodes": nodes,
        "node_bytes_per_head": round(nodes * _NODE_BYTES / len(chosen), 1) if len(chosen) else None,
    }


def _trees(pack: Pack, head: int) -> int:
    if head < 0:
        return 0
    first, end = pack.forest.head_trees[head].tolist()
    return int(end - first)


def _chain(pack: Pack, head: int) -> list[int]:
    links = []
    while head >= 0:
        links.append(head)
        head = int(pack.forest.head_parent[head])
    return links


def _text(result: Mapping[str, Any]) -> str:
    classes = result["classes"]
    lines = [
        f"Pack {result['sha256'][:16]}… of fleet {result['fleet']}: {result['assets']:,} assets, "
        f"{result['heads']:,} heads, {result['trees']:,} trees, "
        f"{_size(result['bytes'])} ({_size(result['bytes_per_head'])} a head)",
        f"in a registry, packs/{result['file_sha256']}",
        "",
        table(
            ["class", "level", "heads", "trees", "nodes", "node bytes a head"],
            [[c["name"], *level.values()] for c in classes for level in c["levels"] if level["heads"]],
        ),
        "",
        table(
            ["class", "output", "kind", "unit", "own heads answer", "of", "alarm at", "hold", "metrics"],
            [
                [
                    c["name"],
                    o["name"],
                    o["kind"],
                    o["unit"],
                    o["answered_by_own_head"],
                    o["heads_per_asset"] * c["assets"],
                    o["threshold"],
                    o["hold"],
                    _metrics(o["metrics"]),
                ]
                for c in classes
                for o in c["outputs"]
            ],
        ),
        "",
        table(["trained with", ""], [["seed", str(result["seed"])], *_flat(result["lineage"])]),
        f"\nfeature kernels {result['kernels']}",
    ]
    return "\n".join(lines)


def _asset_text(result: Mapping[str, Any]) -> str:
    rows = [[a["output"], _watched(a), a["level"], a["trees_own"], a["trees_all"], a["why"]] for a in result["answers"]]
    statics = ", ".join(f"{name} {value}" for name, value in result["statics"].items() if value is not None)
    head = f"Asset {result['asset']} of class {result['asset_class']}" + (f": {statics}" if statics else "")
    head += f"\ntrained in pack {result['trained_in']}" if result["trained_in"] else ""
    return head + "\n\n" + table(["output", "watches", "answered by", "own trees", "with parents", "because"], rows)


def _watched(answer: Mapping[str, Any]) -> str | None:
    return f"{answer['statistic']}({answer['sensor']})" if answer["sensor"] else None


def _metrics(metrics: Mapping[str, Any]) -> str:
    """The plain numbers among an output's metrics, for one cell."""
    numbers = [(k, v) for k, v in metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return " · ".join(f"{name} {value:.4g}" for name, value in numbers)


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    rows = []
    for key, value in sorted(document.items()):
        name = prefix + (f"{key[:_SHA256_SHOWN]}…" if prefix == "sources." else key)
        rows += _flat(value, f"{name}.") if isinstance(value, Mapping) else [[name, str(value)]]
    if len(rows) > _LINEAGE_ROWS_MAX and prefix:
        return [[prefix.rstrip("."), f"{len(rows):,} entries; -o json shows them"]]
    return rows


def _size(size_bytes: float | None) -> str:
    if size_bytes is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} bytes"


inspect = Verb(
    name="inspect",
    summary="Show what a pack holds: classes, heads, outputs, thresholds, lineage.",
    example="wheeltapper inspect fleet.pack --asset pump-0007",
    arguments=_arguments,
    run=_run,
)
