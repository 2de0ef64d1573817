"""SparseGPT: single weights go layer by layer, and those that stay make up for them.

Frantar and Alistarh 2023, "SparseGPT: massive language models can be accurately pruned in
one-shot". The Hessian of a layer's squared output error is ``2 X X^T`` over its inputs. Going
through the columns of the weight, the weights with the smallest ``w^2 / [H^-1]_jj^2`` are removed,
and the error of each is compensated in the columns after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.errors import StageError
from compress.modules.inputs import Inputs
from compress.pruning.layer_inputs import call_counts, input_products
from compress.pruning.sparsity import inputs_first, outputs_first
from compress.quantization.fakequant import channel_axis

__all__ = ["MOST_INPUTS", "Choice", "Remaining", "compensated", "prune_layers"]

#: A layer with more inputs goes by magnitude: its Hessian, in double precision, would take more
#: than half a gigabyte.
MOST_INPUTS = 8192

_COLUMNS = 128
_DAMPING = 0.01


@dataclass(frozen=True)
class Choice:
    """How many weights go.

    Args:
        ratio: share of the weights of each block of columns, where there is no pattern.
        n_of_m: how many of how many consecutive inputs stay, or ``None``.
        columns: of a block.
    """

    ratio: float
    n_of_m: tuple[int, int] | None = None
    columns: int = _COLUMNS

    @property
    def width(self) -> int:
        """The columns of a block; whole groups of a pattern."""
        m = 1 if self.n_of_m is None else self.n_of_m[1]
        return m * max(1, self.columns // m)


@dataclass(frozen=True)
class Remaining:
    """Layers that :func:`prune_layers` left to magnitude, by the reason."""

    layers: dict[str, list[str]] = field(default_factory=dict)

    def add(self, layer: str, reason: str) -> None:
        """Note one."""
        self.layers.setdefault(reason, []).append(layer)


@torch.no_grad()
def prune_layers(
    module: nn.Module,
    layers: Sequence[str],
    batches: Sequence[Inputs],
    choice: Choice,
    computed: Callable[[str], Tensor],
    by_size: Callable[[str], Tensor],
) -> Remaining:
    """Remove weights of layers in the order in which they are called, in place.

    Each layer sees its inputs as they are once those before it are pruned.

    Args:
        module: in eval mode, computing as it is deployed.
        layers: paths of linear layers and convolutions.
        batches: of calibration inputs.
        choice: how many weights go.
        computed: of a layer, its weight as the module computes with it now. What the weights that
            stay make up for is added to the weight itself.
        by_size: of a layer, a mask of its weights by magnitude; true where one stays.

    Raises:
        StageError: there are no samples, or a layer has inputs that are not finite.
    """
    if not batches:
        raise StageError("prune: importance sparsegpt needs samples to run the layers on.")
    counts, remaining = call_counts(module, layers, batches[0]), Remaining()
    owners = Counter(id(p) for one in module.modules() for p in one._parameters.values())
    for name in [*(name for name in layers if name not in counts), *counts]:
        layer = module.get_submodule(name)
        weight = layer.get_parameter("weight")
        reason = _why_not(layer, name in counts, owners[id(weight)] > 1)
        if reason:
            remaining.add(name, reason)
            weight.mul_(by_size(name))
            continue
        products = input_products(module, name, batches, once=counts[name] == 1)
        if not products.isfinite().all():
            raise StageError(
                f"prune: the layer {name!r} has inputs that are not finite, and importance "
                "sparsegpt cannot rank its weights; name it in `ignore`."
            )
        before = computed(name)
        rows, is_zero = _rows(layer, before).double(), _rows(layer, weight) == 0
        pruned, kept = compensated(rows, 2 * products, choice, is_zero)
        weight.add_(_unrowed(layer, pruned.to(weight)) - before)
        weight.mul_(_unrowed(layer, kept))
    return remaining


def compensated(
    weight: Tensor, hessian: Tensor, choice: Choice, is_zero: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights with fewer of them, those that stay compensated; and which stay.

    Args:
        weight: ``(groups, outputs, inputs)``, in double precision.
        hessian: ``(groups, inputs, inputs)``; a hundredth of the mean of its diagonal is added to
            that.
        choice: how many go; the best of a block are compared over all groups.
        is_zero: in the shape of ``weight``, what was removed before and has to stay so.

    Returns:
        The new weights, and a mask that is true where one stays.
    """
    factor, weight = _inverse_factor(hessian), weight.clone()
    kept = torch.ones_like(is_zero)
    seen = gone = 0
    for first in range(0, weight.shape[-1], choice.width):
        last = min(first + choice.width, weight.shape[-1])
        here = slice(first, last)
        own, zeros = weight[..., here], is_zero[..., here]
        diagonal = factor.diagonal(dim1=-2, dim2=-1)[:, None, here]
        mask = ~zeros
        if choice.n_of_m is None:
            seen += own.numel()
            least = round(choice.ratio * seen) - gone
            mask = _all_but(_scores(own, diagonal, zeros), max(least, int(zeros.sum())))
            gone += int((~mask).sum())
        errors = _go_through(own, mask, zeros, factor[:, here, here], choice.n_of_m)
        weight[..., last:] -= errors @ factor[:, here, last:]
        kept[..., here] = mask
    return weight, kept


def _go_through(
    weight: Tensor, kept: Tensor, zeros: Tensor, factor: Tensor, n_of_m: tuple[int, int] | None
) -> Tensor:
    """Remove what is not ``kept`` from a block, column by column, in place; the errors.

    With a pattern, ``kept`` is chosen on the way, for each group when its first column comes.
    """
    errors, columns = torch.zeros_like(weight), weight.shape[-1]
    diagonal = factor.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    for column in range(columns):
        if n_of_m is not None and column % n_of_m[1] == 0 and column + n_of_m[1] <= columns:
            group = slice(column, column + n_of_m[1])
            scores = _scores(weight[..., group], diagonal[..., group], zeros[..., group])
            best = torch.zeros_like(scores, dtype=torch.bool)
            best.scatter_(-1, scores.topk(n_of_m[0], dim=-1).indices, True)
            kept[..., group] &= best
        removed = weight[..., column] * ~kept[..., column]
        errors[..., column] = removed / diagonal[..., column]
        # The first of these columns loses what is removed.
        weight[..., column:] -= errors[..., column, None] * factor[:, None, column, column:]
        weight[..., column] *= kept[..., column]
    return errors


def _scores(weight: Tensor, diagonal: Tensor, zeros: Tensor) -> Tensor:
    """The error of removing each weight; below all others where it is zero already."""
    return (weight / diagonal).square().masked_fill(zeros, -1.0)


def _all_but(scores: Tensor, count: int) -> Tensor:
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[scores.flatten().argsort(stable=True)[: max(0, count)]] = False
    return kept.view_as(scores)


def _inverse_factor(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of each inverse; row j is that of what is left from column j on."""
    mean = hessian.diagonal(dim1=-2, dim2=-1).mean(-1)
    # A layer that meets zeros alone is ranked by magnitude.
    damping = torch.where(mean > 0, _DAMPING * mean, 1.0)
    damped = hessian + damping[:, None, None] * torch.eye(hessian.shape[-1], dtype=hessian.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _why_not(layer: nn.Module, is_called: bool, is_tied: bool) -> str:
    """Why a layer goes by magnitude; empty where it does not."""
    if not is_called:
        return "inference does not call them"
    if is_tied:
        return "their weights are shared"
    groups = getattr(layer, "groups", 1)
    inputs = _rows(layer, layer.get_parameter("weight")).shape[-1]
    if groups * inputs**2 > MOST_INPUTS**2:
        return f"they have more than {MOST_INPUTS:,} inputs"
    return ""


def _rows(layer: nn.Module, weight: Tensor) -> Tensor:
    """A layer's weight as ``(groups, outputs, inputs)``."""
    groups = getattr(layer, "groups", 1)
    rows = outputs_first(weight.detach(), channel_axis(layer), groups)
    return rows.reshape(groups, rows.shape[0] // groups, -1)


def _unrowed(layer: nn.Module, rows: Tensor) -> Tensor:
    """The inverse of :func:`_rows`."""
    axis, groups = channel_axis(layer), getattr(layer, "groups", 1)
    shape = outputs_first(layer.get_parameter("weight"), axis, groups).shape
    return inputs_first(rows.reshape(shape), axis, groups)
