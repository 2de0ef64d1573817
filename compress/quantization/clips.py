"""Clips: how far the weights of a layer are clipped before their format rounds them.

A format takes the range of each output channel from its largest weight. A clip is a share of that
weight, so that it is a smaller range, and a finer step: it is part of a layer's format
(:class:`~compress.quantization.numerics.LayerFormat`), and the same in training and in a file. A
factor on a whole channel, such as that of a folded batch norm, leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.quantization.numerics import LayerFormat

__all__ = ["LearnedClips", "clip_weight", "fake_quantize_weight", "largest_weights"]

# Below it a channel would be a sign times a constant, whatever its bits.
_LEAST_CLIP = 2.0**-10


def largest_weights(weight: Tensor, axis: int) -> Tensor:
    """The largest absolute weight of each channel, in a shape that multiplies ``weight``."""
    others = [each for each in range(weight.dim()) if each != axis]
    return weight.detach().abs().amax(others, keepdim=True)


def clip_weight(weight: Tensor, clip: Sequence[float], axis: int) -> Tensor:
    """``weight`` clipped to shares of the largest weight of each channel; as it is without any.

    What is clipped gets no gradient.
    """
    if not clip:
        return weight
    shape = [1] * weight.dim()
    shape[axis] = -1
    shares = torch.tensor(clip, dtype=weight.dtype, device=weight.device).reshape(shape)
    limit = largest_weights(weight, axis) * shares
    return torch.clamp(weight, -limit, limit)


def fake_quantize_weight(
    weight: Tensor, format: LayerFormat, *, axis: int, avoid_saturation: bool = False
) -> Tensor:
    """``weight`` as a layer of ``format`` computes with it, same shape.

    Args:
        weight: float32.
        format: its quantizer, and its clip if it has one.
        axis: the axis that counts output channels.
        avoid_saturation: as in ``Lowering``.
    """
    clipped = clip_weight(weight, format.clip, axis)
    return format.weight_quantizer.fake_quantize(
        clipped, axis=axis, avoid_saturation=avoid_saturation
    )


class LearnedClips(nn.Module):
    """Clips as parameters beside a module, for the length of one training.

    They are learned as logarithms: a step of the optimizer is a share of the clip, however small
    the weights are.

    Args:
        module: whose layers have the formats.
        formats: by layer; those whose ``learns_clip`` says so have clips here, which begin where
            the format has them, or else where its quantizer says.
        axes: the axis that counts output channels, by layer.
    """

    def __init__(
        self, module: nn.Module, formats: Mapping[str, LayerFormat], axes: Mapping[str, int]
    ) -> None:
        super().__init__()
        self._places: dict[str, int] = {}
        self.logarithms = nn.ParameterList()
        for name, format in formats.items():
            if format.learns_clip:
                weight = module.get_submodule(name).get_parameter("weight").detach()
                start = torch.tensor(format.clip)
                if not format.clip:
                    start = format.weight_quantizer.initial_clip(weight, axis=axes[name])
                self._places[name] = len(self.logarithms)
                self.logarithms.append(nn.Parameter(start.clamp(_LEAST_CLIP, 1.0).log()))

    def __contains__(self, layer: str) -> bool:
        return layer in self._places

    def __len__(self) -> int:
        return len(self._places)

    def of(self, layer: str) -> Tensor:
        """The clip of each output channel of a layer, ``(channels,)``, with its gradient."""
        clip: Tensor = self.logarithms[self._places[layer]].exp()
        return clip

    @torch.no_grad()
    def keep_within_bounds(self) -> None:
        """After a step of the optimizer: no clip is above 1, nor next to 0."""
        for logarithm in self.logarithms:
            logarithm.clamp_(torch.tensor(_LEAST_CLIP).log().item(), 0.0)

    @torch.no_grad()
    def values(self) -> dict[str, tuple[float, ...]]:
        """The clips of every layer that has some, as formats hold them."""
        return {name: tuple(self.of(name).clamp(max=1.0).tolist()) for name in self._places}
