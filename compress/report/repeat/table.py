"""The table of a repeated run, for the terminal and as Markdown, and what it says in sentences."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence

from compress.formatting import (
    decimals_for,
    sanitize,
    score,
    score_cell,
    score_change,
    score_interval,
)
from compress.measure.quantities import QUANTITIES
from compress.metrics import change_unit, is_rate, metric_unit, most
from compress.report.repeat.facts import (
    Choice,
    Ends,
    Range,
    Repeat,
    RepeatedMeasurement,
    RepeatedRow,
    Spread,
)
from compress.report.repeat.summary import outside
from compress.text_table import (
    Column,
    in_ascii,
    markdown_list,
    markdown_table,
    text_lines,
    wrapped,
)

__all__ = ["LEGEND", "repeat_columns", "repeat_markdown", "repeat_sentences", "repeat_text"]

LEGEND = (
    "Means over the seeds. [both]: another training and another test sample, 95 %. Of that, ± "
    "training: another training, this test sample (Student's t over the seeds); ± sample: another "
    "test sample, these trainings (the mean of the runs' own intervals). Changes are to the "
    "baseline, within each run; speedup and file are ranges."
)
_ABSENT = "-"
_WIDTH = 100


def repeat_columns(repeat: Repeat, target: str) -> list[Column]:
    """The table's columns; ``*`` marks the baseline."""
    metric, found = repeat.task.metric, [row.on(target) for row in repeat.rows]
    scores = [m.score if m else None for m in found]
    changes = [m.change if m else None for m in found]
    speedups = [m.speedup if m else None for m in found]
    sizes = [m.artifact_bytes if m else None for m in found]
    names = [f"{r.index}{'*' if r.index == repeat.baseline else ''}" for r in repeat.rows]
    stages = [sanitize(row.stage, 24) for row in repeat.rows]
    units = (metric_unit(metric), change_unit(metric))
    percent, points = (f"{unit} " if unit else "" for unit in units)
    return [
        Column("row", "", tuple(names), left=True),
        Column("stage", "", tuple(stages), left=True),
        Column(sanitize(metric, 24), f"{percent}[both]", tuple(_score(metric, s) for s in scores)),
        Column("± 95 %", "training", _halves(metric, scores, "ci95_seeds"), spare=1),
        Column("± 95 %", "sample", _halves(metric, scores, "ci95_sample"), spare=2),
        Column("change", f"{points}[both]", tuple(_change(metric, c) for c in changes)),
        Column("speedup", "x", tuple(_ratio(s) for s in speedups), spare=3),
        Column("file", "KiB", tuple(_kib(s) for s in sizes), spare=4),
        *_declared(found),
    ]


def _declared(found: Sequence[RepeatedMeasurement | None]) -> Iterator[Column]:
    """A column of ranges for each quantity that the runs keep by name."""
    for quantity in QUANTITIES:
        ranges = [m.quantities.get(quantity.name) if m else None for m in found]
        if quantity.column is not None and any(ranges):
            shown = quantity.column.cell or quantity.unit.shown
            cells = tuple(
                "–".join(dict.fromkeys(map(shown, (each.low, each.high)))) if each else _ABSENT
                for each in ranges
            )
            yield Column(quantity.column.heading, quantity.column.unit, cells, spare=5)


def _score(metric: str, found: Spread | None) -> str:
    if found is None:
        return _ABSENT
    if found.ci95 is None:
        return score(metric, found.mean).removesuffix(f" {metric_unit(metric)}")
    low, high = found.ci95  # Student's may be beyond what there is
    if is_rate(metric):
        low = max(low, 0.0)
    return score_cell(metric, found.mean, low, min(high, most(metric) or high))


def _halves(metric: str, scores: Sequence[Spread | None], name: str) -> tuple[str, ...]:
    """Each score's interval of that name from its mean: ``±0.42``, or ``−0.61/+0.30``."""
    return tuple(_half(metric, s.mean, getattr(s, name)) if s else _ABSENT for s in scores)


def _half(metric: str, mean: float, ends: Ends | None) -> str:
    if ends is None:
        return _ABSENT
    changes = (score_change(metric, abs(end - mean)) for end in ends)
    down, up = (text.removesuffix(f" {change_unit(metric)}").lstrip("+") for text in changes)
    return f"±{up}" if down == up else f"−{down}/+{up}"


def _change(metric: str, found: Spread | None) -> str:
    if found is None:
        return _ABSENT
    ends = f" {score_interval(metric, *found.ci95)}" if found.ci95 else ""
    return f"{score_change(metric, found.mean).removesuffix(f' {change_unit(metric)}')}{ends}"


def _ratio(found: Range | None) -> str:
    return _ABSENT if found is None else _ends(found.low, found.high, decimals_for(found.high))


def _kib(found: Range | None) -> str:
    return _ABSENT if found is None else _ends(found.low / 1024, found.high / 1024, 1)


def _ends(low: float, high: float, decimals: int) -> str:
    shown = [f"{end:,.{decimals}f}" for end in (low, high)]
    return "–".join(dict.fromkeys(shown))


# -- sentences --------------------------------------------------------------------------------


def repeat_sentences(repeat: Repeat, target: str) -> list[str]:
    """What the table says of the recipe, and what it cannot say."""
    said = [*_shown(repeat, target), *_misled(repeat, target)]
    said += [_ship(choice, repeat) for choice in repeat.choices if choice.target == target]
    same = [row for row in repeat.rows if row.same_model]
    if same:
        words = f"Row{'s' if len(same) > 1 else ''} {_listed(row.index for row in same)}"
        said.append(f"{words}: the same model with every seed, so nothing of training is in it.")
    if len(repeat.seeds) == 2:
        said.append(
            "Two seeds say little: their interval takes 12.7 standard errors, that of three takes "
            "4.3, that of five 2.8."
        )
    said += [
        f"Seed {each.seed} failed and is in no number here, which may flatter the recipe: "
        f"{sanitize(each.error, 400)}"
        for each in repeat.failed
    ]
    return said


def _shown(repeat: Repeat, target: str) -> Iterable[str]:
    """Which rows differ from the baseline, over trainings and test samples."""
    better = 1 if repeat.task.higher_is_better else -1
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for row in repeat.rows:
        found = _change_of(row, target)
        if found is not None and found.ci95 is not None and row.index > repeat.baseline:
            groups[better * outside(found.ci95)].append(f"{row.index} ({sanitize(row.stage, 24)})")
    words = {1: "shown to be better", -1: "shown to be worse", 0: "not shown to differ"}
    parts = [
        f"{'rows' if len(rows) > 1 else 'row'} {_listed(rows)} {'are' if len(rows) > 1 else 'is'} "
        f"{words[sign]}"
        for sign, rows in groups.items()
        if rows
    ]
    if parts:
        joined = "; ".join(parts)
        yield (
            f"Against baseline row {repeat.baseline}, over trainings and test samples: {joined}."
        )


def _misled(repeat: Repeat, target: str) -> Iterable[str]:
    """Rows of which a single run would have said more than all of them can."""
    for row in repeat.rows:
        found = _change_of(row, target)
        if found is None or found.own_ci95 is None or outside(found.ci95):
            continue
        sure = [
            seed for seed, own in zip(repeat.seeds, found.own_ci95, strict=True) if outside(own)
        ]
        if sure and row.index > repeat.baseline:
            yield (
                f"Row {row.index} ({sanitize(row.stage, 24)}): with {_seeds(sure)}, a run alone "
                "shows a difference to the baseline; all runs together show none."
            )


def _change_of(row: RepeatedRow, target: str) -> Spread | None:
    found = row.on(target)
    return found.change if found else None


def _ship(choice: Choice, repeat: Repeat) -> str:
    by_row: dict[int, list[int]] = {}
    for row, seed in zip(choice.rows, repeat.seeds, strict=True):
        by_row.setdefault(row, []).append(seed)
    if len(by_row) == 1:
        words = f"Every run says to ship row {choice.rows[0]}"
    else:
        parts = [f"row {row} with {_seeds(seeds)}" for row, seeds in sorted(by_row.items())]
        words = f"The runs say to ship {', '.join(parts)}"
    if not repeat.recipe.get("budget"):
        return f"{words}."
    missed = [seed for seed, met in zip(repeat.seeds, choice.meets_budget, strict=True) if not met]
    return f"{words}; the budget is {f'missed with {_seeds(missed)}' if missed else 'met by all'}."


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {_listed(seeds)}"


def _listed(items: Iterable[object]) -> str:
    *others, last = map(str, items)
    return f"{', '.join(others)} and {last}" if others else last


# -- as text ----------------------------------------------------------------------------------


def repeat_text(repeat: Repeat, *, width: int | None = None, encoding: str | None = None) -> str:
    """Every target's table for the terminal at hand: its width, at most 100, and its encoding."""
    at_hand = shutil.get_terminal_size(fallback=(_WIDTH, 24)).columns
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "ascii"
    ascii_only = not encoding.lower().startswith("utf")
    show = in_ascii if ascii_only else str
    width = max(40, min(width or at_hand, _WIDTH))
    blocks = []
    for target in repeat.targets:
        title = f"{sanitize(repeat.name, 60)} on {sanitize(target, 30)}, {_seeds(repeat.seeds)}"
        shown = repeat_columns(repeat, target)
        columns = [column.in_ascii() for column in shown] if ascii_only else shown
        lines = [
            *wrapped(show(title), width),
            "",
            *text_lines(columns, width=width),
            "* baseline",
            "",
        ]
        for sentence in (LEGEND, "", *repeat_sentences(repeat, target)):
            lines += map(show, wrapped(show(sentence), width))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def repeat_markdown(repeat: Repeat, target: str) -> str:
    """The table as GitHub Markdown, followed by its sentences as a list."""
    said = [f"{sanitize(repeat.name, 60)} on {sanitize(target, 30)}, {_seeds(repeat.seeds)}."]
    said += [LEGEND, *repeat_sentences(repeat, target)]
    return f"{markdown_table(repeat_columns(repeat, target))}\n{markdown_list(said)}"
