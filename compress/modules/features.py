"""Features: what modules inside a net give, caught in passing and brought into one form.

Hooks live only while :func:`capture` or :func:`module_outputs` is open. They see what a module
gives as it computes, with fake quantization where that is on. Knows nothing of losses or stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import DataError
from compress.modules.inputs import Inputs, batch_size_of, forward
from compress.modules.outputs import by_name

__all__ = [
    "Adapter",
    "Feature",
    "aligned",
    "capture",
    "channels_first",
    "first_tensor",
    "matching",
    "module_outputs",
    "norm_axis",
    "own_axis",
    "pooled",
    "uniform_map",
]

# Layers that say where the channels are of what they give themselves.
_Kinds = tuple[type[nn.Module], ...]
_CONVOLUTIONS: _Kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLUTIONS += (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS: _Kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS: _Kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_CHANNELS_SECOND = (*_CONVOLUTIONS, *_BATCH_NORMS, nn.GroupNorm, *_INSTANCE_NORMS)
_CHANNELS_SECOND += (nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle)
_CHANNELS_LAST: _Kinds = (nn.Linear, nn.Bilinear, nn.Embedding, nn.MultiheadAttention)
_CHANNELS_LAST += (nn.RNN, nn.LSTM, nn.GRU)
_CHANNELS_LAST += (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_NORMS: _Kinds = (nn.LayerNorm, nn.RMSNorm)
_OnOutput = Callable[[str, Tensor], None]

_POOLS: tuple[Callable[..., Tensor], ...] = (
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
)


@dataclass(frozen=True)
class Feature:
    """What a module gives: its shape for one sample, and the axis of its channels.

    ``axis`` counts from the samples, which are on axis 0; ``None`` where the module by itself does
    not say. ``calls``: how often the module ran in one pass of the net.
    """

    shape: tuple[int, ...]
    axis: int | None
    calls: int


@torch.no_grad()
def module_outputs(module: nn.Module, inputs: Inputs) -> dict[str, Feature]:
    """Every module below ``module`` that gives a tensor per sample, by path, in the net's order.

    Where a module gives several, its first tensor counts. The net is run a second time
    on twice the samples, which tells axes of samples from others of the same size.
    """
    was_training = module.training
    module.eval()
    try:
        found, samples = _given(module, inputs)
        again, twice = _given(module, _doubled(inputs))
    finally:
        module.train(was_training)
    return {
        name: Feature(
            tuple(found[name][-1].shape[1:]),
            own_axis(inner, found[name][-1].dim()),
            len(found[name]),
        )
        for name, inner in module.named_modules()
        if _has_samples(found.get(name), samples) and _has_samples(again.get(name), twice)
    }


def own_axis(layer: nn.Module, rank: int) -> int | None:
    """The axis of channels of what a layer gives, where its own definition says so.

    A class that is derived from one of torch's, with a forward of its own, says nothing.

    Args:
        layer: a module.
        rank: axes of what it gives, samples and all.
    """
    if rank == 2 or _is_one_of(layer, _CHANNELS_SECOND):
        return 1
    return rank - 1 if _is_one_of(layer, _CHANNELS_LAST) else None


def norm_axis(layer: nn.Module, rank: int) -> int | None:
    """The last axis of a norm over it, which mostly is that of channels; ``None`` for others.

    Only where nothing else tells: there are norms over positions, too.
    """
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)) and _is_one_of(layer, _NORMS):
        return rank - 1 if len(layer.normalized_shape) == 1 else None
    return None


@contextmanager
def capture(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While open, the dictionary has what the named modules gave in the last pass.

    Copies, with their gradients: an activation that works in place does not reach them. A module
    that was not called in that pass is not there.

    Raises:
        DataError: a module is called again in one pass; raised in that pass.
    """
    seen: dict[str, Tensor] = {}

    def remember(name: str, tensor: Tensor) -> None:
        if name in seen:
            mode = "training" if module.training else "inference"
            raise DataError(
                f"{name!r} runs several times in one pass in {mode}, so that it has no one output "
                "for a loss to look at; name a module around or before it."
            )
        seen[name] = tensor.clone()

    def forget(*_: object) -> None:
        seen.clear()

    handle = module.register_forward_pre_hook(forget)
    try:
        with _hooked(module, {name: module.get_submodule(name) for name in names}, remember):
            yield seen
    finally:
        handle.remove()


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


def channels_first(feature: Tensor, axis: int) -> Tensor:
    """The feature as ``(n, channels, ...)``, its channels taken from ``axis``."""
    return feature.movedim(axis, 1)


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
def _hooked(
    module: nn.Module, modules: Mapping[str, nn.Module], on_output: _OnOutput
) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        def after(_: nn.Module, __: object, output: object) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                on_output(name, tensor)

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


def first_tensor(output: object) -> Tensor | None:
    """The first tensor of what a module gave; ``None`` where there is none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if is_dataclass(output) and not isinstance(output, type):
        output = tuple(getattr(output, field.name) for field in fields(output))
    if isinstance(output, (tuple, list)):
        return next((part for part in output if isinstance(part, Tensor)), None)
    return None


def _given(module: nn.Module, inputs: Inputs) -> tuple[dict[str, list[Tensor]], int]:
    """What every module gave, call by call, and how many samples came out."""
    found: dict[str, list[Tensor]] = {}

    def remember(name: str, tensor: Tensor) -> None:
        found.setdefault(name, []).append(tensor)

    with _hooked(module, dict(module.named_modules()), remember):
        outputs = by_name(forward(module, inputs)).values()
    # What comes out may be other samples than went in; of several outputs, one may have none.
    rows = [len(output) for output in outputs if output.dim()]
    given = batch_size_of(inputs)
    return found, given if given in rows else rows[0]


def _doubled(inputs: Inputs) -> Inputs:
    if isinstance(inputs, dict):
        return {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
    return torch.cat([inputs, inputs])


def _has_samples(found: list[Tensor] | None, samples: int) -> bool:
    return found is not None and found[-1].dim() > 1 and len(found[-1]) == samples


def _is_one_of(layer: nn.Module, kinds: _Kinds) -> bool:
    forward = None if "forward" in vars(layer) else type(layer).forward
    return any(isinstance(layer, kind) and forward is kind.forward for kind in kinds)


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
