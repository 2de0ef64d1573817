"""The report as one HTML page: self-contained, legible in light and dark, whole without scripts.

A section is a template and a function that gathers what it prints, put into one of the tuples
below. A plot more is a file with such a function, which returns a
:class:`~compress.report.page.panels.PanelFigure`, and its line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from compress.formatting import sanitize
from compress.record import Record
from compress.report.figures.pareto_data import ParetoInfo
from compress.report.overlay import Group, combined_columns, volumes
from compress.report.page.appendix import (
    environment_data,
    operators_data,
    recipe_data,
    training_data,
    widths_data,
)
from compress.report.page.details import details_data
from compress.report.page.markup import DataTable, document
from compress.report.page.pareto import figure_data, pareto_data, slider_data
from compress.report.page.plot import plot_data, plot_of
from compress.report.page.recommendation import findings_data, recommendation_data, tiles
from compress.report.page.rows_table import all_rows_data, rows_table
from compress.report.page.steps import steps_data
from compress.report.page.target import TargetReport, target_report
from compress.report.provenance import device_name, reference, scored_against
from compress.report.sentences import status_words

__all__ = ["RECORD_SECTIONS", "TARGET_SECTIONS", "Section", "combined_page", "page"]

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


def page(
    record: Record,
    of_target: Sequence[Section[TargetReport]] = TARGET_SECTIONS,
    of_record: Sequence[Section[Record]] = RECORD_SECTIONS,
) -> str:
    """The report of one record: sections of each target, then those of the whole record."""
    targets = [target_report(record, target, k) for k, target in enumerate(record.targets)]
    content = {
        "name": record.name,
        "description": record.recipe.get("description") or "",
        "status": record.status,
        "facts": _facts(record),
        "names": [f"On {sanitize(target.name, 60)}" for target in targets],
        "targets": [
            {
                "name": target.name,
                "device": device_name(record, target.name),
                "sections": _gathered(of_target, target),
            }
            for target in targets
        ],
        "nothing": [*status_words(record), "Nothing has been measured yet."],
        "sections": _gathered(of_record, record),
    }
    title = f"{sanitize(record.name, 80)}: compresskit report"
    return document("page.html", title, content, [_script_data(target) for target in targets])


def _gathered(sections: Iterable[Section[Of]], of: Of) -> list[tuple[str, object]]:
    """Template and data of every section that has something to say."""
    found = [(section, section.gather(of)) for section in sections]
    return [(each.template, data) for each, data in found if data is not None]


def _script_data(target: TargetReport) -> dict[str, Any] | None:
    """What the page's script needs for a target; ``None`` where nothing is plotted."""
    if target.plot is None:
        return None
    data = plot_data(target.plot)
    if target.choice is None:
        return data
    shown = [tiles(target.record, target.effects[row]) for row in target.choice["rows"]]
    return {**data, "choice": {**target.choice, "tiles": shown}}


def _facts(record: Record) -> list[tuple[str, str]]:
    return [
        ("Task", f"{sanitize(record.task.name, 60)}, {record.task.test_samples:,} test samples"),
        ("Metric", _metric_words(record)),
        ("Baseline", f"row {record.baseline}"),
        ("Seed", str(record.seed)),
    ]


def _metric_words(record: Record) -> str:
    direction = "higher" if record.task.higher_is_better else "lower"
    scored = f", {sanitize(scored_against(record), 120)}" if reference(record) else ""
    return f"{sanitize(record.task.metric, 40)}, {direction} is better{scored}"


def combined_page(title: str, groups: Sequence[tuple[Group, ParetoInfo]]) -> str:
    """A page of several runs, one section for each group that may be compared."""
    parts: list[dict[str, object]] = []
    data: list[dict[str, Any] | None] = []
    for group, info in groups:
        plot = plot_of(info) if info.points else None
        data.append(plot_data(plot) if plot else None)
        shown = combined_columns(group)
        parts.append(
            {
                "heading": group.heading,
                "subtitle": info.subtitle,
                "figure": figure_data(plot, with_choice=False),
                "rows": rows_table(shown, group.heading, shown[0].cells),
                "volumes": _volume_table(group),
            }
        )
    names = [group.heading for group, _ in groups]
    return document("combined.html", title, {"names": names, "groups": parts}, data)


def _volume_table(group: Group) -> DataTable:
    found = volumes(group)
    lines = [
        [name, f"{v.value:.4g}", f"{v.lo:.4g} to {v.hi:.4g}"] for name, v in found.by_run.items()
    ]
    return DataTable(["run", "hypervolume", "95 % interval"], lines, found.caption)
