"""Features: what modules inside a net give, caught in passing and brought into one form.

Hooks live only while :func:`capture` or :func:`survey` is open. They see what a module gives as it
computes, with fake quantisation where that is on. Knows nothing of losses or stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import DataError
from compress.inputs import Inputs, forward

__all__ = [
    "Adapter",
    "Feature",
    "aligned",
    "capture",
    "channels_first",
    "matching",
    "pooled",
    "survey",
    "uniform_map",
]

# Modules that say where the channels are of what passes through them.
_CHANNELS_SECOND = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention)
_Tell = Callable[[str, Tensor], None]

_POOLS: tuple[Callable[..., Tensor], ...] = (
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
)


@dataclass(frozen=True)
class Feature:
    """What a module gives: its shape for one sample, and whether channels are its last axis.

    ``calls``: how often the module ran in one pass of the net.
    """

    shape: tuple[int, ...]
    channels_last: bool
    calls: int

    @property
    def channels(self) -> int:
        """How many channels it has."""
        return self.shape[-1 if self.channels_last else 0]


@torch.no_grad()
def survey(module: nn.Module, inputs: Inputs) -> dict[str, Feature]:
    """Every module below ``module`` that gives a tensor per sample, by path, in the net's order.

    Where a module gives a tuple or a mapping, its first tensor counts.
    """
    found: dict[str, list[Tensor]] = {}
    was_training = module.training
    module.eval()
    try:
        with _hooked(module, dict(module.named_modules()), lambda name, t: _append(found, name, t)):
            outputs = forward(module, inputs)
    finally:
        module.train(was_training)
    return {
        name: Feature(tuple(found[name][-1].shape[1:]), _is_last(module, name), len(found[name]))
        for name, _ in module.named_modules()
        if name in found and found[name][-1].dim() > 1 and len(found[name][-1]) == len(outputs)
    }


@contextmanager
def capture(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While open, each pass leaves what the named modules gave in the dictionary.

    Copies, with their gradients: an activation that works in place does not reach them.
    """
    seen: dict[str, Tensor] = {}

    def remember(name: str, tensor: Tensor) -> None:
        seen[name] = tensor.clone()

    with _hooked(module, {name: module.get_submodule(name) for name in names}, remember):
        yield seen


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a path or glob stands for; ``*`` stays between dots, unlike in selectors."""
    wanted = pattern.split(".")
    return [
        name
        for name in names
        if len(parts := name.split(".")) == len(wanted)
        and all(fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True))
    ]


def uniform_map(students: int, teachers: int) -> list[int]:
    """For each of the student's layers the index of a teacher's: evenly spread, last to last.

    TinyBERT's uniform strategy (Jiao et al. 2020): with 4 and 12 layers, every third.

    Raises:
        ValueError: fewer layers of the teacher's than of the student's.
    """
    if teachers < students:
        raise ValueError(f"{students} layers of the student have only {teachers} of the teacher's")
    return [(place + 1) * teachers // students - 1 for place in range(students)]


def channels_first(feature: Tensor, channels_last: bool) -> Tensor:
    """The feature as ``(n, channels, ...)``."""
    return feature.movedim(-1, 1) if channels_last else feature


def pooled(feature: Tensor) -> Tensor:
    """The mean over positions, ``(n, channels)``, of a feature with its channels on axis 1."""
    return feature.flatten(2).mean(2) if feature.dim() > 2 else feature


def aligned(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both features with the same positions; channels, on axis 1, may differ.

    On every axis of positions the finer one is averaged down to the coarser. Where one feature has
    no positions, the other is averaged over its own. Tokens against an image (one axis against
    two) are laid out as the square that they were cut from, without a leading class token.

    Raises:
        DataError: different numbers of samples, or positions that have no relation.
    """
    if len(student) != len(teacher):
        raise DataError(f"features of {len(student)} and of {len(teacher)} samples do not pair.")
    if 2 in (student.dim(), teacher.dim()):
        return pooled(student), pooled(teacher)
    if {student.dim(), teacher.dim()} == {3, 4}:
        student, teacher = _square(student), _square(teacher)
    if student.dim() != teacher.dim() or student.dim() > 5:
        raise DataError(
            f"features of {student.dim() - 2} and of {teacher.dim() - 2} axes of positions, "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}, cannot be laid over each other."
        )
    size = [min(s, t) for s, t in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return _averaged(student, size), _averaged(teacher, size)


class Adapter(nn.Module):
    """A learned linear map over channels, ``(n, before, ...)`` to ``(n, after, ...)``.

    On a map this is a 1x1 convolution; it is written as a product of matrices so that it serves any
    number of axes, and since torch 2.13's convolutions abort on some widths in channels-last.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)

    def forward(self, feature: Tensor) -> Tensor:
        """The feature with the other net's channels."""
        adapted: Tensor = self.linear(feature.movedim(1, -1))
        return adapted.movedim(-1, 1)


@contextmanager
def _hooked(module: nn.Module, modules: Mapping[str, nn.Module], tell: _Tell) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        def after(_: nn.Module, __: object, output: object) -> None:
            tensor = _first_tensor(output)
            if tensor is not None:
                tell(name, tensor)

        return after

    handles = [
        inner.register_forward_hook(hook(name))
        for name, inner in modules.items()
        if inner is not module
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _append(found: dict[str, list[Tensor]], name: str, tensor: Tensor) -> None:
    found.setdefault(name, []).append(tensor)


def _first_tensor(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return next((part for part in output if isinstance(part, Tensor)), None)
    return None


def _is_last(root: nn.Module, name: str) -> bool:
    """Whether channels come last: as the nearest module around it that has a layer knows."""
    while name:
        layers = list(root.get_submodule(name).modules())
        if any(isinstance(layer, _CHANNELS_SECOND) for layer in layers):
            return False
        if any(isinstance(layer, _CHANNELS_LAST) for layer in layers):
            return True
        name = name.rpartition(".")[0]
    return False


def _square(feature: Tensor) -> Tensor:
    if feature.dim() == 4:
        return feature
    tokens = feature.shape[2]
    for without in (0, 1):
        side = math.isqrt(tokens - without)
        if side and side * side == tokens - without:
            return feature[:, :, without:].reshape(*feature.shape[:2], side, side)
    raise DataError(
        f"{tokens} tokens, with or without a class token, are not a square that could be laid over "
        "an image."
    )


def _averaged(feature: Tensor, size: list[int]) -> Tensor:
    if list(feature.shape[2:]) == size:
        return feature
    pool = _POOLS[len(size) - 1]
    return pool(feature, tuple(size))
