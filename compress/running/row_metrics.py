"""The metrics of a run: which they are, and which outputs of the models each is worked out of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from compress.errors import DataError
from compress.measure.named_arrays import Array, Arrays
from compress.measure.score import Scores, fitted_labels, score
from compress.metrics import (
    Metric,
    MetricName,
    MetricOn,
    metric_direction,
    metric_name,
    name_on,
    written,
)
from compress.outputs import CLASS_KINDS, OutputKind
from compress.quoting import in_yaml
from compress.running.torch_metric import as_function
from compress.task import Task
from compress.training.data import head, is_labeled
from compress.training.supervision import Supervision

__all__ = ["RowMetric", "as_labels", "row_metrics"]

_OF_KIND: Mapping[OutputKind, MetricName] = MappingProxyType(
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


@dataclass(frozen=True)
class RowMetric:
    """A metric that rows are scored by.

    Args:
        metric: what works the score out.
        name: of the metric, as the record has it.
        higher_is_better: its direction.
        output: that it is on; ``None`` where it is given all of several outputs by name.
        is_only: whether the models have no other output.
        kind: what that output is, where that is known.
        ignore_index: a label that says that there is none.
        has_labels: whether labels are those of the data.
    """

    metric: MetricName | Metric
    name: str
    higher_is_better: bool
    output: str | None
    is_only: bool
    kind: OutputKind | None
    ignore_index: int | None
    has_labels: bool

    def scored(self, *, has_labels: bool) -> RowMetric:
        """The same metric with labels, or against a reference's outputs, by its name there."""
        own, bracket, output = self.name.partition("(")
        names = _WITHOUT_LABELS
        if has_labels:
            names = {without: labeled for labeled, without in _WITHOUT_LABELS.items()}
        name = f"{names.get(own, own)}{bracket}{output}"
        return replace(self, name=name, has_labels=has_labels)

    def of(self, outputs: Arrays, labels: Arrays) -> Scores:
        """The score of each sample, or of all.

        Args:
            outputs: of a model: an array, or several by name.
            labels: as the data have them, or what a reference says.

        Raises:
            DataError: outputs and labels that do not go together, or none for the metric's output.
        """
        # A metric of one's own may compare outputs of different widths with a reference's.
        is_fitted = self.has_labels or isinstance(self.metric, str)
        kind = self.kind if is_fitted else None
        given, wanted = self.outputs_of(outputs), self.labels_of(labels)
        return score(given, wanted, self.metric, kind, self.ignore_index)

    def outputs_of(self, outputs: Arrays) -> Arrays:
        """What of a model's outputs the metric is given.

        Raises:
            DataError: the one that it is on is not among them.
        """
        if self.output is None or not isinstance(outputs, dict):
            return outputs
        if self.output not in outputs:
            raise DataError(
                f"scoring: the metric {self.name} is on the output {self.output!r}, and the "
                f"outputs are {', '.join(outputs)}."
            )
        return outputs[self.output]

    def labels_of(self, labels: Arrays) -> Arrays:
        """What of the labels the metric is given.

        Raises:
            DataError: there are none for its output.
        """
        if self.output is None or not isinstance(labels, dict):
            return labels
        if self.output in labels:
            return labels[self.output]
        if self.is_only and len(labels) == 1:
            return next(iter(labels.values()))
        if self.is_only and not isinstance(self.metric, str):
            return labels
        raise DataError(
            f"scoring: the metric {self.name} is on the output {self.output!r}, and labels are "
            f"for {', '.join(labels)}; name them by the outputs that they are for, as with fields: "
            f"{{label: {{{in_yaml(self.output)}: KEY}}}}."
        )

    def fitted(self, outputs: tuple[int, ...], labels: Arrays) -> Array | None:
        """The labels as devices take them, in type and shape; ``None`` of several by name.

        Args:
            outputs: the shape of the output that the metric is on; the number of samples may be
                another.
            labels: as the data have them.

        Raises:
            DataError: they do not fit.
        """
        own = self.labels_of(labels)
        if isinstance(own, dict) or self.kind is None:
            return None if isinstance(own, dict) else own
        return fitted_labels((len(own), *outputs[1:]), own, self.kind, self.ignore_index)

    def as_labels(self, outputs: Array) -> Array:
        """What a reference's output says that the metric is on, in the form of labels."""
        is_classes = self.kind is None and self.rule == "accuracy"
        return as_labels(outputs, "class-scores" if is_classes else self.kind)

    @property
    def rule(self) -> MetricName | None:
        """The built-in metric, which devices know too; ``None`` for one of the user's own."""
        return self.metric if isinstance(self.metric, str) else None


def row_metrics(task: Task, supervision: Supervision) -> tuple[RowMetric, ...]:
    """The metrics of a task, the leading one first, each on an output of its models.

    Raises:
        DataError: nothing says what the outputs are, and the metric depends on it; or which of
            several outputs a metric is on.
    """
    has_labels = is_labeled(task.test)
    leading = _row_metric(task, supervision, task.metric, bool(task.direction), has_labels)
    further = [
        _row_metric(task, supervision, metric, bool(metric_direction(metric)), has_labels)
        for metric in task.further_metrics
    ]
    return (leading, *further)


def as_labels(outputs: Array, kind: OutputKind | None) -> Array:
    """What a reference's output says, in the form of labels.

    Args:
        outputs: ``(n, ...)``.
        kind: what they are, where that is known.
    """
    if kind in CLASS_KINDS:
        return np.asarray(outputs.argmax(axis=1))
    if kind == "independent-logits":
        return (outputs > 0).astype(np.float64)
    return outputs


def _row_metric(
    task: Task,
    supervision: Supervision,
    given: MetricName | Metric | MetricOn | None,
    higher_is_better: bool,
    has_labels: bool,
) -> RowMetric:
    several = len(supervision.by_output) > 1
    metric = given.metric if isinstance(given, MetricOn) else given
    output = _output(task, supervision, given)
    kind = None if output is None else supervision.on(output).kind
    # Of torchmetrics, == makes another metric.
    is_accuracy = isinstance(metric, str) and metric == "accuracy"
    if metric is None or (is_accuracy and kind == "independent-logits"):
        metric = _OF_KIND[supervision.on(output).output_kind()]
    name = metric_name(metric)
    name = name if has_labels else _WITHOUT_LABELS.get(name, name)
    is_named = isinstance(given, MetricOn) or (several and output is not None)
    return RowMetric(
        metric=as_function(metric, task.ignore_index),
        name=name_on(name, output if is_named else None),
        higher_is_better=higher_is_better,
        output=output,
        is_only=not several,
        kind=kind,
        ignore_index=task.ignore_index,
        has_labels=has_labels,
    )


def _output(
    task: Task, supervision: Supervision, metric: MetricName | Metric | MetricOn | None
) -> str | None:
    """The output that a metric is on; ``None`` for a function that is given all of several."""
    names = list(supervision.by_output)
    if isinstance(metric, MetricOn):
        if metric.on not in names:
            raise DataError(
                f"task {task.name!r}: the metric {metric_name(metric)} is on {metric.on!r}, and "
                f"the outputs that ship are {', '.join(names)}."
            )
        return metric.on
    if len(names) == 1:
        return names[0]
    if metric is not None and not isinstance(metric, str):
        return None
    labeled = _labeled_outputs(task, supervision)
    if len(labeled) == 1:
        return labeled[0]
    raise DataError(_which(task, supervision, metric, labeled or names))


def _labeled_outputs(task: Task, supervision: Supervision) -> list[str]:
    """The outputs that labels of the test split are for."""
    labels = head(task.test, 1).labels
    named = labels if isinstance(labels, dict) else supervision.labels_on
    return [name for name in supervision.by_output if labels is not None and name in named]


def _which(
    task: Task, supervision: Supervision, metric: MetricName | None, outputs: list[str]
) -> str:
    if metric is not None:
        return task.which_output(metric, supervision.by_output)
    names, kind = ", ".join(supervision.by_output), supervision.on(outputs[0]).kind
    such = written("METRIC" if kind is None else _OF_KIND[kind], outputs[0])
    return (
        f"task {task.name!r}: the model has {len(supervision.by_output)} outputs ({names}), and "
        f"nothing says which of them rows are scored by; say it, such as metric: {such}, or give a "
        "metric of your own, which gets all of them by name."
    )
