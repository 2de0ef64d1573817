"""The page of a repeated run: each row's seeds as dots with both intervals, tables, sentences."""

from __future__ import annotations

from pathlib import Path

from compress.formatting import sanitize, score, score_change
from compress.io.atomic import write_atomically
from compress.metrics import is_rate
from compress.overwriting import check_report
from compress.report.page.markers import color_class
from compress.report.page.markup import data_table, document, text
from compress.report.repeat.facts import REPEAT_NAME, Repeat, RepeatedRow, Spread
from compress.report.repeat.table import (
    LEGEND,
    repeat_columns,
    repeat_markdown,
    repeat_sentences,
)

__all__ = ["repeat_page", "write_repeat"]

# In pixels, for a phone's width.
_WIDTH, _LINE, _TOP, _BOTTOM = 460, 32, 8, 24
_LEFT, _RIGHT = 120, 390  # between these are the scores
_DOT = 4


def write_repeat(repeat: Repeat, folder: Path) -> list[Path]:
    """Write ``repeat.json``, ``repeat.md`` and ``repeat.html``; returns them, the page first.

    Raises:
        RecipeError: a file of such a name is there that is no part of a report; nothing is written.
        StorageError: the disk refused; files that were there before are intact.
    """
    check_report(folder)
    repeat.save(folder)
    files = {
        "repeat.html": repeat_page(repeat),
        "repeat.md": "\n".join(repeat_markdown(repeat, target) for target in repeat.targets),
    }
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in (*files, REPEAT_NAME)]


def repeat_page(repeat: Repeat) -> str:
    """One self-contained page; the runs' own reports are linked beside it."""
    seeds = ", ".join(map(str, repeat.seeds))
    facts = [
        ("Seeds", seeds),
        ("Task", f"{sanitize(repeat.task.name, 60)}, {repeat.task.test_samples:,} test samples"),
        ("Metric", f"{sanitize(repeat.task.metric, 40)}, {_direction(repeat)} is better"),
        ("Baseline", f"row {repeat.baseline}"),
    ]
    terms = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    links = "".join(
        f'<li><a href="seed-{seed}/report.html">report of seed {seed}</a></li>'
        for seed in repeat.seeds
    )
    head = (
        '<header><p class="eyebrow">compresskit report, over seeds</p>'
        f"<h1>{text(repeat.name, 120)}</h1>"
        f'<p class="lede">{text(repeat.recipe.get("description") or "", 600)}</p>'
        f'<dl class="facts">{terms}</dl></header>'
    )
    body = [
        head,
        "<main>",
        *(_section(repeat, target) for target in repeat.targets),
        f"<h2>Runs</h2><ul>{links}</ul>",
        "</main>",
    ]
    return document(f"{sanitize(repeat.name, 80)}: compresskit over seeds", body)


def _direction(repeat: Repeat) -> str:
    return "higher" if repeat.task.higher_is_better else "lower"


def _section(repeat: Repeat, target: str) -> str:
    columns = repeat_columns(repeat, target)
    heads = [f"{c.heading} {c.unit}".strip() for c in columns]
    lines = [list(cells) for cells in zip(*(c.cells for c in columns), strict=True)]
    items = "".join(f"<li>{text(said, 1000)}</li>" for said in repeat_sentences(repeat, target))
    return (
        f"<section><h2>On {text(target, 60)}</h2>{_figure(repeat, target)}"
        f"{data_table(heads, lines, f'* baseline. {LEGEND}')}"
        f'<h3>Findings</h3><ul class="findings">{items}</ul>'
        f"<h3>Every run</h3>{_runs(repeat, target)}</section>"
    )


def _runs(repeat: Repeat, target: str) -> str:
    """The runs' own scores, each with its own interval."""
    metric, lines = repeat.task.metric, []
    for row, found in _scored(repeat, target):
        cells = [score(metric, value) for value in found.values]
        for k, (low, high) in enumerate(found.own_ci95 or ()):
            cells[k] += f" [{score(metric, low)}, {score(metric, high)}]"
        lines.append([f"{row.index} {sanitize(row.stage, 40)}", *cells, _sd(metric, found)])
    heads = ["row", *(f"seed {seed}" for seed in repeat.seeds), "standard deviation"]
    caption = f"{sanitize(repeat.task.metric, 40)} of each run with its own 95 % interval."
    return data_table(heads, lines, caption)


def _sd(metric: str, found: Spread) -> str:
    return score_change(metric, found.sd_seeds).lstrip("+")


def _scored(repeat: Repeat, target: str) -> list[tuple[RepeatedRow, Spread]]:
    found = [(row, row.on(target)) for row in repeat.rows]
    return [(row, m.score) for row, m in found if m is not None and m.score is not None]


def _figure(repeat: Repeat, target: str) -> str:
    """Rows from the baseline on: what comes before it is mostly not trained."""
    shown = [each for each in _scored(repeat, target) if each[0].index >= repeat.baseline]
    if not shown:
        return "<p>No row has a score from every seed, so there is nothing to plot.</p>"
    ends = [end for _, s in shown for end in (*s.values, *s.ci95_seeds, *(s.ci95 or ()))]
    low, high = min(ends), max(ends)
    slack = 0.04 * (high - low) or 0.5 * (abs(high) or 1.0)
    low, high = low - slack, high + slack
    if is_rate(repeat.task.metric):  # Student's interval may reach beyond
        low, high = max(low, 0.0), min(high, 1.0)
    height = _TOP + _LINE * len(shown) + _BOTTOM
    metric = repeat.task.metric
    said = "; ".join(f"row {row.index} {row.stage} {score(metric, s.mean)}" for row, s in shown)
    strips = "".join(
        _strip(row, found, place, metric, (low, high)) for place, (row, found) in enumerate(shown)
    )
    axis = (
        f'<path class="link" d="M{_LEFT},{height - _BOTTOM}H{_RIGHT}"/>'
        f'<text x="{_LEFT}" y="{height - 7}">{text(score(metric, low))}</text>'
        f'<text class="end" x="{_RIGHT}" y="{height - 7}">{text(score(metric, high))}</text>'
    )
    return (
        f'<figure><svg class="step" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{text(f"{metric} over seeds: {said}", 2000)}">{strips}{axis}</svg>'
        "<figcaption>A dot is a run. The box is the 95 % interval over trainings, the line that "
        "over trainings and test samples; the tick between is the mean.</figcaption></figure>"
    )


def _strip(
    row: RepeatedRow, found: Spread, place: int, metric: str, scale: tuple[float, float]
) -> str:
    y = _TOP + _LINE * place + _LINE // 2

    def across(value: float) -> float:
        share = (value - scale[0]) / (scale[1] - scale[0])
        return _LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT)

    start, end = map(across, found.ci95_seeds)
    mean = across(found.mean)
    name, width = text(f"{row.index} {row.stage}", 18), max(end - start, 0.5)
    parts = [
        f'<text class="end" x="{_LEFT - 12}" y="{y + 4}">{name}</text>',
        f'<rect class="bar" x="{start:.1f}" y="{y - 8}" width="{width:.1f}" height="16"/>',
    ]
    if found.ci95:
        parts.append(
            f'<path class="bars" d="M{across(found.ci95[0]):.1f},{y}H{across(found.ci95[1]):.1f}"/>'
        )
    parts.append(f'<path class="bars" d="M{mean:.1f},{y - 9}V{y + 9}"/>')
    look = color_class(row.kind)
    parts += [
        f'<circle class="mark {look}" cx="{across(value):.1f}" cy="{y}" r="{_DOT}"/>'
        for value in found.values
    ]
    parts.append(f'<text x="{_RIGHT + 12}" y="{y + 4}">{text(score(metric, found.mean))}</text>')
    return "".join(parts)
