"""Session: everything that moves while a module is trained, and how it is saved and put back.

Knows nothing of batches and epochs: the loop (``compress.training.loop``) says when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs, at_least_float32, to_device
from compress.modules.memory_format import arrange, layout_of
from compress.modules.tensors import (
    optimizer_tensors,
    put_back,
    put_back_optimizer,
    tensors_of,
)
from compress.training.checkpoint import Saved
from compress.training.distributed import Processes, make_accelerator
from compress.training.ema import Average, Best
from compress.training.optim import Optimization, make_optimizer, rate
from compress.training.rng import (
    foreign_state,
    generator_state,
    set_foreign_state,
    set_generators,
)

__all__ = ["Beside", "Session", "Stateful"]

#: What can be saved and put back beside the module.
Stateful = nn.Module | torch.optim.Optimizer


@dataclass(frozen=True)
class Beside:
    """What moves beside the module that is trained.

    Args:
        companions: modules that the same optimizer trains.
        others: modules and optimizers that someone else moves, such as an adversary.
    """

    companions: tuple[nn.Module, ...] = ()
    others: tuple[Stateful, ...] = ()


class Session:
    """One training of one module.

    Args:
        module: to be trained, in place.
        optimization: how.
        steps: of the whole training.
        beside: what moves with it.
        processes: who trains with this process.
        example: a few samples, to find a layout in memory in which the module runs.
    """

    def __init__(
        self,
        module: nn.Module,
        optimization: Optimization,
        steps: int,
        beside: Beside,
        processes: Processes,
        example: Inputs,
    ) -> None:
        self.module, self.optimization, self.steps = module, optimization, steps
        self._beside, self._processes = beside, processes
        self._accelerator = make_accelerator()
        self.device: torch.device = self._accelerator.device
        module.to(self.device)
        self.layout = layout_of(module, to_device(example, self.device))
        arrange(module, self.layout)
        for companion in beside.companions:
            companion.to(self.device).train()
        for other in beside.others:
            if isinstance(other, nn.Module):
                other.to(self.device)
        trained = (module, *beside.companions)
        self._parameters = [p for one in trained for p in one.parameters()]
        self._optimizer = make_optimizer(self._parameters, optimization)
        processes.copy_first(self._shared())
        if not processes.is_first:
            torch.manual_seed(torch.initial_seed() + processes.index)  # dropout of its own
        self.average = Average(module, optimization.ema) if optimization.ema else None
        self.best = Best(optimization.patience) if optimization.patience else None

    @contextmanager
    def computing(self) -> Iterator[None]:
        """While open, the module computes in accelerate's precision and answers in float32."""
        if self._accelerator.mixed_precision == "no":
            yield
            return
        handle = self.module.register_forward_hook(lambda _, __, outputs: _answered(outputs))
        try:
            with self._accelerator.autocast():
                yield
        finally:
            handle.remove()

    def descend(self, loss: Tensor, weight: float, step: int) -> None:
        """One step of the optimizer, the ``step``-th from 0; ``weight`` is this process's share."""
        share = rate(step, self.steps, self.optimization.schedule, self.optimization.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = self.optimization.learning_rate * share
        if self._processes.count > 1:
            loss = loss * (weight * self._processes.count)
        # Not by accelerate's own optimizer, which searches for packages at every step: a twentieth
        # of a small net's.
        scaler = self._accelerator.scaler
        self._optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        # Averaged here and not by DistributedDataParallel, which would miss what is trained beside
        # the module, and take weights that no loss looks at for an error.
        self._processes.average(self._gradients())
        if scaler is not None:
            scaler.unscale_(self._optimizer)
        if self.optimization.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.optimization.clip_norm)
        if scaler is None:
            self._optimizer.step()
        else:
            scaler.step(self._optimizer)  # not where a gradient overflowed
            scaler.update()

    def _gradients(self) -> Iterator[Tensor]:
        """Those to average: the same ones in every process, whatever each has left out."""
        for parameter in self._parameters:
            if parameter.grad is None and self._processes.count > 1 and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                yield parameter.grad

    def follow(self, step: int) -> None:
        """Take the weights after ``step``, counted from 0, into their average."""
        if self.average is not None:
            self.average.update(step + 1)

    @contextmanager
    def as_it_would_leave(self) -> Iterator[None]:
        """While open, the module has the weights that it would leave the training with now."""
        self._agree()
        if self.average is None:
            yield
        else:
            with self.average.applied():
                yield

    def finish(self) -> None:
        """Give the module the weights that it leaves with, and take it off the device."""
        if self.best is not None and self.best.epoch >= 0:
            put_back(self.best.tensors, tensors_of(self.module))
        elif self.average is not None:
            put_back(self.average.tensors, tensors_of(self.module))
        arrange(self.module.to("cpu"), torch.contiguous_format)
        self.module.eval()
        for parameter in self.module.parameters():
            parameter.grad = None

    def saved(self) -> Saved:
        """All that moves; every process must ask, and the first one's answer is what counts."""
        tensors = {
            f"{prefix}{name}": tensor
            for prefix, tensors_in, _ in self._parts()
            for name, tensor in tensors_in().items()
        }
        generators = self._processes.gather(generator_state(self.device))
        facts: dict[str, Any] = {"foreign": foreign_state()}
        if self.best is not None:
            facts["best"] = {"loss": self.best.loss, "epoch": self.best.epoch}
            tensors |= {f"best.{name}": tensor for name, tensor in self.best.tensors.items()}
        if self._accelerator.scaler is not None:
            facts["scaler"] = self._accelerator.scaler.state_dict()
        return Saved({**tensors, "generators": generators}, facts)

    def restore(self, saved: Saved) -> None:
        """Be as :meth:`saved` was."""
        for prefix, _, put in self._parts():
            put(saved.under(prefix))
        rows = saved.tensors["generators"]
        set_generators(rows[self._processes.index % len(rows)], self.device)
        set_foreign_state(saved.facts["foreign"])
        if self.best is not None:
            best = saved.facts["best"]
            tensors = {k: v.to(self.device) for k, v in saved.under("best.").items()}
            self.best.restore(best["loss"], best["epoch"], tensors)
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(saved.facts["scaler"])

    def _parts(self) -> Iterator[tuple[str, _Get, _Put]]:
        """Everything with tensors: a prefix, how to read them, and how to put them back."""
        yield _of_module("module.", self.module)
        yield _of_optimizer("optimizer.", self._optimizer)
        if self.average is not None:
            mine = self.average.tensors
            yield "average.", lambda: mine, lambda tensors: put_back(tensors, mine)
        for number, companion in enumerate(self._beside.companions):
            yield _of_module(f"companion-{number}.", companion)
        for number, other in enumerate(self._beside.others):
            prefix = f"other-{number}."
            if isinstance(other, nn.Module):
                yield _of_module(prefix, other)
            else:
                yield _of_optimizer(prefix, other)

    def _shared(self) -> list[Tensor]:
        # What must be the same in every process.
        others = [other for other in self._beside.others if isinstance(other, nn.Module)]
        modules = (self.module, *self._beside.companions, *others)
        return [tensor for module in modules for tensor in tensors_of(module).values()]

    def _agree(self) -> None:
        """Average what each process has moved by itself: running means, and other modules."""
        averages = self.average.tensors.values() if self.average is not None else ()
        floating = [t for t in chain(self._shared(), averages) if t.is_floating_point()]
        self._processes.average(floating)


_Get = Callable[[], dict[str, Tensor]]
_Put = Callable[[dict[str, Tensor]], None]


def _of_module(prefix: str, module: nn.Module) -> tuple[str, _Get, _Put]:
    return (
        prefix,
        lambda: tensors_of(module),
        lambda tensors: put_back(tensors, tensors_of(module)),
    )


def _of_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> tuple[str, _Get, _Put]:
    return (
        prefix,
        lambda: optimizer_tensors(optimizer),
        lambda tensors: put_back_optimizer(tensors, optimizer),
    )


def _answered(outputs: Any) -> Any:
    return at_least_float32(outputs) if isinstance(outputs, Tensor) else outputs
