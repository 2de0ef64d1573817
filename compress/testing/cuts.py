"""Check a cut from outside: by the values that are left, and with nothing of what made it.

The places that stay are found by looking up every number of the cut net among those of the whole
one. Everything else is set to zero in the whole net, which then must give the same outputs.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import by_name
from compress.pruning.ids import Axis
from compress.pruning.search import Found

__all__ = ["agrees", "distinct", "kept_places", "swaps"]

_NEAR = 1e-12
_TOLERANCE = 1e-8
_NOISE = 1e-7


def distinct(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy in double precision whose numbers are hardly changed, and all different."""
    other = copy.deepcopy(module).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in _tensors(other).values():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.add_(_NOISE * noise)
    return other


def agrees(whole: nn.Module, cut: nn.Module, inputs: Inputs) -> bool:
    """Whether ``cut`` gives what ``whole`` gives with all that was removed set to zero.

    Both are in double precision, with weights that are all different. Norms over channels, whose
    statistics are of fewer channels after a cut, only scale and move each channel here.
    """
    zeroed = copy.deepcopy(whole)
    left = _tensors(cut)
    with torch.no_grad():
        for name, tensor in _tensors(zeroed).items():
            if tensor.is_floating_point() and tensor.dim() and tensor.shape != left[name].shape:
                tensor.mul_(_mask(tensor, kept_places(tensor, left[name])))
    with _norms_place_by_place(), torch.no_grad():
        expected, actual = (by_name(forward(net, inputs)) for net in (zeroed, cut))
    return expected.keys() == actual.keys() and all(
        _are_close(output, actual[name]) for name, output in expected.items()
    )


def _are_close(expected: Tensor, actual: Tensor) -> bool:
    if expected.shape != actual.shape or not expected.is_floating_point():
        return torch.equal(expected, actual)
    scale = float(expected.abs().max())
    return torch.allclose(expected, actual, rtol=_TOLERANCE, atol=_TOLERANCE * scale)


def kept_places(whole: Tensor, cut: Tensor) -> list[list[int]]:
    """The places along each axis of ``whole`` whose numbers ``cut`` has, in its order.

    Some of the numbers of ``cut`` may all have been multiplied by one factor.

    Raises:
        ValueError: ``cut`` is no part of ``whole``.
    """
    values, order = whole.detach().flatten().sort()
    found, distance = _nearest(values, cut.detach().flatten())
    if bool((strange := distance > _NEAR).any()):
        factor = _factor(values, cut.detach().flatten()[strange])
        scaled, far = _nearest(values, cut.detach().flatten()[strange] / factor)
        if bool((far > _NEAR).any()):
            raise ValueError("the cut tensor has numbers that the whole one has not")
        found[strange] = scaled
    flat, places = order[found], []
    for axis, size in enumerate(whole.shape):
        stride = int(torch.tensor(whole.shape[axis + 1 :]).prod())
        along = (
            (flat // stride % size).view(cut.shape).movedim(axis, 0).reshape(cut.shape[axis], -1)
        )
        if not torch.equal(along, along[:, :1].expand_as(along)):
            raise ValueError("the cut tensor is no part of the whole one in this order")
        places.append(along[:, 0].tolist())
    return places


def _nearest(values: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    right = torch.searchsorted(values, wanted).clamp(max=len(values) - 1)
    left = (right - 1).clamp(min=0)
    closer = (values[left] - wanted).abs() < (values[right] - wanted).abs()
    found = torch.where(closer, left, right)
    return found, (values[found] - wanted).abs() / wanted.abs().clamp(min=_NEAR)


def _factor(values: Tensor, scaled: Tensor) -> Tensor:
    """The number by which all of ``scaled`` were multiplied."""
    candidate: Tensor
    for candidate in scaled[0] / values:
        if candidate > 0 and bool((_nearest(values, scaled[:8] / candidate)[1] < _NEAR).all()):
            return candidate
    raise ValueError("the cut tensor has numbers that the whole one has not")


def _mask(tensor: Tensor, places: list[list[int]]) -> Tensor:
    mask = torch.ones_like(tensor)
    for axis, kept in enumerate(places):
        one = torch.zeros(tensor.shape[axis], dtype=tensor.dtype)
        one[kept] = 1
        mask = mask * one.view([-1 if a == axis else 1 for a in range(tensor.dim())])
    return mask


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@contextlib.contextmanager
def _norms_place_by_place() -> Iterator[None]:
    """While open, the norms of torch scale and move each channel and do no more."""

    def layer_norm(x: Tensor, shape: object, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        del shape, eps
        scaled = x if weight is None else x * weight
        return scaled if bias is None else scaled + bias

    def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        del groups, eps
        shape = [1, -1, *[1] * (x.dim() - 2)]
        return x if weight is None else x * weight.view(shape) + bias.view(shape)

    def rms_norm(x: Tensor, shape: object, weight: Tensor, eps: float) -> Tensor:
        del shape, eps
        return x if weight is None else x * weight

    fast = torch.backends.mha.get_fastpath_enabled()
    usual = {name: getattr(F, name) for name in ("layer_norm", "group_norm", "rms_norm")}
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # it calls no function of F
        F.layer_norm, F.group_norm, F.rms_norm = layer_norm, group_norm, rms_norm  # type: ignore[assignment]
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for name, function in usual.items():
            setattr(F, name, function)


def swaps(found: Found) -> Mapping[Axis, Callable[[nn.Module], None]]:
    """Ways to get a cut wrong, by where: two surviving channels change places in one tensor.

    Of a layer's inputs that is a swapped map, of its outputs a wrong tie, of a norm's weights a
    norm that was forgotten.
    """
    places = [axis for axis, kept in found.cut.kept.items() if len(kept) > 1]
    return {axis: functools.partial(_swap, axis=axis) for axis in places}


def _swap(module: nn.Module, axis: Axis) -> None:
    tensor = _tensors(module)[axis.parameter]
    order = torch.arange(tensor.shape[axis.axis])
    middle = len(order) // 2
    order[middle], order[middle - 1] = middle - 1, middle
    with torch.no_grad():
        tensor.copy_(tensor.index_select(axis.axis, order))
