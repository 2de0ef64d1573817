"""What the stages figure shows, as plain data: everything but the drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.formatting import count, sanitize, score_change, times
from compress.measure.quantities import quantities_of
from compress.measure.quantity import Estimate, Quantity
from compress.pareto import MeasuredChange, ObjectiveEffect, StageEffects, stage_effects
from compress.record import Record
from compress.report.figures.axes import PlotAxis, axis_of
from compress.report.figures.pareto_data import scale_floor
from compress.report.figures.ticks import thinned
from compress.report.provenance import caption

__all__ = ["Panel", "PanelPoint", "StagesInfo", "stages_info"]

_LABEL = 24


@dataclass(frozen=True)
class PanelPoint:
    """One row in one panel; ``position`` counts the rows shown, from 0.

    ``note`` compares with the baseline. ``previous`` is the value that the row's stage began with
    and ``step`` what it bought, judged by ``step_verdict``; rows up to the baseline have none.
    """

    position: int
    kind: str
    value: float
    ci95: tuple[float, float]
    text: str
    note: str
    off_scale: bool = False
    previous: float | None = None
    step: str = ""
    step_verdict: str = "unresolved"


@dataclass(frozen=True)
class Panel:
    """One quantity over the stages; ``baseline`` is the value that the notes compare with.

    ``axis`` is ``None`` where nothing was measured.
    """

    title: str
    name: str
    better: str
    points: tuple[PanelPoint, ...]
    baseline: float | None
    axis: PlotAxis | None

    def share(self, value: float) -> float:
        """Where a value lies from the lowest (0) to the highest (1) shown, or beside which end."""
        return self._upright(self.axis.inside(value)) if self.axis else 0.0

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places of round values, as shares too."""
        ticks = thinned(self.axis.ticks, 4) if self.axis else []
        return [(self._upright(at), words) for at, words in ticks]

    def share_of(self, point: PanelPoint) -> float:
        """Where a point stands; one that is off the scale does at the worse end."""
        return self._upright(1.0) if point.off_scale else self.share(point.value)

    def _upright(self, at: float) -> float:
        return 1 - at if self.better == "higher" else at


@dataclass(frozen=True)
class StagesInfo:
    """The figure of what each stage did. ``marks`` are lines on what it made of the weights."""

    title: str
    subtitle: str
    caption: str
    labels: tuple[str, ...]
    marks: tuple[tuple[str, ...], ...]
    panels: tuple[Panel, ...]

    @property
    def legend(self) -> str:
        """How to read the figure."""
        return (
            "Thick bars are what each stage bought: from the row before it to its own. Changes in "
            "words are against the baseline, which is the dashed line: ratios are its value over "
            "the row's, so above 1x is better, and ≈ marks what is not shown to differ. Thin bars "
            "are 95 % intervals. Latencies are the baseline's over each row's paired speedup."
        )

    @property
    def alt(self) -> str:
        """The figure in words, with its numbers."""
        parts = [
            f"{panel.title}: "
            + ", ".join(f"{self.labels[p.position]} {p.text} ({p.note})" for p in panel.points)
            for panel in self.panels
        ]
        return f"{self.title}. " + "; ".join(parts) + "."


def stages_info(record: Record, target: str) -> StagesInfo:
    """Score, latency, peak memory and artifact size after every stage on ``target``."""
    effects = stage_effects(record, target)
    declared = [q for q in quantities_of(record.task) if q.panel and q.column is not None]
    declared.sort(key=lambda quantity: quantity.column.place if quantity.column else 0)
    return StagesInfo(
        title=f"What each stage did: {sanitize(record.name, 60)} on {sanitize(target, 30)}",
        subtitle=f"Bars run from the row before to each row; dashed and in words: against baseline "
        f"row {record.baseline}; ≈: not shown to differ from it.",
        caption=caption(record, target),
        labels=tuple(f"{e.row} {sanitize(e.stage, _LABEL)}" for e in effects),
        marks=tuple(_marks(record, target, e) for e in effects),
        panels=tuple(_panel(record, effects, quantity) for quantity in declared),
    )


def _marks(record: Record, target: str, effect: StageEffects) -> tuple[str, ...]:
    row = next(row for row in record.rows if row.index == effect.row)
    found = row.on(target)
    share = found.artifact.int8_mac_fraction if found is not None else 0.0
    weights = f"{count(row.nonzero_parameters)} weights"
    return (weights, f"{100 * share:.0f} % int8") if share > 0 else (weights,)


def _panel(record: Record, effects: Sequence[StageEffects], quantity: Quantity) -> Panel:
    name = quantity.name
    found = [(k, e, e.effects[name]) for k, e in enumerate(effects) if name in e.effects]
    floor = _score_floor(record, found) if name == "accuracy" else None
    points = tuple(
        replace(
            _point(record, quantity, position, row),
            off_scale=floor is not None and _is_worse(record, effect.reading.value, floor),
            previous=found[place - 1][2].reading.value if _has_step(record, row, effect) else None,
        )
        for place, (position, row, effect) in enumerate(found)
    )
    known = [Estimate(p.value, *p.ci95) for p in points if not p.off_scale]
    of_baseline = (position for position, row, _ in found if row.row == record.baseline)
    at = next(of_baseline, None)
    return Panel(
        title=quantity.panel,
        name=name,
        better="higher" if quantity.higher_is_better else "lower",
        points=points,
        baseline=next((p.value for p in points if p.position == at), None),
        axis=axis_of(quantity, record.task.metric, known) if known else None,
    )


def _has_step(record: Record, row: StageEffects, effect: ObjectiveEffect) -> bool:
    """Whether a stage bought something: not where it made the baseline, or came before it."""
    return row.row > record.baseline and effect.from_previous is not None


def _point(record: Record, quantity: Quantity, position: int, row: StageEffects) -> PanelPoint:
    effect = row.effects[quantity.name]
    value, ci95 = effect.reading.value, effect.reading.ci95
    step = effect.from_previous if _has_step(record, row, effect) else None
    return PanelPoint(
        position=position,
        kind=row.kind,
        value=value,
        ci95=ci95,
        text=quantity.unit.shown(value),
        note=_note(record, row.row, effect.from_baseline),
        step=_change_words(record, step),
        step_verdict=step.verdict if step else "unresolved",
    )


def _score_floor(
    record: Record, found: Sequence[tuple[int, StageEffects, ObjectiveEffect]]
) -> float | None:
    """The worst score that sets the scale; rows before the baseline, being untrained, never do."""
    scores = [e.reading.value for _, row, e in found if row.row >= record.baseline]
    if not scores:
        return None
    worst = max(scores, key=lambda score: -score if record.task.higher_is_better else score)
    floor = scale_floor(scores, record.task.higher_is_better)
    return worst if floor is None else floor


def _is_worse(record: Record, score: float, than: float) -> bool:
    return score < than if record.task.higher_is_better else score > than


def _note(record: Record, row: int, found: MeasuredChange | None) -> str:
    if row == record.baseline:
        return "baseline"
    return _change_words(record, found) or "no baseline"


def _change_words(record: Record, found: MeasuredChange | None) -> str:
    if found is None or not math.isfinite(found.value):
        return ""
    words = times(found.value) if found.is_ratio else score_change(record.task.metric, found.value)
    return words if found.verdict in ("better", "worse") else f"≈ {words}"
