"""A target of a record, with what several sections of the page need of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.pareto import Recommendation, StageEffects, recommend, stage_effects
from compress.record import Record
from compress.report.figures.pareto_data import pareto_info
from compress.report.figures.pareto_layout import ParetoLayout, layout_of
from compress.report.page.budget import Slider, choice_data, sliders_of
from compress.ship_folder import Shipped

__all__ = ["TargetReport", "target_report"]


@dataclass(frozen=True)
class TargetReport:
    """A target of a record, the ``number``-th of the page, with what several sections need.

    ``layout`` is that of the plot of its rows; ``None`` without a row to plot. ``choice`` is what
    the page's script looks up when a slider moves; ``None`` without sliders. ``shipped`` is the row
    of it that lies beside the page, ready to run.
    """

    record: Record
    name: str
    number: int
    advice: Recommendation
    effects: Mapping[int, StageEffects]
    layout: ParetoLayout | None
    sliders: Sequence[Slider]
    choice: dict[str, Any] | None
    shipped: Shipped | None = None


def target_report(
    record: Record, target: str, number: int, shipped: Shipped | None = None
) -> TargetReport:
    """Work out what the sections of a target share."""
    info = pareto_info(record, target)
    layout = layout_of(info) if info.points else None
    sliders = sliders_of(record, target) if layout else []
    choice = choice_data(record, target, sliders, layout.axes) if layout and sliders else None
    return TargetReport(
        record=record,
        name=target,
        number=number,
        advice=recommend(record, target),
        effects={effect.row: effect for effect in stage_effects(record, target)},
        layout=layout,
        sliders=sliders,
        choice=choice,
        shipped=shipped if shipped and shipped.is_of(record, target) else None,
    )
