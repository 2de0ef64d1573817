"""Hypervolume: how much of the space up to a reference point a set of points dominates.

Exact, for points whose coordinates are all to be minimized. Plain numbers; knows no records.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["hypervolume", "reference_point"]

_MARGIN = 0.1


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume that ``points`` dominate, bounded by ``reference``; points beyond it add nothing.

    The space is cut into slabs at every point's last coordinate; each slab is a problem with one
    dimension less (While et al. 2006, "A faster algorithm for calculating hypervolume", call it
    HSO). Fine for the tens of points and two to four objectives of a record.
    """
    inside = [p for p in points if all(x < bound for x, bound in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(p[0] for p in inside)
    inside.sort(key=lambda p: p[-1])
    floors = [p[-1] for p in inside]
    ceilings = [*floors[1:], reference[-1]]
    return sum(
        (ceiling - floor) * hypervolume([p[:-1] for p in inside[: number + 1]], reference[:-1])
        for number, (floor, ceiling) in enumerate(zip(floors, ceilings, strict=True))
        if ceiling > floor
    )


def reference_point(points: Sequence[Sequence[float]]) -> list[float]:
    """The worst coordinate of ``points`` along each axis, and a tenth of the spread more.

    Where all are equal there is no spread, and a tenth of the coordinate (or of one) is taken, so
    that every point lies inside.
    """
    reference = []
    for axis in zip(*points, strict=True):
        worst = max(axis)
        spread = worst - min(axis)
        reference.append(worst + _MARGIN * (spread or abs(worst) or 1.0))
    return reference
