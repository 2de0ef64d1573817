"""Several records in one figure and one table, for ``compresskit report A B ...``.

Rows of different runs share no rounds and no baseline, so they are compared by each row's own
intervals; and only where device, task and metric are the same: anything else gets its own figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compress.pareto import (
    FRONT_OBJECTIVES,
    Objective,
    Point,
    Reading,
    contenders,
    front,
    objectives,
    ties,
    unpaired,
)
from compress.pareto.words import plain
from compress.record import Record, Row
from compress.report.pareto_info import ParetoInfo, PlotPoint, attainment, mark_off_scale
from compress.report.provenance import caption, device_id, device_name
from compress.report.sentences import rows_words
from compress.report.table import Column, columns, fastest_s

__all__ = ["Group", "Member", "combined_columns", "groups", "overlay_info"]

_NAME = 22  # fits beside its letter in the legend
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Member:
    """One run on one target; ``name`` is unique among the runs given."""

    name: str
    record: Record
    target: str


@dataclass(frozen=True)
class Group:
    """Runs that may be compared. ``slug`` tells its files from those of other groups."""

    heading: str
    slug: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class _Entry:
    """One row of one member; ``place`` counts members."""

    place: int
    row: Row
    readings: Mapping[str, Reading]
    is_baseline: bool

    @property
    def label(self) -> str:
        return f"{_letter(self.place)}/{self.row.index} {plain(self.row.stage, 20)}"


def groups(records: Sequence[Record]) -> list[Group]:
    """What may be drawn together, in order of appearance.

    A target that does not say which device it is cannot be shown to be the same as another's, so
    it stays by itself.
    """
    found: dict[tuple[str, ...], list[Member]] = {}
    for position, (name, record) in enumerate(zip(_names(records), records, strict=True)):
        for target in record.targets:
            device = device_id(record, target) or f"unknown device of run {position}"
            key = (device, target, record.task.name, record.task.metric)
            found.setdefault(key, []).append(Member(name, record, target))
    return [
        Group(_heading(members[0]), _slug(members[0], number, len(found)), tuple(members))
        for number, members in enumerate(found.values(), start=1)
    ]


def _names(records: Sequence[Record]) -> list[str]:
    names: list[str] = []
    for record in records:
        name, number = plain(record.name, _NAME), 2
        while name in names:
            ending = f" ({number})"
            name, number = f"{plain(record.name, _NAME - len(ending))}{ending}", number + 1
        names.append(name)
    return names


def _heading(member: Member) -> str:
    record, target = member.record, member.target
    return f"{plain(record.task.name, 40)} on {plain(target, 30)} ({device_name(record, target)})"


def _slug(member: Member, number: int, of: int) -> str:
    if of == 1:
        return ""
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in member.target.lower())
    return f"-{number}-{safe[:24].strip('-') or 'target'}"


def overlay_info(group: Group) -> ParetoInfo:
    """One figure of all runs of a group; ``A/2 quantize`` is row 2 of the first run."""
    first = group.members[0]
    kinds = objectives(first.record, first.target, FRONT_OBJECTIVES)
    entries = list(_entries(group))
    points = [_point(number, entry, kinds) for number, entry in enumerate(entries)]
    unbeaten = set(front(kinds, points))
    tied = ties(kinds, points)
    upwards = first.record.task.higher_is_better
    drawn = mark_off_scale(
        [
            _plot_point(entry, number in unbeaten, _tied_labels(number, tied, entries))
            for number, entry in enumerate(entries)
        ],
        upwards,
    )
    return ParetoInfo(
        title=f"{len(group.members)} runs of {plain(first.record.task.name, 40)} "
        f"on {plain(first.target, 30)}",
        subtitle=f"Not beaten by any row of any run: "
        f"{', '.join(entries[k].label for k in sorted(unbeaten)) or 'none'}.",
        caption=f"{caption(first.record, first.target)} · runs are compared unpaired",
        metric=first.record.task.metric,
        higher_is_better=upwards,
        points=drawn,
        stair=attainment(drawn, upwards),
        runs=tuple(f"{_letter(k)}  {m.name}" for k, m in enumerate(group.members)),
        missing=tuple(_missing(group, entries)),
    )


def _entries(group: Group) -> Iterator[_Entry]:
    for place, member in enumerate(group.members):
        table = contenders(member.record, member.target)
        for row in member.record.rows:
            found = table.get(row.index, {})
            if set(FRONT_OBJECTIVES) <= found.keys():
                yield _Entry(place, row, found, row.index == member.record.baseline)


def _point(number: int, entry: _Entry, kinds: Sequence[Objective]) -> Point:
    return Point(number, tuple(unpaired(kind, entry.readings[kind.name]) for kind in kinds))


def _tied_labels(
    number: int, tied: Sequence[tuple[int, int]], entries: Sequence[_Entry]
) -> tuple[str, ...]:
    return tuple(entries[b if a == number else a].label for a, b in tied if number in (a, b))


def _plot_point(entry: _Entry, on_front: bool, tied: tuple[str, ...]) -> PlotPoint:
    latency, score = entry.readings["latency_p50_s"], entry.readings["accuracy"]
    return PlotPoint(
        label=entry.label,
        kind=entry.row.kind,
        latency_s=latency.value,
        latency_ci95_s=latency.ci95,
        score=score.value,
        score_ci95=score.ci95,
        bytes=int(entry.readings["artifact_bytes"].value),
        on_front=on_front,
        is_baseline=entry.is_baseline,
        ties=tied,
        run=entry.place,
    )


def _missing(group: Group, entries: Sequence[_Entry]) -> Iterator[str]:
    drawn = {(entry.place, entry.row.index) for entry in entries}
    for place, member in enumerate(group.members):
        absent = [r.index for r in member.record.rows if (place, r.index) not in drawn]
        if absent:
            yield f"not drawn: {rows_words(absent)} of {_letter(place)}"


def _letter(place: int) -> str:
    return _LETTERS[place] if place < len(_LETTERS) else f"R{place + 1}"


def combined_columns(group: Group) -> list[Column]:
    """The members' tables under one heading; rows are named ``run/row``."""
    fastest = min(fastest_s(member.record, member.target) for member in group.members)
    blocks = [columns(m.record, m.target, unit_for_s=fastest) for m in group.members]
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
