"""The training loop.

::

    resume from the checkpoint, if there is one
    for each epoch:
        callbacks.epoch_start(epoch)        new ranges for fake quantization
        for each batch of the seeded epoch:
            loss = objective(module, batch) if it is not finite, save the batch and stop
            callbacks.before_step()         gradients are there, averaged over processes
            optimizer step
            callbacks.after_step()          restore zeros that are kept
            update the moving average of the weights
        callbacks.validate()                with the averaged weights
        callbacks.epoch_end(report)
        write the checkpoint
        stop early if the validation loss was not lower for ``patience`` epochs

It runs on ``accelerate``, so the same loop serves a CPU, a GPU, or several processes, each of which
computes its part of every global batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import CheckpointError, StorageError, TrainingDiverged
from compress.events import EpochEnd, StepEnd
from compress.io.atomic import write_atomically
from compress.modules.inputs import to_device
from compress.modules.memory_format import laid_out
from compress.training.checkpoint import Checkpoint, CheckpointContent, pack, unpack
from compress.training.data import Batch, SeededEpochs, head
from compress.training.distributed import SINGLE_PROCESS, Processes
from compress.training.optim import Optimization
from compress.training.rng import isolated
from compress.training.state import AuxiliaryModules, TrainState

__all__ = [
    "AuxiliaryModules",
    "Callbacks",
    "CheckpointConfig",
    "Objective",
    "Optimization",
    "TrainResult",
    "isolated",
    "train",
]

#: The loss of a batch as a scalar; a mean over its samples.
Objective = Callable[[nn.Module, Batch], Tensor]

_REPORT_EVERY_S = 1.0


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Args:
        epochs: that were trained.
        epoch_of_weights: the epoch, counted from 1, that the module's weights are of.
    """

    epochs: int
    epoch_of_weights: int


@dataclass(frozen=True)
class Callbacks:
    """Functions that the loop calls.

    Args:
        epoch_start: before each epoch, with its number from 0.
        before_step: before each step of the optimizer, once gradients are averaged over processes,
            and before they are clipped.
        after_step: after each step of the optimizer.
        validate: returns the validation loss of the module as it is; ``None`` where there is none.
        epoch_end: after each epoch.
        step: after a step, once a second at most.
        resumed: before the first epoch where a training resumes from a checkpoint, with the number
            of epochs done and the seconds that they took.
        warn: with a sentence.
    """

    epoch_start: Callable[[int], None] = lambda _: None
    before_step: Callable[[], None] = lambda: None
    after_step: Callable[[], None] = lambda: None
    validate: Callable[[], float | None] = lambda: None
    epoch_end: Callable[[EpochEnd], None] = lambda _: None
    step: Callable[[StepEnd], None] = lambda _: None
    resumed: Callable[[int, float], None] = lambda _, __: None
    warn: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class CheckpointConfig:
    """What a training saves.

    Args:
        checkpoint: where to save the state after every epoch; ``None`` for nowhere.
        history: plain JSON values that the caller appends; saved in the checkpoint, and restored
            in place when a training resumes.
        diverged_batch: the file for the batch whose loss was not finite; ``None`` for none.
    """

    checkpoint: Checkpoint | None = None
    history: list[Any] = field(default_factory=list)
    diverged_batch: Path | None = None


def train(
    module: nn.Module,
    data: SeededEpochs,
    objective: Objective,
    optimization: Optimization,
    *,
    auxiliary: AuxiliaryModules | None = None,
    distinct_epochs: int | None = None,
    callbacks: Callbacks = Callbacks(),
    checkpointing: CheckpointConfig | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> TrainResult:
    """Train ``module`` in place and leave it in eval mode, on the CPU.

    Args:
        module: its forward is called by ``objective`` only.
        data: for the rank of ``processes``.
        objective: the loss of one batch, a mean over its samples.
        optimization: optimizer, schedule, clipping, EMA and early stopping.
        auxiliary: what is updated besides the module; ``None`` for nothing.
        distinct_epochs: how many epoch seeds to use before they repeat; ``None`` for a new one in
            every epoch.
        callbacks: functions that the loop calls.
        checkpointing: what is saved; ``None`` for nothing.
        processes: all of them call this, with the same arguments, to train the same module.

    Returns:
        The number of epochs, and which of them the weights are of.

    Raises:
        TrainingDiverged: a loss that is not finite; the message says where.
        StorageError: a checkpoint could not be written.
    """
    auxiliary, steps = auxiliary or AuxiliaryModules(), optimization.epochs * len(data)
    example = head(data.dataset, 2).inputs
    state = TrainState(module, optimization, steps, auxiliary, processes, example)
    checkpointing = checkpointing or CheckpointConfig()
    loop = _TrainingLoop(
        state, data, objective, callbacks, checkpointing, processes, distinct_epochs
    )
    done = loop.resume()
    epochs, best = optimization.epochs, state.best
    while done < epochs and not (best and done and best.should_stop(done - 1)):
        loop.epoch(done)
        done += 1
    state.finish()
    return TrainResult(done, best.epoch + 1 if best and best.tensors else done)


@dataclass
class _TrainingLoop:
    state: TrainState
    data: SeededEpochs
    objective: Objective
    callbacks: Callbacks
    checkpointing: CheckpointConfig
    processes: Processes
    distinct_epochs: int | None
    start_s: float = 0.0
    seconds_before: float = 0.0
    first_step: int = 0

    def resume(self) -> int:
        """Restore the checkpoint, if there is one; the number of epochs that are done."""
        content = self._read_checkpoint()
        if content is not None:
            self.state.restore(content)
            self.checkpointing.history[:] = content.facts["history"]
            self.seconds_before = content.facts["seconds"]
            self.callbacks.resumed(content.facts["epochs"], self.seconds_before)
        done: int = content.facts["epochs"] if content else 0
        self.start_s, self.first_step = time.perf_counter(), done * len(self.data)
        return done

    def epoch(self, epoch: int) -> None:
        """Train, validate and save one epoch, counted from 0."""
        state, epochs = self.state, self.state.optimization.epochs
        self.callbacks.epoch_start(epoch)
        state.module.train()
        loss, samples_per_s = self._train_epoch(epoch)
        with state.ema_weights():
            validation_loss = self.callbacks.validate()
            if state.best is not None and validation_loss is not None:
                state.best.update(epoch, validation_loss, state.result_tensors())
        left_s = self._left_s((epoch + 1) * len(self.data))
        self.callbacks.epoch_end(
            EpochEnd(epoch + 1, epochs, loss, {}, validation_loss, samples_per_s, left_s)
        )
        self._write_checkpoint(epoch + 1)

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """One pass over the data: the mean loss, and samples per second."""
        state, steps = self.state, len(self.data)
        epoch_seed = epoch % self.distinct_epochs if self.distinct_epochs else epoch
        start_s, total, seen, reported_s = time.perf_counter(), 0.0, 0, time.perf_counter()
        for step, batch in enumerate(self.data.batches(epoch_seed, order_seed=epoch)):
            with state.autocast():
                loss = self.objective(state.module, _to_device(batch, state))
            value = self._global_loss(loss, batch, epoch, step)
            before = self.callbacks.before_step
            state.optimizer_step(loss, batch.weight, epoch * steps + step, before)
            self.callbacks.after_step()
            state.update_ema(epoch * steps + step)
            total, seen = total + value * batch.global_size, seen + batch.global_size
            now_s = time.perf_counter()
            if now_s - reported_s > _REPORT_EVERY_S:
                reported_s, left_s = now_s, self._left_s(epoch * steps + step + 1)
                self.callbacks.step(
                    StepEnd(
                        epoch=epoch + 1,
                        epochs=state.optimization.epochs,
                        step=step + 1,
                        steps=steps,
                        loss=total / seen,
                        samples_per_s=seen / (now_s - start_s),
                        left_s=left_s,
                    )
                )
        return total / seen, seen / (time.perf_counter() - start_s)

    def _global_loss(self, loss: Tensor, batch: Batch, epoch: int, step: int) -> float:
        """The mean loss of the global batch, over all processes.

        Raises:
            TrainingDiverged: it is not finite.
        """
        own = loss.detach().cpu().double()
        values = self.processes.gather(own * batch.weight).tolist()
        if math.isfinite(value := sum(values)):
            return float(value)
        bad = next((i for i, one in enumerate(values) if not math.isfinite(one)), 0)
        is_saved = bad == self.processes.rank and self._save_diverged_batch(batch, epoch, step)
        # Also waits until the file is there.
        is_saved = bool(self.processes.gather(torch.tensor(is_saved))[bad])
        where = f" (its batch is saved in {self.checkpointing.diverged_batch})" if is_saved else ""
        raise TrainingDiverged(
            f"the training loss became {value} in epoch {epoch + 1}, step {step + 1}, at a "
            f"learning rate of {self.state.optimization.learning_rate:g}{where}; set a smaller "
            "learning_rate or a clip_norm, or look for values in the data that are not finite."
        )

    def _save_diverged_batch(self, batch: Batch, epoch: int, step: int) -> bool:
        path = self.checkpointing.diverged_batch
        if path is None:
            return False
        inputs = batch.inputs if isinstance(batch.inputs, dict) else {"": batch.inputs}
        tensors = {f"inputs.{k}" if k else "inputs": tensor for k, tensor in inputs.items()}
        for what, labels in {"labels": batch.labels, "mixed_targets": batch.mixed_targets}.items():
            named = labels if isinstance(labels, dict) else {"": labels}
            found = {f"{what}.{k}" if k else what: one for k, one in named.items()}
            tensors |= {name: one for name, one in found.items() if one is not None}
        facts = {"epoch": epoch + 1, "step": step + 1}
        facts |= {"view": batch.epoch_seed, "index": batch.index}
        try:
            write_atomically(path, pack(tensors, facts))
        except StorageError:
            return False  # the error of the training is the one to report
        return True

    def _read_checkpoint(self) -> CheckpointContent | None:
        """The checkpoint to resume from, as rank 0 reads it; ``None`` where there is none."""
        checkpoint, content = self.checkpointing.checkpoint, b""
        if checkpoint is None:
            return None
        if self.processes.is_rank_zero:
            try:
                content = checkpoint.read()
            except CheckpointError as error:
                self.callbacks.warn(str(error))
        content = self.processes.broadcast(content)
        return unpack(content) if content else None

    def _write_checkpoint(self, epochs: int) -> None:
        checkpoint = self.checkpointing.checkpoint
        if checkpoint is None:
            return
        content = self.state.checkpoint(is_last=epochs == self.state.optimization.epochs)
        if self.processes.is_rank_zero:
            seconds = self.seconds_before + time.perf_counter() - self.start_s
            facts = {"epochs": epochs, "seconds": seconds, "history": self.checkpointing.history}
            checkpoint.write(CheckpointContent(content.tensors, {**content.facts, **facts}))

    def _left_s(self, steps_done: int) -> float:
        spent_s = time.perf_counter() - self.start_s
        to_do = self.state.steps - steps_done
        return spent_s * to_do / max(1, steps_done - self.first_step)


def _to_device(batch: Batch, state: TrainState) -> Batch:
    inputs = laid_out(to_device(batch.inputs, state.device), state.layout)
    labels, mixed_targets = (
        None if given is None else to_device(given, state.device)
        for given in (batch.labels, batch.mixed_targets)
    )
    return replace(batch, inputs=inputs, labels=labels, mixed_targets=mixed_targets)
