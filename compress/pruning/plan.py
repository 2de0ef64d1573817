"""What to remove in one attempt, and what a failed attempt teaches.

A plan follows the ids through every mode of the module, joins what goes together, and selects
classes. Where the cut net and the original differ, a split may be cut along its other axis, a width
may follow from another one, or the channels that meet there are left uncut.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import nn

from compress.pruning.coupling import couple
from compress.pruning.flow import Flow, follow
from compress.pruning.ids import Axis, ChannelIds, Vector
from compress.pruning.importance import has_batch_norm, score_pool
from compress.pruning.modes import Mode
from compress.pruning.proof import Mismatch
from compress.pruning.surgery import Cut
from compress.pruning.trace import Trace
from compress.pruning.walk import Decision
from compress.pruning.widths import (
    Pool,
    Scores,
    first_size,
    layers_of,
    pools_of,
    select_classes,
    widths_of,
)

if TYPE_CHECKING:
    from compress.pruning.channels import ChannelPruning

__all__ = ["CutPlan", "Planner", "values_at"]


@dataclass(frozen=True)
class CutPlan:
    """What one attempt is about: the ids, their flow through each net, and what is removed."""

    ids: ChannelIds
    flows: list[Flow]
    decisions: Mapping[str, Decision]
    removed: frozenset[int] = frozenset()

    @functools.cached_property
    def cut(self) -> Cut:
        """What stays of each tensor."""
        return Cut.of(self.ids, set(self.removed))


class Planner:
    """Makes plans, and keeps what was disproved."""

    def __init__(
        self, module: nn.Module, modes: Sequence[Mode], request: ChannelPruning, ranked: nn.Module
    ) -> None:
        self.module = module
        self.modes = modes
        self.request = request
        self.ranked = ranked
        self._intact: list[tuple[list[int], str]] = []
        self._choices: dict[str, str] = {}
        self._rejected: set[tuple[str, str]] = set()
        self._ties: list[tuple[list[int], list[int]]] = []
        self._tied: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = {}
        self._in_twos: set[Axis] = set()

    def plan(self) -> CutPlan:
        """What to remove, given what was disproved so far."""
        plan = self._decided()

        def scores(pool: Pool) -> list[float]:
            return score_pool(self.ranked, plan.ids, pool, self.request.criterion)

        removed = self._select(plan.ids, self.request.scope, scores)
        return CutPlan(plan.ids, plan.flows, plan.decisions, frozenset(removed))

    def _select(
        self, ids: ChannelIds, scope: Literal["local", "global"], scores: Scores
    ) -> set[int]:
        return select_classes(
            ids,
            ratio=self.request.ratio,
            layer_ratios=self.request.layer_ratios,
            round_to=self.request.round_to,
            scope=scope,
            scores=scores,
            least=self._least,
            first_shapes=self.request.first_shapes,
        )

    def _decided(self) -> CutPlan:
        """The flow of ids whose splits lose least of what was requested."""
        best = self._follow(self._choices)
        error = self._error(best)
        for signature, decision in list(best.decisions.items()):
            for option in decision.options:
                if (signature, option) in self._rejected or option == self._chosen(decision):
                    continue
                other = self._follow({**self._choices, signature: option})
                if (other_error := self._error(other)) < error - 1e-9:
                    best, error = other, other_error
                    self._choices[signature] = option
        return best

    def _follow(self, choices: Mapping[str, str]) -> CutPlan:
        ids, flows = ChannelIds(), []
        decisions: dict[str, Decision] = {}
        for net in self.modes:
            flow = follow(net.trace, choices, ids)
            flows.append(flow)
            decisions |= flow.decisions
        couple(self.module, ids)
        for one, other in self._ties:
            for part in np.asarray(other).reshape(-1, len(one)):
                ids.join(np.asarray(one), part)
        self._keep_intact(ids, decisions)
        return CutPlan(ids, flows, decisions)

    def _keep_intact(self, ids: ChannelIds, decisions: Mapping[str, Decision]) -> None:
        for places, reason in self._intact:
            ids.keep_intact(places, reason)
        for axis in ids.of_axis:
            if axis not in ids.contracted and (name := self._ignored(axis)):
                ids.keep_intact(ids.of_axis[axis], f"{name!r} is to be ignored")
        heads = [d for d in decisions.values() if d.cuts_heads]
        if self.request.unit == "channels":
            for vector in (vector for decision in heads for vector in decision.ids):
                ids.keep_intact(vector, "complete heads are removed by granularity: heads")
        else:
            _keep_all_but(heads, ids)
        if self.request.criterion.reads_batch_norm:
            for pool in pools_of(ids):
                if not has_batch_norm(self.module, pool):
                    ids.keep_intact(pool.classes, "no batch norm scales them, for bn-scale to read")

    def _ignored(self, axis: Axis) -> str:
        own = axis.parameter
        matches = (n for n in self.request.ignore if own == n or own.startswith(f"{n}."))
        return next(matches, "")

    def _chosen(self, decision: Decision) -> str:
        return self._choices.get(decision.signature, decision.options[0])

    def _error(self, plan: CutPlan) -> float:
        """How far all layers are from what was requested, in shares of their widths."""
        ids = plan.ids
        # Only how many go is looked at, not which.
        removed = self._select(ids, "local", lambda pool: range(len(pool.classes)))
        first = [first_size(one.axis, ids, self.request.first_shapes) for one in layers_of(ids)]
        error = sum(
            abs((1 - self.request.ratio) - width.after / before)
            for before, width in zip(first, widths_of(ids, removed), strict=True)
        )
        error += sum(_computed_across(flow, ids) for flow in plan.flows)
        if self.request.unit == "heads":
            error -= sum(decision.cuts_heads for decision in plan.decisions.values())
        return error

    def learn(self, plan: CutPlan, place: int, mismatch: Mismatch) -> None:
        """Change a decision that led to a mismatch, or leave its channels uncut."""
        touched = self._touched(plan, place, mismatch)
        if not mismatch.is_scale and (
            self._leave_two(plan, touched) or self._tie(plan, place, mismatch)
        ):
            return
        for decision in plan.decisions.values():
            if mismatch.is_scale or not _meets(plan.ids, decision, touched):
                continue
            self._rejected.add((decision.signature, self._chosen(decision)))
            if self._choose_another(decision):
                return
        where = f" in {mismatch.module!r}" if mismatch.module else " in the model's own forward"
        reason = f"the cut could not be proved{where} ({mismatch.what})"
        if mismatch.is_shape:
            reason = f"a size is written into the code{where} ({mismatch.what})"
        if mismatch.is_another_way:
            reason = f"the code goes another way{where} ({mismatch.what})"
        vectors = plan.ids.of_axis.values()
        places = [i for v in vectors for i in v.tolist() if plan.ids.find(i) in touched]
        self._intact.append((places, reason))

    def _least(self, pool: Pool) -> int:
        # Many operators take another way where an axis has one place.
        return 2 if self._in_twos.intersection(pool.members) else 1

    def _leave_two(self, plan: CutPlan, touched: set[int]) -> bool:
        """Whether one channel alone was left of some layer, of which now two will be."""
        before = len(self._in_twos)
        for pool in pools_of(plan.ids):
            left = len(set(pool.classes) - plan.removed)
            if left == 1 and touched.intersection(pool.classes) and len(pool.classes) > 1:
                self._in_twos.update(pool.outputs)
        return len(self._in_twos) > before

    def _tie(self, plan: CutPlan, place: int, mismatch: Mismatch) -> bool:
        """Whether a width that failed may follow from another one, which are then cut alike.

        One attribute may be the width of the heads of queries, keys and values; and
        ``reshape(n, tokens, channels)`` takes what heads made for as wide as the embedding.
        """
        trace, flow = self.modes[place].trace, plan.flows[place]
        key = (place, mismatch.number)
        if not mismatch.is_shape:
            return False
        if key in self._tied:
            # It did not help; without it, less goes together.
            useless = self._tied[key]
            self._ties = [tie for tie in self._ties if tie not in useless]
            self._tied[key] = []
            return bool(useless)
        self._tied[key] = []
        here = values_at(trace, mismatch.number)
        found = [v for value in here for v in flow.layouts[value].axes if v is not None]
        before = len(self._ties)
        for values in (
            _likes_of(trace, mismatch.number),
            _inputs_of(trace, mismatch.module),
        ):
            others = [v for value in values for v in flow.layouts[value].axes if v is not None]
            for one in others:
                for other in found:
                    if len(other) % len(one) == 0 and not _alike(plan.ids, one, other):
                        self._ties.append((one.tolist(), other.tolist()))
            if len(self._ties) > before:
                self._tied[key] = self._ties[before:]
                return True
        return False

    def _choose_another(self, decision: Decision) -> bool:
        """Whether there is another option, which is then taken."""
        for option in decision.options:
            signature = decision.signature
            if (signature, option) in self._rejected:
                continue
            other = self._follow({**self._choices, signature: option}).decisions.get(signature)
            if self.request.unit == "channels" and other is not None and other.cuts_heads:
                self._rejected.add((signature, option))
                continue
            self._choices[signature] = option
            return True
        return False

    def _touched(self, plan: CutPlan, place: int, mismatch: Mismatch) -> set[int]:
        """All classes alike to those removed ones that meet where the nets part."""
        trace, flow = self.modes[place].trace, plan.flows[place]
        number = min(mismatch.number, len(trace.nodes) - 1)
        here = _removed_at(plan, flow, trace, [number])
        path = f"{mismatch.module}."
        while not here and path != ".":
            # Nothing that is cut is seen there: look at the module around it, and further out.
            before = range(number + 1)
            inside = [n for n in before if f"{trace.nodes[n].module}.".startswith(path)]
            here = _removed_at(plan, flow, trace, inside)
            path = f"{path[:-1].rpartition('.')[0]}."
        here = here or set(plan.removed)
        pools = [pool for pool in pools_of(plan.ids) if here.intersection(pool.classes)]
        return {root for pool in pools for root in pool.classes} | here


def _computed_across(flow: Flow, ids: ChannelIds) -> int:
    """How many extremes and sums are taken over axes that could be cut.

    Pieces of a maxout, say, are no channels: with one fewer the net is another.
    """
    count = 0
    for across in flow.across.values():
        vectors = [flow.layouts[across.value].axes[axis] for axis in across.axes]
        able = any(v is not None and ids.classes(v).any() for v in vectors)
        count += able and across.kind not in ("products", "layer norm", "group norm")
    return count


def _removed_at(plan: CutPlan, flow: Flow, trace: Trace, numbers: Iterable[int]) -> set[int]:
    found: set[int] = set()
    for number in numbers:
        for value in values_at(trace, number):
            for vector in flow.layouts[value].axes:
                if vector is not None:
                    found |= plan.removed.intersection(plan.ids.roots(vector).tolist())
    return found


def _likes_of(trace: Trace, number: int) -> list[int]:
    """What the same operator of the same module takes elsewhere, in the same shapes."""

    def facts(place: int) -> tuple[str, str, list[tuple[int, ...]]]:
        node, values = trace.nodes[place], values_at(trace, place)
        return node.kind, node.module, [trace.values[value].shape for value in values]

    if number >= len(trace.nodes) or not trace.nodes[number].refs:
        return []
    here, others = facts(number), (n for n in range(len(trace.nodes)) if n != number)
    return [trace.nodes[n].refs[0] for n in others if facts(n) == here]


def _inputs_of(trace: Trace, module: str) -> list[int]:
    """The values that a module and those in it are given by others."""
    inside = [n for n in trace.nodes if f"{n.module}.".startswith(f"{module}." if module else "")]
    made = {output for node in inside for output in node.outputs}
    taken = dict.fromkeys(ref for node in inside for ref in node.refs)
    return [ref for ref in taken if ref not in made and not trace.values[ref].name]


def values_at(trace: Trace, number: int) -> list[int]:
    """The values that an operator takes and gives."""
    if number >= len(trace.nodes):
        return []
    node = trace.nodes[number]
    return [*node.refs, *(output for output in node.outputs if output is not None)]


def _meets(ids: ChannelIds, decision: Decision, touched: set[int]) -> bool:
    return any(touched.intersection(ids.roots(vector).tolist()) for vector in decision.ids)


def _alike(ids: ChannelIds, one: Vector, other: Vector) -> bool:
    parts = ids.roots(other).reshape(-1, len(one))
    return bool((parts == ids.roots(one)).all())


def _keep_all_but(heads: Sequence[Decision], ids: ChannelIds) -> None:
    able = {int(r) for decision in heads for vector in decision.ids for r in ids.roots(vector)}
    for pool in pools_of(ids):
        if not able.issuperset(pool.classes):
            ids.keep_intact(pool.classes, "granularity: heads removes heads alone")
