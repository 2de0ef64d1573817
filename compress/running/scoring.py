"""Scoring: which metric a run is scored by, and against what.

With labels it is the task's metric, or the one that fits its outputs. Without, rows are compared
with what the named teacher says about the test split, or with row 0 where none is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter

from compress.data.misfits import batch_hint
from compress.data.samples import in_float32
from compress.distillation.teacher_settings import EnsembleMember, TeacherBlock, TeacherSettings
from compress.distillation.teachers import build_teacher, identity_of, mapped_outputs
from compress.errors import CompressError, DataError, StageError, in_words
from compress.measure.named_arrays import Array, Arrays, by_names, joined
from compress.measure.score import Scores
from compress.metrics import MetricName
from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import Outputs, by_name, selected
from compress.outputs import OutputKind
from compress.record import TaskFacts
from compress.running.job import Job, context_of
from compress.running.planned_rows import located
from compress.running.row_metrics import RowMetric, as_labels, row_metrics
from compress.running.split_arrays import SplitArrays, as_arrays
from compress.stage import Teacher
from compress.task import Dataset, Task
from compress.training.data import is_labeled, read
from compress.training.output_supervision import OutputSupervision
from compress.training.supervision import Supervision

__all__ = ["ReferenceTeacher", "Scoring", "reference_of", "scoring_of", "supervision_of_job"]

_PREDICT_BATCH = 256

_Block = TeacherSettings | tuple[EnsembleMember, ...]


@dataclass(frozen=True)
class ReferenceTeacher:
    """The teacher that rows are compared with where there are no labels.

    Args:
        name: as in sentences, such as ``the teacher net.onnx``.
        settings: that name it.
        teacher: gives its outputs.
    """

    name: str
    settings: Any
    teacher: Teacher

    @property
    def identity(self) -> str:
        """What distinguishes it from other teachers."""
        return identity_of(self.teacher)

    def outputs_for(self, dataset: Dataset) -> Arrays:
        """Its outputs for all samples of a data set, in order."""
        return joined([self.outputs(b.inputs) for b in read(dataset, _PREDICT_BATCH)])

    @torch.no_grad()
    def outputs(self, inputs: Inputs) -> Arrays:
        """Its outputs for one batch, in float32: its only one, or all by name.

        Those that its block maps have the names of the models' outputs.
        """
        found = by_name(in_float32(self.teacher(inputs)))
        if len(found) == 1:
            return as_arrays(selected(found, None))
        mapped = mapped_outputs(self.teacher)
        renamed = {name: selected(found, own, self.name) for name, own in mapped.items()}
        return as_arrays({**found, **renamed})


@dataclass(frozen=True)
class Scoring:
    """How the rows of a run are scored.

    Args:
        leading: the metric that alone decides what is better.
        outputs: what is known of each output of the models, by name, in their order.
        reference: whose outputs stand for labels; ``None`` with labels, or for row 0's.
        has_labels: whether the test split has labels.
        further: metrics that are recorded beside the leading one.
    """

    leading: RowMetric
    outputs: Mapping[str, OutputSupervision]
    reference: ReferenceTeacher | None
    has_labels: bool
    further: tuple[RowMetric, ...] = ()

    @property
    def name(self) -> str:
        """Of the leading metric, as the record has it."""
        return self.leading.name

    @property
    def higher_is_better(self) -> bool:
        """The leading metric's direction."""
        return self.leading.higher_is_better

    @property
    def kind(self) -> OutputKind | None:
        """What the output is that the leading metric is on, where that is known."""
        return self.leading.kind

    @property
    def rule(self) -> MetricName | None:
        """The built-in leading metric, which devices know too; ``None`` for one of the user's."""
        return self.leading.rule

    @property
    def facts(self) -> list[Any]:
        """All that distinguishes it from another scoring, for keys."""
        found: list[Any]
        of = self.reference.identity if self.reference is not None else None
        found = [self.name, self.higher_is_better, self.kind, self.leading.ignore_index, of]
        if self.further:
            found.append([metric.name for metric in self.further])
        if len(self.outputs) > 1:
            found.append([[name, output.kind] for name, output in self.outputs.items()])
        return found

    @property
    def directions(self) -> dict[str, bool]:
        """Whether more is better, by the name of each further metric."""
        return {metric.name: metric.higher_is_better for metric in self.further}

    @property
    def named_reference(self) -> Any:
        """The settings that name the reference, where there is one."""
        return None if self.reference is None else self.reference.settings

    @property
    def sentence(self) -> str:
        """How rows are scored, as a sentence without its stop."""
        against = "on the labels of the test split"
        if not self.has_labels:
            against = f"against {self.against}, since the test split has no labels"
        better = "more" if self.higher_is_better else "less"
        return f"{self._kinds}rows are scored by {self.name} {against} ({better} is better)"

    @property
    def _kinds(self) -> str:
        if len(self.outputs) == 1:
            return "" if self.kind is None else f"outputs are {self.kind}; "
        each = [
            f"{name} ({output.kind})" if output.kind else name
            for name, output in self.outputs.items()
        ]
        return f"outputs are {', '.join(each)}; "

    def of(self, outputs: Arrays, labels: Arrays) -> Scores:
        """The score of each sample, or of all, by the leading metric.

        Raises:
            DataError: outputs and labels that do not go together.
        """
        return self.leading.of(outputs, labels)

    def further_of(self, outputs: Arrays, labels: Arrays) -> dict[str, Scores]:
        """The scores by each further metric.

        Raises:
            DataError: outputs and labels that do not go together.
        """
        return {metric.name: metric.of(outputs, labels) for metric in self.further}

    def named(self, arrays: Sequence[Array], names: Sequence[str] = ()) -> Arrays:
        """What a file gives: its only array, or its arrays by the names of the outputs.

        Args:
            arrays: one for each output of the file, in order.
            names: that the model has for them; those of the model that came in where the file does
                not say.

        Raises:
            DataError: there are more arrays than names, or fewer.
        """
        return by_names(arrays, names if len(names) == len(arrays) else tuple(self.outputs))

    def arrays(self, outputs: Outputs) -> Arrays:
        """What a module gave, as a file gives it: an only output is one array."""
        found = in_float32(outputs)
        is_only = len(self.outputs) == 1
        return as_arrays(next(iter(by_name(found).values())) if is_only else found)

    def labels(self, split: SplitArrays) -> Arrays | None:
        """Labels of a split: its own, or what the reference says of it.

        ``None`` where there is neither. Those for an only output are in the type and shape that
        devices take.
        """
        own = split.labels
        if own is not None:
            fitted = self.device_labels(split) if len(self.outputs) == 1 else None
            return own if fitted is None else fitted
        if self.reference is None:
            return None
        return self.as_labels(self.reference.outputs_for(split.dataset))

    def device_labels(self, split: SplitArrays) -> Array | None:
        """The labels that the leading metric is given, in the type and shape that devices take.

        ``None`` where there are none, or several by name, which no built-in metric takes.
        """
        output = self.leading.output
        if split.labels is None:
            found = self.labels(split)
            given = None if found is None else self.leading.labels_of(found)
            return None if isinstance(given, dict) else given
        if output is None:
            return None
        return self.leading.fitted(self.outputs[output].outputs, split.labels)

    def as_labels(self, outputs: Arrays) -> Arrays:
        """What a reference's outputs say, in the form of labels.

        One output of a reference is for the output that the leading metric is on.
        """
        if not isinstance(outputs, dict):
            given = self.leading.as_labels(outputs)
            several = len(self.outputs) > 1 and self.leading.output is not None
            return {self.leading.output or "": given} if several else given
        kinds = {name: output.kind for name, output in self.outputs.items()}
        found = {name: as_labels(array, kinds.get(name)) for name, array in outputs.items()}
        if self.leading.output in outputs:
            found[self.leading.output] = self.leading.as_labels(outputs[self.leading.output])
        return found

    def with_labels(self) -> Scoring:
        """How samples with labels are scored, whether the test split has any or not."""
        if self.has_labels:
            return self
        leading = self.leading.scored(has_labels=True)
        return replace(self, leading=leading, further=(), has_labels=True, reference=None)

    def without_labels(self, reference: ReferenceTeacher | None) -> Scoring:
        """How samples without labels are scored, whether the test split has any or not."""
        if not self.has_labels:
            return self
        leading = self.leading.scored(has_labels=False)
        return replace(self, leading=leading, further=(), has_labels=False, reference=reference)

    @property
    def against(self) -> str | None:
        """Whose outputs stand for labels; ``None`` with labels."""
        if self.has_labels:
            return None
        return "row 0" if self.reference is None else self.reference.name

    def task_facts(self, task: Task) -> TaskFacts:
        """The ``task`` block of the record."""
        return TaskFacts(
            name=task.name,
            metric=self.name,
            higher_is_better=self.higher_is_better,
            test_samples=len(task.test),
            reference=self.against,
            metrics=self.directions,
        )


def supervision_of_job(job: Job) -> Supervision:
    """What the outputs of a job's models are, by its task, the model that enters, and the losses.

    Raises:
        DataError: the model cannot take the task's inputs.
    """
    example = job.candidate.example
    try:
        with torch.no_grad():
            outputs = forward(job.candidate.module, example)
            # What the task names is picked by it, with a sentence about the task.
            outputs = outputs if job.task.ships else job.candidate.shipped(outputs)
    except CompressError:
        raise
    except Exception as error:  # whatever a module raises on what it was not made for
        shapes = _shapes(example)
        raise DataError(
            f"task {job.task.name!r}: the model that comes in cannot take its inputs, {shapes} "
            f"({in_words(error)}); give a model for such inputs, or inputs for such a model"
            f"{f': {hint}' if (hint := batch_hint(example)) else ''}."
        ) from error
    implied = [kind for stage in job.stages for kind in stage.implied_outputs(job.references)]
    return Supervision.of(job.task, outputs, tuple(implied), example)


def scoring_of(job: Job, supervision: Supervision) -> Scoring:
    """How a job's rows are scored.

    Raises:
        DataError: nothing says what the outputs are, and the metric depends on it; or which of
            several outputs it is on.
        CompressError: a named teacher that cannot be made.
    """
    has_labels = is_labeled(job.task.test)
    leading, *further = row_metrics(job.task, supervision)
    return Scoring(
        leading=leading,
        outputs=supervision.by_output,
        reference=None if has_labels else reference_of(job),
        has_labels=has_labels,
        further=tuple(further),
    )


def reference_of(job: Job) -> ReferenceTeacher | None:
    """The first teacher that a stage names; ``None`` where all learn from what came before."""
    for planned in job.planned:
        block = planned.stage.named_teacher()
        if not isinstance(block, (TeacherSettings, tuple)):
            continue
        with located(planned):
            context = context_of(job, _nobody, job.candidate, planned)
            settings = TypeAdapter(TeacherBlock).dump_python(block)
            return ReferenceTeacher(_name_of(block), settings, build_teacher(block, context))
    return None


def _nobody(_: Any) -> Any:
    raise StageError("the run's teacher was called where the stage names another one.")


def _name_of(block: _Block) -> str:
    if isinstance(block, tuple):
        return f"the mean of {len(block)} teachers"
    if block.callable is not None:
        return f"the teacher {block.described}"
    return f"the teacher {block.onnx or block.hf or block.weights}"


def _shapes(inputs: Any) -> str:
    if isinstance(inputs, dict):
        return ", ".join(f"{name} {tuple(t.shape)} of {t.dtype}" for name, t in inputs.items())
    return f"{tuple(inputs.shape)} of {inputs.dtype}"
