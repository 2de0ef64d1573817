"""Which settings of a prune stage go together, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from compress.pruning.importance import CRITERIA, Criterion
from compress.pruning.invariants import block_shape, n_of_m

__all__ = ["Asked", "check", "is_granularity"]

#: Granularities that change the structure.
_STRUCTURAL = ("channels", "heads")
_UNKNOWN = Criterion("", lambda *_: [])  # of one's own: it ranks channels


@dataclass(frozen=True)
class Asked:
    """What was asked for.

    Args:
        granularity: as in the recipe.
        importance: the name of a built-in criterion; ``None`` for one of the user's own.
        described: the importance, for a sentence.
        scope: as in the recipe.
        of: as in the recipe.
        has_finetune: whether there is training after the cut.
        has_patience: whether that may stop early.
    """

    granularity: str
    importance: str | None
    described: str
    scope: Literal["local", "global"]
    of: Literal["current", "original"]
    has_finetune: bool
    has_patience: bool

    @property
    def criterion(self) -> Criterion:
        """What is known of the criterion."""
        return CRITERIA.get(self.importance or "", _UNKNOWN)

    @property
    def is_structural(self) -> bool:
        """Whether channels or heads go."""
        return self.granularity in _STRUCTURAL

    @property
    def is_global(self) -> bool:
        """Whether layers are compared."""
        return self.scope == "global"

    @property
    def has_blocks(self) -> bool:
        """Whether blocks of weights go."""
        return block_shape(self.granularity) is not None


# What may not be, and the sentence that says so; the first that applies is told.
_RULES: Sequence[tuple[Callable[[Asked], bool], str]] = (
    (
        lambda a: a.granularity == "heads" and a.is_global,
        "heads are counted in each block, and go with scope: local",
    ),
    (
        lambda a: a.is_structural and a.criterion.of_weights,
        "importance {importance} is for single weights: granularity: weights, or such as '2:4'",
    ),
    (
        lambda a: not (a.is_structural or a.criterion.by_magnitude or a.criterion.of_weights),
        (
            "importance {importance} is for channels; weights go by magnitude, wanda, snip, "
            "sparsegpt or movement"
        ),
    ),
    (
        lambda a: a.has_blocks and (a.criterion.compensates or a.criterion.is_learned),
        "importance {importance} chooses single weights; blocks go by magnitude, wanda or snip",
    ),
    (
        lambda a: a.criterion.within_outputs and a.is_global,
        "importance {importance} ranks within each output, and goes with scope: local",
    ),
    (
        lambda a: a.criterion.compensates and a.is_global,
        "importance {importance} goes through one layer at a time, and goes with scope: local",
    ),
    (
        lambda a: a.criterion.is_learned and not a.has_finetune,
        "importance {importance} is learned in training: give finetune",
    ),
    (
        lambda a: a.criterion.is_learned and a.has_patience,
        (
            "importance {importance} removes weights over the first half of the training; leave "
            "patience out of finetune, which may end it before"
        ),
    ),
    (
        lambda a: a.of == "original" and a.is_global,
        "of: original counts per layer and goes with scope: local",
    ),
)


def check(asked: Asked) -> None:
    """Refuse what does not go together.

    Raises:
        ValueError: the first rule that is broken, in words.
    """
    for is_broken, sentence in _RULES:
        if is_broken(asked):
            raise ValueError(sentence.format(importance=asked.described))


def is_granularity(text: str) -> bool:
    """Whether a text is a granularity: a word, a pattern ``N:M``, or a block ``RxC``."""
    return text in (*_STRUCTURAL, "weights") or bool(n_of_m(text) or block_shape(text))
