"""Channel ids: one for every index along every axis of every parameter, joined into classes.

Ids of a class are removed together or not at all. A class that may not be removed is *intact*, with
the reason. Id 0 is always intact: it stands for an index that belongs to no parameter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["NOTHING", "UNIFORM", "Axis", "ChannelIds", "Vector"]

#: Ids along one axis of a tensor.
Vector = npt.NDArray[np.int64]

#: The id of what belongs to no parameter; always intact.
NOTHING = 0
#: Fills places that a constant filled: it agrees with every id.
UNIFORM = -1


@dataclass(frozen=True)
class Axis:
    """An axis of a parameter or buffer."""

    parameter: str
    axis: int


class ChannelIds:
    """Ids, their classes (a union-find) and why some of them stay intact."""

    def __init__(self) -> None:
        self._parent: Vector = np.array([NOTHING])
        self._intact: dict[int, str] = {NOTHING: ""}
        self.of_axis: dict[Axis, Vector] = {}
        #: Axes along which an operator sums products: the inputs of a layer.
        self.contracted: set[Axis] = set()
        #: Of these, the ones of layers with groups: inputs of one group.
        self.within_groups: set[Axis] = set()
        #: The operator that is followed now, for sentences.
        self.at = "it"
        self._axis_of: list[Axis | None] = [None]

    def new_axis(self, parameter: str, axis: int, size: int) -> Vector:
        """Ids for an axis of a parameter; the same ones for the same axis."""
        place = Axis(parameter, axis)
        if place not in self.of_axis:
            first = len(self._parent)
            self.of_axis[place] = np.arange(first, first + size)
            self._parent = np.concatenate([self._parent, self.of_axis[place]])
            self._axis_of.extend([place] * size)
        return self.of_axis[place]

    def find(self, i: int) -> int:
        """The representative of the class of an id."""
        parent = self._parent
        while (above := int(parent[i])) != i:
            parent[i] = parent[above]
            i = above
        return i

    def join(self, left: Vector, right: Vector) -> None:
        """Join the ids of two vectors of one length, place by place."""
        apart = (left != right) & (left != UNIFORM) & (right != UNIFORM)
        for a, b in zip(left[apart].tolist(), right[apart].tolist(), strict=True):
            first, second = self.find(a), self.find(b)
            if first == second:
                continue
            if second == NOTHING:
                first, second = second, first
            if first == NOTHING:
                self._intact.setdefault(second, f"{self.at} meets a size that no layer gives")
                continue
            self._parent[second] = first
            if second in self._intact:
                reason = self._intact.pop(second)
                self._intact.setdefault(first, reason)

    def join_all(self, ids: Iterable[int]) -> None:
        """Make one class of some ids."""
        vector = np.asarray(list(ids), dtype=np.int64)
        if len(vector) > 1:
            self.join(np.full(len(vector) - 1, vector[0]), vector[1:])

    def keep_intact(self, ids: Iterable[int], reason: str) -> None:
        """Forbid the removal of some ids; of several reasons the first one stays."""
        for i in {int(i) for i in ids}:
            if i > NOTHING:
                self._intact.setdefault(self.find(i), reason)

    def classes(self, ids: Vector) -> Vector:
        """The class of each id of a vector; ``NOTHING`` for those that are intact."""
        roots = self.roots(ids)
        return np.where([int(r) in self._intact for r in roots], NOTHING, roots)

    def roots(self, ids: Vector) -> Vector:
        """The representative of each id, intact or not; ``UNIFORM`` stays what it is."""
        found = self._parent[np.maximum(ids, NOTHING)]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        return np.where(ids < NOTHING, ids, found)

    def why_intact(self, i: int) -> str:
        """Why an id may not be removed; empty where it may."""
        return self._intact.get(self.find(i), "")

    def contract(self, parameter: str, ids: Vector, *, within_groups: bool = False) -> None:
        """Note that these ids of a parameter are of inputs."""
        for place in {self._axis_of[i] for i in ids.tolist() if i > NOTHING}:
            if place is not None and place.parameter == parameter:
                self.contracted.add(place)
                if within_groups:
                    self.within_groups.add(place)
