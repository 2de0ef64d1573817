"""What torch's exporter takes apart, or gets wrong, though ONNX can hold it.

``nn.RNN`` would be four nodes for every step of a sequence, and is one ``RNN`` for each of its
layers. An LSTM with a projection has no ONNX operator and is written as the products of its steps.
A pooling whose divisor is given is exported without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from onnxscript import opset18

from compress.quantization.recurrent import StepByStep

__all__ = ["TRANSLATIONS", "projections_in_steps"]

Translation = Callable[..., Any]

# Its types are those of ONNX's inputs; a translation may give it numbers, which become constants.
op: Any = opset18


def projections_in_steps() -> AbstractContextManager[object]:
    """While open, the exporter sees the steps of an LSTM with a projection."""
    return StepByStep()


def _rnn(function: str) -> Translation:
    def translate(
        inputs: Any,
        state: Any,
        weights: Sequence[Any],
        has_biases: bool,
        layers: int,
        _dropout: float,
        _training: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, Any]:
        directions = 2 if bidirectional else 1
        each = 4 if has_biases else 2
        values = op.Transpose(inputs, perm=[1, 0, 2]) if batch_first else inputs
        last = []
        for place in range(0, layers * directions, directions):
            own = [weights[each * n : each * (n + 1)] for n in range(place, place + directions)]
            stacked = [_stack([tensors[kind] for tensors in own]) for kind in range(each)]
            made, end = op.RNN(
                values,
                *stacked[:2],
                op.Concat(*stacked[2:], axis=1) if has_biases else None,
                None,
                op.Slice(state, [place], [place + directions], axes=[0]),
                activations=[function] * directions,
                direction="bidirectional" if bidirectional else "forward",
                hidden_size=int(state.shape[2]),
            )
            # (steps, directions, samples, features), with the directions of a sample side by side
            made = op.Transpose(made, perm=[0, 2, 1, 3])
            values = op.Reshape(made, op.Constant(value_ints=[0, 0, -1]))
            last.append(end)
        values = op.Transpose(values, perm=[1, 0, 2]) if batch_first else values
        return values, last[0] if layers == 1 else op.Concat(*last, axis=0)

    return translate


def _average_pool(
    inputs: Any,
    kernel: Sequence[int],
    strides: Sequence[int] = (),
    pads: Sequence[int] = (0,),
    ceil: bool = False,
    count_pads: bool = True,
    divisor: int | None = None,
) -> Any:
    shape, steps, sides = (
        list(sizes) * (2 // len(sizes)) for sizes in (kernel, strides or kernel, pads)
    )
    made = op.AveragePool(
        inputs,
        ceil_mode=int(ceil),
        # With pads counted every window has as many values, but for those that ceil hangs over.
        count_include_pad=int(count_pads or divisor is not None),
        kernel_shape=shape,
        pads=sides * 2,
        strides=steps,
    )
    return made if divisor is None else op.Mul(made, op.CastLike(math.prod(shape) / divisor, made))


def _stack(tensors: Sequence[Any]) -> Any:
    rows = [op.Unsqueeze(tensor, [0]) for tensor in tensors]
    return rows[0] if len(rows) == 1 else op.Concat(*rows, axis=0)


#: ONNX for torch's operators, as ``torch.onnx.export`` takes it.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.avg_pool2d.default: _average_pool,
    torch.ops.aten.rnn_tanh.input: _rnn("Tanh"),
    torch.ops.aten.rnn_relu.input: _rnn("Relu"),
}
