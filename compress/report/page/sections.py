"""What stands on the page, in order: the sections of every target, and those of the record.

A section is a template and a function that gathers what it prints. A plot more is a file in
``plots/`` with such a function, which returns a
:class:`~compress.report.page.plots.panels.PanelFigure`, and its line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from compress.record import Record
from compress.report.page.appendix import (
    environment_data,
    operators_data,
    recipe_data,
    training_data,
    widths_data,
)
from compress.report.page.details import details_data
from compress.report.page.plots.controls import controls_data
from compress.report.page.plots.pareto import pareto_data
from compress.report.page.plots.stages import steps_data
from compress.report.page.recommendation import (
    findings_data,
    recommendation_data,
    slider_data,
)
from compress.report.page.rows_table import all_rows_data
from compress.report.page.target import TargetReport

__all__ = ["RECORD_SECTIONS", "TARGET_SECTIONS", "Section", "gathered"]

Of = TypeVar("Of")


@dataclass(frozen=True)
class Section(Generic[Of]):
    """A part of the page: ``template`` prints what ``gather`` returns as ``data``.

    The part is left out where that is ``None``.
    """

    template: str
    gather: Callable[[Of], object | None]


#: What is said of every target, in this order.
TARGET_SECTIONS: tuple[Section[TargetReport], ...] = (
    Section("recommendation.html", recommendation_data),
    Section("budget.html", slider_data),
    Section("pareto.html", pareto_data),
    Section("rows.html", all_rows_data),
    Section("findings.html", findings_data),
    Section("panels.html", steps_data),
    Section("panels.html", controls_data),
    Section("details.html", details_data),
)

#: What is said of the record after its targets, in this order.
RECORD_SECTIONS: tuple[Section[Record], ...] = (
    Section("training.html", training_data),
    Section("widths.html", widths_data),
    Section("operators.html", operators_data),
    Section("environment.html", environment_data),
    Section("recipe.html", recipe_data),
)


def gathered(sections: Iterable[Section[Of]], of: Of) -> list[tuple[str, object]]:
    """Template and data of every section that has something to say."""
    found = [(section, section.gather(of)) for section in sections]
    return [(each.template, data) for each, data in found if data is not None]
