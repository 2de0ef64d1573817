"""Which row of a target to ship, what it gives, and the findings beside."""

from __future__ import annotations

from compress.formatting import ratio_words, sanitize, score, score_change
from compress.measure.quantities import QUANTITIES
from compress.pareto import MeasuredChange, StageEffects
from compress.record import Record
from compress.report.page.target import TargetReport
from compress.report.sentences import findings

__all__ = ["Tile", "findings_data", "recommendation_data", "slider_data", "tiles"]

Tile = tuple[str, str, str]


def recommendation_data(target: TargetReport) -> dict[str, object]:
    """The row to ship and its numbers."""
    advice = target.advice
    shown = tiles(target.record, target.effects[advice.index])
    return {"advice": advice, "tiles": shown, "shipped": target.shipped}


def findings_data(target: TargetReport) -> list[str] | None:
    """Sentences that the recommendation does not say already."""
    said = findings(target.record, target.name)
    return [sentence for sentence in said if sentence != target.advice.reasons] or None


def tiles(record: Record, row: StageEffects) -> list[Tile]:
    """Name, value and comparison with the baseline of what was measured of ``row``."""
    shown: list[Tile] = []
    metric, accuracy = record.task.metric, row.effects.get("accuracy")
    if accuracy is not None:
        change = accuracy.from_baseline
        note = ""
        if row.row == record.baseline:
            note = "the baseline itself"
        elif change:
            shown_to = "" if change.verdict in ("better", "worse") else "≈ "
            note = f"{shown_to}{score_change(metric, change.value)} against the baseline"
        shown.append((sanitize(metric, 40), score(metric, accuracy.reading.value), note))
    for quantity in QUANTITIES:
        effect = row.effects.get(quantity.name)
        if quantity.limit is None or effect is None:
            continue
        note = _ratio_note(effect.from_baseline, *quantity.gains)
        shown.append((quantity.title, quantity.unit.shown(effect.reading.value), note))
    return shown


def _ratio_note(found: MeasuredChange | None, better: str, worse: str) -> str:
    if found is None:
        return ""
    if found.value == 1:
        return "as the baseline"
    if found.verdict not in ("better", "worse"):
        return "not shown to differ from the baseline's"
    return f"{ratio_words(found.value, better, worse)} than the baseline"


def slider_data(target: TargetReport) -> dict[str, object] | None:
    """The sliders of the budget; ``None`` where there are no answers for them."""
    if target.choice is None:
        return None
    return {"number": target.number, "sliders": target.sliders}
