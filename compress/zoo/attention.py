"""Transformer: a small encoder over the patches of an image.

Topology: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", less its class token (tokens
are averaged), with normalization before each half of a block (Xiong et al. 2020) and the
rectifier of Vaswani et al. 2017 in the feed-forward half: GELU has no int8 kernel in onnxruntime.

Written so that its channels can be cut: queries, keys and values have a linear layer each, shapes
are read from tensors, and positions are an embedding (a bare parameter belongs to no layer that a
pruner knows).

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Block", "Transformer"]


class _Attention(nn.Module):
    """Self-attention with ``num_heads`` heads.

    Channels of queries, keys and values are cut up by head, in order. ``scale`` stays what it was
    when the net was made, so that cutting channels that are zero changes nothing. Where it is
    ``causal``, a token sees itself and those before it.
    """

    def __init__(self, width: int, num_heads: int, causal: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.causal = causal
        self.scale = (width // num_heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if self.causal:
            place = torch.arange(x.size(1), device=x.device)
            scores = scores.masked_fill(place[None, :] > place[:, None], -math.inf)
        weights = torch.softmax(scores, dim=-1)
        mixed: Tensor = self.project((weights @ v).transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, x: Tensor) -> Tensor:
        """``(n, tokens, channels)`` to ``(n, heads, tokens, channels of a head)``."""
        return x.view(x.size(0), x.size(1), self.num_heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Attention and a feed-forward net, each added to what came in, ``(n, tokens, width)``.

    Args:
        width: channels of a token; a multiple of ``num_heads``.
        num_heads: of the attention.
        expansion: units of the feed-forward half for each channel.
        causal: whether a token sees only itself and those before it.
    """

    def __init__(
        self, width: int, num_heads: int, *, expansion: int = 2, causal: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, num_heads, causal)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The tokens, with what both halves add."""
        x = x + self.attention(self.norm1(x))
        wider = F.relu(self.expand(self.norm2(x)))
        out: Tensor = x + self.contract(wider)
        return out


class Transformer(nn.Module):
    """Square images ``(n, in_channels, image_size, image_size)`` to logits ``(n, classes)``.

    Args:
        in_channels: channels of an image.
        classes: length of the logits.
        width: channels of a token; a multiple of ``heads``.
        depth: how many blocks follow each other.
        heads: attention heads of each block.
        patch: side of a patch in pixels; a border that fills no whole patch is not seen.
        image_size: side of an image in pixels, at least ``patch``.

    Raises:
        ValueError: ``width`` is not a multiple of ``heads``, or ``patch`` exceeds ``image_size``.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        classes: int = 10,
        width: int = 32,
        depth: int = 2,
        heads: int = 2,
        patch: int = 4,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads; got {width} and {heads}")
        if patch > image_size:
            raise ValueError(f"patch must not exceed image_size; got {patch} and {image_size}")
        self.embed = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.positions = nn.Embedding((image_size // patch) ** 2, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each image."""
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.positions(torch.arange(tokens.size(1), device=x.device))
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits
