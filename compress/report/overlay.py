"""Several records in one figure and one table, for ``compresskit report A B ...``.

Rows of different runs share no rounds and no baseline, so they are compared by each row's own
intervals; and only where device, task and metric are the same: anything else gets its own figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.formatting import sanitize
from compress.measure.quantities import quantities_of
from compress.pareto import (
    FRONT_OBJECTIVES,
    FrontPoint,
    Objective,
    Reading,
    Volume,
    contenders,
    front,
    front_probabilities,
    objectives,
    reference_point,
    ties,
    unpaired,
    volume,
)
from compress.record import Record, Row
from compress.report.figures.pareto_data import ParetoInfo, mark_off_scale, plot_point
from compress.report.provenance import caption, device_id, device_name, reference, scored_against
from compress.report.sentences import rows_words
from compress.report.table import columns, fastest_s, measured_names
from compress.text_table import Column, markdown_list, markdown_table

__all__ = [
    "Group",
    "OverlaidRun",
    "Volumes",
    "combined_columns",
    "combined_markdown",
    "groups",
    "overlay_info",
    "volumes",
]

_NAME = 22  # fits beside its letter in the legend
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class OverlaidRun:
    """One run on one target; ``name`` is unique among the runs given."""

    name: str
    record: Record
    target: str


@dataclass(frozen=True)
class Group:
    """Runs that may be compared. ``slug`` tells its files from those of other groups."""

    heading: str
    slug: str
    members: tuple[OverlaidRun, ...]


@dataclass(frozen=True)
class Volumes:
    """The hypervolume of every run of a group, up to one reference point that they share."""

    by_run: dict[str, Volume]
    caption: str


@dataclass(frozen=True)
class _OverlaidRow:
    """One row of one member, by its own intervals; ``place`` counts members."""

    place: int
    row: Row
    readings: Mapping[str, Reading]
    is_baseline: bool

    @property
    def label(self) -> str:
        return f"{_letter(self.place)}/{self.row.index} {sanitize(self.row.stage, 20)}"


def groups(records: Sequence[Record]) -> list[Group]:
    """What may be drawn together, in order of appearance.

    A target that does not say which device it is cannot be shown to be the same as another's, so
    it stays by itself.
    """
    found: dict[tuple[str, ...], list[OverlaidRun]] = {}
    for position, (name, record) in enumerate(zip(_names(records), records, strict=True)):
        for target in record.targets:
            device = device_id(record, target) or f"unknown device of run {position}"
            task = record.task
            key = (device, target, task.name, task.metric, *_scored_by(record))
            found.setdefault(key, []).append(OverlaidRun(name, record, target))
    return [
        Group(_heading(members[0]), _slug(members[0], number, len(found)), tuple(members))
        for number, members in enumerate(found.values(), start=1)
    ]


def _scored_by(record: Record) -> tuple[str, ...]:
    """What a score is against; a row of the run itself is another one in every run."""
    found = reference(record)
    models = [row.fingerprint for row in record.rows if found == f"row {row.index}"]
    return (found, *models)


def _names(records: Sequence[Record]) -> list[str]:
    names: list[str] = []
    for record in records:
        name, number = sanitize(record.name, _NAME), 2
        while name in names:
            ending = f" ({number})"
            name, number = f"{sanitize(record.name, _NAME - len(ending))}{ending}", number + 1
        names.append(name)
    return names


def _heading(member: OverlaidRun) -> str:
    record, target = member.record, member.target
    scored = f", {scored_against(record)}" if reference(record) else ""
    where = f"{sanitize(target, 30)} ({device_name(record, target)})"
    return f"{sanitize(record.task.name, 40)} on {where}{scored}"


def _slug(member: OverlaidRun, number: int, of: int) -> str:
    if of == 1:
        return ""
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in member.target.lower())
    return f"-{number}-{safe[:24].strip('-') or 'target'}"


def overlay_info(group: Group) -> ParetoInfo:
    """One figure of all runs of a group; ``A/2 quantize`` is row 2 of the first run."""
    first = group.members[0]
    kinds = objectives(first.record, first.target, FRONT_OBJECTIVES)
    entries = list(_overlaid_rows(group))
    points = [_point(number, entry, kinds) for number, entry in enumerate(entries)]
    unbeaten = set(front(kinds, points))
    tied, sure = ties(kinds, points), front_probabilities(points)
    upwards = first.record.task.higher_is_better
    drawn = mark_off_scale(
        [
            replace(
                plot_point(entry.row, entry.label, entry.readings, sure[number]),
                on_front=number in unbeaten,
                is_baseline=entry.is_baseline,
                ties=_tied_labels(number, tied, entries),
                run=entry.place,
            )
            for number, entry in enumerate(entries)
        ],
        upwards,
    )
    return ParetoInfo(
        title=f"{len(group.members)} runs of {sanitize(first.record.task.name, 40)} "
        f"on {sanitize(first.target, 30)}",
        subtitle=f"Not beaten by any row of any run: "
        f"{', '.join(entries[k].label for k in sorted(unbeaten)) or 'none'}.",
        caption=f"{caption(first.record, first.target)} · runs are compared unpaired",
        metric=first.record.task.metric,
        higher_is_better=upwards,
        points=drawn,
        runs=tuple(f"{_letter(k)}  {m.name}" for k, m in enumerate(group.members)),
        missing=tuple(_missing(group, entries)),
    )


def _overlaid_rows(group: Group) -> Iterator[_OverlaidRow]:
    for place, member in enumerate(group.members):
        table = contenders(member.record, member.target)
        kinds = {kind.name: kind for kind in objectives(member.record, member.target)}
        for row in member.record.rows:
            paired = table.get(row.index, {})
            found = {name: unpaired(kinds[name], reading) for name, reading in paired.items()}
            if set(FRONT_OBJECTIVES) <= found.keys():
                yield _OverlaidRow(place, row, found, row.index == member.record.baseline)


def _point(number: int, entry: _OverlaidRow, kinds: Sequence[Objective]) -> FrontPoint:
    return FrontPoint(number, tuple(entry.readings[kind.name] for kind in kinds))


def _tied_labels(
    number: int, tied: Sequence[tuple[int, int]], entries: Sequence[_OverlaidRow]
) -> tuple[str, ...]:
    return tuple(entries[b if a == number else a].label for a, b in tied if number in (a, b))


def _missing(group: Group, entries: Sequence[_OverlaidRow]) -> Iterator[str]:
    drawn = {(entry.place, entry.row.index) for entry in entries}
    for place, member in enumerate(group.members):
        absent = [r.index for r in member.record.rows if (place, r.index) not in drawn]
        if absent:
            yield f"not drawn: {rows_words(absent)} of {_letter(place)}"


def _letter(place: int) -> str:
    return _LETTERS[place] if place < len(_LETTERS) else f"R{place + 1}"


def volumes(group: Group) -> Volumes:
    """How much each run's own front dominates; a run without a row to plot has none."""
    first = group.members[0]
    kinds = objectives(first.record, first.target, FRONT_OBJECTIVES)
    points: dict[int, list[FrontPoint]] = {}
    for number, entry in enumerate(_overlaid_rows(group)):
        points.setdefault(entry.place, []).append(_point(number, entry, kinds))
    everyone = [point.costs for mine in points.values() for point in mine]
    reference = reference_point(everyone) if everyone else []
    found = {}
    for place, mine in points.items():
        unbeaten = set(front(kinds, mine))
        members = [point for point in mine if point.row in unbeaten]
        found[f"{_letter(place)}  {group.members[place].name}"] = volume(members, reference)
    return Volumes(found, _volume_caption(group, kinds, reference))


def _volume_caption(group: Group, kinds: Sequence[Objective], reference: Sequence[float]) -> str:
    start = (
        "How much of score, halvings of latency and halvings of size a run's front dominates; "
        "more is better"
    )
    if not reference:
        return f"{start}. No run has a row to compare."
    units = {q.name: q.unit for q in quantities_of(group.members[0].record.task)}
    *others, last = (
        units[kind.name].shown(kind.natural(cost))
        for kind, cost in zip(kinds, reference, strict=True)
    )
    return f"{start}. Up to {', '.join(others)} and {last}."


def combined_columns(group: Group) -> list[Column]:
    """The members' tables under one heading; rows are named ``run/row``."""
    fastest = min(fastest_s(member.record, member.target) for member in group.members)
    measured = set().union(*(measured_names(m.record, m.target) for m in group.members))
    blocks = [
        columns(m.record, m.target, unit_for_s=fastest, as_timed=True, measured=measured)
        for m in group.members
    ]
    merged = [
        Column(
            parts[0].heading,
            parts[0].unit,
            tuple(cell for part in parts for cell in part.cells),
            parts[0].left,
            parts[0].spare,
        )
        for parts in zip(*blocks, strict=True)
    ]
    rows = tuple(
        f"{_letter(place)}/{cell}" for place, block in enumerate(blocks) for cell in block[0].cells
    )
    runs = tuple(
        member.name
        for member, block in zip(group.members, blocks, strict=True)
        for _ in block[0].cells
    )
    return [Column("run/row", "", rows, left=True), Column("run", "", runs, left=True), *merged[1:]]


def combined_markdown(group: Group, info: ParetoInfo) -> str:
    """The combined table and what a table cannot say, as GitHub Markdown."""
    found = volumes(group)
    said = [
        f"{name}: hypervolume {v.value:.4g} [{v.lo:.4g}, {v.hi:.4g}]"
        for name, v in found.by_run.items()
    ]
    sentences = [group.heading, info.subtitle, *said, found.caption]
    return f"{markdown_table(combined_columns(group))}\n{markdown_list(sentences)}"
