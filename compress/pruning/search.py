"""Look for a cut that can be proved, as near to what was requested as the structure allows.

A complete cut is tried. Where the cut net and the original differ, an integer of the module at hand
may be a size that has changed, a split may be cut along its other axis, or the channels that meet
there are left uncut; then the rest is tried again.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from compress.errors import StageError
from compress.modules.inputs import Inputs
from compress.pruning.draws import random_inputs, random_weights
from compress.pruning.modes import modes_of
from compress.pruning.plan import CutPlan, Planner, values_at
from compress.pruning.proof import Mismatch, ScaleChange, prove
from compress.pruning.scales import Rescaling, find_rescaling, rescale
from compress.pruning.surgery import Attribute, Cut, attributes_to_try, set_attribute, take_slices
from compress.pruning.widths import Width, widths_of

if TYPE_CHECKING:
    from compress.pruning.channels import ChannelPruning

__all__ = ["Found", "Search", "Settings"]

_MOST_ATTEMPTS = 60
_SEED = 0
# How blocks of attention, here and in transformers, call their number of heads and a head's width.
_OF_ATTENTION = frozenset(
    {"num_heads", "num_attention_heads", "n_heads", "n_head", "heads"}
    | {"head_dim", "attention_head_size", "attention_head_dim", "all_head_size", "inner_dim"}
)


@dataclass(frozen=True)
class Settings:
    """What a cut needs beside slices: integers of modules, and scales to restore."""

    attributes: tuple[tuple[Attribute, int], ...] = ()
    rescalings: tuple[Rescaling, ...] = ()

    def apply(self, module: nn.Module, cut: Cut) -> None:
        """Set them in a module that has lost its slices."""
        for attribute, value in self.attributes:
            set_attribute(module, attribute, value)
        rescale(module, self.rescalings, cut)


@dataclass(frozen=True)
class Found:
    """A cut that is proved; without ``removed`` classes there is nothing to cut."""

    plan: CutPlan
    settings: Settings

    @property
    def removed(self) -> frozenset[int]:
        """The classes that go."""
        return self.plan.removed

    @property
    def cut(self) -> Cut:
        """What stays of each tensor."""
        return self.plan.cut

    @functools.cached_property
    def widths(self) -> tuple[Width, ...]:
        """Every layer before and after."""
        return tuple(widths_of(self.plan.ids, set(self.removed)))

    @property
    def has_heads(self) -> bool:
        """Whether the model has attention whose heads could be separated."""
        return any(decision.cuts_heads for decision in self.plan.decisions.values())

    def apply(self, module: nn.Module) -> None:
        """Cut the module, in place."""
        take_slices(module, self.cut)
        self.settings.apply(module, self.cut)


class Search:
    """Attempts at one cut of ``module``, which is left as it is."""

    def __init__(
        self, module: nn.Module, example: Inputs, request: ChannelPruning, ranked: nn.Module
    ) -> None:
        self.module = module
        self.modes, self.inputs = modes_of(module, example)
        self.planner = Planner(module, self.modes, request, ranked)
        self._random: dict[int, nn.Module] = {}

    def run(self) -> Found:
        """Attempt until a cut is proved.

        Raises:
            StageError: none could be.
        """
        for _ in range(_MOST_ATTEMPTS):
            plan = self.planner.plan()
            settings = Settings()
            if plan.removed:
                try:
                    settings = self._with_attention_sizes(plan, self._attempt(plan))
                except _Disproved as disproved:
                    self.planner.learn(plan, disproved.place, disproved.mismatch)
                    continue
            return Found(plan, settings)
        raise StageError(
            "prune: no cut of this model could be proved; name the layers to leave alone in "
            "`ignore`."
        )

    def disproof(self, found: Found, tamper: Callable[[nn.Module], None]) -> Mismatch | None:
        """What disproves a cut once ``tamper`` has changed the cut net, if anything does."""
        for place in range(len(self.modes)):
            outcome = self._try(found.plan, place, found.settings, tamper)
            if isinstance(outcome, Mismatch):
                return outcome
        return None

    # Attempts.

    def _attempt(self, plan: CutPlan) -> Settings:
        """What else to set for the cut; raises what disproves it."""
        settings = Settings()
        for place in range(len(self.modes)):
            settings = self._attempt_net(plan, place, settings)
        return settings

    def _with_attention_sizes(self, plan: CutPlan, settings: Settings) -> Settings:
        """The settings, with widths and numbers of heads that modules hold and do not need.

        A block may work its number of heads out from a tensor and hold it as well, where others
        read it.
        """
        more = dict(settings.attributes)
        for name, (changed, fixed) in self._sizes_by_module(plan).items():
            sizes = {
                old: new
                for old, (new, *others) in changed.items()
                if not others and old not in fixed
            }
            for attribute, new in attributes_to_try(self.module.get_submodule(name), name, sizes):
                if attribute.name in _OF_ATTENTION:
                    more.setdefault(attribute, new)
        extended = Settings(tuple(more.items()), settings.rescalings)
        if extended.attributes == settings.attributes:
            return settings
        agree = all(
            not isinstance(self._try(plan, place, extended), Mismatch)
            for place in range(len(self.modes))
        )
        return extended if agree else settings

    def _sizes_by_module(self, plan: CutPlan) -> dict[str, tuple[dict[int, set[int]], set[int]]]:
        """Sizes that have changed where a module makes views, old to new, and that have not."""
        found: dict[str, tuple[dict[int, set[int]], set[int]]] = {}
        for place, mode in enumerate(self.modes):
            for number, node in enumerate(mode.trace.nodes):
                if node.kind == "view":
                    changed, fixed = found.setdefault(node.module, ({}, set()))
                    more, same = self._sizes_at(plan, place, number)
                    fixed |= same
                    for old, new in more.items():
                        changed[old] = changed.get(old, set()) | new
        return found

    def _attempt_net(self, plan: CutPlan, place: int, settings: Settings) -> Settings:
        outcome = self._try(plan, place, settings)
        while isinstance(outcome, Mismatch) and outcome.is_shape:
            for more in self._repairs(plan, place, outcome, settings.attributes):
                wider = Settings((*settings.attributes, *more), settings.rescalings)
                other = self._try(plan, place, wider)
                if not isinstance(other, Mismatch) or other.number > outcome.number:
                    outcome, settings = other, wider
                    break
            else:
                raise _Disproved(place, outcome)
        if isinstance(outcome, Mismatch):
            raise _Disproved(place, outcome)
        if not outcome:
            return settings
        found = tuple(self._rescaling(place, change) for change in outcome)
        settings = Settings(settings.attributes, (*settings.rescalings, *found))
        if isinstance(problem := self._try(plan, place, settings), Mismatch):
            raise _Disproved(place, problem)
        return settings

    def _try(
        self,
        plan: CutPlan,
        place: int,
        settings: Settings,
        tamper: Callable[[nn.Module], None] = lambda _: None,
    ) -> Mismatch | list[ScaleChange]:
        net, drawn = self.modes[place], self._drawn(place)
        small = copy.deepcopy(drawn)
        take_slices(small, plan.cut)
        settings.apply(small, plan.cut)
        tamper(small)
        skipped = {number for r in settings.rescalings for number in r.numbers}
        if net.is_random:  # numbers that are drawn differ; shapes do not
            skipped = set(range(len(net.trace.nodes)))
        try:
            return prove(
                functools.partial(copy.deepcopy, drawn),
                small,
                plan.cut,
                random_inputs(self.inputs, _SEED + 1),
                net.trace,
                plan.flows[place],
                set(plan.removed),
                unscaled=not settings.rescalings,
                skipped=frozenset(skipped),
            )
        except Mismatch as mismatch:
            return mismatch.with_traceback(None)

    def _drawn(self, place: int) -> nn.Module:
        """The module of a mode with random weights, which are drawn once."""
        if place not in self._random:
            self._random[place] = copy.deepcopy(self.modes[place].module)
            random_weights(self._random[place], _SEED)
        return self._random[place]

    def _rescaling(self, place: int, change: ScaleChange) -> Rescaling:
        trace = self.modes[place].trace
        rescaling = find_rescaling(trace, change)
        if rescaling is None:
            node = trace.nodes[change.number]
            what = f"{node.kind.strip('_')} multiplies by a number that follows from their count"
            mismatch = Mismatch(change.number, node.module, what, is_shape=False, is_scale=True)
            raise _Disproved(place, mismatch)
        return rescaling

    def _repairs(
        self,
        plan: CutPlan,
        place: int,
        failure: Mismatch,
        known: Sequence[tuple[Attribute, int]],
    ) -> list[list[tuple[Attribute, int]]]:
        """Attributes that may hold a size that has changed where the cut net failed."""
        changed, fixed = self._sizes(plan, place, failure)
        done = {attribute for attribute, _ in known}
        layer = self.module.get_submodule(failure.module)
        candidates = [
            candidate
            for old, news in changed.items()
            for new in sorted(news)
            for candidate in attributes_to_try(layer, failure.module, {old: new})
            if candidate[0] not in done
        ]
        certain = [
            (attribute, new)
            for attribute, new in candidates
            if sum(a == attribute for a, _ in candidates) == 1
            and _value(self.module, attribute) not in fixed
        ]
        groups = [
            *(self._alike(*candidate) for candidate in candidates),
            *([c] for c in candidates),
            certain,
            candidates,
        ]
        return [group for n, group in enumerate(groups) if group and group not in groups[:n]]

    def _alike(self, attribute: Attribute, new: int) -> list[tuple[Attribute, int]]:
        """The attribute of all modules of a class that hold the same value in it."""
        kind, old = (
            type(self.module.get_submodule(attribute.module)),
            _value(self.module, attribute),
        )
        others = (
            replace(attribute, module=name)
            for name, layer in self.module.named_modules()
            if type(layer) is kind and hasattr(layer, attribute.name)
        )
        return [(other, new) for other in others if _value(self.module, other) == old]

    def _sizes(
        self, plan: CutPlan, place: int, failure: Mismatch
    ) -> tuple[dict[int, set[int]], set[int]]:
        """Sizes that have changed where the cut net failed, old to new, and those that have not."""
        changed, fixed = self._sizes_at(plan, place, failure.number)
        for axis, kept in plan.cut.kept.items():
            if axis.parameter.startswith(f"{failure.module}." if failure.module else ""):
                changed[plan.cut.sizes[axis]].add(len(kept))
        return changed, fixed

    def _sizes_at(
        self, plan: CutPlan, place: int, number: int
    ) -> tuple[dict[int, set[int]], set[int]]:
        """The same of one operator."""
        changed: dict[int, set[int]] = defaultdict(set)
        fixed: set[int] = set()
        trace, flow = self.modes[place].trace, plan.flows[place]
        for value in values_at(trace, number):
            axes = flow.layouts[value].axes
            for size, vector in zip(trace.values[value].shape, axes, strict=True):
                roots = [] if vector is None else plan.ids.roots(vector).tolist()
                left = size - sum(root in plan.removed for root in roots)
                if left != size:
                    changed[size].add(left)
                else:
                    fixed.add(size)
        return changed, fixed


class _Disproved(Exception):
    """A cut that one of the nets disproves."""

    def __init__(self, place: int, mismatch: Mismatch) -> None:
        super().__init__(mismatch.what)
        self.place = place
        self.mismatch = mismatch


def _value(module: nn.Module, attribute: Attribute) -> int | None:
    held = getattr(module.get_submodule(attribute.module), attribute.name)
    if attribute.place is None:
        return held if isinstance(held, int) else None
    return held[attribute.place] if attribute.place < len(held) else None
