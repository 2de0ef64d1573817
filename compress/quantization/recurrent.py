"""Recurrent layers: their weights, and what they compute, step by step in plain operators.

torch runs all steps in one fused kernel, in which nothing can be rounded between two of them.
:class:`StepByStep` stands in for it where an int8 kernel rounds the state at each step, and where
ONNX has no operator for the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["RECURRENT", "StepByStep", "has_int8_kernel", "is_stepwise", "weight_names"]

#: Layers over whole sequences, and cells that make one step of them.
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)

Rounding = Callable[[Tensor], Tensor]


def weight_names(layer: nn.Module) -> tuple[str, ...]:
    """The weights of a recurrent layer; each has its output rows, gate after gate, on axis 0.

    Of every layer and direction those of the input, of the state and of the projection, if any.
    """
    names = (name for name, _ in layer.named_parameters(recurse=False))
    return tuple(name for name in names if name.startswith("weight_"))


def has_int8_kernel(layer: nn.Module) -> bool:
    """Whether there is one that computes ``layer`` in int8: not a GRU or RNN, nor a projection."""
    if isinstance(layer, nn.RNNBase):
        return isinstance(layer, nn.LSTM) and not layer.proj_size
    return True


def is_stepwise(layer: nn.Module) -> bool:
    """Whether a file holds the layer as single products: a cell, or an LSTM with a projection."""
    return isinstance(layer, nn.RNNCellBase) or bool(getattr(layer, "proj_size", 0))


class StepByStep(TorchFunctionMode):
    """Within it, an LSTM and any cell put what they multiply with weights through ``rounding``.

    Without one, only an LSTM with a projection is computed in steps, and changes nothing.
    Packed sequences are left to torch: what has a length of its own for each sample has no static
    form, and cannot be lowered.
    """

    def __init__(self, rounding: Rounding | None = None) -> None:
        super().__init__()
        self._rounding = rounding

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        rounded = self._rounding is not None
        if name == "lstm" and isinstance(args[1], Sequence) and (rounded or _has_projection(*args)):
            return _lstm(self._rounding or _as_it_is, *args)
        if rounded and name in _CELLS:
            return _CELLS[name](self._rounding, *args)
        return func(*args, **(kwargs or {}))


def _as_it_is(values: Tensor) -> Tensor:
    return values


def _has_projection(_: Tensor, state: Sequence[Tensor], *__: Any) -> bool:
    return state[0].shape[-1] != state[1].shape[-1]


def _lstm(
    rounding: Rounding,
    inputs: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    values = inputs if batch_first else inputs.transpose(0, 1)
    last: list[tuple[Tensor, Tensor]] = []
    for layer in range(layers):
        if layer and dropout:
            values = F.dropout(values, dropout, training)
        rounded, made = rounding(values), []
        for direction in range(directions):
            place = len(last)
            own = weights[each * place : each * (place + 1)]
            start = (state[0][place], state[1][place])
            steps, end = _direction(rounding, rounded, start, own, has_biases, bool(direction))
            made.append(steps)
            last.append(end)
        values = torch.cat(made, 2)
    hidden, cell = (torch.stack(part) for part in zip(*last, strict=True))
    return values if batch_first else values.transpose(0, 1), hidden, cell


def _direction(
    rounding: Rounding,
    values: Tensor,
    state: tuple[Tensor, Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    backwards: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    biases = weights[2:4] if has_biases else (None, None)
    projection = weights[-1] if len(weights) % 2 else None
    gates = F.linear(values, weights[0], biases[0]).unbind(1)
    steps = []
    for gate in reversed(gates) if backwards else gates:
        product = F.linear(rounding(state[0]), weights[1], biases[1])
        hidden, cell = _lstm_step(gate + product, state[1])
        if projection is not None:
            hidden = F.linear(rounding(hidden), projection)
        state = hidden, cell
        steps.append(hidden)
    return torch.stack(steps[::-1] if backwards else steps, 1), state


def _lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    enter, forget, fresh, leave = gates.chunk(4, 1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(fresh)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _products(
    rounding: Rounding,
    inputs: Tensor,
    hidden: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor]:
    of_input = F.linear(rounding(inputs), weights[0], biases[0])
    return of_input, F.linear(rounding(hidden), weights[1], biases[1])


def _lstm_cell(
    rounding: Rounding, inputs: Tensor, state: Sequence[Tensor], *weights: Tensor
) -> tuple[Tensor, Tensor]:
    of_input, of_state = _products(rounding, inputs, state[0], weights[:2], weights[2:])
    return _lstm_step(of_input + of_state, state[1])


def _gru_cell(rounding: Rounding, inputs: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
    products = _products(rounding, inputs, state, weights[:2], weights[2:])
    (reset, update, fresh), (reset_h, update_h, fresh_h) = (p.chunk(3, 1) for p in products)
    fresh = torch.tanh(fresh + torch.sigmoid(reset + reset_h) * fresh_h)
    return fresh + torch.sigmoid(update + update_h) * (state - fresh)


def _rnn_cell(function: Rounding) -> Callable[..., Tensor]:
    def cell(rounding: Rounding, inputs: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        of_input, of_state = _products(rounding, inputs, state, weights[:2], weights[2:])
        return function(of_input + of_state)

    return cell


_CELLS: Mapping[str, Callable[..., Any]] = {
    "lstm_cell": _lstm_cell,
    "gru_cell": _gru_cell,
    "rnn_tanh_cell": _rnn_cell(torch.tanh),
    "rnn_relu_cell": _rnn_cell(torch.relu),
}
