"""What the figure of controls shows, as plain data: everything but the drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compress.formatting import sanitize
from compress.record import Accuracy, Record
from compress.record_images import ControlValue
from compress.report.figures.ticks import linear_ticks

__all__ = ["TEACHER", "ControlLine", "ControlPanel", "ControlsInfo", "controls_info"]

#: What the line of the labels is called.
TEACHER = "teacher"

_MOST_LINES = 12  # as many as there are colors
_TICKS = 5
_MOST_DB = 1000.0
_ROOM = 0.04  # of the scale, above and below what is shown


@dataclass(frozen=True)
class ControlLine:
    """One row over the values of a control; ``points`` are ``(value, dB)``.

    Args:
        name: of the row.
        points: in ascending order of the value.
        intervals: 95 %, for each point; empty where there are none.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float], ...] = ()

    @property
    def is_steady(self) -> bool:
        """Whether it never turns: it only rises or only falls."""
        steps = [after - before for (_, before), (_, after) in pairwise(self.points)]
        return all(step >= 0 for step in steps) or all(step <= 0 for step in steps)


@dataclass(frozen=True)
class ControlPanel:
    """One control in one of the two distances.

    Args:
        title: of the panel.
        control: its name.
        lines: of the rows, and of the teacher where it has one.
        ends: of the scale, in dB.
    """

    title: str
    control: str
    lines: tuple[ControlLine, ...]
    ends: tuple[float, float]

    @property
    def span(self) -> tuple[float, float]:
        """The ends of the control's values."""
        values = [value for line in self.lines for value, _ in line.points]
        return min(values), max(values)

    @property
    def ticks(self) -> list[float]:
        """Round numbers of dB."""
        return linear_ticks(*self.ends, _TICKS)

    @property
    def values(self) -> list[float]:
        """The values of the control."""
        return sorted({value for line in self.lines for value, _ in line.points})

    @property
    def alt(self) -> str:
        """The panel in words, with its numbers."""
        said = "; ".join(
            f"{line.name}: " + ", ".join(f"{db:.1f} dB at {value:g}" for value, db in line.points)
            for line in self.lines
        )
        return f"{self.title} over {self.control}: {said}"


@dataclass(frozen=True)
class ControlsInfo:
    """How the rows of a record follow their controls on one target.

    Args:
        title: above the figure.
        subtitle: below that.
        caption: at the end.
        names: of the rows that are shown, in the order of their colors.
        panels: two for each control: against the teacher, and against the input.
    """

    title: str
    subtitle: str
    caption: str
    names: tuple[str, ...]
    panels: tuple[ControlPanel, ...]


def controls_info(record: Record, target: str) -> ControlsInfo | None:
    """The rows from the baseline on, over each control; ``None`` where there is none.

    What came before the baseline is no measure of anything.
    """
    found = {
        f"{row.index} {sanitize(row.stage, 40)}": measured.controls
        for row in record.rows
        if row.index >= record.baseline and (measured := row.on(target)) and measured.controls
    }
    shown = dict(list(found.items())[:_MOST_LINES])
    controls = list(dict.fromkeys(name for each in shown.values() for name in each))
    panels = tuple(panel for name in controls for panel in _panels(name, shown))
    if not panels:
        return None
    samples = next(iter(next(iter(shown.values())).values()))[0].to_teacher.n
    more = len(found) - len(shown)
    return ControlsInfo(
        title=f"How the rows follow {', '.join(sanitize(name, 40) for name in controls)}",
        subtitle=f"PSNR in dB, means over {samples:,} test images at each value; equal images have "
        "60 dB",
        caption=f"{_steadiness(panels)} Bars are 95 % intervals over images."
        + (f" {more} more rows are left out." if more else ""),
        names=tuple(shown),
        panels=panels,
    )


def _panels(
    control: str, rows: dict[str, dict[str, list[ControlValue]]]
) -> tuple[ControlPanel, ...]:
    own = {name: each[control] for name, each in rows.items() if each.get(control)}
    if not own:
        return ()
    to_teacher = [_line(name, values, lambda one: one.to_teacher) for name, values in own.items()]
    to_input = [_line(name, values, lambda one: one.to_input) for name, values in own.items()]
    of_teacher = tuple((one.value, one.teacher_to_input) for one in next(iter(own.values())))
    name = sanitize(control, 40)
    return (
        _panel("dB to the teacher's image", name, to_teacher),
        _panel("dB to the input", name, [*to_input, ControlLine(TEACHER, of_teacher)]),
    )


def _line(
    name: str, values: Sequence[ControlValue], of: Callable[[ControlValue], Accuracy]
) -> ControlLine:
    points = tuple((one.value, of(one).value) for one in values)
    return ControlLine(name, points, tuple(of(one).ci95 for one in values))


def _panel(title: str, control: str, lines: Sequence[ControlLine]) -> ControlPanel:
    known = [db for line in lines for _, db in line.points]
    known += [end for line in lines for ends in line.intervals for end in ends]
    # A stranger's record may say anything.
    low, high = (max(-_MOST_DB, min(_MOST_DB, end)) for end in (min(known), max(known)))
    room = max(_ROOM * (high - low), 0.5)
    return ControlPanel(title, control, tuple(lines), (low - room, high + room))


def _steadiness(panels: Sequence[ControlPanel]) -> str:
    """Whether more of a control always changes the image more, or always less."""
    turning = [
        f"{line.name} ({panel.control})"
        for panel in panels[1::2]
        for line in panel.lines
        if line.name != TEACHER and not line.is_steady
    ]
    if not turning:
        return "The distance to the input grows or falls steadily in all rows."
    return f"The distance to the input does not grow or fall steadily in {', '.join(turning)}."
