"""A small net of every architecture, each with a small task that it can learn.

For tests that must hold for every kind of model: plain, residual, depthwise, inverted residuals,
gates, one-dimensional, fully connected, attention, dense output with skip connections, functional
code, and a causal language model. Everything is drawn from seeds, and the global generator is left
as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from compress.task import Task
from compress.tasks.arrays import ArrayDataset
from compress.zoo import build

__all__ = ["NETS", "NetCase"]

_NOISE = 0.5
_SLIPS = 0.1
# Streams of random numbers that no seed of a task shares.
_PATTERNS, _EXAMPLE = 8, 9


@dataclass(frozen=True)
class NetCase:
    """A net and what it is for.

    Args:
        name: the architecture, one of ``compress.zoo.ARCHITECTURES``.
        options: of the architecture, less ``classes``.
        shape: of one input.
        classes: number of classes.
        per_pixel: whether each pixel of an input has a label.
        of_text: whether inputs are tokens, of as many kinds as there are classes, each of which has
            the next one for its label.
    """

    name: str
    options: Mapping[str, int]
    shape: tuple[int, ...]
    classes: int
    per_pixel: bool = False
    of_text: bool = False

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes of a label: of one for each pixel or token, or none."""
        if self.of_text:
            return self.shape
        return self.shape[-2:] if self.per_pixel else ()

    def build(self, seed: int = 0) -> nn.Module:
        """The net in eval mode, with the weights that ``seed`` draws."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(self.name, {**self.options, "classes": self.classes}).eval()

    def example(self, samples: int = 2) -> Tensor:
        """A batch of inputs like those of the task."""
        inputs, _ = self._samples(samples, _generator(0, _EXAMPLE))
        return inputs

    def make_task(self, seed: int = 0) -> Task:
        """A task that the net learns in a few epochs; ``seed`` draws other samples of it."""

        def samples(count: int, stream: int) -> ArrayDataset:
            return ArrayDataset(*self._samples(count, _generator(seed, stream)))

        return Task(
            name=f"synthetic-{self.name}",
            train=samples(256, 0),
            validation=samples(64, 1),
            test=samples(128, 2),
            classes=tuple(f"class {number}" for number in range(self.classes)),
        )

    def _samples(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.of_text:
            return _chains(count, self.shape[0], self.classes, generator)
        noise = _NOISE * torch.randn(count, *self.shape, generator=generator)
        if self.per_pixel:
            labels = _rectangles(count, self.shape[-2:], self.classes, generator)
            return noise + labels.unsqueeze(1), labels
        labels = torch.randint(self.classes, (count,), generator=generator)
        patterns = torch.randn(self.classes, *self.shape, generator=_generator(0, _PATTERNS))
        return patterns[labels] + noise, labels


def _rectangles(
    count: int, size: tuple[int, ...], classes: int, generator: torch.Generator
) -> Tensor:
    """Labels ``(count, *size)``: a rectangle of one class on a background of class 0."""
    inside = torch.ones(count, *size, dtype=torch.bool)
    for axis, length in enumerate(size, start=1):
        first = torch.randint(length // 2, (count,), generator=generator)
        extent = torch.randint(length // 4, length // 2 + 1, (count,), generator=generator)
        places = torch.arange(length).view([-1 if d == axis else 1 for d in range(3)])
        first, extent = first.view(-1, 1, 1), extent.view(-1, 1, 1)
        inside &= (places >= first) & (places < first + extent)
    kinds = torch.randint(1, classes, (count, 1, 1), generator=generator)
    return inside * kinds


def _chains(
    count: int, length: int, classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens ``(count, length)`` that mostly count up, and the next one of each."""
    start = torch.randint(classes, (count, 1), generator=generator)
    slips = torch.rand(count, length + 1, generator=generator) < _SLIPS
    steps = 1 + slips * torch.randint(classes, slips.shape, generator=generator)
    tokens = (start + steps.cumsum(1)) % classes
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(10 * seed + stream)


_IMAGE = (1, 12, 12)

#: By the name of the architecture.
NETS: Mapping[str, NetCase] = MappingProxyType(
    {
        case.name: case
        for case in (
            NetCase("resnet", {"width": 16, "blocks": 1}, _IMAGE, classes=4),
            NetCase("dscnn", {"width": 8}, _IMAGE, classes=4),
            NetCase("plain-cnn", {"width": 8}, _IMAGE, classes=4),
            NetCase(
                "causal-lm",
                {"width": 32, "heads": 2, "context": 9},
                (9,),
                classes=6,
                of_text=True,
            ),
            NetCase("conv1d", {"in_channels": 2, "width": 16}, (2, 48), classes=4),
            NetCase("mlp", {"in_features": 24, "width": 32}, (24,), classes=4),
            NetCase("attention", {"width": 32, "heads": 2, "image_size": 12}, _IMAGE, classes=4),
            NetCase("unet", {"width": 8}, (1, 16, 16), classes=3, per_pixel=True),
            NetCase("segmenter", {"width": 8}, (1, 24, 24), classes=3, per_pixel=True),
            NetCase(
                "mobile-unet",
                {"in_channels": 1, "width": 8, "depth": 2, "blocks": 1},
                (1, 16, 16),
                classes=2,
                per_pixel=True,
            ),
            NetCase("functional", {"width": 16, "image_size": 12}, _IMAGE, classes=4),
            NetCase("autoencoder", {"in_features": 24, "width": 32, "depth": 2}, (24,), classes=4),
            NetCase("dscnn-kws", {"width": 16, "depth": 2}, (1, 24, 10), classes=4),
            NetCase("efficientnet-lite0", {"width": 8, "depth": 4}, _IMAGE, classes=4),
            NetCase("mobilenet-v1", {"width": 8, "depth": 3}, _IMAGE, classes=4),
            NetCase("mobilenet-v2", {"width": 8, "depth": 3}, _IMAGE, classes=4),
            NetCase("mobilenet-v3", {"width": 8, "depth": 3}, _IMAGE, classes=4),
        )
    }
)
