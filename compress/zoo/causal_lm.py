"""CausalLM: a small decoder-only transformer that scores the next token at every place of a text.

Topology: Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2), with
the rectifier of Vaswani et al. 2017 in the feed-forward half: GELU has no int8 kernel in
onnxruntime. The table of tokens and the head have weights of their own.

Knows nothing of tasks, formats or pruning; blocks are those of ``compress.zoo.attention``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.errors import DataError
from compress.zoo.attention import Block

__all__ = ["CausalLM"]

_EXPANSION = 4
# Torch's own tables, of 1, drown what the blocks add to them at first; those of GPT-2, of
# 0.02, drown in it.
_TABLE_STD = 0.1


class CausalLM(nn.Module):
    """Tokens ``(n, length)`` to scores of the token after each, ``(n, classes, length)``.

    Args:
        classes: tokens of the vocabulary; inputs are whole numbers below it. The default is that of
            the task ``language``.
        width: channels of a token; a multiple of ``heads``.
        depth: how many blocks follow each other.
        heads: attention heads of each block.
        context: the longest text that it takes, in tokens.

    Raises:
        ValueError: ``width`` is not a multiple of ``heads``.
    """

    def __init__(
        self,
        *,
        classes: int = 99,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        context: int = 64,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads; got {width} and {heads}")
        self.tokens = nn.Embedding(classes, width)
        self.positions = nn.Embedding(context, width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=_TABLE_STD)
        blocks = (Block(width, heads, expansion=_EXPANSION, causal=True) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores at every place, of which each depends on the tokens up to there.

        Raises:
            DataError: a text longer than the context.
        """
        length, context = tokens.size(1), self.positions.num_embeddings
        if length > context:
            raise DataError(
                f"the language model takes texts of up to {context} tokens and got {length}; give "
                f"it a context of {length}, or the task a smaller length."
            )
        x = self.tokens(tokens) + self.positions(torch.arange(length, device=tokens.device))
        scores: Tensor = self.head(self.norm(self.blocks(x)))
        return scores.transpose(1, 2)
