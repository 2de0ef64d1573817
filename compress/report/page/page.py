"""The report as one HTML page: self-contained, legible in light and dark, whole without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.formatting import sanitize
from compress.record import Record
from compress.report.comparison import (
    Comparison,
    combined_columns,
    difference_columns,
    volumes,
)
from compress.report.comparison_text import equal_words, legend_of
from compress.report.figures.pareto_layout import layout_of
from compress.report.overlay import Group
from compress.report.page.layers import layers_data
from compress.report.page.markup import DataTable, document
from compress.report.page.plots.pareto import figure_data, pareto_script_data
from compress.report.page.recommendation import tiles
from compress.report.page.rows_table import rows_table
from compress.report.page.sections import RECORD_SECTIONS, TARGET_SECTIONS, Section, gathered
from compress.report.page.sheet import sheet_data
from compress.report.page.target import TargetReport, target_report
from compress.report.provenance import device_name, reference, scored_against
from compress.report.sentences import status_words
from compress.ship_folder import Shipped

__all__ = ["combined_page", "page"]


def page(
    record: Record,
    of_target: Sequence[Section[TargetReport]] = TARGET_SECTIONS,
    of_record: Sequence[Section[Record]] = RECORD_SECTIONS,
    shipped: Shipped | None = None,
    folder: Path | None = None,
) -> str:
    """The report of one record: sections of each target, then those of the whole record.

    ``shipped`` is what lies beside the page, ready to run, and ``folder`` that of the run, where
    more may have been found.
    """
    names = enumerate(record.targets)
    targets = [target_report(record, target, number, shipped) for number, target in names]
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
                "sections": gathered(of_target, target),
            }
            for target in targets
        ],
        "nothing": [*status_words(record), "Nothing has been measured yet."],
        "sheet": sheet_data(record, folder) if folder is not None else None,
        "layers": layers_data(record, folder) if folder is not None else None,
        "sections": gathered(of_record, record),
    }
    title = f"{sanitize(record.name, 80)}: compresskit report"
    return document("page.html", title, content, [_script_data(target) for target in targets])


def _script_data(target: TargetReport) -> dict[str, Any] | None:
    """What the page's script needs for a target; ``None`` where nothing is plotted."""
    if target.layout is None:
        return None
    data = pareto_script_data(target.layout)
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


def combined_page(found: Comparison) -> str:
    """A page of several runs: what tells them apart, then a section for each group."""
    parts: list[dict[str, object]] = []
    data: list[dict[str, Any] | None] = []
    for each in found.groups:
        layout = layout_of(each.info) if each.info.points else None
        data.append(pareto_script_data(layout) if layout else None)
        shown = combined_columns(each.group, each.chosen)
        parts.append(
            {
                "heading": each.group.heading,
                "winners": each.winners,
                "subtitle": each.info.subtitle,
                "figure": figure_data(layout, with_sliders=False),
                "rows": rows_table(
                    shown, each.group.heading, marks=shown[1].cells, legend=legend_of(each)
                ),
                "volumes": _volume_table(each.group),
            }
        )
    content = {
        "names": [each.group.heading for each in found.groups],
        "groups": parts,
        "runs": found.names,
        "differences": _difference_table(found),
        "notes": found.notes,
    }
    return document("combined.html", found.title, content, data)


def _difference_table(found: Comparison) -> DataTable:
    first, *others = difference_columns(found)
    lines = [list(cells) for cells in zip(first.cells, *(c.cells for c in others), strict=True)]
    caption = "What tells the runs apart" if lines else equal_words(found)
    return DataTable(["key", *(column.heading for column in others)], lines, caption)


def _volume_table(group: Group) -> DataTable:
    found = volumes(group)
    lines = [
        [name, f"{v.value:.4g}", f"{v.lo:.4g} to {v.hi:.4g}"] for name, v in found.by_run.items()
    ]
    return DataTable(["run", "hypervolume", "95 % interval"], lines, found.caption)
