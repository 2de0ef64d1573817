"""The loop that every recipe goes through.

In words::

    row 0: the model that came in
    for each stage:
        re-use its result, or run it
        check the contract: input untouched, output plain, promises kept
        for each target:
            lower -> artifact      loaded, run, compared with the module
            score                  the artifact's accuracy, on the target
            time                   in interleaved rounds with the baseline
        append a row, and rewrite the record

A failure leaves the rows before it on disk, and the next run of the same recipe goes on there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.algorithms.fakequant import declared_formats, quantizable_layers
from compress.algorithms.sparsity import verify_zeros
from compress.candidate import Architecture, Candidate, count_parameters
from compress.environment import environment, package_versions
from compress.errors import CompressError, ContractViolation
from compress.measure.target import Mode, Target
from compress.record import Record, Row
from compress.references import CodeReferences
from compress.running.folder import DAMAGED, RunFolder, StageResult
from compress.running.measuring import Bench, Entry, task_facts
from compress.stages.base import Context, Effect, Stage, Teacher, unique_name
from compress.stages.models import frozen_teacher
from compress.task import Task

__all__ = ["Job", "Observer", "check_effects", "context_of", "labels_of", "located", "run"]

#: Is told what happens, as plain JSON values.
Observer = Callable[[Mapping[str, Any]], None]


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
        observer: is told what happens.
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
    observer: Observer = lambda _: None


@dataclass
class _Progress:
    # What the loop carries from row to row.
    candidate: Candidate
    teacher: Candidate
    origin: Candidate


def run(job: Job, *, fresh: bool = False) -> Record:
    """Run the job to its end and return the record, which is on disk after every row.

    Raises:
        StageError: a stage failed; carries its index and label.
        CompressError: lowering or measuring failed; the rows before are on disk.
    """
    earlier = job.folder.prepare(job.name, fresh=fresh)
    record = _new_record(job, earlier)
    progress = _Progress(job.candidate, job.candidate, job.candidate)
    entries: list[Entry] = []
    bench = Bench(job.task, job.targets, job.folder, job.mode, job.seed)
    try:
        for index, label in enumerate(labels_of(job.stages)):
            with located(index, label):
                row = _advance(job, progress, index, label)
                entry = Entry(index, label, progress.candidate)
                record.rows.append(row)
                entries.append(entry)
                _measure(job, bench, record, row, entry, earlier)
            if index == record.baseline:
                # What came before the baseline could not be timed against it until now.
                for past, place in zip(record.rows[:index], entries, strict=False):
                    _measure(job, bench, record, past, place, earlier)
            job.folder.save(record, earlier)
        record.status = "done"
    except KeyboardInterrupt:
        record.status, record.error = "interrupted", "interrupted by the user"
        raise
    except CompressError as error:
        record.status, record.error = "failed", str(error)
        raise
    except Exception as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        job.folder.save(record, earlier)
        job.observer({"event": "end", "status": record.status})
    return record


@contextmanager
def located(index: int, label: str) -> Iterator[None]:
    """Errors raised inside say that they belong to the stage that makes row ``index``."""
    try:
        yield
    except CompressError as error:
        if error.index is None:
            error.index, error.label = index - 1, label
        raise


def labels_of(stages: Sequence[Stage]) -> list[str]:
    """A unique label for row 0 and for each stage: its own, or its kind with a number."""
    labels = ["input"]
    for stage in stages:
        labels.append(unique_name(stage.label or stage.kind.rpartition(":")[2], labels))
    return labels


def context_of(
    job: Job, teacher: Teacher, origin: Candidate, index: int, report: Observer = lambda _: None
) -> Context:
    """What the stage that makes row ``index`` is given."""
    return Context(
        task=job.task,
        teacher=teacher,
        origin=origin,
        seed=_seed(job.seed, index),
        workdir=job.folder.stage(index, labels_of(job.stages)[index]),
        build=job.build,
        references=job.references,
        report=report,
    )


def _new_record(job: Job, earlier: Record | None) -> Record:
    # What devices told whose results were merged stays as long as their measurements do.
    targets = dict(earlier.environment.get("targets", {})) if earlier else {}
    targets |= {target.name: target.environment() for target in job.targets}
    return Record(
        name=job.name,
        recipe=job.recipe,
        environment=environment() | {"targets": targets, "mode": job.mode},
        seed=job.seed,
        status="running",
        task=task_facts(job.task),
        baseline=1 if job.stages and job.stages[0].kind == "train" else 0,
    )


def _advance(job: Job, progress: _Progress, index: int, label: str) -> Row:
    """Run one stage, or find its result; the row has no measurement yet."""
    parent = progress.candidate.fingerprint
    job.observer({"event": "stage", "index": index, "label": label, "of": len(job.stages)})
    if index == 0:
        job.candidate.validate()
        job.candidate.save(job.folder.stage(0, label) / "candidate")
        result, cached = StageResult(parent, parent, 0.0, (), ()), False
    else:
        result, cached = _take(job, progress, job.stages[index - 1], index, label)
    total, nonzero = count_parameters(progress.candidate.module)
    return Row(
        index=index,
        stage=label,
        kind=job.stages[index - 1].kind if index else "input",
        seconds=result.seconds,
        cached=cached,
        fingerprint=result.fingerprint,
        parent=parent if index else None,
        parameters=total,
        nonzero_parameters=nonzero,
        macs=0,
        notes=list(result.notes),
        history=list(result.history),
    )


def _take(
    job: Job, progress: _Progress, stage: Stage, index: int, label: str
) -> tuple[StageResult, bool]:
    """Move the progress past one stage; whether its result was there already."""
    key = _key(job, stage, progress, index)
    found = _earlier_result(job, index, label, key, progress.candidate)
    result, after = found or _run_stage(job, progress, stage, index, label, key)
    _follow(progress, stage, after)
    return result, found is not None


def _run_stage(
    job: Job,
    progress: _Progress,
    stage: Stage,
    index: int,
    label: str,
    key: str,
) -> tuple[StageResult, Candidate]:
    before, folder = progress.candidate, job.folder.stage(index, label)
    history: list[dict[str, Any]] = []

    def report(event: Mapping[str, Any]) -> None:
        history.append({k: v for k, v in event.items() if k != "event"})
        job.folder.log({"stage": label, **event})
        job.observer({"stage": label, **event})

    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage.json").unlink(missing_ok=True)
    teacher = frozen_teacher(progress.teacher.fork().module)
    after = _checked(stage, before, context_of(job, teacher, progress.origin, index, report))
    after = replace(after, lineage=(*before.lineage, before.fingerprint))
    after.save(folder / "candidate")
    result = StageResult(
        key=key,
        fingerprint=after.fingerprint,
        seconds=time.perf_counter() - start,
        notes=after.notes,
        history=tuple(history),
    )
    job.folder.remember(index, label, result)
    return result, after


def _checked(stage: Stage, before: Candidate, context: Context) -> Candidate:
    """Run a stage and hold it to the contract."""
    fingerprint = before.fingerprint
    after = stage.run(before, context)
    if before.fingerprint != fingerprint:
        raise ContractViolation(f"the stage {stage.kind!r} changed its input; it must fork it.")
    after.validate()
    check_effects(stage, before, after)
    if after.invariants:
        shared = [p for p in before.invariants if p in after.invariants]
        verify_zeros(before.module, after.module, shared)
    declared_formats(after.module, after.numerics)
    return after


def check_effects(stage: Stage, before: Candidate, after: Candidate) -> None:
    """Hold a stage to its declared effects.

    Raises:
        ContractViolation: it changed something that it does not declare.
    """
    old, new = before.module.state_dict(), after.module.state_dict()
    same_structure = {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}
    changed = {
        Effect.STRUCTURE: not same_structure,
        Effect.WEIGHTS: same_structure and any(not v.equal(new[k]) for k, v in old.items()),
        Effect.NUMERICS: before.numerics != after.numerics,
        Effect.INVARIANTS: before.invariants != after.invariants,
    }
    for effect, happened in changed.items():
        if happened and effect not in stage.effects:
            raise ContractViolation(
                f"the stage {stage.kind!r} changed {effect.value}, which is not among its declared "
                f"effects ({', '.join(sorted(e.value for e in stage.effects)) or 'none'})."
            )


def _earlier_result(
    job: Job, index: int, label: str, key: str, before: Candidate
) -> tuple[StageResult, Candidate] | None:
    result = job.folder.result(index, label)
    if result is None or result.key != key:
        return None

    def build(architecture: Architecture | None) -> nn.Module:
        if architecture is not None:
            return job.build(architecture)
        return before.fork().module

    try:
        path = job.folder.stage(index, label) / "candidate"
        after = Candidate.load(path, before.example, build)
    except DAMAGED:
        return None
    return (result, after) if after.fingerprint == result.fingerprint else None


def _follow(progress: _Progress, stage: Stage, after: Candidate) -> None:
    old = quantizable_layers(progress.origin.module)
    if (
        old != quantizable_layers(after.module)
        or progress.origin.architecture != after.architecture
    ):
        progress.origin = after
    if stage.kind == "train":
        progress.teacher = after
    progress.candidate = after


def _measure(
    job: Job, bench: Bench, record: Record, row: Row, entry: Entry, earlier: Record | None
) -> None:
    """Fill in a row's measurements: those of an earlier run where nothing changed, or new ones."""
    if row.index == record.baseline:
        bench.set_baseline(entry)
    key = bench.key(row.fingerprint)
    known = earlier.rows[row.index] if earlier and row.index < len(earlier.rows) else None
    if known is not None and known.measurements:
        # Before there is a baseline, what is known of the same candidate will do for now.
        unmoved = known.fingerprint == row.fingerprint and not bench.has_baseline
        # What could not be timed then is tried again now.
        own = {target.name for target in job.targets}
        whole = all(m.latency for m in known.measurements if m.target in own)
        if (known.measured_with == key and whole) or unmoved:
            job.observer({"event": "reuse", "index": row.index, "label": row.stage})
            row.measurements, row.macs = known.measurements, known.macs
            row.measured_with = known.measured_with
            return
    job.observer({"event": "measure", "index": row.index, "label": row.stage})
    row.measurements = bench.compared(entry) if bench.has_baseline else bench.scored(entry)
    row.macs, row.measured_with = bench.macs(entry), key


def _seed(seed: int, index: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def _key(job: Job, stage: Stage, progress: _Progress, index: int) -> str:
    """Identifies everything that a stage's result depends on."""
    facts = [
        progress.candidate.fingerprint,
        progress.teacher.fingerprint,
        progress.origin.fingerprint,
        type(stage).__qualname__,
        stage.model_dump(mode="json", exclude={"label"}),
        _seed(job.seed, index),
        _data_fingerprint(job.task),
        package_versions(),
    ]
    return hashlib.blake2b(json.dumps(facts, default=str).encode(), digest_size=16).hexdigest()


def _data_fingerprint(task: Task) -> str:
    # A look at a few samples of each split: enough to notice another data set, at no cost.
    digest = hashlib.blake2b(task.name.encode(), digest_size=16)
    for split in (task.train, task.validation, task.test):
        count = len(split)
        digest.update(str(count).encode())
        for place in (0, count // 3, count // 2, count - 1):
            for tensor in _tensors(split[place]):
                digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _tensors(sample: Any) -> list[Tensor]:
    if isinstance(sample, Tensor):
        return [sample]
    if isinstance(sample, dict):
        return [t for value in sample.values() for t in _tensors(value)]
    if isinstance(sample, (tuple, list)):
        return [t for value in sample for t in _tensors(value)]
    return [torch.as_tensor(sample)]
