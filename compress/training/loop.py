"""The training loop, and what keeps it from leaving traces in the process.

The loop, in words::

    go on from a checkpoint, if there is one
    for each epoch:
        on_epoch_start(epoch)               new ranges for fake quantization
        for each batch of the epoch's view:
            loss = objective(module, batch) stop if it is not finite, and keep the batch
            step the optimizer
            after_step()                    put promised zeros back
            follow the average of the weights
        validate()                          with the weights that would leave
        on_epoch_end(report)
        write the checkpoint
        stop if there was nothing better for too long

It runs on ``accelerate``, so the same loop serves a CPU, a GPU, or several processes, each of which
computes its part of every batch.
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
from compress.io.atomic import write_atomically
from compress.modules.inputs import to_device
from compress.modules.memory_format import laid_out
from compress.training.checkpoint import Checkpoint, Saved, pack, unpack
from compress.training.data import Batch, Views, head
from compress.training.distributed import ALONE, Processes
from compress.training.optim import Optimization
from compress.training.rng import isolated
from compress.training.state import Beside, Session

__all__ = [
    "Beside",
    "EpochReport",
    "Hooks",
    "Keeping",
    "Objective",
    "Optimization",
    "Outcome",
    "StepReport",
    "isolated",
    "train",
]

Objective = Callable[[nn.Module, Batch], Tensor]

_REPORT_EVERY_S = 1.0


@dataclass(frozen=True)
class StepReport:
    """Where a training is. ``epoch`` and ``step`` count from 1, ``step`` within the epoch.

    ``samples_per_s`` is of this epoch's training; ``left_s`` is until the end of the last epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    samples_per_s: float
    left_s: float


@dataclass(frozen=True)
class EpochReport:
    """``epoch`` counts from 1; ``samples_per_s`` covers training only.

    ``validation_loss`` is of the weights that would leave the training now, ``left_s`` the time
    until the end of the last epoch.
    """

    epoch: int
    epochs: int
    loss: float
    samples_per_s: float
    validation_loss: float | None = None
    left_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """``epochs`` that were trained, and which of them, from 1, the weights are of."""

    epochs: int
    epoch_of_weights: int


@dataclass(frozen=True)
class Hooks:
    """What is called on the way; epochs count from 0 here.

    Args:
        epoch_start: before each epoch.
        after_step: after each step of the optimizer.
        validate: gives the validation loss of the module as it is; ``None`` where there is none.
        epoch_end: after each epoch.
        step: after a step, once a second at most.
        resumed: before the first epoch where a checkpoint is gone on from, with the epochs done and
            the seconds that they took.
        warn: takes a sentence.
    """

    epoch_start: Callable[[int], None] = lambda _: None
    after_step: Callable[[], None] = lambda: None
    validate: Callable[[], float | None] = lambda: None
    epoch_end: Callable[[EpochReport], None] = lambda _: None
    step: Callable[[StepReport], None] = lambda _: None
    resumed: Callable[[int, float], None] = lambda _, __: None
    warn: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Keeping:
    """What is kept on disk.

    Args:
        checkpoint: where an unfinished training is kept; ``None`` for nowhere.
        journal: plain JSON values that the caller notes down; kept with the checkpoint, and filled
            again when it is gone on from.
        diverged_batch: where to keep the batch whose loss was not finite.
    """

    checkpoint: Checkpoint | None = None
    journal: list[Any] = field(default_factory=list)
    diverged_batch: Path | None = None


def train(
    module: nn.Module,
    views: Views,
    objective: Objective,
    optimization: Optimization,
    *,
    beside: Beside | None = None,
    distinct_views: int | None = None,
    hooks: Hooks = Hooks(),
    keeping: Keeping | None = None,
    processes: Processes = ALONE,
) -> Outcome:
    """Train ``module`` in place and leave it in eval mode, on the CPU.

    Args:
        module: its forward is called by ``objective`` only.
        views: the data; its parts are those of ``processes``.
        objective: the loss of one batch, a mean over its samples.
        optimization: how to descend.
        beside: what moves with the module.
        distinct_views: after so many epochs the views repeat; ``None`` for a new view each epoch.
        hooks: what is called on the way.
        keeping: what is kept on disk.
        processes: who else calls this, with the same arguments, to train the same module.

    Raises:
        TrainingDiverged: a loss that is not finite; the message says where.
        StorageError: a checkpoint could not be written.
    """
    keeping, steps = keeping or Keeping(), optimization.epochs * len(views)
    example = head(views.dataset, 2).inputs
    session = Session(module, optimization, steps, beside or Beside(), processes, example)
    loop = _Loop(session, views, objective, hooks, keeping, processes, distinct_views)
    done = loop.resume()
    epochs = optimization.epochs
    while done < epochs and not (session.best and done and session.best.is_late(done - 1)):
        loop.epoch(done)
        done += 1
    session.finish()
    return Outcome(done, session.best.epoch + 1 if session.best and session.best.tensors else done)


@dataclass
class _Loop:
    session: Session
    views: Views
    objective: Objective
    hooks: Hooks
    keeping: Keeping
    processes: Processes
    distinct_views: int | None
    start_s: float = 0.0
    earlier_s: float = 0.0
    first_step: int = 0

    def resume(self) -> int:
        """How many epochs are done already."""
        saved = self._found()
        if saved is not None:
            self.session.restore(saved)
            self.keeping.journal[:] = saved.facts["journal"]
            self.earlier_s = saved.facts["seconds"]
            self.hooks.resumed(saved.facts["epochs"], self.earlier_s)
        done: int = saved.facts["epochs"] if saved else 0
        self.start_s, self.first_step = time.perf_counter(), done * len(self.views)
        return done

    def epoch(self, epoch: int) -> None:
        """One pass over the data, and what comes after it."""
        session, epochs = self.session, self.session.optimization.epochs
        self.hooks.epoch_start(epoch)
        session.module.train()
        loss, samples_per_s = self._pass(epoch)
        with session.as_it_would_leave():
            validation_loss = self.hooks.validate()
            if session.best is not None and validation_loss is not None:
                session.best.see(epoch, validation_loss, session.module)
        left_s = self._left_s((epoch + 1) * len(self.views))
        self.hooks.epoch_end(
            EpochReport(epoch + 1, epochs, loss, samples_per_s, validation_loss, left_s)
        )
        self._keep(epoch + 1)

    def _pass(self, epoch: int) -> tuple[float, float]:
        """The mean loss, and samples per second."""
        session, steps = self.session, len(self.views)
        view = epoch % self.distinct_views if self.distinct_views else epoch
        start_s, total, seen, reported_s = time.perf_counter(), 0.0, 0, time.perf_counter()
        for step, batch in enumerate(self.views.batches(view, order_seed=epoch)):
            with session.computing():
                loss = self.objective(session.module, _moved(batch, session))
            value = self._agreed(loss, batch, epoch, step)
            session.descend(loss, batch.weight, epoch * steps + step)
            self.hooks.after_step()
            session.follow(epoch * steps + step)
            total, seen = total + value * batch.whole, seen + batch.whole
            now_s = time.perf_counter()
            if now_s - reported_s > _REPORT_EVERY_S:
                reported_s, left_s = now_s, self._left_s(epoch * steps + step + 1)
                self.hooks.step(
                    StepReport(
                        epoch=epoch + 1,
                        epochs=session.optimization.epochs,
                        step=step + 1,
                        steps=steps,
                        loss=total / seen,
                        samples_per_s=seen / (now_s - start_s),
                        left_s=left_s,
                    )
                )
        return total / seen, seen / (time.perf_counter() - start_s)

    def _agreed(self, loss: Tensor, batch: Batch, epoch: int, step: int) -> float:
        """The loss of the whole batch.

        Raises:
            TrainingDiverged: it is not finite.
        """
        own = loss.detach().cpu().double()
        values = self.processes.gather(own * batch.weight).tolist()
        if math.isfinite(value := sum(values)):
            return float(value)
        bad = next((i for i, one in enumerate(values) if not math.isfinite(one)), 0)
        is_kept = bad == self.processes.index and self._keep_batch(batch, epoch, step)
        # Also waits until the file is there.
        is_kept = bool(self.processes.gather(torch.tensor(is_kept))[bad])
        where = f" (its batch is kept in {self.keeping.diverged_batch})" if is_kept else ""
        raise TrainingDiverged(
            f"the training loss became {value} in epoch {epoch + 1}, step {step + 1}, at a "
            f"learning rate of {self.session.optimization.learning_rate:g}{where}; a smaller "
            "learning_rate or a clip_norm may do, and so may a look at the data for values that "
            "are not finite."
        )

    def _keep_batch(self, batch: Batch, epoch: int, step: int) -> bool:
        path = self.keeping.diverged_batch
        if path is None:
            return False
        inputs = batch.inputs if isinstance(batch.inputs, dict) else {"": batch.inputs}
        tensors = {f"inputs.{k}" if k else "inputs": tensor for k, tensor in inputs.items()}
        labels = {"labels": batch.labels, "partners": batch.partners}
        tensors |= {name: tensor for name, tensor in labels.items() if tensor is not None}
        where = {"epoch": epoch + 1, "step": step + 1, "view": batch.view, "index": batch.index}
        try:
            write_atomically(path, pack(tensors, where))
        except StorageError:
            return False  # what the training has to say matters more
        return True

    def _found(self) -> Saved | None:
        """The checkpoint to go on from: the first process's, for all."""
        place, content = self.keeping.checkpoint, b""
        if place is None:
            return None
        if self.processes.is_first:
            try:
                content = place.read()
            except CheckpointError as error:
                self.hooks.warn(str(error))
        content = self.processes.share(content)
        return unpack(content) if content else None

    def _keep(self, epochs: int) -> None:
        place = self.keeping.checkpoint
        if place is None:
            return
        saved = self.session.saved()
        if self.processes.is_first:
            seconds = self.earlier_s + time.perf_counter() - self.start_s
            facts = {"epochs": epochs, "seconds": seconds, "journal": self.keeping.journal}
            place.write(Saved(saved.tensors, {**saved.facts, **facts}))

    def _left_s(self, steps_done: int) -> float:
        spent_s = time.perf_counter() - self.start_s
        to_do = self.session.steps - steps_done
        return spent_s * to_do / max(1, steps_done - self.first_step)


def _moved(batch: Batch, session: Session) -> Batch:
    inputs = laid_out(to_device(batch.inputs, session.device), session.layout)
    labels = None if batch.labels is None else batch.labels.to(session.device)
    partners = None if batch.partners is None else batch.partners.to(session.device)
    return replace(batch, inputs=inputs, labels=labels, partners=partners)
