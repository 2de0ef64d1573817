"""A group of runs as a table and in sentences, for terminals, Markdown and the page."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from compress.budget import Budget
from compress.measure.quantities import quantities_of, recorded_quantities
from compress.pareto import (
    FRONT_OBJECTIVES,
    FrontPoint,
    Objective,
    Volume,
    front,
    objectives,
    reference_point,
    volume,
)
from compress.record import Record
from compress.report.differences import Difference, differences, short_names
from compress.report.figures.pareto_data import ParetoInfo
from compress.report.overlay import (
    Group,
    groups,
    overlay_info,
    points_of,
)
from compress.report.sentences import status_words
from compress.report.table import columns, fastest_s, measured_names
from compress.report.winners import Winner, drawn_limits, winners
from compress.text_table import Column

__all__ = [
    "ComparedGroup",
    "Comparison",
    "Volumes",
    "combined_columns",
    "compared",
    "difference_columns",
    "group_sentences",
    "volumes",
]

_WHERE = " What was measured before that is below."  # on a page of one run


@dataclass(frozen=True)
class ComparedGroup:
    """Runs that may be compared, their figure, and who wins."""

    group: Group
    info: ParetoInfo
    winners: tuple[Winner, ...]

    @property
    def chosen(self) -> set[int]:
        """The rows that win, by their places among the group's rows; none that misses a budget."""
        return _chosen(self.winners)


def _chosen(found: Sequence[Winner]) -> set[int]:
    return {winner.number for winner in found if winner.meets_budget}


@dataclass(frozen=True)
class Comparison:
    """Several runs: their ``names``, what tells them apart, and what may be compared.

    ``notes`` say what became of runs that are not done.
    """

    names: tuple[str, ...]
    records: tuple[Record, ...]
    differences: tuple[Difference, ...]
    groups: tuple[ComparedGroup, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the page and the terminal's table are headed with."""
        count = len(self.records)
        return "1 run" if count == 1 else f"{count} runs side by side"


@dataclass(frozen=True)
class Volumes:
    """The hypervolume of every run of a group, up to one reference point that they share."""

    by_run: dict[str, Volume]
    caption: str


def compared(
    records: Sequence[Record], folders: Sequence[str] = (), budgets: Sequence[Budget] = ()
) -> Comparison:
    """Work out all that a report of several runs says.

    Args:
        records: the runs.
        folders: the names of their folders, which name runs whose recipes are equal.
        budgets: under which a winner is named, beside the runs' own.
    """
    found = groups(records, folders)
    names = short_names(records, folders)
    return Comparison(
        names=tuple(names),
        records=tuple(records),
        differences=tuple(differences(records)),
        groups=tuple(_compared_group(group, budgets) for group in found),
        notes=tuple(_notes(names, records)),
    )


def _compared_group(group: Group, budgets: Sequence[Budget]) -> ComparedGroup:
    found = winners(group, budgets)
    info = overlay_info(group, drawn_limits(group, found), _chosen(found))
    return ComparedGroup(group, info, tuple(found))


def _notes(names: Sequence[str], records: Sequence[Record]) -> Iterator[str]:
    for name, record in zip(names, records, strict=True):
        for words in status_words(record):
            yield f"{name}: {words.removesuffix(_WHERE)}"
        if not record.targets:
            yield f"{name}: nothing was measured, so it is in no table."


# -- tables -----------------------------------------------------------------------------------


def difference_columns(found: Comparison, runs: Sequence[int] | None = None) -> list[Column]:
    """Which keys differ, one line each, with a column for every one of the ``runs``."""
    keys = tuple(each.key for each in found.differences)
    places = range(len(found.names)) if runs is None else runs
    return [
        Column("differs", "", keys, left=True),
        *(
            Column(found.names[run], "", tuple(each.values[run] for each in found.differences))
            for run in places
        ),
    ]


def combined_columns(group: Group, chosen: Collection[int] = ()) -> list[Column]:
    """The members' tables under one heading, with a row that several runs share once.

    ``*`` marks baselines and ``>`` the rows that are ``chosen``, by their places in
    :attr:`~compress.report.overlay.Group.rows`.
    """
    fastest = min(fastest_s(member.record, member.target) for member in group.members)
    # What some of the tasks know nothing of, such as a serving sample, has no column.
    known = [{q.name for q in recorded_quantities(m.record.task)} for m in group.members]
    found = set().union(*(measured_names(m.record, m.target) for m in group.members))
    measured = found.intersection(*known)
    blocks = [
        columns(
            m.record,
            m.target,
            unit_for_s=fastest,
            as_timed=not group.shares_baseline,
            measured=measured,
        )
        for m in group.members
    ]
    lines = _lines(group)
    merged = [
        Column(
            parts[0].heading,
            parts[0].unit,
            tuple(parts[line.places[0]].cells[line.at] for line in lines),
            parts[0].left,
            parts[0].spare,
        )
        for parts in zip(*blocks, strict=True)
    ]
    marks = _marks(group, chosen)
    rows = tuple(
        f"{group.members[line.places[0]].record.rows[line.at].index}{marks.get(line.key, '')}"
        for line in lines
    )
    runs = tuple(group.called(line.places) for line in lines)
    return [Column("run", "", runs, left=True), Column("row", "", rows, left=True), *merged[1:]]


@dataclass(frozen=True)
class _Line:
    """A line of the table: the runs that have the row, and its place in the first one's record."""

    key: object
    places: tuple[int, ...]
    at: int


def _lines(group: Group) -> list[_Line]:
    """Rows that all runs share come first, since most sweeps begin alike."""
    found: dict[object, _Line] = {}
    for place, member in enumerate(group.members):
        for at, row in enumerate(member.record.rows):
            key = group.key_of(place, row)
            first = found.get(key, _Line(key, (), at))
            if place not in first.places:
                found[key] = _Line(key, (*first.places, place), first.at)
    return list(found.values())


def _marks(group: Group, chosen: Collection[int]) -> dict[object, str]:
    marks: dict[object, str] = {}
    for number, entry in enumerate(group.rows):
        sign = "*" * entry.is_baseline + ">" * (number in chosen)
        marks[group.key_of(entry.places[0], entry.row)] = sign
    return marks


# -- sentences --------------------------------------------------------------------------------


def group_sentences(found: ComparedGroup) -> list[str]:
    """The winners, the front, and each run's hypervolume."""
    volumes_found = volumes(found.group)
    said = [
        f"{name}: hypervolume {v.value:.4g} [{v.lo:.4g}, {v.hi:.4g}]"
        for name, v in volumes_found.by_run.items()
    ]
    winning = [winner.sentence for winner in found.winners]
    return [*winning, found.info.subtitle, *found.info.missing, *said, volumes_found.caption]


def volumes(group: Group) -> Volumes:
    """How much each run's own front dominates; a run without a row to plot has none."""
    first = group.members[0]
    kinds = objectives(first.record, first.target, FRONT_OBJECTIVES)
    entries = group.rows
    everyone = points_of(entries, kinds)
    reference = reference_point([point.costs for point in everyone]) if everyone else []
    found = {}
    for place, member in enumerate(group.members):
        mine = [point for point in everyone if place in entries[point.row].places]
        if mine:
            found[member.name] = volume(_unbeaten(kinds, mine), reference)
    return Volumes(found, _volume_caption(group, kinds, reference))


def _unbeaten(kinds: Sequence[Objective], mine: Sequence[FrontPoint]) -> list[FrontPoint]:
    unbeaten = set(front(kinds, mine))
    return [point for point in mine if point.row in unbeaten]


def _volume_caption(group: Group, kinds: Sequence[Objective], reference: Sequence[float]) -> str:
    start = (
        "Hypervolume: how much of score, halvings of latency and halvings of size a run's front "
        "dominates; more is better"
    )
    if not reference:
        return f"{start}. No run has a row to compare."
    units = {q.name: q.unit for q in quantities_of(group.members[0].record.task)}
    *others, last = (
        units[kind.name].shown(kind.natural(cost))
        for kind, cost in zip(kinds, reference, strict=True)
    )
    return f"{start}. Up to {', '.join(others)} and {last}."
