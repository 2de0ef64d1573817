"""Job: a recipe with everything that it is run on, and the models carried from row to row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import nn

from compress.budget import Budget
from compress.cache import Store
from compress.candidate import Architecture, Candidate
from compress.config.references import CodeReferences
from compress.distillation.teachers import frozen_teacher
from compress.events import Event, EventCallback
from compress.fingerprints import DataDigestCache, FileDigestCache
from compress.measure.target import Mode, Target
from compress.quantization.fakequant import quantizable_layers
from compress.running.digests import ContentDigests
from compress.running.folder import RunFolder
from compress.running.keys import Dependencies, StageModels, TargetFacts, of_stage, seed_of
from compress.running.planned_rows import INPUT, PlannedRow, PlannedStage, planned_stages
from compress.stage import CandidateEvaluator, Context, Stage, Teacher
from compress.task import Task
from compress.training.checkpoint import Checkpoint
from compress.training.distributed import SINGLE_PROCESS, Processes

__all__ = ["CurrentModels", "Job", "ResumeKeys", "context_of", "load_candidate", "trains"]


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
        callback: called with every event (``compress.events``).
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
    data: DataDigestCache = field(default_factory=DataDigestCache)
    files: FileDigestCache = field(default_factory=FileDigestCache)

    @cached_property
    def planned(self) -> tuple[PlannedStage, ...]:
        """The rows that the stages will make, in order; row 0 comes before them."""
        return planned_stages(self.stages)

    @property
    def rows(self) -> tuple[PlannedRow, ...]:
        """All rows, from row 0."""
        return (INPUT, *self.planned)

    @property
    def labels(self) -> list[str]:
        """Of all rows."""
        return [row.label for row in self.rows]

    @property
    def baseline(self) -> PlannedRow:
        """The row that all are compared with: of a first stage that makes it, or row 0."""
        first = self.planned[0] if self.planned else None
        return first if first is not None and first.stage.makes_baseline() else INPUT

    def stage_folder(self, row: PlannedRow) -> Path:
        """Where the files of a row lie."""
        return self.folder.stage(row.index, row.label)

    def emit(self, event: Event) -> None:
        """Hand an event of the run to the callback."""
        self.callback(dict(event))

    def emit_and_log(self, event: Event) -> None:
        """Hand an event of the run to the callback, once it is in the log."""
        self.folder.log(event)
        self.emit(event)

    def digests(self) -> ContentDigests:
        """Of the task and of the model that comes in."""
        return ContentDigests(self.task, self.candidate.module, self.data, self.files, self.emit)


@dataclass(frozen=True)
class ResumeKeys:
    """What an unfinished stage may resume from.

    Args:
        checkpoint: the key of its checkpoint.
        teacher_cache: the key of cached teacher outputs.
    """

    checkpoint: str
    teacher_cache: str

    def checkpoint_in(self, workdir: Path) -> Checkpoint:
        """Where an unfinished stage that works in a folder is kept."""
        return Checkpoint(workdir / "checkpoint", self.checkpoint)

    @classmethod
    def of(cls, depends: Dependencies) -> ResumeKeys:
        """Of a stage; nothing can be resumed where something has no stable content."""
        return cls(depends.key or uuid4().hex, depends.teacher_cache_key)


@dataclass
class CurrentModels:
    """The models carried from row to row, in every process alike.

    Args:
        candidate: what the last stage made.
        teacher: the default teacher of the next stage.
        origin: brought in the present architecture.
        processes: that train together.
    """

    candidate: Candidate
    teacher: Candidate
    origin: Candidate
    processes: Processes = SINGLE_PROCESS

    @classmethod
    def at_the_start(cls, job: Job, processes: Processes) -> CurrentModels:
        """Before the first stage."""
        return cls(job.candidate, job.candidate, job.candidate, processes)

    def depends(
        self,
        job: Job,
        digests: ContentDigests,
        planned: PlannedStage,
        target: Callable[[], TargetFacts],
    ) -> Dependencies:
        """All that a stage's result depends on; of the ``target`` only where it measures."""
        stage = planned.stage
        return of_stage(
            stage,
            StageModels(self.candidate, self.teacher, self.origin),
            digests,
            job.references,
            seed=seed_of(job.seed, planned.index),
            processes=self.processes.world_size if trains(stage) else 1,
            target=target() if stage.uses_evaluator() else None,
        )

    def context(
        self,
        job: Job,
        planned: PlannedStage,
        keys: ResumeKeys,
        report: EventCallback = lambda _: None,
        evaluator: CandidateEvaluator | None = None,
    ) -> Context:
        """What a stage is given; its teacher is a copy."""
        teacher = frozen_teacher(self.teacher.fork().module, self.teacher.example)
        context = context_of(job, teacher, self.origin, planned, report)
        return replace(
            context,
            checkpoint=keys.checkpoint_in(context.workdir),
            teacher_cache_key=keys.teacher_cache,
            processes=self.processes if trains(planned.stage) else SINGLE_PROCESS,
            evaluator=evaluator or context.evaluator,
        )

    def advance(self, stage: Stage, after: Candidate) -> None:
        """Move past a stage."""
        if _is_another(self.origin, after):
            self.origin = after
        if stage.makes_teacher:
            self.teacher = after
        self.candidate = after


def _is_another(origin: Candidate, after: Candidate) -> bool:
    """Whether a candidate is of another architecture; one with edits is not."""
    edited = tuple(f"{edit.path}." for edit in after.edits)

    def kept(candidate: Candidate) -> list[tuple[str, str]]:
        layers = quantizable_layers(candidate.module).items()
        return [layer for layer in layers if not f"{layer[0]}.".startswith(edited)]

    return kept(origin) != kept(after) or origin.architecture != after.architecture


def context_of(
    job: Job,
    teacher: Teacher,
    origin: Candidate,
    planned: PlannedStage,
    report: EventCallback = lambda _: None,
) -> Context:
    """What a stage is given, less what only a run has."""
    return Context(
        task=job.task,
        teacher=teacher,
        origin=origin,
        seed=seed_of(job.seed, planned.index),
        workdir=job.stage_folder(planned),
        build=job.build,
        references=job.references,
        report=report,
    )


def trains(stage: Stage) -> bool:
    """Whether all processes run the stage; else rank 0 does, and the others wait."""
    return stage.epochs_of_training() > 0


def load_candidate(job: Job, folder: Path, before: Candidate) -> Candidate:
    """A saved candidate; one without an architecture is built around a copy of ``before``.

    Raises:
        CheckpointError: a missing, damaged or foreign file.
    """

    def build(architecture: Architecture | None) -> nn.Module:
        return before.fork().module if architecture is None else job.build(architecture)

    return Candidate.load(folder, before.example, build)
