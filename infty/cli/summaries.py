"""Summaries of results: what a person wants to see first, in a few lines; `--json` has the rest."""

from collections.abc import Mapping
from typing import Any

Values = dict[str, Any]


def summarize(outcome: Values) -> Values:
    """Choose the figures of a training run or an evaluation that a person wants to see first."""
    wanted = ("best_step", "step", "wall_seconds", "parameters", "memory_slots")
    return {
        **_round(outcome["metrics"]),
        **_calibrate(outcome["calibration"]),
        "protocol": outcome["protocol"]["name"],
        **{key: outcome[key] for key in wanted if key in outcome},
    }


def summarize_stream(outcome: Values) -> Values:
    """Choose the figures that a person wants to see first of one long text that was read."""
    pace = outcome["pace"]
    answers = {"answer": outcome["answer"], "model": outcome["model_answer"]} if outcome["answer"] else {}
    summary = {
        **_round(outcome["metrics"]),
        **{name: " ".join(map(str, symbols)) for name, symbols in answers.items()},
        **{key: pace[key] for key in ("tokens", "segments", "tokens_per_second")},
        "seconds": round(pace["seconds"], 2),
    }
    if "late_to_early" in pace:
        summary["time of a late segment"] = f"{pace['late_to_early']:.3f} × that of the 10th to 20th"
        summary["memory since the 20th segment"] = f"+ {pace['growth_bytes'] / 1e6:.1f} MB"
    return summary


def _calibrate(calibration: Values) -> Values:
    """Say what accuracy means in the sorting task; nothing for texts."""
    if not calibration:
        return {}
    window = f"oracle of the last {calibration['oracle_window']} symbols"
    return _round({"chance": calibration["chance"], window: calibration["oracle"]})


def _round(figures: Mapping[str, float]) -> Values:
    return {name: round(value, 4) for name, value in figures.items()}
