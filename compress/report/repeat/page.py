"""The page of a repeated run: each row's seeds as dots with both intervals, tables, sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from compress.formatting import sanitize, score, score_change
from compress.io.atomic import write_atomically
from compress.metrics import is_rate
from compress.overwriting import check_report
from compress.report.figures.markers import color_of
from compress.report.page.markup import DataTable, Markup, document, element
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
    task = repeat.task
    direction = "higher" if task.higher_is_better else "lower"
    content = {
        "name": repeat.name,
        "description": repeat.recipe.get("description") or "",
        "facts": [
            ("Seeds", ", ".join(map(str, repeat.seeds))),
            ("Task", f"{sanitize(task.name, 60)}, {task.test_samples:,} test samples"),
            ("Metric", f"{sanitize(task.metric, 40)}, {direction} is better"),
            ("Baseline", f"row {repeat.baseline}"),
        ],
        "targets": [_target(repeat, target) for target in repeat.targets],
        "seeds": repeat.seeds,
    }
    return document("repeat.html", f"{sanitize(repeat.name, 80)}: compresskit over seeds", content)


def _target(repeat: Repeat, target: str) -> dict[str, object]:
    """What the section of one target prints."""
    columns = repeat_columns(repeat, target)
    heads = [f"{c.heading} {c.unit}".strip() for c in columns]
    lines = [list(cells) for cells in zip(*(c.cells for c in columns), strict=True)]
    return {
        "name": target,
        "drawing": _drawing(repeat, target),
        "rows": DataTable(heads, lines, f"* baseline. {LEGEND}"),
        "findings": repeat_sentences(repeat, target),
        "runs": _runs(repeat, target),
    }


def _runs(repeat: Repeat, target: str) -> DataTable:
    """The runs' own scores, each with its own interval."""
    metric, lines = repeat.task.metric, []
    for row, found in _scored(repeat, target):
        cells = [score(metric, value) for value in found.values]
        for k, (low, high) in enumerate(found.own_ci95 or ()):
            cells[k] += f" [{score(metric, low)}, {score(metric, high)}]"
        lines.append([f"{row.index} {sanitize(row.stage, 40)}", *cells, _sd(metric, found)])
    heads = ["row", *(f"seed {seed}" for seed in repeat.seeds), "standard deviation"]
    caption = f"{sanitize(repeat.task.metric, 40)} of each run with its own 95 % interval."
    return DataTable(heads, lines, caption)


def _sd(metric: str, found: Spread) -> str:
    return score_change(metric, found.sd_seeds).lstrip("+")


def _scored(repeat: Repeat, target: str) -> list[tuple[RepeatedRow, Spread]]:
    found = [(row, row.on(target)) for row in repeat.rows]
    return [(row, m.score) for row, m in found if m is not None and m.score is not None]


def _drawing(repeat: Repeat, target: str) -> Markup | None:
    """Rows from the baseline on: what comes before it is mostly not trained."""
    shown = [each for each in _scored(repeat, target) if each[0].index >= repeat.baseline]
    if not shown:
        return None
    metric = repeat.task.metric
    low, high = _scale(metric, [spread for _, spread in shown])
    height = _TOP + _LINE * len(shown) + _BOTTOM
    said = "; ".join(f"row {row.index} {row.stage} {score(metric, s.mean)}" for row, s in shown)
    parts: list[Markup] = []
    for place, (row, found) in enumerate(shown):
        parts += _strip(row, found, place, metric, (low, high))
    ends = {"class": "link", "d": f"M{_LEFT},{height - _BOTTOM}H{_RIGHT}"}
    frame = {
        "class": "step",
        "viewBox": f"0 0 {_WIDTH} {height}",
        "role": "img",
        "aria-label": sanitize(f"{metric} over seeds: {said}", 2000),
    }
    return element(
        "svg",
        frame,
        *parts,
        element("path", ends),
        element("text", {"x": _LEFT, "y": height - 7}, score(metric, low)),
        element("text", {"class": "end", "x": _RIGHT, "y": height - 7}, score(metric, high)),
    )


def _scale(metric: str, spreads: Sequence[Spread]) -> tuple[float, float]:
    """The ends of the axis, with some space around every score and interval."""
    ends = [end for s in spreads for end in (*s.values, *s.ci95_seeds, *(s.ci95 or ()))]
    low, high = min(ends), max(ends)
    slack = 0.04 * (high - low) or 0.5 * (abs(high) or 1.0)
    low, high = low - slack, high + slack
    if is_rate(metric):  # Student's interval may reach beyond
        low, high = max(low, 0.0), min(high, 1.0)
    return low, high


def _strip(
    row: RepeatedRow, found: Spread, place: int, metric: str, scale: tuple[float, float]
) -> Iterator[Markup]:
    """One row's runs as dots, with both intervals and the mean."""
    y = _TOP + _LINE * place + _LINE // 2

    def across(value: float) -> float:
        share = (value - scale[0]) / (scale[1] - scale[0])
        return _LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT)

    start, end = map(across, found.ci95_seeds)
    name = sanitize(f"{row.index} {row.stage}", 18)
    yield element("text", {"class": "end", "x": _LEFT - 12, "y": y + 4}, name)
    box = {"x": f"{start:.1f}", "y": y - 8, "width": f"{max(end - start, 0.5):.1f}", "height": 16}
    yield element("rect", {"class": "bar", **box})
    if found.ci95:
        low, high = map(across, found.ci95)
        yield element("path", {"class": "bars", "d": f"M{low:.1f},{y}H{high:.1f}"})
    yield element("path", {"class": "bars", "d": f"M{across(found.mean):.1f},{y - 9}V{y + 9}"})
    look = f"mark {color_of(row.kind)}"
    for value in found.values:
        yield element("circle", {"class": look, "cx": f"{across(value):.1f}", "cy": y, "r": _DOT})
    yield element("text", {"x": _RIGHT + 12, "y": y + 4}, score(metric, found.mean))
