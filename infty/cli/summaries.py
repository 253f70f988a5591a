"""What a person wants to know of a result, in a few lines; `--json` has the rest."""

from typing import Any


def headline(outcome: dict[str, Any]) -> dict[str, Any]:
    """The figures of a training run or an evaluation that a person wants to see first."""
    metrics = {name: round(value, 4) for name, value in outcome["metrics"].items()}
    return {
        **metrics,
        **_calibration(outcome["calibration"]),
        "protocol": outcome["protocol"]["name"],
        **{
            key: outcome[key]
            for key in ("best_step", "step", "wall_seconds", "parameters", "memory_slots")
            if key in outcome
        },
    }


def _calibration(calibration: dict[str, Any]) -> dict[str, Any]:
    """What accuracy means in the sorting task; nothing for texts."""
    if not calibration:
        return {}
    window = f"oracle of the last {calibration['oracle_window']} symbols"
    return {"chance": round(calibration["chance"], 4), window: round(calibration["oracle"], 4)}


def stream_headline(outcome: dict[str, Any]) -> dict[str, Any]:
    """The figures of one long text that was read that a person wants to see first."""
    pace = outcome["pace"]
    told = {
        **{name: round(value, 4) for name, value in outcome["metrics"].items()},
        **(_answers(outcome) if outcome["answer"] else {}),
        **{key: pace[key] for key in ("tokens", "segments", "tokens_per_second")},
        "seconds": round(pace["seconds"], 2),
    }
    if "late_to_early" in pace:
        told["time of a late segment"] = f"{pace['late_to_early']:.3f} × that of the 10th to 20th"
        told["memory since the 20th segment"] = f"+ {pace['growth_bytes'] / 1e6:.1f} MB"
    return told


def _answers(outcome: dict[str, Any]) -> dict[str, str]:
    return {"answer": " ".join(map(str, outcome["answer"])), "model": " ".join(map(str, outcome["model_answer"]))}
