"""The words of the report: what a figure, a level and a reason are called by those who keep machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIGURES = {
    "rmse": "typical error (RMSE)",
    "mae": "mean error",
    "rmse_last": "RMSE of the last reading",
    "phm08_last": "PHM08 score, last reading",
    "pr_auc": "average precision",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "recall": "failures warned of",
    "precision": "alarms that were right",
    "lead_median_hours": "median lead, hours",
    "cases_per_asset_week": "alarms per asset and week",
    "false_per_asset_week": "false alarms per asset and week",
    "false_per_asset_week_high": "false alarms, surely below",
    "recall_low": "failures warned of, surely above",
    "inspection_precision": "right among the assets inspected each week",
    "cost_per_asset_month": "cost per asset and month",
}

LEVELS = {
    "class": "class alone",
    "own": "own head wherever tried",
    "alone": "own head without its class",
    "answering": "what answers",
}

WHY = {
    "OWN_HEAD_KEPT": "own head kept",
    "UNKNOWN_ASSET": "not known",
    "TOO_LITTLE_HISTORY": "too little history",
    "NO_EVENTS": "too few failures of its own",
    "DID_NOT_BEAT_CLASS": "did not beat the class",
    "QUARANTINED": "set aside",
    "NOT_TRAINED": "not asked for",
    "NO_CLASS_HEAD": "class has no head",
    "ALONE_HEAD_KEPT": "own head without its class kept",
}


def verdict(totals: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The run in one sentence."""
    failed = [gate for gate in result["gates"] if not gate["passed"]]
    if failed:
        ending = f" {len(failed)} of {len(result['gates'])} gates failed: this release must not reach production."
    elif result["gates"]:
        ending = f" All {len(result['gates'])} gates passed."
    else:
        ending = ""
    rate = totals["false_alarms_per_asset_week"]
    if rate is None:
        return f"There was nothing to test on, so nothing is known of how these models would have done.{ending}"
    price = f"{rate:.2f} false alarms per machine and week"
    if not totals["failures"]:
        return f"Nothing failed in the test part, so no warning could be earned; the price was {price}.{ending}"
    counts = f"{totals['failures_warned']:,} of {totals['failures']:,}"
    lead = totals["lead_median_hours"]
    ahead = "" if lead is None else f", half of them {_days(lead)} or more ahead"
    return f"{counts} failures of the test part would have been announced{ahead}, at {price}.{ending}"


def _days(hours: float) -> str:
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.1f} days"
