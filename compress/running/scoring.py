"""Scoring: which metric a run is scored by, and against what.

With labels it is the task's metric, or the one that fits its outputs. Without, rows are compared
with what the named teacher says about the test split, or with row 0 where none is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from compress.distillation.teachers import (
    EnsembleMember,
    TeacherBlock,
    TeacherSettings,
    build_teacher,
    identity_of,
)
from compress.errors import CompressError, DataError, StageError, in_words
from compress.measure.score import Scores, fitted_labels, score
from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import one_output
from compress.outputs import CLASS_KINDS, OutputKind, Shape
from compress.record import TaskFacts
from compress.running.job import Job, context_of
from compress.running.planned_rows import located
from compress.running.split_arrays import SplitArrays
from compress.running.torch_metric import as_function
from compress.stage import Teacher
from compress.task import (
    Dataset,
    Metric,
    MetricName,
    MetricOn,
    Task,
    metric_direction,
    metric_name,
)
from compress.training.data import is_labeled, read
from compress.training.supervision import Supervision

__all__ = ["ReferenceTeacher", "Scoring", "scoring_of", "supervision_of_job"]

_PREDICT_BATCH = 256
_METRICS: Mapping[OutputKind, MetricName] = MappingProxyType(
    {
        "class-scores": "accuracy",
        "tokens": "accuracy",
        "independent-logits": "binary-accuracy",
        "values": "r2",
        "image": "r2",
    }
)
#: What a metric is called where the labels are the outputs of a reference.
_WITHOUT_LABELS = {"accuracy": "agreement", "binary-accuracy": "binary-agreement"}

Array = np.ndarray[Any, Any]
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

    def outputs_for(self, dataset: Dataset) -> Array:
        """Its outputs for all samples of a data set, in order."""
        return np.concatenate([self.outputs(b.inputs) for b in read(dataset, _PREDICT_BATCH)])

    @torch.no_grad()
    def outputs(self, inputs: Inputs) -> Array:
        """Its outputs for one batch, in float32."""
        return one_output(self.teacher(inputs)).float().cpu().numpy()


@dataclass(frozen=True)
class Scoring:
    """How the rows of a run are scored.

    Args:
        metric: what works the score out: the leading metric.
        name: of the metric, as the record has it.
        higher_is_better: its direction.
        kind: what the outputs are, where that is known.
        outputs: their shape.
        ignore_index: a label that says that there is none.
        reference: whose outputs stand for labels; ``None`` with labels, or for row 0's.
        has_labels: whether the test split has labels.
        further: metrics that are recorded beside the leading one, by name.
    """

    metric: MetricName | Metric
    name: str
    higher_is_better: bool
    kind: OutputKind | None
    outputs: Shape
    ignore_index: int | None
    reference: ReferenceTeacher | None
    has_labels: bool
    further: Mapping[str, MetricName | Metric] = field(default_factory=dict)

    @property
    def facts(self) -> list[Any]:
        """All that distinguishes it from another scoring, for keys."""
        of = self.reference.identity if self.reference is not None else None
        further = [list(self.further)] if self.further else []
        return [self.name, self.higher_is_better, self.kind, self.ignore_index, of, *further]

    @property
    def directions(self) -> dict[str, bool]:
        """Whether more is better, by the name of each further metric."""
        return {name: bool(metric_direction(metric)) for name, metric in self.further.items()}

    @property
    def named_reference(self) -> Any:
        """The settings that name the reference, where there is one."""
        return None if self.reference is None else self.reference.settings

    @property
    def sentence(self) -> str:
        """How rows are scored, as a sentence without its stop."""
        against = "on the labels of the test split"
        if not self.has_labels:
            who = "row 0" if self.reference is None else self.reference.name
            against = f"against {who}, since the test split has no labels"
        kind = "" if self.kind is None else f"outputs are {self.kind}; "
        better = "more" if self.higher_is_better else "less"
        return f"{kind}rows are scored by {self.name} {against} ({better} is better)"

    def of(self, outputs: Array, labels: Array) -> Scores:
        """The score of each sample, or of all, by the leading metric.

        Raises:
            DataError: outputs and labels that do not go together.
        """
        return self._of(self.metric, outputs, labels)

    def further_of(self, outputs: Array, labels: Array) -> dict[str, Scores]:
        """The scores by each further metric.

        Raises:
            DataError: outputs and labels that do not go together.
        """
        return {name: self._of(metric, outputs, labels) for name, metric in self.further.items()}

    def _of(self, metric: MetricName | Metric, outputs: Array, labels: Array) -> Scores:
        # A metric of one's own may compare outputs of different widths with a reference's.
        is_fitted = self.has_labels or isinstance(metric, str)
        kind = self.kind if is_fitted else None
        return score(outputs, labels, metric, kind, self.ignore_index)

    @property
    def rule(self) -> MetricName | None:
        """The built-in metric, which devices know too; ``None`` for one of the user's own."""
        return self.metric if isinstance(self.metric, str) else None

    def labels(self, split: SplitArrays) -> Array | None:
        """Labels of a split as devices take them: its own, or what the reference says of it.

        ``None`` where there is neither.
        """
        own = split.labels
        if own is not None and self.kind is not None:
            shape = (len(own), *self.outputs[1:])
            return fitted_labels(shape, own, self.kind, self.ignore_index)
        if own is not None:
            return own
        if self.reference is None:
            return None
        return self.as_labels(self.reference.outputs_for(split.dataset))

    def as_labels(self, outputs: Array) -> Array:
        """What a reference's outputs say, in the form of labels."""
        if self.kind in CLASS_KINDS or (self.kind is None and self.metric == "accuracy"):
            return np.asarray(outputs.argmax(axis=1))
        if self.kind == "independent-logits":
            return (outputs > 0).astype(np.float64)
        return outputs

    def task_facts(self, task: Task) -> TaskFacts:
        """The ``task`` block of the record."""
        against = None
        if not self.has_labels:
            against = "row 0" if self.reference is None else self.reference.name
        return TaskFacts(
            name=task.name,
            metric=self.name,
            higher_is_better=self.higher_is_better,
            test_samples=len(task.test),
            reference=against,
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
            outputs = one_output(forward(job.candidate.module, example))
    except CompressError:
        raise
    except Exception as error:  # whatever a module raises on what it was not made for
        shapes = _shapes(example)
        raise DataError(
            f"task {job.task.name!r}: the model that comes in cannot take its inputs, {shapes} "
            f"({in_words(error)}); give a model for such inputs, or inputs for such a model."
        ) from error
    implied = [kind for stage in job.stages for kind in stage.implied_outputs(job.references)]
    return Supervision.of(job.task, outputs, tuple(implied), example)


def scoring_of(job: Job, supervision: Supervision) -> Scoring:
    """How a job's rows are scored.

    Raises:
        DataError: nothing says what the outputs are, and the metric depends on it.
        CompressError: a named teacher that cannot be made.
    """
    task, output = job.task, supervision.on(None)
    kind = output.kind
    has_labels = is_labeled(task.test)
    metric: MetricName | Metric
    if task.metric is None or (task.metric == "accuracy" and kind == "independent-logits"):
        metric = _METRICS[output.output_kind()]
    else:
        metric = _of(task.metric)
    return Scoring(
        metric=as_function(metric, task.ignore_index),
        name=_recorded_name(metric, has_labels),
        higher_is_better=bool(task.direction),
        kind=kind,
        outputs=output.outputs,
        ignore_index=task.ignore_index,
        reference=None if has_labels else _reference(job),
        has_labels=has_labels,
        further={
            _recorded_name(_of(metric), has_labels): as_function(_of(metric), task.ignore_index)
            for metric in task.further_metrics
        },
    )


def _of(metric: MetricName | Metric | MetricOn) -> MetricName | Metric:
    return metric.metric if isinstance(metric, MetricOn) else metric


def _recorded_name(metric: MetricName | Metric, has_labels: bool) -> str:
    name = metric_name(metric)
    return name if has_labels else _WITHOUT_LABELS.get(name, name)


def _reference(job: Job) -> ReferenceTeacher | None:
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
