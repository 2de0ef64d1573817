"""How much of which layers to cut, so that a cost is kept and the outputs move least.

Layers that can only be cut together are a group. Each group alone is cut by several ratios,
without training, and looked at: how far the outputs move, and which axes of which parameters become
shorter. Errors are taken to add up. What a parameter has left after two cuts follows from what
each takes of its axes, so that the cost of two neighbors is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from torch import Tensor, nn

from compress.errors import AlreadySo, NoEffect, StageError
from compress.integer_program import Costs, Limit, least_loss
from compress.modules.inputs import Inputs
from compress.modules.parametrizations import duplicate
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.quantization.sensitivity import outputs_of, relative_error
from compress.training.rng import isolated

__all__ = ["RATIOS", "CutGroup", "CutTable", "cut_table"]

#: Of which each group gets one.
RATIOS = tuple(eighth / 8 for eighth in range(8))

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class CutGroup:
    """Layers that are cut together.

    Args:
        layers: by path, the first of which stands for all.
        errors: of the outputs, for each of ``RATIOS``.
        shapes: of the parameters that become smaller, likewise; of a ratio of 0 there are none.
    """

    layers: tuple[str, ...]
    errors: tuple[float, ...]
    shapes: tuple[Shapes, ...]


@dataclass(frozen=True)
class CutTable:
    """All groups of a module, and the shapes of its parameters.

    Args:
        groups: in the order of the module.
        shapes: of all parameters as they are.
    """

    groups: tuple[CutGroup, ...]
    shapes: Shapes

    @property
    def steepened(self) -> CutTable:
        """The same with errors that go on growing where they saturate.

        Outputs that have nothing more to do with what they were move no further: by its error
        alone, a layer whose first eighth disturbs everything could as well lose all channels. So
        each error is at least that of a smaller ratio, times the ratio of both logarithms of the
        share of channels that stays.
        """
        removed = np.array([-math.log(1 - ratio) for ratio in RATIOS])
        groups = []
        for group in self.groups:
            slopes = np.maximum.accumulate(np.array(group.errors[1:]) / removed[1:])
            errors = (0.0, *(slopes * removed[1:]).tolist())
            groups.append(replace(group, errors=errors))
        return replace(self, groups=tuple(groups))

    def choose(self, limits: Sequence[Limit]) -> list[int] | None:
        """Of each group the number of its ratio; ``None`` where no choice keeps all limits."""
        return least_loss([group.errors for group in self.groups], limits)

    @property
    def touching(self) -> dict[str, list[int]]:
        """By parameter, the numbers of the groups that make it smaller."""
        found: dict[str, list[int]] = {}
        for number, group in enumerate(self.groups):
            for name in dict.fromkeys(name for shapes in group.shapes for name in shapes):
                found.setdefault(name, []).append(number)
        return found

    def error(self, chosen: Sequence[int]) -> float:
        """The sum of the groups' errors."""
        return sum(g.errors[k] for g, k in zip(self.groups, chosen, strict=True))

    def ratios(self, chosen: Sequence[int]) -> dict[str, float]:
        """By the first layer of each group that is cut, its ratio."""
        pairs = zip(self.groups, chosen, strict=True)
        return {group.layers[0]: RATIOS[number] for group, number in pairs if number}

    def limit_of_elements(self, cost_of_one: Mapping[str, float], room: float) -> Limit:
        """A limit on what the elements of all parameters cost.

        Args:
            cost_of_one: what one element of a parameter costs; of those left out, nothing.
            room: what the choice may cost beyond the module as it is: below 0 for less.
        """
        singles = [[0.0] * len(RATIOS) for _ in self.groups]
        pairs: dict[tuple[int, int], Costs] = {}
        for name, numbers in self.touching.items():
            each = cost_of_one.get(name, 0.0)
            if not each:
                continue
            lost = {number: self._lost(name, number) for number in numbers}
            before = np.array(self.shapes[name], float)
            for number, own in lost.items():
                change = each * (np.prod(before - own, axis=1) - np.prod(before))
                singles[number] = (np.array(singles[number]) + change).tolist()
            # More than two share a parameter where outputs are concatenated: their products are
            # corrected in pairs, and what is left is of the third order.
            for one, other in combinations(numbers, 2):
                a, b = lost[one][:, None], lost[other][None]
                together = np.prod(before - a - b, axis=2) + np.prod(before)
                together -= np.prod(before - a, axis=2) + np.prod(before - b, axis=2)
                pairs[one, other] = pairs.get((one, other), 0.0) + each * together
        return Limit(room, singles, pairs)

    def _lost(self, name: str, number: int) -> Costs:
        """What each ratio of a group takes of each axis of a parameter, ``(ratios, axes)``."""
        before = self.shapes[name]
        shapes = [after.get(name, before) for after in self.groups[number].shapes]
        lost: Costs = np.array([before]) - np.array(shapes, float)
        return lost


def cut_table(
    module: nn.Module,
    example: Inputs,
    batches: Sequence[Inputs],
    layers: Sequence[str],
    request: ChannelPruning,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> CutTable:
    """Cut each group of layers by each of ``RATIOS``.

    Args:
        module: plain, float32, in eval mode; it stays as it is.
        example: one batch of inputs.
        batches: of inputs that the outputs are compared on.
        layers: by path; those that cannot be cut are left out of the result.
        request: how channels are ranked, rounded and ignored; its ratios do not count.
        tell: called with the number of a layer, of all, and its path, before it is cut.
    """
    groups, seen = [], set[str]()
    whole = _Whole(module, example, batches, request)
    for number, layer in enumerate(layers, 1):
        tell(number, len(layers), layer)
        if layer in seen:
            continue
        cuts = whole.cuts(layer)
        together = [name for name in layers if name in cuts[-1].narrower]
        seen |= {layer, *together}
        if layer not in together:
            continue
        # The layer whose ratio was given stands for all of them.
        others = tuple(name for name in together if name != layer)
        errors, smaller = (0.0, *(c.error for c in cuts)), ({}, *(c.smaller for c in cuts))
        groups.append(CutGroup((layer, *others), errors, smaller))
    return CutTable(tuple(groups), whole.shapes)


@dataclass(frozen=True)
class _Cut:
    """What one cut does: to the outputs, to parameters, and to which layers."""

    error: float = 0.0
    smaller: Shapes = field(default_factory=dict)
    narrower: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Whole:
    """The module before any cut; the arguments are those of :func:`cut_table`."""

    module: nn.Module
    example: Inputs
    batches: Sequence[Inputs]
    request: ChannelPruning

    @cached_property
    def shapes(self) -> Shapes:
        return _shapes(self.module)

    @cached_property
    def _outputs(self) -> Mapping[str, Tensor]:
        return outputs_of(self.module, self.batches)

    def cuts(self, layer: str) -> list[_Cut]:
        """One layer cut by each ratio above 0."""
        made: dict[float, _Cut] = {}
        # The largest first: where it removes no channel none does, which takes long to find out.
        for ratio in (RATIOS[-1], *RATIOS[1:-1]):
            try:
                made[ratio] = self._cut(layer, ratio)
            except (NoEffect, AlreadySo):
                if ratio == RATIOS[-1]:
                    break
            except StageError:  # it cannot be proved
                continue
        # What was not made, a smaller cut stands for.
        found = [_Cut()]
        for ratio in RATIOS[1:]:
            found.append(made.get(ratio, found[-1]))
        return found[1:]

    def _cut(self, layer: str, ratio: float) -> _Cut:
        small = duplicate(self.module)
        request = replace(self.request, ratio=0.0, layer_ratios={layer: ratio})
        with isolated(0):
            done = prune_channels(small, self.example, request)
        error = relative_error(self._outputs, outputs_of(small, self.batches))
        smaller = {n: s for n, s in _shapes(small).items() if s != self.shapes[n]}
        return _Cut(error, smaller, frozenset(w.layer for w in done.widths if w.after < w.before))


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
