"""What a criterion is, and those that rank single weights; the rest are in ``importance``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from compress.errors import StageError
from compress.pruning.ids import ChannelIds
from compress.pruning.widths import Pool

__all__ = ["OF_WEIGHTS", "Criterion", "Scores"]

#: Of a module, its channel ids and a pool of them: one score for each channel of the pool.
Scores = Callable[[nn.Module, ChannelIds, Pool], Sequence[float]]


@dataclass(frozen=True)
class Criterion:
    """A way to rank channels; those of low scores are removed first.

    Args:
        name: as in a recipe.
        scores: of the channels of a pool.
        by_magnitude: whether it ranks by the size of weights, as single weights are.
        reads_gradients: whether it needs gradients of the loss.
        squares_gradients: whether it needs the mean of their squares over single samples.
        reads_activations: whether it needs inputs, to read what channels hold
            (:mod:`compress.pruning.activations`).
        reads_batch_norm: whether it ranks only channels that a batch norm scales.
        of_weights: whether it ranks single weights and no channels
            (:mod:`compress.pruning.weight_scores`).
        within_outputs: whether it compares the weights of one output alone.
        compensates: whether it changes the weights that stay, too
            (:mod:`compress.pruning.sparse_gpt`).
        is_learned: whether it ranks while the model is trained (:mod:`compress.pruning.movement`).
        is_relative: whether scores are divided by their mean over the pool, so that pools compare.
        about: what it goes by, as a clause for the reference.
    """

    name: str
    scores: Scores
    by_magnitude: bool = False
    reads_gradients: bool = False
    squares_gradients: bool = False
    reads_activations: bool = False
    reads_batch_norm: bool = False
    of_weights: bool = False
    within_outputs: bool = False
    compensates: bool = False
    is_learned: bool = False
    is_relative: bool = True
    about: str = ""

    @property
    def needs_data(self) -> bool:
        """Whether it looks at more than the weights."""
        return self.reads_gradients or self.reads_activations or self.of_weights


def _no_scores(*_: object) -> list[float]:
    raise StageError("prune: this importance ranks single weights, and no channels.")


#: Those that rank single weights.
OF_WEIGHTS: tuple[Criterion, ...] = (
    Criterion(
        "wanda",
        _no_scores,
        of_weights=True,
        within_outputs=True,
        about="of single weights: their size times the norm of the inputs that they meet, "
        "within each output (Sun et al. 2024)",
    ),
    Criterion(
        "snip",
        _no_scores,
        reads_gradients=True,
        of_weights=True,
        about="of single weights: what the loss would change by without each, from "
        "gradients on training data (Lee et al. 2019)",
    ),
    Criterion(
        "sparsegpt",
        _no_scores,
        of_weights=True,
        compensates=True,
        about="of single weights: the error that a layer's outputs would have without each, which "
        "the weights that stay make up for (Frantar and Alistarh 2023)",
    ),
    Criterion(
        "movement",
        _no_scores,
        of_weights=True,
        is_learned=True,
        about="of single weights: whether `finetune` moves each away from zero or towards it "
        "(Sanh et al. 2020)",
    ),
)
