"""The training loop, and what keeps it from leaving traces in the process.

The loop, in words::

    for each epoch:
        on_epoch_start()                        new ranges for fake quantisation
        for each batch of the epoch's view:
            loss = objective(module, batch)     stop if it is not finite
            step the optimiser and the schedule
            after_step()                        put promised zeros back
        on_epoch_end(epoch, mean loss)

It runs on ``accelerate``, so the same loop serves a CPU, a GPU or several.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from compress.algorithms.batches import Batch, Views
from compress.errors import TrainingDiverged
from compress.inputs import batch_size_of, to_device

__all__ = ["EpochReport", "Objective", "Optimization", "isolated", "train"]

Objective = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Optimization:
    """How to descend. ``warmup`` and the schedule are in shares of the whole training."""

    epochs: int
    learning_rate: float
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    clip_norm: float | None = 1.0


@dataclass(frozen=True)
class EpochReport:
    """``epoch`` counts from 1; ``samples_per_s`` covers training only."""

    epoch: int
    epochs: int
    loss: float
    samples_per_s: float


def train(
    module: nn.Module,
    views: Views,
    objective: Objective,
    optimization: Optimization,
    *,
    companions: Sequence[nn.Module] = (),
    distinct_views: int | None = None,
    on_epoch_start: Callable[[], None] = lambda: None,
    after_step: Callable[[], None] = lambda: None,
    on_epoch_end: Callable[[EpochReport], None] = lambda _: None,
) -> None:
    """Train ``module`` in place and leave it in eval mode, on the CPU.

    Args:
        module: its forward is called by ``objective`` only.
        views: the data.
        objective: the loss of one batch.
        optimization: how to descend.
        companions: modules that the objective uses, trained by the same optimiser.
        distinct_views: after so many epochs the views repeat; ``None`` for a new view each epoch.
        on_epoch_start: called before each epoch.
        after_step: called after each optimiser step.
        on_epoch_end: called after each epoch.

    Raises:
        TrainingDiverged: a loss that is not finite; the message says where.
    """
    accelerator = _accelerator()
    module.to(accelerator.device)
    layout = _layout(module)
    _arrange(module, layout)
    module.train()
    for companion in companions:
        companion.to(accelerator.device).train()
    parameters = [p for trained in (module, *companions) for p in trained.parameters()]
    optimizer = _optimizer(parameters, optimization)
    steps = optimization.epochs * len(views)
    schedule = LambdaLR(optimizer, lambda step: _rate(step, steps, optimization))
    prepared, optimizer = accelerator.prepare(module, optimizer)
    for epoch in range(optimization.epochs):
        on_epoch_start()
        prepared.train()
        start, total, seen = time.perf_counter(), 0.0, 0
        view = epoch % distinct_views if distinct_views else epoch
        for step, batch in enumerate(views.batches(view, order_seed=epoch)):
            loss = objective(prepared, _moved(batch, accelerator.device, layout))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingDiverged(_diverged(value, epoch, step, optimization))
            optimizer.zero_grad()
            accelerator.backward(loss)
            if optimization.clip_norm is not None:
                accelerator.clip_grad_norm_(parameters, optimization.clip_norm)
            optimizer.step()
            schedule.step()
            after_step()
            count = batch_size_of(batch.inputs)
            total, seen = total + value * count, seen + count
        rate = seen / (time.perf_counter() - start)
        on_epoch_end(EpochReport(epoch + 1, optimization.epochs, total / seen, rate))
    _arrange(module.to("cpu"), torch.contiguous_format)
    module.eval()
    for parameter in module.parameters():
        parameter.grad = None


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside; leave them, grad mode and dtype outside as found."""
    devices = list(range(torch.cuda.device_count()))
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def _layout(module: nn.Module) -> torch.memory_format:
    # Channels last is what convolutions run fastest on. With widths that fill no vector of eight,
    # as an unrounded prune leaves them, torch 2.13 aborts the process in their backward pass.
    widths = [p.shape[0] for p in module.parameters() if p.dim() == 4]
    return torch.channels_last if all(w % 8 == 0 for w in widths) else torch.contiguous_format


def _arrange(module: nn.Module, layout: torch.memory_format) -> None:
    # Layouts are for 2-D convolutions only.
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _accelerator() -> Any:
    from accelerate import Accelerator

    return Accelerator()


def _optimizer(
    parameters: Sequence[nn.Parameter], optimization: Optimization
) -> torch.optim.Optimizer:
    # Norms and biases are not decayed: decay would pull their scale, not the function, to zero.
    decayed = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": optimization.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if optimization.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optimization.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=optimization.learning_rate)


def _rate(step: int, steps: int, optimization: Optimization) -> float:
    warm = max(1, round(steps * optimization.warmup))
    if step < warm:
        return (step + 1) / warm
    if optimization.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _moved(batch: Batch, device: torch.device, layout: torch.memory_format) -> Batch:
    inputs = to_device(batch.inputs, device)
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=layout)
    labels = None if batch.labels is None else batch.labels.to(device)
    partners = None if batch.partners is None else batch.partners.to(device)
    return replace(batch, inputs=inputs, labels=labels, partners=partners)


def _diverged(value: float, epoch: int, step: int, optimization: Optimization) -> str:
    return (
        f"the training loss became {value} in epoch {epoch + 1}, step {step + 1}, at a learning "
        f"rate of {optimization.learning_rate:g}; a smaller learning_rate or a clip_norm may do, "
        "and so may a look at the data for values that are not finite."
    )
