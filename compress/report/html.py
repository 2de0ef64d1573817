"""The report as one HTML page: self-contained, without scripts, legible in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from compress.pareto import Recommendation, StageEffects, recommend, stage_effects
from compress.pareto.words import duration, plain, ratio_words, score, score_change, size
from compress.record import Record, Row
from compress.report.appendix import environment_section, recipe_section, training_section
from compress.report.details import row_facts
from compress.report.markup import Picture, document, figure, scroller, text
from compress.report.provenance import device_name
from compress.report.sentences import findings, status_words
from compress.report.table import Column, columns, table_rows

__all__ = ["Picture", "Section", "combined_page", "page"]


def page(record: Record, pictures: Mapping[str, Sequence[Picture]]) -> str:
    """The report of one record; ``pictures`` are the figures of each target."""
    body = [
        _header(record),
        "<main>",
        *(
            _target_section(record, target, number, pictures.get(target, ()))
            for number, target in enumerate(record.targets, start=1)
        ),
        *([] if record.targets else [_nothing(record)]),
        training_section(record),
        environment_section(record),
        recipe_section(record),
        "</main>",
    ]
    return document(f"{plain(record.name, 80)}: compresskit report", body)


@dataclass(frozen=True)
class Section:
    """One group of comparable runs on a page of several."""

    heading: str
    sentence: str
    columns: tuple[Column, ...]
    picture: Picture


def combined_page(title: str, sections: Sequence[Section]) -> str:
    """A page of several runs, one section for each group that may be compared."""
    body = [f"<header><p class=eyebrow>compresskit report</p><h1>{text(title)}</h1></header>"]
    body.append("<main>")
    if len(sections) > 1:
        body.append(
            "<p>Devices, tasks or metrics differ, so each has a figure of its own: numbers from "
            "one section do not compare with those of another.</p>"
        )
    for section in sections:
        body += [
            f"<section><h2>{text(section.heading)}</h2><p>{text(section.sentence, 2000)}</p>",
            figure(section.picture),
            _table(section.columns, section.heading, section.columns[0].cells),
            "</section>",
        ]
    body.append("</main>")
    return document(title, body)


def _nothing(record: Record) -> str:
    said = [*status_words(record), "Nothing has been measured yet."]
    return "".join(f"<p>{text(sentence, 1000)}</p>" for sentence in said)


def _header(record: Record) -> str:
    description = record.recipe.get("description") or ""
    facts = [
        ("Status", f'<span class="status {escape(record.status)}">{escape(record.status)}</span>'),
        ("Task", f"{text(record.task.name, 60)}, {record.task.test_samples:,} test samples"),
        ("Metric", f"{text(record.task.metric, 40)}, {_direction(record)} is better"),
        ("Baseline", f"row {record.baseline}"),
        ("Seed", str(record.seed)),
    ]
    terms = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        "<header><p class=eyebrow>compresskit report</p>"
        f"<h1>{text(record.name, 120)}</h1>"
        f"<p class=lede>{text(description, 600)}</p><dl class=facts>{terms}</dl></header>"
    )


def _direction(record: Record) -> str:
    return "higher" if record.task.higher_is_better else "lower"


def _target_section(record: Record, target: str, number: int, pictures: Sequence[Picture]) -> str:
    advice = recommend(record, target)
    marks = [row.mark for row in table_rows(record, target)]
    label = f"target-{number}"
    device = text(device_name(record, target), 80)
    return "\n".join(
        [
            f'<section aria-labelledby="{label}">',
            f'<h2 id="{label}">On {text(target, 60)} <small>{device}</small></h2>',
            _answer(record, target, advice),
            *(figure(picture) for picture in pictures[:1]),
            "<h3>All rows</h3>",
            _table(columns(record, target), f"Every row on {plain(target, 60)}", marks),
            _findings(record, target, advice),
            *(figure(picture) for picture in pictures[1:]),
            "<h3>Row by row</h3>",
            *(_row_details(record, row, target) for row in record.rows),
            "</section>",
        ]
    )


def _answer(record: Record, target: str, advice: Recommendation) -> str:
    effects = {effect.row: effect for effect in stage_effects(record, target)}
    state = "met" if advice.meets_budget else "missed"
    missed = "".join(f"<li>{text(sentence)}</li>" for sentence in advice.missed)
    budget = f"<p>Budget missed:</p><ul>{missed}</ul>" if missed else ""
    return (
        f'<div class="answer {state}"><p class=verdict>{text(advice.reasons, 2000)}</p>{budget}'
        f"<dl class=tiles>{_tiles(record, effects[advice.index])}</dl></div>"
    )


def _tiles(record: Record, row: StageEffects) -> str:
    metric = record.task.metric
    shown: list[tuple[str, str, str]] = []
    for name, label, words, better, worse in (
        ("latency_p50_s", "p50 latency", duration, "faster", "slower"),
        ("artifact_bytes", "artifact", size, "smaller", "larger"),
        ("model_peak_bytes", "peak memory", size, "smaller", "larger"),
    ):
        effect = row.effects.get(name)
        if effect is not None:
            change = effect.from_baseline
            note = f"{ratio_words(change.value, better, worse)} than the baseline" if change else ""
            if change and change.value == 1:
                note = "as the baseline"
            shown.append((label, words(effect.reading.value), note))
    accuracy = row.effects.get("accuracy")
    if accuracy is not None:
        change = accuracy.from_baseline
        note = f"{score_change(metric, change.value)} against the baseline" if change else ""
        if row.row == record.baseline:
            note = "the baseline itself"
        shown.insert(0, (plain(metric, 40), score(metric, accuracy.reading.value), note))
    return "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}<small>{text(note)}</small></dd></div>"
        for label, value, note in shown
    )


def _table(shown: Sequence[Column], caption: str, marks: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col"{_align(c)}>{_heading(c)}</th>' for c in shown)
    lines = []
    for number, cells in enumerate(zip(*(column.cells for column in shown), strict=True)):
        first, *others = cells
        mark = marks[number] if number < len(marks) else ""
        classes = " ".join(name for sign, name in (("*", "base"), (">", "ship")) if sign in mark)
        rest = "".join(
            f"<td{_align(c)}>{text(cell)}</td>" for c, cell in zip(shown[1:], others, strict=True)
        )
        lines.append(f'<tr class="{classes}"><th scope="row">{text(first)}</th>{rest}</tr>')
    return (
        f"{scroller('Table')}<table>"
        f"<caption>{text(caption)}. * baseline, &gt; row to ship; intervals are 95 %."
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


def _findings(record: Record, target: str, advice: Recommendation) -> str:
    others = [sentence for sentence in findings(record, target) if sentence != advice.reasons]
    items = "".join(f"<li>{text(sentence, 1000)}</li>" for sentence in others)
    return f"<h3>Findings</h3><ul class=findings>{items}</ul>" if items else ""


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
    return f"<details><summary>{summary}</summary><dl class=details>{facts}</dl>{notes}</details>"
