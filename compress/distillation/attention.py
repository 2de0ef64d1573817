"""Attention maps: where to find them in a net, and how to compute them.

Most nets do not return their attention: a fused kernel, or a line of functional code, computes and
uses it. But queries and keys come from layers of their own, whose outputs hooks can capture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.modules.features import Feature

__all__ = ["AttentionSource", "attention_source"]

# What the layers of queries and keys are called: here and in BERT, in Llama and ViT, in DistilBERT.
_PROJECTIONS = (("query", "key"), ("q_proj", "k_proj"), ("q_lin", "k_lin"), ("q", "k"))
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")
_SCALES = ("scale", "scaling")
_OF_MAPS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OF_MAPS += (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_OF_MAPS += (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.GroupNorm)
_OF_TOKENS = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention)


@dataclass(frozen=True)
class AttentionSource:
    """The layers whose outputs give an attention map.

    Args:
        layers: of queries and keys, or one whose output is the map itself.
        heads: of queries and keys.
        scale: of the scores.
    """

    layers: tuple[str, ...]
    heads: int = 1
    scale: float = 1.0

    @property
    def has_scores(self) -> bool:
        """Whether it gives scores; otherwise it gives probabilities, their softmax."""
        return len(self.layers) == 2

    def maps(self, features: Mapping[str, Tensor], softmax: bool) -> Tensor:
        """The attention map, ``(n, heads, queries, keys)``.

        Args:
            features: of the layers, by name.
            softmax: whether to return probabilities in place of scores.
        """
        if not self.has_scores:
            return features[self.layers[0]]
        query, key = (self._by_head(features[name]) for name in self.layers)
        with torch.autocast(query.device.type, enabled=False):
            scores: Tensor = query @ key.transpose(-2, -1) * self.scale
        return scores.softmax(-1) if softmax else scores

    def _by_head(self, feature: Tensor) -> Tensor:
        # Half precision has too few digits for products that a softmax follows.
        exact = feature.to(torch.promote_types(feature.dtype, torch.float32))
        return exact.reshape(*feature.shape[:2], self.heads, -1).transpose(1, 2)


def attention_source(
    module: nn.Module, name: str, features: Mapping[str, Feature]
) -> AttentionSource | None:
    """Where an attention module's map comes from; ``None`` if it cannot be derived.

    Either the module holds layers of queries and keys (``query``/``key``, ``q_proj``/``k_proj``,
    ``q_lin``/``k_lin``, ``q``/``k``) and an attribute with its number of heads (``num_heads``,
    ``num_attention_heads``, ``n_heads`` or ``heads``), or its own output is a map
    ``(n, heads, tokens, tokens)``. Scores are scaled by the module's ``scale`` or ``scaling``, or
    by one over the root of a head's width.

    Args:
        module: the net.
        name: of the attention module in it.
        features: of the net's layers, by name.
    """
    inner = module.get_submodule(name)
    heads = _number(inner, _HEADS)
    for query, key in _PROJECTIONS:
        layers = (f"{name}.{query}", f"{name}.{key}")
        shapes = [features[layer].shape if layer in features else () for layer in layers]
        fits = all(len(shape) == 2 and shape[1] == shapes[0][1] for shape in shapes)
        if heads and fits and shapes[0][1] % int(heads) == 0:
            scale = _number(inner, _SCALES) or (shapes[0][1] / heads) ** -0.5
            return AttentionSource(layers, int(heads), scale)
    own = features.get(name)
    if own is None or len(own.shape) != 3 or own.shape[1] != own.shape[2]:
        return None
    # A square map of a convolution looks the same; only what surrounds it tells them apart.
    return AttentionSource((name,)) if _is_among_tokens(module, name) else None


def _is_among_tokens(module: nn.Module, name: str) -> bool:
    """Whether the nearest layers around a module work on tokens, and not on maps."""
    while name:
        layers = list(module.get_submodule(name).modules())
        if any(isinstance(layer, _OF_MAPS) for layer in layers):
            return False
        if any(isinstance(layer, _OF_TOKENS) for layer in layers):
            return True
        name = name.rpartition(".")[0]
    return False


def _number(module: nn.Module, names: tuple[str, ...]) -> float | None:
    found = (getattr(module, name, None) for name in names)
    return next((n for n in found if isinstance(n, (int, float)) and n > 0), None)
