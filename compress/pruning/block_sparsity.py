"""Zeros in whole blocks of a weight, which kernels for sparse matrices can skip.

Gray et al. 2017, "GPU kernels for block-sparse weights"; Lagunas et al. 2021, "Block pruning for
faster transformers".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compress.config.selectors import named
from compress.pruning.sparsity import inputs_first, magnitude_masks, outputs_first
from compress.quantization.fakequant import channel_axis

__all__ = ["BlockMasks", "block_masks"]


@dataclass(frozen=True)
class BlockMasks:
    """Which weights stay, and which are in no whole block.

    Args:
        masks: by the names of weights that have a whole block; true where one stays.
        rest: how many of each weight are in no whole block and stay, where there are any.
    """

    masks: dict[str, Tensor]
    rest: dict[str, int]

    def sentence(self, shape: str) -> str:
        """What was kept for want of a whole block; empty where there is none."""
        if not self.rest:
            return ""
        names = named([name.rpartition(".")[0] for name in self.rest])
        count = sum(self.rest.values())
        return f"{count:,} weights are in no whole block of {shape}, and stay: in {names}"


def block_masks(
    module: nn.Module,
    scores: Mapping[str, Tensor],
    shape: tuple[int, int],
    ratio: float,
    scope: Literal["local", "global"],
    *,
    by_size: bool,
) -> BlockMasks:
    """Masks in blocks: all but the ``ratio`` with the lowest scores stay.

    A weight is seen as a matrix of outputs by inputs. The inputs of an output are its weights on
    all other axes, in memory order.

    Args:
        module: has the weights.
        scores: of single weights, by their names, none below zero; the sizes of the weights
            themselves where ``by_size``.
        shape: outputs and inputs of a block.
        ratio: share of the whole blocks that goes.
        scope: of the blocks of each weight, or of all of them together.
        by_size: whether a block's score is the norm (L2) of what is in it, and not the sum.
    """
    of_blocks, rest = {}, {}
    for name, score in scores.items():
        matrix = _matrix(module, name, score)
        blocks = _in_blocks(matrix, *shape).double()
        left = matrix.numel() - blocks.numel()
        if left:
            rest[name] = left
        if blocks.numel():
            summed = (blocks.square() if by_size else blocks).sum((1, 3))
            of_blocks[name] = summed.sqrt() if by_size else summed
    kept = magnitude_masks(of_blocks, ratio, scope) if of_blocks else {}
    masks = {name: _spread(module, name, scores[name], mask, shape) for name, mask in kept.items()}
    return BlockMasks(masks, rest)


def _matrix(module: nn.Module, name: str, weight: Tensor) -> Tensor:
    layer = module.get_submodule(name.rpartition(".")[0])
    groups = getattr(layer, "groups", 1)
    return outputs_first(weight.detach(), channel_axis(layer), groups).flatten(1)


def _in_blocks(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """The whole blocks of a matrix: ``(blocks down, rows, blocks across, columns)``."""
    down, across = matrix.shape[0] // rows, matrix.shape[1] // columns
    whole = matrix[: down * rows, : across * columns]
    return whole.reshape(down, rows, across, columns)


def _spread(
    module: nn.Module, name: str, weight: Tensor, kept: Tensor, shape: tuple[int, int]
) -> Tensor:
    """A mask of single weights, in the shape of the weight, from that of its blocks."""
    layer = module.get_submodule(name.rpartition(".")[0])
    axis, groups = channel_axis(layer), getattr(layer, "groups", 1)
    rows = outputs_first(weight, axis, groups)
    mask = torch.ones(rows.shape[0], rows[0].numel(), dtype=torch.bool)
    each = kept.repeat_interleave(shape[0], 0).repeat_interleave(shape[1], 1)
    mask[: each.shape[0], : each.shape[1]] = each
    return inputs_first(mask.view(rows.shape), axis, groups)
