"""What a choice of cuts costs: limits for :meth:`.cut_table.CutTable.choose`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from compress.candidate import Candidate
from compress.integer_program import Costs, Limit
from compress.modules.inputs import at_batch, forward
from compress.pruning.trace import in_float64
from compress.quantization.fakequant import layers_with_formats
from compress.stages.cut_table import RATIOS, CutTable

__all__ = ["Counted", "TimesByRatio", "cost_of_elements"]

#: What is counted of parameters.
Counted = Literal["macs", "parameters"]
_LEAST_S = 1e-9  # a layer's time, whose logarithm is taken


def cost_of_elements(what: Counted, candidate: Candidate) -> dict[str, float]:
    """What an element of each parameter costs: itself, or the products that its layer makes of it.

    Products that have no weight, as those of attention, are not in it.
    """
    sizes = {name: tensor.numel() for name, tensor in candidate.module.named_parameters()}
    if what == "parameters":
        return dict.fromkeys(sizes, 1.0)
    double, inputs = in_float64(candidate.module, at_batch(candidate.example, 1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(double, inputs)
    root = type(candidate.module).__name__
    flops = {name: sum(own.values()) for name, own in counter.get_flop_counts().items()}
    found: dict[str, float] = {}
    for layer in layers_with_formats(candidate.module):
        weights = {
            n: s for n, s in sizes.items() if n.rpartition(".")[0] == layer and "weight" in n
        }
        total = sum(weights.values())
        found |= dict.fromkeys(weights, flops.get(f"{root}.{layer}", 0) / 2 / max(1, total))
    return found


@dataclass(frozen=True)
class TimesByRatio:
    """Seconds of one inference where every group of layers is cut by the same ratio.

    Args:
        layers: by path, at each of ``RATIOS``; of those that are not named here nothing is known.
        whole: of the whole model, likewise.
    """

    layers: Mapping[str, Sequence[float]]
    whole: Sequence[float]

    def limit(self, table: CutTable, share: float) -> Limit:
        """A limit on the time that a choice takes: a share of that of the uncut model.

        A layer is timed at widths of inputs and outputs that were cut alike. Cut by two ratios,
        it is taken to need the geometric mean of its times at both: the product of what either
        does to it, as for a layer whose time follows its work. What is not in layers falls with
        them.
        """
        singles = [np.zeros(len(RATIOS)) for _ in table.groups]
        pairs: dict[tuple[int, int], Costs] = {}
        known = {layer: np.maximum(_LEAST_S, own) for layer, own in self.layers.items()}
        own_time = np.zeros(len(table.groups))
        for layer, numbers in _groups_by_layer(table, known).items():
            times, power = known[layer], 1 / len(numbers)
            own_time[numbers] += times[0] * power
            relative = (times / times[0]) ** power
            if len(numbers) == 2:
                both = times[0] * (relative[:, None] * relative[None] - 1)
                one, other = numbers
                pairs[one, other] = pairs.get((one, other), 0.0) + both
                continue
            for number in numbers:  # of more than two, as of concatenated inputs, to first order
                singles[number] += times[0] * (relative - 1)
        rest = np.asarray(self.whole) - sum(known.values(), np.zeros(len(RATIOS)))
        if own_time.any():
            for number, part in enumerate(own_time / own_time.sum()):
                singles[number] += part * (rest - rest[0])
        room = (share - 1) * self.whole[0]
        return Limit(room, [own.tolist() for own in singles], pairs)


def _groups_by_layer(table: CutTable, layers: Mapping[str, object]) -> dict[str, list[int]]:
    """The groups that make a layer's own parameters smaller."""
    found: dict[str, list[int]] = {}
    for name, numbers in table.touching.items():
        layer = name.rpartition(".")[0]
        if layer in layers:
            found[layer] = sorted({*found.get(layer, ()), *numbers})
    return found
