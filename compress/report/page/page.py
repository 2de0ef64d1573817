"""The report as one HTML page: self-contained, legible in light and dark, whole without scripts.

A plot or a table of a record is a file with a function that gives its section, and a line of
:data:`SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from compress.formatting import sanitize
from compress.pareto import front_probabilities_on, recommend, stage_effects
from compress.record import Record, Row
from compress.report.figures.pareto_data import ParetoInfo, pareto_info
from compress.report.figures.stages_data import StagesInfo, stages_info
from compress.report.overlay import Group, combined_columns, volumes
from compress.report.page.appendix import (
    environment_section,
    operators_section,
    recipe_section,
    training_section,
    widths_section,
)
from compress.report.page.budget import choice_data, slider_form, sliders_of
from compress.report.page.details import row_facts
from compress.report.page.markers import legend
from compress.report.page.markup import data_table, document, scroller, text
from compress.report.page.plot import Plot, plot_data, plot_of, plot_svg
from compress.report.page.recommendation import recommendation_box, tiles
from compress.report.page.steps import steps_figure, steps_table
from compress.report.provenance import device_name, reference, scored_against
from compress.report.sentences import findings, status_words
from compress.report.table import columns, front_column, table_rows
from compress.text_table import Column

__all__ = ["SECTIONS", "combined_page", "page"]

#: What stands below the targets, in order: HTML of a record, empty where it has nothing to show.
SECTIONS: tuple[Callable[[Record], str], ...] = (
    training_section,
    widths_section,
    operators_section,
    environment_section,
    recipe_section,
)


def page(record: Record) -> str:
    """The report of one record."""
    sections, data = [], []
    for number, target in enumerate(record.targets):
        section, found = _target_section(record, target, number)
        sections.append(section)
        data.append(found)
    names = [f"On {sanitize(target, 60)}" for target in record.targets]
    body = [
        _header(record),
        _contents(names),
        "<main>",
        *sections,
        *([] if record.targets else [_nothing(record)]),
        *(section(record) for section in SECTIONS),
        "</main>",
    ]
    return document(f"{sanitize(record.name, 80)}: compresskit report", body, data)


def combined_page(title: str, groups: Sequence[tuple[Group, ParetoInfo]]) -> str:
    """A page of several runs, one section for each group that may be compared."""
    body = [
        f'<header><p class="eyebrow">compresskit report</p><h1>{text(title)}</h1></header>',
        _contents([group.heading for group, _ in groups]),
        "<main>",
    ]
    if len(groups) > 1:
        body.append(
            "<p>Devices, tasks, metrics or what scores are against differ, so each has a figure of "
            "its own: numbers from "
            "one section do not compare with those of another.</p>"
        )
    data: list[dict[str, Any] | None] = []
    for number, (group, info) in enumerate(groups):
        plot = plot_of(info) if info.points else None
        data.append(plot_data(plot) if plot else None)
        shown = combined_columns(group)
        body.append(
            f'<section data-plot="{number}" aria-labelledby="part-{number}">'
            f'<h2 id="part-{number}">{text(group.heading)}</h2><p>{text(info.subtitle, 2000)}</p>'
            f"{_figure(info, plot, with_choice=False)}"
            f"{_table(shown, group.heading, shown[0].cells)}"
            f"<h3>Hypervolume</h3>{_volume_table(group)}</section>"
        )
    return document(title, [*body, "</main>"], data)


def _volume_table(group: Group) -> str:
    found = volumes(group)
    lines = [
        [name, f"{v.value:.4g}", f"{v.lo:.4g} to {v.hi:.4g}"] for name, v in found.by_run.items()
    ]
    return data_table(["run", "hypervolume", "95 % interval"], lines, found.caption)


def _contents(names: Sequence[str]) -> str:
    """Links to the sections, where there are several."""
    if len(names) < 2:
        return ""
    links = "".join(
        f'<li><a href="#part-{k}">{text(name)}</a></li>' for k, name in enumerate(names)
    )
    return f'<nav aria-label="Devices and tasks"><ul>{links}</ul></nav>'


def _nothing(record: Record) -> str:
    said = [*status_words(record), "Nothing has been measured yet."]
    return "".join(f"<p>{text(sentence, 1000)}</p>" for sentence in said)


def _header(record: Record) -> str:
    description = record.recipe.get("description") or ""
    facts = [
        ("Status", f'<span class="status {escape(record.status)}">{escape(record.status)}</span>'),
        ("Task", f"{text(record.task.name, 60)}, {record.task.test_samples:,} test samples"),
        ("Metric", _metric_words(record)),
        ("Baseline", f"row {record.baseline}"),
        ("Seed", str(record.seed)),
    ]
    terms = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        '<header><p class="eyebrow">compresskit report</p>'
        f"<h1>{text(record.name, 120)}</h1>"
        f'<p class="lede">{text(description, 600)}</p><dl class="facts">{terms}</dl></header>'
    )


def _metric_words(record: Record) -> str:
    direction = "higher" if record.task.higher_is_better else "lower"
    scored = f", {text(scored_against(record), 120)}" if reference(record) else ""
    return f"{text(record.task.metric, 40)}, {direction} is better{scored}"


def _target_section(record: Record, target: str, number: int) -> tuple[str, dict[str, Any] | None]:
    """The section of one target, and what the page's script needs for it."""
    advice, info = recommend(record, target), pareto_info(record, target)
    effects = {effect.row: effect for effect in stage_effects(record, target)}
    plot = plot_of(info) if info.points else None
    sliders = sliders_of(record, target) if plot else []
    data = plot_data(plot) if plot else None
    choice = choice_data(record, target, sliders, dict(plot.axes)) if plot and sliders else None
    if data and choice:
        choice["tiles"] = [tiles(record, effects[row]) for row in choice["rows"]]
        data["choice"] = choice
    device = text(device_name(record, target), 80)
    parts = [
        f'<section data-plot="{number}" aria-labelledby="part-{number}">',
        f'<h2 id="part-{number}">On {text(target, 60)} <small>{device}</small></h2>',
        recommendation_box(record, effects[advice.index], advice),
        slider_form(sliders, number) if choice else "",
        _figure(info, plot, with_choice=bool(choice)),
        _all_rows(record, target),
        _findings(record, target, advice.reasons),
        _steps(stages_info(record, target)),
        "<h3>Row by row</h3>",
        *(_row_details(record, row, target) for row in record.rows),
        "</section>",
    ]
    return "\n".join(parts), data


def _figure(info: ParetoInfo, plot: Plot | None, *, with_choice: bool) -> str:
    """The plot with the choice of its axes, its legend and how to read it."""
    if plot is None:
        return "<p>No row has both a score and a latency, so there is nothing to plot.</p>"
    missing = " ".join(f"{words[0].upper()}{words[1:]}." for words in info.missing)
    return (
        '<figure class="trade"><form class="axes" hidden>'
        '<label>Up <select data-axis="y"></select></label>'
        '<label>Across <select data-axis="x"></select></label></form>'
        f'<div class="plot">{scroller("Figure")}{plot_svg(plot)}</div>'
        '<div class="tip" aria-hidden="true" hidden></div></div>'
        f'{legend(info, with_choice=with_choice)}<p class="absentees"></p>'
        f"<figcaption>{text(info.legend, 1000)} {text(info.caption, 1000)}."
        f" {text(missing, 1000)}</figcaption></figure>"
    )


def _all_rows(record: Record, target: str) -> str:
    shown = [
        *columns(record, target),
        front_column(record, target, front_probabilities_on(record, target)),
    ]
    marks = [row.mark for row in table_rows(record, target)]
    names = [row.row.index for row in table_rows(record, target)]
    caption = f"Every row on {sanitize(target, 60)}"
    return f"<h3>All rows</h3>{_table(shown, caption, marks, names)}"


def _steps(info: StagesInfo) -> str:
    return f"<h3>What each stage bought</h3>{steps_figure(info)}{steps_table(info)}"


def _table(
    shown: Sequence[Column], caption: str, marks: Sequence[str], names: Sequence[int] = ()
) -> str:
    heads = "".join(f'<th scope="col"{_align(c)}>{_heading(c)}</th>' for c in shown)
    lines = []
    for number, cells in enumerate(zip(*(column.cells for column in shown), strict=True)):
        first, *others = cells
        classes = " ".join(
            name for sign, name in (("*", "base"), (">", "ship")) if sign in marks[number]
        )
        row = f' data-row="{names[number]}"' if names else ""
        rest = "".join(
            f"<td{_align(c)}>{text(cell)}</td>" for c, cell in zip(shown[1:], others, strict=True)
        )
        lines.append(f'<tr class="{classes}"{row}><th scope="row">{text(first)}</th>{rest}</tr>')
    return (
        f"{scroller('Table')}<table>"
        f"<caption>{text(caption)}. * baseline, &gt; row to ship; speedup and smaller are against "
        "the baseline; intervals are 95 %."
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _heading(column: Column) -> str:
    if column.heading.endswith("-"):  # one word on two lines of a terminal
        return text(f"{column.heading[:-1]}{column.unit}")
    if not column.heading or not column.unit:
        return text(column.heading or column.unit)
    return f"{text(column.heading)}<br><small>{text(column.unit)}</small>"


def _align(column: Column) -> str:
    return ' class="left"' if column.left else ""


def _findings(record: Record, target: str, reasons: str) -> str:
    others = [sentence for sentence in findings(record, target) if sentence != reasons]
    items = "".join(f"<li>{text(sentence, 1000)}</li>" for sentence in others)
    return f'<h3>Findings</h3><ul class="findings">{items}</ul>' if items else ""


def _row_details(record: Record, row: Row, target: str) -> str:
    found = row.on(target)
    facts = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(said, 1000)}</dd></div>"
        for name, said in row_facts(record, row, target)
    )
    warnings = found.warnings if found is not None else ["Not measured."]
    items = "".join(f"<li>{text(sentence, 1000)}</li>" for sentence in (*warnings, *row.notes))
    notes = f"<ul>{items}</ul>" if items else ""
    summary = f"Row {row.index}: {text(row.stage, 80)}"
    return f'<details><summary>{summary}</summary><dl class="details">{facts}</dl>{notes}</details>'
