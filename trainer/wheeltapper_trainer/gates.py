"""A fleet's gates held against what the test part says. A figure that cannot be known passes no gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wheeltapper.spec import FleetSpec, Gate

# What fleet.toml calls a figure → what the Evaluation document calls it.
_FIGURES = {
    "rmse": "rmse_raw",
    "rmse_capped": "rmse",
    "phm08": "phm08_last",
    "failures_warned_share": "recall",
    "failures_warned_share_low": "recall_low",
    "lead_time_median_hours": "lead_median_hours",
    "false_alarms_per_asset_week": "false_per_asset_week",
    "false_alarms_per_asset_week_high": "false_per_asset_week_high",
}

Metrics = Mapping[tuple[str, str], Mapping[str, float | None]]


def gate_results(spec: FleetSpec, metrics: Metrics) -> list[dict[str, Any]]:
    """Every gate with each output it names: {"output", "metric", "found", "at_most", "at_least", "passed"}.

    `metrics`: the served figures per (class, output), as `flat_metrics` gives them.
    """
    return [
        _result(gate, f"{asset_class}/{output}", figures.get(_FIGURES.get(gate.metric, gate.metric)))
        for gate in spec.gates
        for (asset_class, output), figures in metrics.items()
        if gate.output in (output, f"{asset_class}/{output}")
    ]


def _result(gate: Gate, output: str, found: float | None) -> dict[str, Any]:
    return {
        "output": output,
        "metric": gate.metric,
        "found": found,
        "at_most": gate.at_most if math.isfinite(gate.at_most) else None,
        "at_least": gate.at_least if math.isfinite(gate.at_least) else None,
        "passed": found is not None and gate.at_least <= found <= gate.at_most,
    }
