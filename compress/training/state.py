"""The state of a training: weights, optimizer, averages, and how they are saved and restored.

Knows nothing of batches and epochs: the loop (``compress.training.loop``) does.
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
from compress.modules.outputs import Outputs, as_outputs, each_output
from compress.modules.tensors import (
    optimizer_tensors,
    put_back,
    put_back_optimizer,
    tensors_of,
)
from compress.training.checkpoint import CheckpointContent
from compress.training.distributed import Processes, make_accelerator
from compress.training.ema import BestWeights, MovingAverage
from compress.training.optim import Optimization, make_optimizer, rate
from compress.training.rng import (
    foreign_state,
    generator_state,
    set_foreign_state,
    set_generators,
)

__all__ = ["AuxiliaryModules", "Stateful", "TrainState"]

_OPTIMIZER = "optimizer."

#: What a checkpoint can hold.
Stateful = nn.Module | torch.optim.Optimizer


@dataclass(frozen=True)
class AuxiliaryModules:
    """What a training updates besides the module, such as the adapters of a loss.

    Args:
        trained: modules that the same optimizer trains.
        self_updating: modules and optimizers that the objective updates itself, such as a
            discriminator; they are moved to the device and saved in checkpoints.
        kept: modules that the same optimizer trains and that are a part of the result, such as
            learned clips: what EMA and early stopping do with the weights they do with them.
    """

    trained: tuple[nn.Module, ...] = ()
    self_updating: tuple[Stateful, ...] = ()
    kept: tuple[nn.Module, ...] = ()


class TrainState:
    """The state of one training of one module.

    Args:
        module: to be trained, in place.
        optimization: optimizer, schedule, clipping, EMA and early stopping.
        steps: of the whole training.
        auxiliary: what is updated besides the module.
        processes: those that train the same module.
        example: a few samples, to find a memory layout in which the module runs.
    """

    def __init__(
        self,
        module: nn.Module,
        optimization: Optimization,
        steps: int,
        auxiliary: AuxiliaryModules,
        processes: Processes,
        example: Inputs,
    ) -> None:
        self.module, self.optimization, self.steps = module, optimization, steps
        self._auxiliary, self._processes = auxiliary, processes
        self._accelerator = make_accelerator()
        self.device: torch.device = self._accelerator.device
        module.to(self.device)
        self.layout = layout_of(module, to_device(example, self.device))
        arrange(module, self.layout)
        for trained in (*auxiliary.kept, *auxiliary.trained):
            trained.to(self.device).train()
        for updating in auxiliary.self_updating:
            if isinstance(updating, nn.Module):
                updating.to(self.device)
        optimized = (module, *auxiliary.kept, *auxiliary.trained)
        self._parameters = [p for one in optimized for p in one.parameters()]
        self._optimizer = make_optimizer(self._parameters, optimization)
        processes.broadcast_tensors(self._replicated())
        if not processes.is_rank_zero:
            torch.manual_seed(torch.initial_seed() + processes.rank)  # each rank its own dropout
        averaged = self.result_tensors
        self.ema = MovingAverage(averaged, optimization.ema) if optimization.ema else None
        self.best = BestWeights(optimization.patience) if optimization.patience else None

    def result_tensors(self) -> dict[str, Tensor]:
        """All that is the result of the training, by name; not copies.

        Those of the module have its names; no name of a module begins with a dot.
        """
        tensors = tensors_of(self.module)
        for number, kept in enumerate(self._auxiliary.kept):
            tensors |= {f".kept-{number}.{name}": t for name, t in tensors_of(kept).items()}
        return tensors

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """While open, the module computes in accelerate's precision and returns float32."""
        if self._accelerator.mixed_precision == "no":
            yield
            return
        handle = self.module.register_forward_hook(lambda _, __, outputs: _in_float32(outputs))
        try:
            with self._accelerator.autocast():
                yield
        finally:
            handle.remove()

    def optimizer_step(
        self,
        loss: Tensor,
        weight: float,
        step: int,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Backpropagate a loss and take one step of the optimizer.

        Args:
            loss: of this process's part of the batch, a scalar.
            weight: of that part in the global batch.
            step: counted from 0, over all epochs.
            before: called once gradients are averaged over processes, and before they are clipped.
        """
        factor = rate(step, self.steps, self.optimization.schedule, self.optimization.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = self.optimization.learning_rate * factor
        if self._processes.world_size > 1:
            loss = loss * (weight * self._processes.world_size)
        # Not by accelerate's own optimizer, which searches for packages at every step: a twentieth
        # of a small net's.
        scaler = self._accelerator.scaler
        self._optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        # Averaged here and not by DistributedDataParallel, which would miss auxiliary modules, and
        # take weights that no loss depends on for an error.
        self._processes.average(self._gradients())
        if scaler is not None:
            scaler.unscale_(self._optimizer)
        before()
        if self.optimization.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.optimization.clip_norm)
        if scaler is None:
            self._optimizer.step()
        else:
            scaler.step(self._optimizer)  # skipped where a gradient overflowed
            scaler.update()

    def _gradients(self) -> Iterator[Tensor]:
        """The gradients to average: of the same parameters in every process; missing ones are 0."""
        for parameter in self._parameters:
            if (
                parameter.grad is None
                and self._processes.world_size > 1
                and parameter.requires_grad
            ):
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                yield parameter.grad

    def update_ema(self, step: int) -> None:
        """Update the moving average with the weights after ``step``, counted from 0."""
        if self.ema is not None:
            self.ema.update(step + 1)

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """While open, the module has its averaged weights, or its own where none are averaged."""
        self._average_over_processes()
        if self.ema is None:
            yield
        else:
            with self.ema.applied():
                yield

    def finish(self) -> None:
        """Load the best or the averaged weights, and move the module to the CPU, in eval mode."""
        if self.best is not None and self.best.epoch >= 0:
            put_back(self.best.tensors, self.result_tensors())
        elif self.ema is not None:
            put_back(self.ema.tensors, self.result_tensors())
        arrange(self.module.to("cpu"), torch.contiguous_format)
        for result in (self.module, *self._auxiliary.kept):
            result.to("cpu").eval()
            for parameter in result.parameters():
                parameter.grad = None

    def checkpoint(self, *, is_last: bool = False) -> CheckpointContent:
        """All of the state. Every process must call this; what rank 0 gets is to be saved.

        Args:
            is_last: whether no step follows, so that what the optimizer holds is left out.
        """
        tensors = {
            f"{prefix}{name}": tensor
            for prefix, tensors_in, _ in self._parts()
            if not (is_last and prefix == _OPTIMIZER)
            for name, tensor in tensors_in().items()
        }
        generators = self._processes.gather(generator_state(self.device))
        facts: dict[str, Any] = {"foreign": foreign_state()}
        if self.best is not None:
            facts["best"] = {"loss": self.best.loss, "epoch": self.best.epoch}
            tensors |= {f"best.{name}": tensor for name, tensor in self.best.tensors.items()}
        if self._accelerator.scaler is not None:
            facts["scaler"] = self._accelerator.scaler.state_dict()
        return CheckpointContent({**tensors, "generators": generators}, facts)

    def restore(self, content: CheckpointContent) -> None:
        """Take over the state that :meth:`checkpoint` returned."""
        for prefix, _, put in self._parts():
            put(content.under(prefix))
        rows = content.tensors["generators"]
        set_generators(rows[self._processes.rank % len(rows)], self.device)
        set_foreign_state(content.facts["foreign"])
        if self.best is not None:
            best = content.facts["best"]
            tensors = {k: v.to(self.device) for k, v in content.under("best.").items()}
            self.best.restore(best["loss"], best["epoch"], tensors)
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(content.facts["scaler"])

    def _parts(self) -> Iterator[tuple[str, _Get, _Put]]:
        """Everything with tensors: a prefix, how to read them, and how to restore them."""
        yield _of_module("module.", self.module)
        yield _of_optimizer(_OPTIMIZER, self._optimizer)
        if self.ema is not None:
            ema = self.ema.tensors
            yield "ema.", lambda: ema, lambda tensors: put_back(tensors, ema)
        for number, module in enumerate(self._auxiliary.kept):
            yield _of_module(f"kept-{number}.", module)
        for number, module in enumerate(self._auxiliary.trained):
            yield _of_module(f"auxiliary-{number}.", module)
        for number, updating in enumerate(self._auxiliary.self_updating):
            prefix = f"self-updating-{number}."
            if isinstance(updating, nn.Module):
                yield _of_module(prefix, updating)
            else:
                yield _of_optimizer(prefix, updating)

    def _replicated(self) -> list[Tensor]:
        """Tensors that must be the same in every process."""
        updating = [one for one in self._auxiliary.self_updating if isinstance(one, nn.Module)]
        modules = (self.module, *self._auxiliary.kept, *self._auxiliary.trained, *updating)
        return [tensor for module in modules for tensor in tensors_of(module).values()]

    def _average_over_processes(self) -> None:
        """Average what each process updates by itself, such as the running means of norms."""
        averages = self.ema.tensors.values() if self.ema is not None else ()
        floating = [t for t in chain(self._replicated(), averages) if t.is_floating_point()]
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


def _in_float32(outputs: Any) -> Outputs:
    return each_output(as_outputs(outputs), at_least_float32)
