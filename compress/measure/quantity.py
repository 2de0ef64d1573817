"""What is said of a measured quantity, once; the quantities are in :mod:`.quantities`. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from compress.record import (
    Energy,
    Latency,
    MeasuredQuantity,
    Measurement,
    Memory,
    Row,
    Speedup,
)

__all__ = ["Estimate", "FromAnswers", "Limit", "Quantity", "TableColumn", "Timed", "Unit"]


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval; of an exact number all three are the same."""

    value: float
    lo: float
    hi: float


class Timed(Protocol):
    """What a session found of one model, as timings, measurements and compared models hold it."""

    @property
    def latency(self) -> Latency | None: ...  # noqa: D102
    @property
    def speedup(self) -> Speedup | None: ...  # noqa: D102
    @property
    def memory(self) -> Memory | None: ...  # noqa: D102
    @property
    def energy(self) -> Energy | None: ...  # noqa: D102
    @property
    def quantities(self) -> Mapping[str, MeasuredQuantity]: ...  # noqa: D102


@dataclass(frozen=True)
class Unit:
    """The unit that values are stored in.

    ``suffix`` ends the names of its quantities; ``shown`` puts a value into words. On a log scale
    nothing counts as less than ``least``, and ticks are at powers of two where it is ``binary``.
    """

    suffix: str
    shown: Callable[[float], str]
    least: float = 1.0
    binary: bool = False


@dataclass(frozen=True)
class TableColumn:
    """A column of tables: two lines of heading, and the text of a cell.

    Without ``cell`` the values are seconds, in whichever unit fits the smallest. Columns stand in
    the order of ``place``; on a narrow terminal those with a higher ``spare`` are left out first,
    and those with 0 stay. Without ``always`` a column is there only where something has a value.
    """

    heading: str
    unit: str = ""
    cell: Callable[[float], str] | None = None
    spare: int = 0
    place: int = 9
    always: bool = False


@dataclass(frozen=True)
class Limit:
    """A budget's limit: ``field`` is its name there, ``unit`` how much of ours it counts in."""

    field: str
    unit: float


@dataclass(frozen=True)
class FromAnswers:
    """Where a worker's answers have a quantity: the median over fresh processes is its value.

    ``key`` is a number of the answer to a ``job`` of that kind, one for each process, and ``unit``
    how much of ours it counts in.
    """

    key: str
    unit: float = 1.0
    job: Literal["time", "memory"] = "time"


@dataclass(frozen=True)
class Quantity:
    """Something that is measured of a row on a target.

    Attributes:
        name: its key in records and on axes, and of its columns in ``table.csv``.
        title: as in ``peak memory``.
        unit: what values are stored in.
        answers: how a session reads it from the worker's answers. A quantity with ``answers`` is
            kept in ``quantities`` of a measurement, and needs no reader.
        timed: reads it from what a session found; ``None`` where that has none.
        measured: reads it from a measurement, of what is no matter of a session.
        of_row: reads it from a row, of what no target decides.
        higher_is_better: ``False`` for times and sizes.
        logarithmic: compared as ratios; otherwise as differences.
        gains: what a better and a worse value are: ``faster``, ``slower``.
        objective: whether rows are compared in it. Objectives are axes of the page as well.
        on_front: whether the front is made of it by default.
        exact: whether it has no noise, so that any difference counts.
        margin: a ratio less 1 that still counts as no worse where intervals leave it open.
        resolution: a ratio less 1 below which two values cannot be told apart.
        paired: reads the comparison with the baseline in the same rounds or on the same samples: a
            ratio, baseline over row, or a difference, row less baseline.
        noise: reads the ratio less 1 that the baseline shows against itself.
        csv: its name in ``table.csv``, where that is not ``name``.
        short: as in ``p50``, for headings of small tables.
        column: its column in tables.
        limit: the budget's limit of it.
        panel: the title of its panel in the figure of the stages; empty for none.
    """

    name: str
    title: str
    unit: Unit
    answers: FromAnswers | None = None
    timed: Callable[[Timed], Estimate | None] | None = None
    measured: Callable[[Measurement], Estimate | None] | None = None
    of_row: Callable[[Row], Estimate] | None = None
    higher_is_better: bool = False
    logarithmic: bool = True
    gains: tuple[str, str] = ("smaller", "larger")
    objective: bool = True
    on_front: bool = False
    exact: bool = False
    margin: float = 0.0
    resolution: float = 0.0
    paired: Callable[[Measurement], Estimate | None] | None = None
    noise: Callable[[Measurement], float] | None = None
    csv: str = ""
    short: str = ""
    column: TableColumn | None = None
    limit: Limit | None = None
    panel: str = ""

    @property
    def csv_names(self) -> tuple[str, str, str]:
        """The names of the value and of the ends of its interval in ``table.csv``."""
        name = self.csv or self.name
        ending = f"_{self.unit.suffix}" if name.endswith(f"_{self.unit.suffix}") else ""
        stem = name.removesuffix(ending)
        return name, f"{stem}_low{ending}", f"{stem}_high{ending}"

    def in_session(self, found: Timed) -> Estimate | None:
        """What a session found of it; ``None`` for nothing."""
        if self.timed is not None:
            return self.timed(found)
        kept = found.quantities.get(self.name) if self.answers else None
        return None if kept is None else Estimate(kept.value, *kept.ci95)

    def read(self, row: Row, found: Measurement | None) -> Estimate | None:
        """Its value for ``row`` with the measurement ``found``; ``None`` where there is none."""
        if self.of_row is not None:
            return self.of_row(row)
        if found is None:
            return None
        return self.in_session(found) if self.measured is None else self.measured(found)
