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
7. it keeps the names of layers, and the invariants of earlier stages, but for what it edits away
   and says so in the candidate's ``edits``;
8. it works before, after and between all other stages, and twice in a row;
9. it round-trips through YAML;
10. it does not print, read the environment, or write outside its work folder;
11. it has candidates measured only if it declares ``measures``, and then clause 3 holds for equal
    measurements: what it decides depends on them and on the seed alone.

What the loop has to know of a stage is declared too: ``makes_teacher``, ``measures``,
:meth:`Stage.epochs_of_training`, :meth:`Stage.named_teacher` and :meth:`Stage.implied_outputs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import ConfigDict, Field
from torch import nn

from compress.candidate import Architecture, Candidate, Inputs
from compress.config.references import CodeReferences
from compress.config.settings import Settings
from compress.errors import AlreadySo, ContractViolation, StageError
from compress.modules.outputs import Outputs
from compress.outputs import Implied
from compress.quantization.fakequant import declared_formats, observe_ranges
from compress.quantization.numerics import LayerFormat
from compress.task import Task
from compress.training.checkpoint import Checkpoint
from compress.training.data import read
from compress.training.distributed import SINGLE_PROCESS, Processes

__all__ = [
    "EVALUATION_PARTS",
    "CandidateEvaluator",
    "Context",
    "Effect",
    "Evaluation",
    "EvaluationPart",
    "LayerSeconds",
    "NoEvaluator",
    "Stage",
    "Teacher",
    "TimesLayers",
    "apply_stage",
    "calibration_inputs",
    "formats_of",
    "ranges_of",
]

_CALIBRATION_BATCH = 64

#: A teacher's outputs for a batch, a tensor or tensors by name; runs without gradients.
Teacher = Callable[[Inputs], Outputs]


class Effect(str, Enum):
    """A part of the candidate that a stage may change."""

    STRUCTURE = "structure"
    WEIGHTS = "weights"
    NUMERICS = "numerics"
    INVARIANTS = "invariants"


#: What is measured of a candidate: its ``score`` on the validation split, its ``latency``.
EvaluationPart = Literal["score", "latency"]
EVALUATION_PARTS: tuple[EvaluationPart, ...] = ("score", "latency")


@dataclass(frozen=True)
class Evaluation:
    """What a candidate does on the first target of the run.

    Args:
        artifact_bytes: size of the lowered model.
        score: the metric of the run on the validation split, of the artifact's outputs; ``None``
            where only other parts were asked for.
        score_ci95: its 95 % interval, likewise.
        higher_is_better: the direction of the metric.
        latency_s: the median of one inference at the target's batch size, in seconds; ``None``
            where it could not be timed.
        speedup: the time of the candidate that came in over this one's, paired by round: above 1
            is faster; ``None`` where one of them could not be timed.
        speedup_ci95: its 95 % interval, likewise.
        warnings: what there is to say of the artifact and of its times.
        metric: the name of the metric.
    """

    artifact_bytes: int
    score: float | None
    score_ci95: tuple[float, float] | None
    higher_is_better: bool
    latency_s: float | None = None
    speedup: float | None = None
    speedup_ci95: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    metric: str = "score"


class CandidateEvaluator(Protocol):
    """Lowers, scores and times candidates while a stage works; the test split is out of reach."""

    def measure(
        self, candidate: Candidate, parts: Collection[EvaluationPart] = EVALUATION_PARTS
    ) -> Evaluation:
        """What the candidate does on the first target of the run, beside the one that came in.

        Takes what measuring a row takes, such as half a minute; the same part of the same
        candidate is measured once, also where a run is killed and goes on.

        Args:
            candidate: made from the one that came in.
            parts: what is needed of it; its size is always told, and takes a second.

        Raises:
            StageError: nothing can be measured here.
            LoweringError: it cannot be exported, encoded, or run as its module runs.
            MeasurementError: the target cannot run it.
        """
        ...


@dataclass(frozen=True)
class LayerSeconds:
    """Seconds of one inference, of two files that were profiled in turns.

    Args:
        before: of layers in the candidate that came in, by path.
        after: of the same layers in another.
        whole_before: of all of the candidate that came in.
        whole_after: of all of the other.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    whole_before: float
    whole_after: float


@runtime_checkable
class TimesLayers(Protocol):
    """An evaluator that can say what single layers take."""

    def layer_seconds(self, candidate: Candidate, layers: Sequence[str]) -> LayerSeconds:
        """What each layer takes in the candidate that came in, and in this one.

        By the runtime's profile of both files as a whole, in turns. Measured once, also where a
        run is killed and goes on.

        Args:
            candidate: made from the one that came in.
            layers: by path; one that the profile does not name is left out of the result.

        Raises:
            LoweringError: it cannot be exported, encoded, or run as its module runs.
            MeasurementError: the target cannot profile.
        """
        ...


@dataclass(frozen=True)
class NoEvaluator:
    """Stands where nothing can be measured.

    Args:
        why: a clause, such as ``this is a dry run``.
    """

    why: str = "this is a dry run, or a process other than the first"

    def measure(
        self, candidate: Candidate, parts: Collection[EvaluationPart] = EVALUATION_PARTS
    ) -> Evaluation:
        """Refuse.

        Raises:
            StageError: always.
        """
        raise StageError(f"a candidate cannot be measured here: {self.why}.")


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
        teacher_cache_key: identifies what a teacher is shown and by what code; its outputs are
            cached under it.
        processes: who runs the same stage now, each on its part of the training data; beside the
            teacher's answers, the first alone writes to ``workdir``. A stage runs in all where its
            ``epochs_of_training`` is not 0, and else in the first alone.
        evaluator: has candidates lowered, scored and timed on the run's first target, for a stage
            that declares ``measures``; elsewhere, in a dry run and in all processes but the first
            it raises a ``StageError``.
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
    teacher_cache_key: str = ""
    processes: Processes = SINGLE_PROCESS
    evaluator: CandidateEvaluator = field(default_factory=NoEvaluator)


class Stage(Settings, ABC):
    """One step of a recipe; its fields are the keys in YAML.

    A subclass declares ``kind: Literal["my-kind"] = "my-kind"``, its ``effects``,
    and implements :meth:`run`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The parts of the candidate that it may change.
    effects: ClassVar[frozenset[Effect]]
    #: Whether what comes out is the default teacher of the stages after it; as the first stage of a
    #: recipe it makes the baseline row, too.
    makes_teacher: ClassVar[bool] = False
    #: Whether it uses ``context.evaluator``; its result then is of one target, and re-used on no
    #: other.
    measures: ClassVar[bool] = False

    kind: str
    """Which stage it is: ``train``, ``distill``, ``quantize``, ``prune``, or ``module:name`` for
    one of your own."""
    label: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What the stage's row is called in tables, plots and folders. Where not given, its kind."""

    def makes_baseline(self) -> bool:
        """Whether, as the first stage of a recipe, it makes the row that all are compared with."""
        return self.makes_teacher

    def uses_evaluator(self) -> bool:
        """Whether it has candidates measured as it is set: where its class declares ``measures``.

        A stage that does so with some settings only says here with which.
        """
        return self.measures

    def timed_candidates(self) -> int:
        """About how many candidates it has timed, for the forecast of ``plan``."""
        return 0

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

    def named_teacher(self) -> Any:
        """The ``teacher`` block of its settings, if it has one and that names a teacher.

        Where the test split has no labels, rows are compared with the first teacher that is named.
        """
        return None

    def implied_outputs(self, references: CodeReferences) -> Sequence[Implied]:
        """What its losses imply that the model's outputs are, such as ``class-scores``.

        A loss on one of several outputs implies it of that one: ``("boxes", "values")``.

        Args:
            references: the user's code that may be followed, for losses of one's own.
        """
        return ()


def apply_stage(
    stage: Stage, candidate: Candidate, context: Context, *, dry_run: bool = False
) -> Candidate:
    """What the stage makes of the candidate: the same with a note, where it is so already.

    Raises:
        StageError: the stage could not do its work.
        ContractViolation: what it returned is no candidate.
    """
    try:
        step = stage.rehearse if dry_run else stage.run
        made: object = step(candidate, context)
    except AlreadySo as error:
        fact = str(error).removeprefix(f"{stage.kind}: ").rstrip(".")
        return replace(candidate.fork(), notes=(f"{fact}; nothing changed",))
    if not isinstance(made, Candidate):
        raise ContractViolation(
            f"the stage {stage.kind!r} must return a compress.Candidate; got {type(made).__name__}."
        )
    return made


def formats_of(candidate: Candidate) -> dict[str, LayerFormat]:
    """The declared format of every layer that can have one and that the candidate calls."""
    return declared_formats(candidate.module, candidate.numerics, candidate.example)


def calibration_inputs(task: Task, samples: int) -> list[Inputs]:
    """Batches of inputs to take ranges from: at most ``samples``, from the front of the data."""
    dataset = task.calibration or task.train
    return [batch.inputs for batch in read(dataset, _CALIBRATION_BATCH, samples)]


def ranges_of(
    module: nn.Module, formats: Mapping[str, LayerFormat], task: Task
) -> dict[str, tuple[float, float]]:
    """Input ranges of the layers with static int8 activations, as the module is now."""
    wanted = [f.calibration.samples for f in formats.values() if f.needs_range]
    if not wanted:
        return {}
    batches = calibration_inputs(task, max(wanted))
    with torch.no_grad():
        return observe_ranges(module, formats, batches)
