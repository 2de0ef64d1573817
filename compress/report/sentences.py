"""What a table cannot say: the front, ties, warnings, the budget and the row to ship, in words.

The same sentences stand below the terminal's table and at the top of the HTML report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from compress.formatting import sanitize, times
from compress.measure.quantities import quantities_of
from compress.pareto import FRONT_OBJECTIVES, front_facts, int8_slowdowns, recommend
from compress.record import FrontFacts, Record
from compress.report.provenance import scored_against
from compress.report.serving_words import serving_words
from compress.report.step_words import step_words

__all__ = [
    "budget_words",
    "findings",
    "front_words",
    "reference_words",
    "rows_words",
    "status_words",
    "tie_words",
    "warning_words",
]

_TIES_SHOWN = 6
_SAME_SIZE = 1.005
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def findings(record: Record, target: str) -> list[str]:
    """All sentences about one target, the row to ship first."""
    facts = front_facts(record, target)
    return [
        *status_words(record),
        recommend(record, target).reasons,
        *budget_words(record, target),
        *reference_words(record),
        *serving_words(record, target),
        *step_words(record, target),
        *int8_slowdowns(record, target).values(),
        *front_words(record, facts),
        *tie_words(record, target, facts),
        *warning_words(record, target),
    ]


def status_words(record: Record) -> Iterator[str]:
    """Nothing for a run that is done; otherwise what became of it."""
    if record.status == "done":
        return
    reason = f": {sanitize(record.error, 400)}" if record.error else ""
    words = {"failed": "The run failed", "interrupted": "The run was interrupted"}
    still = words.get(record.status, "The run is still going")
    yield f"{still}{reason.rstrip('.')}. What was measured before that is below."


def budget_words(record: Record, target: str) -> Iterator[str]:
    """Whether the recommended row is within the budget, and of each miss by how much."""
    advice = recommend(record, target)
    if record.budget is None:
        return
    if advice.meets_budget:
        yield f"Budget: met by row {advice.index}."
    else:
        yield f"Budget: missed by every row; row {advice.index}: {'; '.join(advice.missed)}."


def reference_words(record: Record) -> Iterator[str]:
    """What the metric means where there are no labels."""
    if scored := scored_against(record):
        yield f"Metric: {sanitize(record.task.metric, 40)} is {scored}, and not against labels."


def front_words(record: Record, facts: FrontFacts) -> Iterator[str]:
    """Which rows are on the front, in which objectives."""
    if not facts.front:
        return
    titles = {quantity.name: quantity.title for quantity in quantities_of(record.task)}
    names = [titles.get(name, sanitize(name, 40)) for name in facts.objectives]
    beaten = "" if set(facts.objectives) == set(FRONT_OBJECTIVES) else "; the rest was not measured"
    yield (
        f"Front ({', '.join(names)}{beaten}): {rows_words(facts.front)}; "
        "a row leaves it only when another is shown to be better and no worse."
    )


def tie_words(record: Record, target: str, facts: FrontFacts) -> Iterator[str]:
    """Which rows cannot be told apart, and in what; of many ties only the first rows'."""
    tied: dict[int, list[int]] = {}
    for a, b in facts.ties:
        tied.setdefault(a, []).append(b)
    names = {"accuracy": sanitize(record.task.metric, 40), "latency_p50_s": "speed"}
    measured = " and ".join(names[name] for name in facts.objectives if name in names)
    for row in list(tied)[:_TIES_SHOWN]:
        others = rows_words(tied[row])
        sizes = _sizes_words(record, target, [row, *tied[row]])
        yield f"Tie: what was measured cannot tell row {row} from {others} in {measured}{sizes}."
    if len(tied) > _TIES_SHOWN:
        left = sum(len(others) for others in list(tied.values())[_TIES_SHOWN:])
        yield f"Tie: {left} more pairs, all in record.json."


def _sizes_words(record: Record, target: str, rows: Sequence[int]) -> str:
    """Which of some rows has the smallest file, where they differ."""
    sizes = {
        row.index: found.artifact.bytes
        for row in record.rows
        if row.index in rows and (found := row.on(target)) is not None
    }
    least, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if not sizes[least] or sizes[largest] / sizes[least] < _SAME_SIZE:
        return ""
    ratio = times(sizes[largest] / sizes[least])
    if len(rows) == 2:
        return f"; the file of row {least} is {ratio} smaller"
    return f"; the smallest file is that of row {least}, {ratio} smaller than that of row {largest}"


def warning_words(record: Record, target: str) -> Iterator[str]:
    """Warnings of measurements and notes of stages, those that differ only in numbers as one."""
    alike: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for row in record.rows:
        found = row.on(target)
        said = [("Warning", text) for text in (found.warnings if found is not None else ())]
        for kind, text in [*said, *(("Note", text) for text in row.notes)]:
            key = kind, _NUMBER.sub("#", text)
            alike.setdefault(key, []).append((row.index, sanitize(text, 400)))
    for (kind, _), texts in alike.items():
        rows = list(dict.fromkeys(row for row, _ in texts))
        most, text = _most(texts)
        numbers = f" (most in row {most})" if len({text for _, text in texts}) > 1 else ""
        yield f"{kind}, {rows_words(rows)}{numbers}: {text}"


def _most(texts: Sequence[tuple[int, str]]) -> tuple[int, str]:
    """Of rows whose texts differ in numbers alone, the one with the largest where they first do."""
    numbers = [[float(found) for found in _NUMBER.findall(text)] for _, text in texts]
    differing = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return texts[differing[0].index(max(differing[0]))] if differing else texts[0]


def rows_words(rows: Sequence[int]) -> str:
    """``row 2`` or ``rows 1, 2 and 4``."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    return f"rows {', '.join(map(str, rows[:-1]))} and {rows[-1]}"
