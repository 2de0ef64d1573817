"""Placing labels beside points so that none overlaps another; pure geometry, deterministic.

Greedy: each label in turn takes the cheapest free place on rings around its point. Coordinates are
points (1/72 inch) or pixels; ``y`` grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Box", "Label", "Placement", "place"]

Xy = tuple[float, float]
Line = tuple[Xy, Xy]

# Right of the point reads best, then above and below it; the left comes last.
_ANGLES = (0, -30, 30, -60, 60, -90, 90, -120, 120, -150, 150, 180)
_ANGLE_COST = 1.5
_RINGS = 40
# Costs are the extra distance in points that a label would rather take.
_CROSSING_COST = 300.0
_LINE_COST = 60.0
_INWARD_COST = 40.0
_OUTSIDE_COST = 5e3  # less than an overlap
_NEIGHBORHOOD = 90.0
_LEADER_FROM = 6.0


@dataclass(frozen=True)
class Box:
    """An axis-aligned rectangle."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """Area shared with ``other``."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0

    def holds(self, other: Box) -> bool:
        """Whether ``other`` lies inside."""
        return (
            self.x0 <= other.x0
            and self.y0 <= other.y0
            and other.x1 <= self.x1
            and other.y1 <= self.y1
        )

    def nearest(self, point: Xy) -> Xy:
        """The point of this box that is nearest to ``point``."""
        return min(max(point[0], self.x0), self.x1), min(max(point[1], self.y0), self.y1)

    def grown(self, by: float) -> Box:
        """This box with a border added."""
        return Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)


@dataclass(frozen=True)
class Label:
    """A text of a known size that belongs to the point ``at``, drawn with ``radius``."""

    at: Xy
    radius: float
    width: float
    height: float


@dataclass(frozen=True)
class Placement:
    """Where a label goes; ``leader`` is a line from its point, or ``None`` if it is beside it."""

    box: Box
    leader: Line | None


def place(
    labels: Sequence[Label],
    obstacles: Sequence[Box],
    frame: Box,
    lines: Sequence[Box] = (),
    frames: Sequence[Box] | None = None,
) -> list[Placement]:
    """A place for every label, in order: inside ``frame``, off the points, labels and obstacles.

    ``lines`` are thin boxes better left uncovered. Each label stays in its own of ``frames`` where
    there is room, which are parts of ``frame``. In a crowd a label prefers the side that faces
    away from its neighbors. Where nothing is free within reach, the least overlap is taken.
    """
    points = [Box(*label.at, *label.at).grown(label.radius) for label in labels]
    taken = [*obstacles, *points]
    placed: list[Placement] = []
    for label, own in zip(labels, frames or [frame] * len(labels), strict=True):
        outward = _outward(label, labels)
        best = _best_place(_options(label, outward), taken, lines, placed, (frame, own))
        placed.append(best)
        taken.append(best.box)
    return placed


def _outward(label: Label, labels: Sequence[Label]) -> Xy:
    """The direction away from the points nearby, of length 1 at most; zero without neighbors."""
    x = y = 0.0
    for other in labels:
        distance = math.dist(label.at, other.at)
        if 0 < distance < _NEIGHBORHOOD:
            x += (label.at[0] - other.at[0]) / distance**2
            y += (label.at[1] - other.at[1]) / distance**2
    length = math.hypot(x, y)
    return (x / length, y / length) if length else (0.0, 0.0)


def _best_place(
    options: Sequence[tuple[float, Placement]],
    taken: Sequence[Box],
    lines: Sequence[Box],
    placed: Sequence[Placement],
    frames: tuple[Box, Box],
) -> Placement:
    best, lowest = options[0][1], math.inf
    for cost, option in options:
        if cost >= lowest:
            break
        total = cost + _trouble(option, taken, placed, frames)
        if total < lowest:
            total += _LINE_COST * sum(option.box.overlap(line) > 0 for line in lines)
        if total < lowest:
            best, lowest = option, total
    return best


def _options(label: Label, outward: Xy) -> list[tuple[float, Placement]]:
    """Places in order of their cost: the distance from the point and how odd the side is."""
    step = max(4.0, label.height / 2)
    options = []
    for rank, angle in enumerate(map(math.radians, _ANGLES)):
        facing = math.cos(angle) * outward[0] + math.sin(angle) * outward[1]
        side = _ANGLE_COST * rank + (_INWARD_COST * (1 - facing) / 2 if any(outward) else 0.0)
        options += [
            (gap + side, _at(label, angle, gap))
            for gap in (3.0 + ring * step for ring in range(_RINGS))
        ]
    return sorted(options, key=lambda option: option[0])


def _at(label: Label, angle: float, gap: float) -> Placement:
    reach = label.radius + gap
    middle_x = label.at[0] + math.cos(angle) * (reach + label.width / 2)
    middle_y = label.at[1] + math.sin(angle) * (reach + label.height / 2)
    half_width, half_height = label.width / 2, label.height / 2
    box = Box(
        middle_x - half_width, middle_y - half_height, middle_x + half_width, middle_y + half_height
    )
    end = box.nearest(label.at)
    far = math.dist(end, label.at) - label.radius
    return Placement(box, (label.at, end) if far > _LEADER_FROM else None)


def _trouble(
    option: Placement,
    taken: Sequence[Box],
    placed: Sequence[Placement],
    frames: tuple[Box, Box],
) -> float:
    whole, own = frames
    cost = 0.0 if whole.holds(option.box) else 1e6
    cost += 0.0 if own.holds(option.box) else _OUTSIDE_COST
    cost += sum(1e4 + area for other in taken if (area := option.box.overlap(other)) > 0)
    crossings = 0
    for other in placed:
        crossings += _crosses(option.leader, other.leader)
        crossings += _hits(option.leader, other.box) + _hits(other.leader, option.box)
    return cost + _CROSSING_COST * crossings


def _crosses(a: Line | None, b: Line | None) -> bool:
    if a is None or b is None:
        return False
    return _side(a, b[0]) * _side(a, b[1]) < 0 and _side(b, a[0]) * _side(b, a[1]) < 0


def _side(line: Line, point: Xy) -> float:
    (x0, y0), (x1, y1) = line
    return (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)


def _hits(line: Line | None, box: Box) -> bool:
    """Whether a leader passes through a box: it crosses one of the box's diagonals."""
    if line is None:
        return False
    (x0, y0), (x1, y1) = line
    beside = max(x0, x1) < box.x0 or min(x0, x1) > box.x1
    if beside or max(y0, y1) < box.y0 or min(y0, y1) > box.y1:
        return False
    rising = (box.x0, box.y0), (box.x1, box.y1)
    falling = (box.x0, box.y1), (box.x1, box.y0)
    return _crosses(line, rising) or _crosses(line, falling)
