"""The recommendation at the top of a target's section: which row to ship, and what it gives."""

from __future__ import annotations

from compress.formatting import ratio_words, sanitize, score, score_change
from compress.measure.quantities import QUANTITIES
from compress.pareto import MeasuredChange, Recommendation, StageEffects
from compress.record import Record
from compress.report.page.markup import text

__all__ = ["Tile", "recommendation_box", "tiles"]

Tile = tuple[str, str, str]


def recommendation_box(record: Record, row: StageEffects, advice: Recommendation) -> str:
    """The recommendation in words and its four numbers; the page's script rewrites it."""
    state = "met" if advice.meets_budget else "missed"
    missed = "".join(f"<li>{text(sentence)}</li>" for sentence in advice.missed)
    shown = "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}<small>{text(note)}</small></dd></div>"
        for label, value, note in tiles(record, row)
    )
    return (
        f'<div class="recommendation {state}" data-row="{advice.index}">'
        f'<div aria-live="polite"><p class="verdict">{text(advice.reasons, 2000)}</p>'
        f'<ul class="misses" aria-label="Budget missed"{"" if missed else " hidden"}>{missed}</ul>'
        f'</div><dl class="tiles">{shown}</dl></div>'
    )


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
