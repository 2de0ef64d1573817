"""Look for the cut that lands on a goal: how much has to go is found by trying.

A cost falls as more is cut, by some power of what is left. So a bracket is narrowed by
interpolating the logarithms, which takes about four cuts. Where one step of the ratio changes too
much at once, since layers of one width change together, layers are taken to the larger ratio one
after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from compress.candidate import Candidate
from compress.errors import AlreadySo, NoEffect, StageError
from compress.pruning.channels import ChannelPruning
from compress.stages.goals import Cost, Goal

__all__ = ["MOST", "Cut", "GoalSearch", "Reached"]

_MOST_TRIES = 12  # at each multiple
_LARGEST_RATIO = 0.99
_STEP = 1e-3  # of the ratio: no layer has so many channels that less would change one


@dataclass(frozen=True)
class Cut:
    """How much of each layer goes: ``ratio``, but of ``layers`` their own.

    Layers that are cut keep a multiple of ``round_to``. Where ``is_chosen``, ``layers`` are all
    that are cut, and ``ratio`` is what they were chosen for.
    """

    ratio: float
    layers: Mapping[str, float] = field(default_factory=dict)
    round_to: int = 1
    is_chosen: bool = False

    def applied(self, request: ChannelPruning) -> ChannelPruning:
        """The request for it, from one that has its ratio and the settings of the stage."""
        layers = request.layer_ratios or self.layers
        multiple = math.lcm(request.round_to, self.round_to)
        ratio = 0.0 if self.is_chosen else request.ratio
        return replace(request, ratio=ratio, round_to=multiple, layer_ratios=layers)


#: All that may be cut.
MOST = Cut(_LARGEST_RATIO)


@dataclass(frozen=True)
class Reached:
    """A cut that was tried, with what it costs now."""

    cut: Cut
    candidate: Candidate
    costs: tuple[Cost, ...]

    @property
    def excess(self) -> float:
        """Of the cost that is furthest above its limit, or nearest to it."""
        return max(cost.excess for cost in self.costs)

    @property
    def words(self) -> str:
        """Every cost beside its goal."""
        return ", ".join(cost.words for cost in self.costs)

    @property
    def lands(self) -> bool:
        """Whether it keeps the goal and is near to it."""
        return 1 - min(cost.tolerance for cost in self.costs) <= self.excess <= 1


class GoalSearch:
    """Tries cuts of one candidate.

    Args:
        goal: what is to be reached.
        incoming: the candidate that is cut.
        make: cuts it, from the start.
        costs: what a candidate costs (:func:`compress.stages.goals.costs_of`).
        multiples: of which widths may be; of several those come first at which a first cut costs
            least, and the others follow until a cut lands.
        choose: the ratios of single layers for a ratio; ``None`` where it is that of all.
    """

    def __init__(
        self,
        goal: Goal,
        incoming: Candidate,
        make: Callable[[Cut], Candidate],
        costs: Callable[[Candidate], list[Cost]],
        multiples: Sequence[int] = (1,),
        choose: Callable[[float], Mapping[str, float]] | None = None,
    ) -> None:
        self._goal, self._make, self._costs = goal, make, costs
        self._incoming, self._multiples = incoming, multiples
        self._round_to, self._choose = multiples[0], choose
        self._known: dict[str, tuple[Cost, ...]] = {}
        self._best: Reached | None = None
        self._most = _MOST_TRIES

    @property
    def tries(self) -> int:
        """How many cuts were looked at."""
        return len(self._known) - 1

    @cached_property
    def _start(self) -> Reached:
        return self._reached(Cut(0.0), self._incoming)

    def cut(self, ratio: float, layers: Mapping[str, float] | None = None) -> Cut:
        """So far, at the multiple that is looked at now; ``layers`` have other ratios."""
        if self._choose is None:
            return Cut(ratio, layers or {}, self._round_to)
        return Cut(ratio, layers or self._choose(ratio), self._round_to, is_chosen=True)

    def run(self) -> Reached:
        """The cut that lands on the goal, or is the nearest one that keeps it.

        Raises:
            AlreadySo: the candidate keeps the goal as it came in.
            NoEffect: nothing of it can be cut.
            StageError: no cut reaches the goal.
        """
        if self._start.excess <= 1:
            raise AlreadySo(
                f"prune: the goal is kept already, so that nothing is cut: {self._start.words}."
            )
        for multiple in self._by_time():
            self._round_to, self._most = multiple, self.tries + _MOST_TRIES
            self._narrow()
            if self._best is not None and self._best.lands:
                break
        if self._best is None:
            raise self._out_of_reach()
        return self._best

    def _narrow(self) -> None:
        """Cut at the present multiple until one lands, or none is between two that were tried."""
        found = self._bracket()
        if found is None:
            return
        above, below = found
        while not below.lands and self.tries < self._most:
            if below.cut.ratio - above.cut.ratio < _STEP:
                self._layer_by_layer(above, below)
                return
            found_between = self._at(_between(above, below))
            if found_between.excess <= 1:
                below = found_between
            else:
                above = found_between

    def _at(self, ratio: float, layers: Mapping[str, float] | None = None) -> Reached:
        """A cut, made and measured."""
        cut = self.cut(ratio, layers)
        try:
            found = self._reached(cut, self._make(cut))
        except (NoEffect, AlreadySo):  # so little that no channel goes
            return Reached(cut, self._start.candidate, self._start.costs)
        if found.excess <= 1 and (self._best is None or found.excess > self._best.excess):
            self._best = found
        return found

    def _reached(self, cut: Cut, candidate: Candidate) -> Reached:
        key = candidate.fingerprint
        if key not in self._known:
            self._known[key] = tuple(self._costs(candidate))
        return Reached(cut, candidate, self._known[key])

    def _bracket(self) -> tuple[Reached, Reached] | None:
        """A cut that is too small, and one that keeps the goal; ``None`` where no cut does."""
        above, depth = self._start, self._first
        while True:
            ratio = min(_LARGEST_RATIO, 1 - math.exp(-depth))
            found = self._at(ratio)
            if found.excess <= 1:
                return above, found
            if ratio == _LARGEST_RATIO:
                return None
            above, depth = found, max(1.3 * depth, depth + math.log(found.excess) / 2)

    @property
    def _first(self) -> float:
        """Minus the logarithm of what is left by the first cut: costs fall with its square."""
        return math.log(self._start.excess) / 2

    def _by_time(self) -> Sequence[int]:
        """The multiples, first those at which the first cut costs least."""
        if len(self._multiples) == 1:
            return self._multiples
        costs = {}
        for multiple in self._multiples:
            self._round_to = multiple
            costs[multiple] = self._at(1 - math.exp(-self._first)).excess
        # Sorting keeps the order of those that cost the same: a smaller one is a finer choice.
        return sorted(self._multiples, key=lambda multiple: costs[multiple])

    def _out_of_reach(self) -> StageError:
        found = []
        for multiple in self._multiples:
            self._round_to = multiple
            found.append(self._at(_LARGEST_RATIO))  # which is known
        most = min(found, key=lambda one: one.excess)
        if most.candidate is self._start.candidate:
            self._make(Cut(0.5, round_to=self._round_to))  # says why nothing can be cut
        return StageError(
            f"prune: the goal {self._goal.sentence} is out of reach by cutting: with all cut that "
            f"may be, the model has {most.words}; ask for less, ignore less, or distill into a "
            "smaller student before."
        )

    def _layer_by_layer(self, above: Reached, below: Reached) -> None:
        """Of two neighboring ratios the smaller, with the larger for as few layers as needed."""
        if self._choose is not None:
            self._between_choices(above, below)
            return
        layers = _differing(above.candidate, below.candidate)
        few, many = 0, len(layers)
        while many - few > 1 and not below.lands and self.tries < self._most:
            number = (few + many) // 2
            own = dict.fromkeys(layers[:number], below.cut.ratio)
            found = self._at(above.cut.ratio, own)
            if found.excess <= 1:
                below, many = found, number
            else:
                few = number

    def _between_choices(self, above: Reached, below: Reached) -> None:
        """Of two neighboring choices, what lies between the ratios of every layer."""
        near, far = above.cut.layers, below.cut.layers
        less, more = 0.0, 1.0
        while more - less > _STEP and not below.lands and self.tries < self._most:
            middle = (less + more) / 2
            layers = {one: near.get(one, 0.0) * (1 - middle) + far[one] * middle for one in far}
            found = self._at(below.cut.ratio, layers)
            if found.excess <= 1:
                below, more = found, middle
            else:
                less = middle


def _between(above: Reached, below: Reached) -> float:
    """The ratio at which the line through two cuts, on logarithmic scales, lands in the middle."""
    near, far = (-math.log(1 - one.cut.ratio) for one in (above, below))
    tolerance = min(cost.tolerance for cost in below.costs)
    aim, high, low = math.log(1 - tolerance / 2), math.log(above.excess), math.log(below.excess)
    share = 0.5 if high <= low else (high - aim) / (high - low)
    return 1 - math.exp(-(near + min(0.9, max(0.1, share)) * (far - near)))


def _differing(one: Candidate, other: Candidate) -> Sequence[str]:
    """Modules of different widths, the last first: those mostly have the most channels."""
    shapes = {name: tensor.shape for name, tensor in other.module.named_parameters()}
    names = [
        name.rpartition(".")[0]
        for name, tensor in one.module.named_parameters()
        if tensor.shape != shapes.get(name, tensor.shape)  # whole blocks have no widths
    ]
    return list(dict.fromkeys(reversed(names)))
