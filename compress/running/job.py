"""Job: a recipe with everything that it is run on, and what is carried from row to row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import nn

from compress.cache import Store
from compress.candidate import Architecture, Candidate
from compress.config.references import CodeReferences
from compress.distillation.teachers import frozen_teacher
from compress.errors import CompressError, StageError, in_words
from compress.events import Event, EventCallback
from compress.fingerprints import DataMemory, FileMemory
from compress.measure.target import Mode, Target
from compress.quantization.fakequant import quantizable_layers
from compress.record import Budget
from compress.running.digests import Content
from compress.running.folder import RunFolder
from compress.running.keys import Dependencies, Lineage, of_stage, seed_of
from compress.stage import Context, Stage, Teacher, unique_name
from compress.task import Task
from compress.training.checkpoint import Checkpoint
from compress.training.distributed import SINGLE_PROCESS, Processes

__all__ = [
    "Job",
    "Progress",
    "Work",
    "context_of",
    "labels_of",
    "load_candidate",
    "located",
    "trains",
]


@dataclass(frozen=True)
class Job:
    """A recipe with everything that it is run on.

    Args:
        name: of the recipe.
        recipe: the recipe, fully resolved, for the record.
        seed: of the recipe.
        stages: in order.
        candidate: what enters.
        task: what it is for.
        targets: where it is measured; at least one.
        folder: where the run is kept.
        build: makes a module from an architecture.
        references: the user's code that may be followed.
        mode: how hard to measure.
        callback: is told what happens (``compress.events``).
        budget: of the recipe, if it has one.
        store: results of all runs, by key.
        data: what is known of data that were hashed before in this process.
        files: checksums of files that did not change since they were read.
    """

    name: str
    recipe: dict[str, Any]
    seed: int
    stages: Sequence[Stage]
    candidate: Candidate
    task: Task
    targets: Sequence[Target]
    folder: RunFolder
    build: Callable[[Architecture], nn.Module]
    references: CodeReferences
    mode: Mode = "default"
    callback: EventCallback = lambda _: None
    budget: Budget | None = None
    store: Store = field(default_factory=lambda: Store.open("none"))
    data: DataMemory = field(default_factory=DataMemory)
    files: FileMemory = field(default_factory=FileMemory)

    def tell(self, event: Event) -> None:
        """Hand an event of the run to the callback."""
        self.callback(dict(event))

    def tell_and_log(self, event: Event) -> None:
        """Hand an event of the run to the callback, once it is in the log."""
        self.folder.log(event)
        self.tell(event)

    def content(self) -> Content:
        """Of the task and of the model that comes in, as digests."""
        return Content(self.task, self.candidate.module, self.data, self.files, self.tell)


@dataclass(frozen=True)
class Work:
    """What an unfinished stage may go on from.

    Args:
        key: a checkpoint with this key.
        answers: a teacher's answers that were kept under this.
    """

    key: str
    answers: str

    @classmethod
    def of(cls, depends: Dependencies) -> Work:
        """Of a stage; nothing can be gone on from where something has no stable content."""
        return cls(depends.key or uuid4().hex, depends.answers)


@dataclass
class Progress:
    """What is carried from row to row, in every process alike."""

    candidate: Candidate
    teacher: Candidate
    origin: Candidate
    processes: Processes = SINGLE_PROCESS

    @classmethod
    def at_the_start(cls, job: Job, processes: Processes) -> Progress:
        """Before the first stage."""
        return cls(job.candidate, job.candidate, job.candidate, processes)

    def depends(self, job: Job, content: Content, index: int) -> Dependencies:
        """All that the result of the stage that makes row ``index`` depends on."""
        return of_stage(
            job.stages[index - 1],
            Lineage(self.candidate, self.teacher, self.origin),
            content,
            job.references,
            seed=seed_of(job.seed, index),
            processes=self.processes.world_size if trains(job.stages[index - 1]) else 1,
        )

    def context(
        self, job: Job, index: int, work: Work, report: EventCallback = lambda _: None
    ) -> Context:
        """What the stage that makes row ``index`` is given; its teacher is a copy."""
        teacher = frozen_teacher(self.teacher.fork().module, self.teacher.example)
        context = context_of(job, teacher, self.origin, index, report)
        return replace(
            context,
            checkpoint=Checkpoint(context.workdir / "checkpoint", work.key),
            content=work.answers,
            processes=self.processes if trains(job.stages[index - 1]) else SINGLE_PROCESS,
        )

    def advance(self, stage: Stage, after: Candidate) -> None:
        """Move past a stage."""
        old = quantizable_layers(self.origin.module)
        if (
            old != quantizable_layers(after.module)
            or self.origin.architecture != after.architecture
        ):
            self.origin = after
        if stage.kind == "train":
            self.teacher = after
        self.candidate = after


@contextmanager
def located(index: int, label: str) -> Iterator[None]:
    """Errors raised inside say that they belong to the stage that makes row ``index``.

    Raises:
        CompressError: what was raised on purpose.
        StageError: anything else, such as what a teacher, a loss or a stage of the user's raised.
    """
    try:
        yield
    except CompressError as error:
        if error.index is None:
            error.index, error.label = index - 1, label
        raise
    except BrokenPipeError:
        raise  # whoever is told of the progress is gone: no stage's fault
    except (Exception, SystemExit) as error:  # of code that is not ours
        problem = StageError(f"failed with {in_words(error)} (--debug shows how it came to it).")
        problem.index, problem.label = index - 1, label
        raise problem from error


def labels_of(stages: Sequence[Stage]) -> list[str]:
    """A unique label for row 0 and for each stage: its own, or its kind with a number."""
    labels = ["input"]
    for stage in stages:
        labels.append(unique_name(stage.label or stage.kind.rpartition(":")[2], labels))
    return labels


def context_of(
    job: Job,
    teacher: Teacher,
    origin: Candidate,
    index: int,
    report: EventCallback = lambda _: None,
) -> Context:
    """What the stage that makes row ``index`` is given."""
    return Context(
        task=job.task,
        teacher=teacher,
        origin=origin,
        seed=seed_of(job.seed, index),
        workdir=job.folder.stage(index, labels_of(job.stages)[index]),
        build=job.build,
        references=job.references,
        report=report,
    )


def trains(stage: Stage) -> bool:
    """Whether all processes run the stage; else the first does, and the others wait."""
    return stage.epochs_of_training() > 0


def load_candidate(job: Job, folder: Path, before: Candidate) -> Candidate:
    """A saved candidate; one without an architecture is built around a copy of ``before``.

    Raises:
        CheckpointError: a missing, damaged or foreign file.
    """

    def build(architecture: Architecture | None) -> nn.Module:
        return before.fork().module if architecture is None else job.build(architecture)

    return Candidate.load(folder, before.example, build)
