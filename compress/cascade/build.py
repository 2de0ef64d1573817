"""Building a cascade of two rows of a run: measured, written to a folder, and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.cascade.curve import point_of
from compress.cascade.figure import figures_of
from compress.cascade.measure import Measured, timed
from compress.cascade.models import CascadeModel, check_kind, check_same, chosen_rows
from compress.cascade.result import Cascade, ModelFacts
from compress.cascade.threshold import Wanted
from compress.cascade.write import write_cascade
from compress.errors import RecipeError
from compress.io.files import named
from compress.io.scratch import scratch
from compress.measure.named_arrays import Array
from compress.measure.target import Mode
from compress.overwriting import check_cascade_folder
from compress.preprocessing import ArrayPreprocessing
from compress.record import Record
from compress.releases import Deployed
from compress.running.job import Job
from compress.running.scoring import scoring_of, supervision_of_job
from compress.running.serving import check_samples
from compress.task import Dataset, Task

__all__ = ["Asked", "build"]

#: Those of outputs cost nothing to try, so that all of them are.
_ALWAYS = ("probability", "margin", "energy")


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Args:
        wanted: what the threshold is chosen for.
        out: the folder.
        row: of the student; ``None`` for the quickest.
        larger: the row that it is sent back to; ``None`` for the baseline.
        target: of the record; ``None`` for its first.
        scores: that decide (the first), and that are tried beside it.
        mode: how hard times are measured.
    """

    wanted: Wanted
    out: Path
    row: int | None = None
    larger: int | None = None
    target: str | None = None
    scores: tuple[str, ...] = ("probability",)
    mode: Mode = "default"


def build(
    record: Record, folder: Path, job: Job, asked: Asked, against: Mapping[str, Dataset]
) -> Cascade:
    """Measure a cascade of two rows, and write it to its folder.

    Args:
        record: of the run.
        folder: of the run.
        job: the run's recipe, ready: its task gives the samples, its targets time both files.
        asked: what is asked for.
        against: foreign samples, by name; those that the task has as serving samples and slices
            are looked at, too.

    Raises:
        RecipeError: no such rows or target, a task without classes, or something in the folder that
            this tool did not write.
        RecordError: a row whose file is gone or was changed.
        DataError: samples of another form than the task's, or none.
        StageError: no threshold reaches what is wanted.
        LoweringError: a score of features, and a file that has none.
        MeasurementError: a file that cannot be timed.
        StorageError: the disk refused.
    """
    task = job.task
    check_cascade_folder(asked.out, "--out")
    student, larger = chosen_rows(record, folder, asked.row, asked.larger, asked.target)
    scoring = scoring_of(job, supervision_of_job(job))
    check_kind(scoring, task.name)
    served = {name.removeprefix("slice "): dataset for name, dataset in task.served.items()}
    foreign = {**served, **against}
    _check_forms(task, against)
    target = next((one for one in job.targets if one.name == student.target), None)
    if target is None:
        raise RecipeError(
            f"the target {named(student.target)} is none of the recipe's, so that nothing says how "
            "to time both rows on it; give another --target."
        )
    with scratch() as place:
        scores = tuple(dict.fromkeys((*asked.scores, *_ALWAYS)))
        measured = Measured(
            CascadeModel.of(student, scoring, scores, Path(place)),
            CascadeModel.of(larger, scoring),
            *(task, scoring, scores),
        )
        check_same(measured.student, task)
        threshold = measured.threshold(scores[0], asked.wanted)  # before minutes of timing
        times, session = timed(measured, task, target, asked.mode)
        found = Cascade(
            run=record.name,
            task=task.name,
            target=student.target,
            student=_facts(student, measured.test.student),
            larger=_facts(larger, measured.test.larger),
            wanted=asked.wanted.words,
            score=scores[0],
            threshold=float(threshold) if np.isfinite(threshold) else None,
            validation_samples=measured.validation.count,
            validation_share=measured.validation.answered(scores[0]).share(threshold),
            point=point_of(measured.test.answered(scores[0]), threshold, times),
            scores=tuple(measured.score_facts(asked.wanted, times)),
            test_samples=measured.test.count,
            foreign=tuple(
                measured.foreign(name, dataset, threshold, times)
                for name, dataset in foreign.items()
            ),
            timed=session,
            model={**measured.deployed.file_facts(), "fitted": sorted(measured.fitted[scores[0]])},
            larger_output=str(measured.larger.file_facts()["output"]),
            classes=task.classes,
            preprocessing=_plain((task.preprocessing or ArrayPreprocessing()).to_json()),
        )
        found = replace(found, notes=(*measured.notes, *_notes(found, measured)))
        return write_cascade(found, measured, task, asked.out, figures_of(record, found))


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: lists, and no tuples."""
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


def _check_forms(task: Task, against: Mapping[str, Dataset]) -> None:
    for name, dataset in against.items():
        check_samples(replace(task, serving=None, slices={_slice_name(name): dataset}))


def _slice_name(name: str) -> str:
    plain = "".join(c if c.isalnum() or c in "_-" else "-" for c in Path(name).name)
    return plain.strip("-")[:28] or "foreign"


def _facts(deployed: Deployed, right: Array | None) -> ModelFacts:
    assert right is not None
    artifact = deployed.found.artifact
    return ModelFacts(
        row=deployed.row.index,
        stage=deployed.row.stage,
        file="",
        bytes=artifact.bytes,
        measured_sha256=artifact.sha256,
        accuracy=float(right.mean()),
    )


def _notes(found: Cascade, measured: Measured) -> list[str]:
    notes = []
    if found.timed and found.timed.student_s >= found.timed.larger_s:
        notes.append("the student takes no less time than the larger model: the cascade wins none")
    if found.student.accuracy >= found.larger.accuracy:
        notes.append("the larger model is no more accurate on the test split than the student")
    if measured.deployed.features is not None:
        notes.append(
            "the student's file has its features as one more output, and is timed with it; its row "
            "was measured without"
        )
    return notes
