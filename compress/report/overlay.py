"""Several records in one figure and one table, for ``compresskit report A B ...``.

Rows of different runs share no rounds, so they are compared by each row's own intervals; unless all
runs have one baseline, measured once, which each row was then timed beside. And only where device,
task and metric are the same: anything else gets its own figure. A row that several runs took from
one cache is one point and one line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from compress.formatting import sanitize
from compress.pareto import (
    FRONT_OBJECTIVES,
    FrontPoint,
    Objective,
    Reading,
    contenders,
    front,
    front_probabilities,
    objectives,
    ties,
    unpaired,
)
from compress.record import Record, Row
from compress.report.differences import short_names
from compress.report.figures.pareto_data import ParetoInfo, mark_off_scale, plot_point
from compress.report.provenance import caption, device_id, device_name, reference, scored_against
from compress.report.sentences import rows_words

__all__ = [
    "EVERY_RUN",
    "Group",
    "OverlaidRow",
    "OverlaidRun",
    "groups",
    "overlay_info",
    "place_label",
    "points_of",
]

#: What a row is called that every run of a group has.
EVERY_RUN = "all runs"


@dataclass(frozen=True)
class OverlaidRun:
    """One run on one target; ``name`` is unique among the runs given."""

    name: str
    record: Record
    target: str

    @property
    def baseline(self) -> tuple[object, ...] | None:
        """What its baseline was measured to be; ``None`` if it was not timed."""
        rows = [row for row in self.record.rows if row.index == self.record.baseline]
        return measured_once(rows[0], self.target) if rows else None


@dataclass(frozen=True)
class Group:
    """Runs that may be compared. ``slug`` tells its files from those of other groups."""

    heading: str
    slug: str
    members: tuple[OverlaidRun, ...]

    @cached_property
    def shares_baseline(self) -> bool:
        """Whether all runs have one baseline that was measured once, beside which all rows were."""
        found = [member.baseline for member in self.members]
        return found[0] is not None and len(set(found)) == 1

    @cached_property
    def rows(self) -> tuple[OverlaidRow, ...]:
        """Every row that can be compared, once: those that could be shipped, of all members."""
        return tuple(_overlaid_rows(self))

    def key_of(self, place: int, row: Row) -> object:
        """What is the same of a row that several members took from one cache."""
        return measured_once(row, self.members[place].target) or (place, row.index)

    def called(self, places: Sequence[int]) -> str:
        """The names of some of the runs."""
        if len(places) == len(self.members) > 1:
            return EVERY_RUN
        names = [self.members[place].name for place in places]
        return ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"


def measured_once(row: Row, target: str) -> tuple[object, ...] | None:
    """What tells a row's measurement from every other; ``None`` if it was not timed."""
    found = row.on(target)
    if found is None or found.latency is None:
        return None
    score = found.accuracy.value if found.accuracy is not None else None
    latency = found.latency
    return row.fingerprint, found.artifact.sha256, latency.p50_s, latency.ci95_p50_s, score


@dataclass(frozen=True)
class OverlaidRow:
    """One row that some runs have, in order; ``places`` counts members."""

    places: tuple[int, ...]
    row: Row
    readings: Mapping[str, Reading]
    is_baseline: bool


def groups(records: Sequence[Record], folders: Sequence[str] = ()) -> list[Group]:
    """What may be drawn together, in order of appearance.

    A target that does not say which device it is cannot be shown to be the same as another's, so
    it stays by itself. ``folders`` are the names of the runs' folders, for names.
    """
    found: dict[tuple[str, ...], list[OverlaidRun]] = {}
    names = short_names(records, folders)
    for position, (name, record) in enumerate(zip(names, records, strict=True)):
        for target in record.targets:
            device = device_id(record, target) or f"{position} unknown device"
            task = record.task
            key = (device, target, task.name, task.metric, *_scored_by(record))
            found.setdefault(key, []).append(OverlaidRun(name, record, target))
    headings = _headings(found)
    return [
        Group(heading, _slug(members[0], number, len(found)), tuple(members))
        for number, (heading, members) in enumerate(
            zip(headings, found.values(), strict=True), start=1
        )
    ]


def _headings(found: Mapping[tuple[str, ...], Sequence[OverlaidRun]]) -> list[str]:
    """A heading for each group; with the device, or a number, where several would be equal."""
    bare = [_heading(members[0]) for members in found.values()]
    devices = [
        heading if bare.count(heading) == 1 else f"{heading}, device {device[:6]}"
        for heading, (device, *_) in zip(bare, found, strict=True)
    ]
    return [
        heading if devices.count(heading) == 1 else f"{heading} ({number})"
        for number, heading in enumerate(devices, start=1)
    ]


def _scored_by(record: Record) -> tuple[str, ...]:
    """What a score is against; a row of the run itself is another one in every run."""
    found = reference(record)
    models = [row.fingerprint for row in record.rows if found == f"row {row.index}"]
    return (found, *models)


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


# -- rows -------------------------------------------------------------------------------------


def _overlaid_rows(group: Group) -> list[OverlaidRow]:
    shared: dict[object, OverlaidRow] = {}
    for place, member in enumerate(group.members):
        for entry in _rows_of(group, place, member):
            key = group.key_of(place, entry.row)
            first = shared.get(key)
            shared[key] = entry if first is None else _joined(first, place, entry)
    return list(shared.values())


def _rows_of(group: Group, place: int, member: OverlaidRun) -> Iterator[OverlaidRow]:
    table = contenders(member.record, member.target)
    kinds = {kind.name: kind for kind in objectives(member.record, member.target)}
    for row in member.record.rows:
        found = table.get(row.index, {})
        if not group.shares_baseline:
            found = {name: unpaired(kinds[name], reading) for name, reading in found.items()}
        if set(FRONT_OBJECTIVES) <= found.keys():
            yield OverlaidRow((place,), row, found, row.index == member.record.baseline)


def _joined(first: OverlaidRow, place: int, other: OverlaidRow) -> OverlaidRow:
    places = (*first.places, *({place} - set(first.places)))
    return replace(first, places=places, is_baseline=first.is_baseline or other.is_baseline)


def points_of(entries: Sequence[OverlaidRow], kinds: Sequence[Objective]) -> list[FrontPoint]:
    """The rows as points in some objectives, by their numbers."""
    return [
        FrontPoint(number, tuple(entry.readings[kind.name] for kind in kinds))
        for number, entry in enumerate(entries)
    ]


def place_label(group: Group, entry: OverlaidRow) -> str:
    """``ratio 0.4: 4 prune``, as figures and sentences name a row."""
    return f"{group.called(entry.places)}: {_row_label(entry)}"


def _row_label(entry: OverlaidRow) -> str:
    return f"{entry.row.index} {sanitize(entry.row.stage, 20)}"


def _front_words(group: Group, entries: Sequence[OverlaidRow], unbeaten: Collection[int]) -> str:
    """Which rows no other is shown to beat, by runs."""
    by_runs: dict[str, list[str]] = {}
    for number in sorted(unbeaten):
        by_runs.setdefault(group.called(entries[number].places), []).append(
            _row_label(entries[number])
        )
    found = "; ".join(f"{runs}: {', '.join(rows)}" for runs, rows in by_runs.items())
    return f"Not beaten by any row of any run: {found or 'none'}."


# -- figure -----------------------------------------------------------------------------------


def overlay_info(
    group: Group,
    limits: Mapping[str, float] | None = None,
    chosen: Collection[int] = (),
) -> ParetoInfo:
    """One figure of all runs of a group; ``ratio 0.4: 4 prune`` is row 4 of that run.

    Args:
        group: the runs.
        limits: what the one budget that is drawn allows, by quantity.
        chosen: the rows that win under some budget, by their places in :attr:`Group.rows`.
    """
    first = group.members[0]
    kinds = objectives(first.record, first.target, FRONT_OBJECTIVES)
    entries = group.rows
    points = points_of(entries, kinds)
    labels = [place_label(group, entry) for entry in entries]
    unbeaten = set(front(kinds, points))
    tied, sure = ties(kinds, points), front_probabilities(points)
    upwards = first.record.task.higher_is_better
    drawn = mark_off_scale(
        [
            replace(
                plot_point(entry.row, labels[number], entry.readings, sure[number]),
                on_front=number in unbeaten,
                is_baseline=entry.is_baseline,
                is_recommended=number in chosen,
                ties=tuple(labels[b if a == number else a] for a, b in tied if number in (a, b)),
                run=entry.places[0] if len(entry.places) == 1 else None,
            )
            for number, entry in enumerate(entries)
        ],
        upwards,
    )
    more = [(member.record, member.target) for member in group.members if member is not first]
    how = "beside the baseline that all share" if group.shares_baseline else "unpaired"
    return ParetoInfo(
        title=f"{_count(len(group.members))} of {sanitize(first.record.task.name, 40)} "
        f"on {sanitize(first.target, 30)}",
        subtitle=_front_words(group, entries, unbeaten),
        caption=f"{caption(first.record, first.target, *more)} · runs are compared {how}",
        metric=first.record.task.metric,
        higher_is_better=upwards,
        points=drawn,
        limits=limits or {},
        baseline=_baseline(group, entries),
        runs=tuple(member.name for member in group.members),
        missing=tuple(_missing(group, entries)),
    )


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _baseline(group: Group, entries: Sequence[OverlaidRow]) -> dict[str, float]:
    """What ratios are against: the baseline, where all runs share one."""
    shared = [entry for entry in entries if entry.is_baseline and group.shares_baseline]
    return {name: found.value for name, found in shared[0].readings.items()} if shared else {}


def _missing(group: Group, entries: Sequence[OverlaidRow]) -> Iterator[str]:
    drawn = {group.key_of(entry.places[0], entry.row) for entry in entries}
    absent: dict[tuple[int, ...], list[int]] = {}
    for place, member in enumerate(group.members):
        rows = tuple(
            row.index for row in member.record.rows if group.key_of(place, row) not in drawn
        )
        if rows:
            absent.setdefault(rows, []).append(place)
    for rows, places in absent.items():
        yield f"not drawn: {rows_words(rows)} of {group.called(places)}"
