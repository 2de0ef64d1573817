"""Stage: one step of a recipe; its contract, and what it is given.

A stage is its parameters and one method. The clauses that every stage keeps, each of which is a
test in ``compress.testing.stage_contract``:

1. it holds no run state: the same object runs twice, and in two recipes;
2. its input is unchanged, and so are random numbers, grad mode, thread count, default dtype;
3. it is deterministic for a seed;
4. it changes nothing outside ``effects``;
5. it raises ``NoEffect`` if it changed nothing: ``AlreadySo`` where all that was asked for is so
   already, which stops no run;
6. it acts on the model as it computes: on quantized weights where formats are declared;
7. it keeps the names of layers, and the promises of earlier stages;
8. it works before, after and between all other stages, and twice in a row;
9. it round-trips through YAML;
10. it does not print, read the environment, or write outside its work folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compress.candidate import Architecture, Candidate, Inputs
from compress.config.references import CodeReferences
from compress.errors import AlreadySo
from compress.quantization.fakequant import declared_formats, observe_ranges
from compress.quantization.numerics import LayerFormat
from compress.task import Task
from compress.training.checkpoint import Checkpoint
from compress.training.data import read
from compress.training.distributed import SINGLE_PROCESS, Processes

__all__ = [
    "Context",
    "Effect",
    "Stage",
    "Teacher",
    "calibration_inputs",
    "carry_out",
    "formats_of",
    "ranges_of",
    "unique_name",
]

_CALIBRATION_BATCH = 64

#: What a teacher says about a batch; runs without gradients.
Teacher = Callable[[Inputs], Tensor]


class Effect(str, Enum):
    """A part of the candidate that a stage may change."""

    STRUCTURE = "structure"
    WEIGHTS = "weights"
    NUMERICS = "numerics"
    INVARIANTS = "invariants"


@dataclass(frozen=True)
class Context:
    """What a stage is given besides the candidate.

    Args:
        task: data, loss and metric.
        teacher: the default teacher: the model that entered the recipe, or that its last train
            stage made.
        origin: the candidate that brought in the present architecture; ``of: original`` counts
            from it.
        seed: of this stage; derived from the recipe's.
        workdir: the only folder that the stage may write to.
        build: makes a module from an architecture.
        references: the user's code that may be followed.
        report: takes events such as ``StageWarning("...")`` (``compress.events``), or a mapping of
            plain JSON values with its name under ``event``.
        checkpoint: where an unfinished training is kept; ``None`` for nowhere.
        content: identifies what a teacher is shown and by what code; its answers are kept under it.
        processes: who runs the same stage now, each on its part of the training data; beside the
            teacher's answers, the first alone writes to ``workdir``. A stage runs in all where its
            ``epochs_of_training`` is not 0, and else in the first alone.
    """

    task: Task
    teacher: Teacher
    origin: Candidate
    seed: int
    workdir: Path
    build: Callable[[Architecture], nn.Module]
    references: CodeReferences = field(default_factory=CodeReferences)
    report: Callable[[Mapping[str, Any]], None] = lambda _: None
    checkpoint: Checkpoint | None = None
    content: str = ""
    processes: Processes = SINGLE_PROCESS


class Stage(BaseModel, ABC):
    """One step of a recipe; its fields are the keys in YAML.

    A subclass declares ``kind: Literal["my-kind"] = "my-kind"``, its ``effects``,
    and implements :meth:`run`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    effects: ClassVar[frozenset[Effect]]

    kind: str
    label: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")

    @abstractmethod
    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """A new candidate; the one given stays as it is.

        Raises:
            StageError: the stage could not do its work.
            NoEffect: it had nothing to do.
            AlreadySo: what it was asked for is so already.
        """

    def explain(self) -> str:
        """What this stage will do, in a sentence for ``compresskit plan``."""
        return f"{self.kind} with {self.model_dump(exclude_defaults=True, exclude={'kind'})}"

    def rehearse(self, candidate: Candidate, context: Context) -> Candidate:
        """What would come out, in structure and formats, without training: for ``plan``.

        A stage that changes structure or numerics should check here all that it can without work.
        One that trains may report a :class:`~compress.events.Pace`, which the forecast adds.
        """
        return candidate

    def epochs_of_training(self) -> int:
        """How many passes over the training data it makes at most; 0 where it does not train."""
        return 0


def carry_out(
    stage: Stage, candidate: Candidate, context: Context, *, rehearsing: bool = False
) -> Candidate:
    """What the stage makes of the candidate: the same with a note, where it is so already.

    Raises:
        StageError: the stage could not do its work.
    """
    try:
        step = stage.rehearse if rehearsing else stage.run
        return step(candidate, context)
    except AlreadySo as error:
        fact = str(error).removeprefix(f"{stage.kind}: ").rstrip(".")
        return replace(candidate.fork(), notes=(f"{fact}; nothing changed",))


def formats_of(candidate: Candidate) -> dict[str, LayerFormat]:
    """The declared format of every layer that can have one and that the candidate calls."""
    return declared_formats(candidate.module, candidate.numerics, candidate.example)


def calibration_inputs(task: Task, samples: int) -> list[Inputs]:
    """Batches of inputs to take ranges from: at most ``samples``, from the front of the data."""
    dataset = task.calibration or task.train
    return [batch.inputs for batch in read(dataset, _CALIBRATION_BATCH, samples)]


def unique_name(wanted: str, taken: Collection[str]) -> str:
    """The name, or where it is taken the first of ``name-2``, ``name-3``, ... that is free."""
    name, count = wanted, 2
    while name in taken:
        name, count = f"{wanted}-{count}", count + 1
    return name


def ranges_of(
    module: nn.Module, formats: Mapping[str, LayerFormat], task: Task
) -> dict[str, tuple[float, float]]:
    """Input ranges of the layers with static int8 activations, as the module is now."""
    wanted = [f.calibration.samples for f in formats.values() if f.is_static_int8]
    if not wanted:
        return {}
    batches = calibration_inputs(task, max(wanted))
    with torch.no_grad():
        return observe_ranges(module, formats, batches)
