"""`fleet.toml` → `FleetSpec`, validated completely before any work starts; docs/fleet-toml.md explains the keys.

Every slip is reported at once; each line names the file, the dotted key, what was found, what is allowed and how to
mend it.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wheeltapper.config_class import class_spec
from wheeltapper.config_text import fleet_text
from wheeltapper.errors import ConfigError, NotFound
from wheeltapper.spec import ClassSpec, FleetSpec, Gate, SplitSpec
from wheeltapper.toml_table import NAME_ALLOWED, Findings, Table, describe, is_name, nearest

FILE_BYTES_MAX = 4 << 20
CLASSES_MAX = 256
GATES_MAX = 256
HINT = "docs/fleet-toml.md explains every key; examples/ holds files that work"

# What evaluation measures of an output, by the target's kind; a gate bounds one of them.
ALARM_METRICS = (
    "failures_warned_share", "failures_warned_share_low", "lead_time_median_hours", "false_alarms_per_asset_week",
    "false_alarms_per_asset_week_high", "inspection_precision", "cost_per_asset_month",
)  # fmt: skip
METRICS = {
    "rul": ("rmse", "rmse_capped", "mae", "phm08", *ALARM_METRICS),
    "failure": ("pr_auc", "roc_auc", "brier", "calibration_error", *ALARM_METRICS),
    "anomaly": ("pr_auc", "roc_auc", *ALARM_METRICS),
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def load_fleet(path: str | Path) -> FleetSpec:
    """The fleet that the file at `path` describes.

    Raises NotFound where there is no such file, ConfigError (with every finding) where it does not describe a fleet.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound(f"no fleet description at {file}", "examples/ holds some to start from") from None
    except OSError as error:
        raise ConfigError(f"{file}: expected a TOML file, found: {error.strerror}", HINT) from error
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{file}: found more than {FILE_BYTES_MAX:,} bytes; expected a smaller file", HINT)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: expected UTF-8 text, found another byte at offset {error.start}", "save it as UTF-8"
        ) from None
    return parse_fleet(text, str(file))


def parse_fleet(text: str, source: str = "fleet.toml") -> FleetSpec:
    """The fleet that `text` describes; `source` is how messages call it. Raises ConfigError with every finding."""
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{source}: found arrays or tables nested too deeply", HINT) from None
    except ValueError as error:  # TOMLDecodeError, and a number of more than 4,300 digits
        raise ConfigError(f"{source}: found text that is not TOML: {error}", HINT) from None
    findings = Findings(source)
    spec = _fleet(Table(findings, "", data, ("fleet", "split", "classes", "gates")))
    if findings.lines:
        raise ConfigError(findings.text(), HINT)
    return spec


def fleet_toml(spec: FleetSpec) -> str:
    """The text of a `fleet.toml` that reads back to `spec`. Raises ConfigError where no valid file could."""
    text = fleet_text(spec)
    if parse_fleet(text, f"the fleet {spec.name!r}") != spec:
        raise ConfigError(
            f"the fleet {spec.name!r} has parts that fleet.toml does not express in this form",
            "keep the failure targets together, statistics in the order of STATISTICS, times in whole microseconds",
        )
    return text


def _fleet(root: Table) -> FleetSpec:
    head = root.table("fleet", ("name", "seed"))
    name = head.name("name", required=True)
    seed = head.whole("seed", 7, 0, 2**31 - 1)
    section = root.table("classes", None)
    if not 1 <= len(section.data) <= CLASSES_MAX:
        found = f"{len(section.data)} classes"
        root.note("classes", f"1 to {CLASSES_MAX} asset classes", "add [classes.NAME] with its sensors", found)
    classes: list[ClassSpec] = []
    for key in list(section.data)[:CLASSES_MAX]:
        if not is_name(key):
            section.note(key, NAME_ALLOWED, "rename the class", describe(key))
        classes.append(class_spec(section, key))
    split = _split(root.table("split", ("by", "test_share", "test_from", "folds")))
    gates = tuple(
        _gate(table, classes)
        for table in root.tables("gates", ("output", "metric", "at_most", "at_least"), high=GATES_MAX)
    )
    return FleetSpec(name, tuple(classes), seed, split, gates)


def _split(table: Table) -> SplitSpec:
    usual = SplitSpec()
    by = table.choice("by", ("time", "asset"), usual.by)
    moment = table.moment("test_from")
    if moment and by == "asset":
        table.note(
            "test_from", 'nothing where by = "asset": whole assets are held out', 'remove it, or write by = "time"'
        )
    return SplitSpec(
        by,
        table.number("test_share", usual.test_share, 0.0, 0.9, above_low=True),
        (moment - _EPOCH) // timedelta(microseconds=1) if moment else usual.test_from_us,
        table.whole("folds", usual.folds, 2, 20),
    )


def _gate(table: Table, classes: list[ClassSpec]) -> Gate:
    """A gate on an output of every class that has it ("rul"), or of one class ("pump/rul")."""
    kinds = {target.name: target.kind for spec in classes for target in spec.targets}
    kinds |= {f"{spec.name}/{target.name}": target.kind for spec in classes for target in spec.targets}
    output = table.text("output", required=True)
    if table.data.get("output") == output and output not in kinds:
        mend = nearest(output, list(kinds), "name an output of this fleet, or remove the gate")
        table.note("output", f"one of {', '.join(kinds) or 'the outputs of the classes'}", mend)
    among = METRICS[kinds[output]] if output in kinds else sorted({m for known in METRICS.values() for m in known})
    metric = table.choice("metric", among, required=True)
    open_end = float("inf")
    at_most = table.number("at_most", open_end, -1e30, 1e30)
    at_least = table.number("at_least", -open_end, -1e30, 1e30)
    if "at_most" not in table and "at_least" not in table:
        table.note("at_most", "at_most, at_least or both", "add at_most = … or at_least = …", "no bound")
    if at_least > at_most:
        table.note("at_least", f"at most at_most, which is {at_most:g}", "exchange the two bounds")
    return Gate(output, metric, at_most, at_least)
