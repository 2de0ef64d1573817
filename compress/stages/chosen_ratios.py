"""How much of which layers goes for a goal: what costs most of it, and disturbs the outputs least.

An integer program gives each group of layers its own ratio (:mod:`.cut_table`). A time is that of
the run's first target: the model is profiled there with all groups cut by each of the same ratios,
so that every layer has a time at each of these widths, and widths that its kernels like pay.

Choosing how far each layer goes by times that were measured on the device is Yang et al. 2018,
"NetAdapt", and by a knapsack over them Shen et al. 2022, "Structural pruning via latency-saliency
knapsack" (HALP).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from compress.candidate import Candidate
from compress.errors import AlreadySo, MeasurementError, NoEffect, StageError
from compress.events import StageProgress
from compress.integer_program import Limit
from compress.pruning.channels import ChannelPruning
from compress.pruning.importance import CRITERIA
from compress.quantization.fakequant import called_layers, layers_with_formats
from compress.stage import Context, LayerSeconds, TimesLayers, calibration_inputs
from compress.stages.cut_costs import Counted, TimesByRatio, cost_of_elements
from compress.stages.cut_table import RATIOS, CutTable, cut_table
from compress.stages.goal_search import Cut
from compress.stages.goals import Cost, Goal, costs_of

__all__ = ["ChosenRatios"]

_SAMPLES = 256
_NONE_ALONE = (
    "prune: no channel of any layer can be removed by itself; ignore less, or take scope local, "
    "which cuts all layers together."
)
_COUNTED: Mapping[str, Counted] = {
    "macs": "macs",
    "parameters": "parameters",
    "artifact_kib": "parameters",  # which the file holds
}


@dataclass(frozen=True)
class ChosenRatios:
    """The ratio of each group of layers of one candidate, for how much is to go.

    Args:
        incoming: is cut; it stays as it is.
        context: of the stage; its evaluator profiles where a goal is about time.
        request: how channels are ranked, rounded and ignored; its ratios do not count.
        goal: what the cut is for.
        make: cuts it.
    """

    incoming: Candidate
    context: Context
    request: ChannelPruning
    goal: Goal
    make: Callable[[Cut], Candidate]

    def at(self, ratio: float) -> dict[str, float]:
        """Ratios by layer; those that stay have 0.

        Args:
            ratio: how far to go: costs are to fall to the square of what is left, as they do where
                it is the ratio of all layers. Of several goals those that ask for less fall as
                much less.

        Raises:
            StageError: the target cannot profile, and a time is asked for.
            NoEffect: no layer can be cut.
        """
        chosen = self._table.choose([limit for limit in self._limits(ratio) if limit.most < 0])
        if chosen is None:
            chosen = [len(RATIOS) - 1] * len(self._table.groups)
        stay = {group.layers[0]: 0.0 for group in self._table.groups}
        return stay | self._table.ratios(chosen)

    def _limits(self, ratio: float) -> list[Limit]:
        most = max(cost.excess for cost in self._costs)
        limits = []
        for cost in self._costs:
            share = (1 - ratio) ** 2 * most / cost.excess
            if cost.name in _COUNTED:
                each = self._elements[_COUNTED[cost.name]]
                whole = sum(
                    each.get(name, 0.0) * math.prod(shape)
                    for name, shape in self._table.shapes.items()
                )
                limits.append(self._table.limit_of_elements(each, (share - 1) * whole))
            else:
                limits.append(self._times.limit(self._table, share))
        return limits

    @cached_property
    def _costs(self) -> list[Cost]:
        """Of the incoming candidate, beside what they are to be."""
        return costs_of(self.goal, self.incoming, self.context.evaluator)(self.incoming)

    @cached_property
    def _elements(self) -> dict[Counted, dict[str, float]]:
        wanted = {_COUNTED[cost.name] for cost in self._costs if cost.name in _COUNTED}
        return {what: cost_of_elements(what, self.incoming) for what in sorted(wanted)}

    @cached_property
    def _layers(self) -> list[str]:
        module = self.incoming.module
        called = called_layers(module, self.incoming.example)
        return [name for name in layers_with_formats(module) if name in called]

    @cached_property
    def _table(self) -> CutTable:
        # Gradients and activations would have to be read for every cut of every group.
        criterion = self.request.criterion
        ranked = CRITERIA["group-l2"] if criterion.needs_data else criterion
        found = cut_table(
            self.incoming.module,
            self.incoming.example,
            calibration_inputs(self.context.task, _SAMPLES),
            self._layers,
            replace(
                self.request,
                importance=ranked,
                round_to=math.lcm(
                    self.request.round_to,
                    *(one.channel_multiple for one in self.incoming.invariants),
                ),
            ),
            self._tell,
        )
        if not found.groups:
            raise NoEffect(_NONE_ALONE)
        return found.steepened

    def _tell(self, number: int, count: int, layer: str) -> None:
        self.context.report(StageProgress(f"cutting {layer} by itself, layer", number, count))

    @cached_property
    def _times(self) -> TimesByRatio:
        profiled = self._profiled()
        found = [own for own in profiled if own is not None]
        if not found:
            raise NoEffect(_NONE_ALONE)
        first = found[0]
        named = [n for n in first.before if all(own.before.get(n, 0.0) > 0 for own in found)]
        rows = [[1.0] * (1 + len(named))]
        for own in profiled:
            # Each beside the uncut one in its own session: the machine drifts between sessions. A
            # ratio at which nothing could be cut takes what the one before it did.
            rows.append(
                rows[-1]
                if own is None
                else [
                    own.whole_after / own.whole_before,
                    *(own.after[name] / own.before[name] for name in named),
                ]
            )
        whole, *layers = np.array(rows).T
        return TimesByRatio(
            {n: first.before[n] * row for n, row in zip(named, layers, strict=True)},
            first.whole_before * whole,
        )

    def _profiled(self) -> list[LayerSeconds | None]:
        """With all groups cut by each ratio but 0; ``None`` where that cuts nothing."""
        found: list[LayerSeconds | None] = []
        for number in range(1, len(RATIOS)):
            what = "timing layers, cut"
            self.context.report(StageProgress(what, number, len(RATIOS) - 1))
            ratios = self._table.ratios([number] * len(self._table.groups))
            try:
                cut = self.make(Cut(0.0, ratios, is_chosen=True))
            except (NoEffect, AlreadySo):
                found.append(None)
                continue
            found.append(self._layer_seconds(cut))
        return found

    def _layer_seconds(self, cut: Candidate) -> LayerSeconds:
        evaluator = self.context.evaluator
        why = "nothing times layers here"
        if isinstance(evaluator, TimesLayers):
            try:
                return evaluator.layer_seconds(cut, self._layers)
            except MeasurementError as error:
                why = str(error).rstrip(".")
        raise StageError(f"prune: scope sensitivity: {why}; scope local needs no times of layers.")
