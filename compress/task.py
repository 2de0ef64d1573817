"""Task: what a model is for: its data, loss and metric.

Data sets are torch map-style: ``len(d)`` and ``d[i]``; splits of other kinds are brought into that
form when a task is made (:mod:`compress.data`). Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from compress.errors import DataError
from compress.outputs import CLASS_KINDS, OUTPUT_KINDS, OutputKind

if TYPE_CHECKING:
    import numpy as np
    import torch

    from compress.data.fields import Fields

__all__ = [
    "METRICS",
    "Augment",
    "Dataset",
    "Loss",
    "Metric",
    "MetricName",
    "Task",
    "metric_direction",
    "metric_name",
]


class Dataset(Protocol):
    """A torch map-style data set.

    One that also has ``__getitems__(indices)`` returning one collated batch is read batch-wise.
    What a run did with it is used again only for the same samples, so that all are hashed; an
    attribute ``fingerprint``, a text or a method that gives one, stands for them instead.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


#: ``(batch_of_inputs, generator) -> batch_of_inputs``; all randomness must come from the generator.
Augment = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]
#: ``(outputs, labels) -> scalar``: tensors, or dictionaries of them by name: outputs where a model
#: has several, labels where the data have them so.
Loss = Callable[[Any, Any], "torch.Tensor"]
#: ``(outputs, labels) -> score of each sample``, in numpy, shape ``(n,)``, or one number for all of
#: them, which then gets its interval by resampling. A ``torchmetrics.Metric`` is taken as it is.
Metric = Callable[["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"], Any]

#: The built-in metrics. The first four are means over samples; the others are worked out over a
#: data set.
MetricName = Literal[
    "accuracy", "mse", "r2", "binary-accuracy", "f1", "mean-iou", "auroc", "spearman"
]
METRICS: tuple[MetricName, ...] = get_args(MetricName)

_KINDS_OF: Mapping[str, frozenset[OutputKind]] = MappingProxyType(
    {
        "accuracy": CLASS_KINDS | {"independent-logits"},
        "binary-accuracy": frozenset({"independent-logits"}),
        "mse": frozenset({"values", "image"}),
        "r2": frozenset({"values", "image"}),
        "f1": CLASS_KINDS | {"independent-logits"},
        "mean-iou": CLASS_KINDS | {"independent-logits"},
        "auroc": CLASS_KINDS | {"independent-logits"},
        "spearman": frozenset({"values", "image"}),
    }
)


def metric_name(metric: MetricName | Metric) -> str:
    """The name of a built-in metric, or of a function or class of one's own."""
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "__name__", type(metric).__name__))


def metric_direction(metric: MetricName | Metric) -> bool | None:
    """Whether more of a metric is better; ``None`` where one of one's own does not say."""
    if isinstance(metric, str):
        return metric != "mse"
    given = getattr(metric, "higher_is_better", None)
    return given if isinstance(given, bool) else None


@dataclass(frozen=True)
class Task:
    """What the model is for.

    A split is a data set that is read by index, such as a list, a ``TensorDataset``, a ``Subset``
    or a ``datasets.Dataset``; a ``DataLoader``, of which the data set is used; or what can only be
    gone through, which is read once into memory. A sample is an input, ``(input, label)`` or a
    dictionary with its label under ``label``, ``labels``, ``target`` or ``targets``, or of any form
    with ``fields``.

    Args:
        name: shown in records and plots.
        train: what training stages see; may be unlabeled for distillation, or partly labeled: a
            label of ``None`` or NaN, or of classes a negative one, is none.
        validation: what every choice looks at (early stopping, calibration checks, sweeps).
        test: what the record's accuracy is computed on, and nothing else.
        metric: ``accuracy`` (top-1; outputs ``(n, classes, ...)``, labels ``(n, ...)``), ``mse``,
            ``r2``, ``binary-accuracy`` (the share of outputs on the right side of 0), ``f1``,
            ``mean-iou`` or ``auroc`` (means over classes, or over the outputs of independent
            logits), ``spearman`` (mean rank correlation over outputs), a callable of outputs and
            labels, or a ``torchmetrics.Metric``; ``None`` takes the one that fits the outputs.
        higher_is_better: of a callable metric it must be said, here or by an attribute of that name
            on the callable; the built-in ones know it.
        further_metrics: are recorded beside the leading ``metric``, which alone decides what is
            better. Callables say their direction by an attribute ``higher_is_better``.
        loss: on labels; ``None`` derives it from the outputs: cross-entropy for class scores and
            tokens, mean squared error for values and images, binary cross-entropy for independent
            logits.
        augment: applied to training batches.
        calibration: inputs for quantization ranges; ``None`` takes them from ``train``.
        classes: class names, for error messages and reports.
        tokenizer: identifies what made the inputs, where they are ids of tokens
            (:func:`compress.models.huggingface.tokenizer_digest`); models of another are refused.
        outputs: what the model's outputs are (:data:`compress.outputs.OutputKind`), or, by name,
            what each of several is, which then are the ones that ship; ``None`` derives it from
            metric and labels where these leave no doubt.
        ignore_index: a label that says that there is none, such as 255 in masks.
        fields: which parts of a sample are inputs and label, and what is padded; the splits that
            the task then has are in the form that this says.

    Raises:
        DataError: a split that is empty, or is none, or a metric of one's own that does not say
            which direction is better.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    metric: MetricName | Metric | None = None
    higher_is_better: bool | None = None
    loss: Loss | None = None
    augment: Augment | None = None
    calibration: Dataset | None = None
    classes: tuple[str, ...] = field(default=())
    tokenizer: str | None = None
    outputs: OutputKind | Mapping[str, OutputKind] | None = None
    ignore_index: int | None = None
    further_metrics: tuple[MetricName | Metric, ...] = ()
    fields: InitVar[Fields | None] = None

    def __post_init__(self, fields: Fields | None) -> None:
        from compress.data.splits import adapted

        names = ("train", "validation", "test", "calibration")
        given = {name: split for name in names if (split := getattr(self, name)) is not None}
        for name, dataset in adapted(given, fields, f"task {self.name!r}").items():
            object.__setattr__(self, name, dataset)
        self._check_outputs_and_metrics()

    def _check_outputs_and_metrics(self) -> None:
        is_mapping = isinstance(self.outputs, Mapping)
        kinds = list(self.outputs.values()) if isinstance(self.outputs, Mapping) else [self.outputs]
        wrong = [kind for kind in kinds if kind is not None and kind not in OUTPUT_KINDS]
        if wrong or (is_mapping and not kinds) or (is_mapping and None in kinds):
            raise DataError(
                f"task {self.name!r}: outputs is one of {', '.join(OUTPUT_KINDS)}"
                f"{', or one for each name' * is_mapping}; got {self.outputs!r}."
            )
        chosen = [*([] if self.metric is None else [self.metric]), *self.further_metrics]
        for metric in chosen:
            self._check_metric(metric, self.direction if metric is self.metric else None)
        names = [metric_name(metric) for metric in chosen]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(
                f"task {self.name!r}: the metric {twice[0]} is there twice; leave one out, or give "
                "a function of another name."
            )
        if self.further_metrics and self.metric is None:
            raise DataError(
                f"task {self.name!r}: further metrics are there and no leading one; give the "
                "leading one as metric."
            )

    def _check_metric(self, metric: MetricName | Metric, direction: bool | None) -> None:
        if isinstance(metric, str) and metric not in METRICS:
            raise DataError(
                f"task {self.name!r}: there is no metric {metric!r}; built in are "
                f"{', '.join(METRICS)}, and one of your own is a function of outputs and labels."
            )
        fits = _KINDS_OF[metric] if isinstance(metric, str) else None
        if fits is not None and isinstance(self.outputs, str) and self.outputs not in fits:
            raise DataError(
                f"task {self.name!r}: the metric {metric} is for outputs that are "
                f"{' or '.join(sorted(fits))}, and they are said to be {self.outputs}; leave the "
                "metric out for the one that fits."
            )
        if not isinstance(metric, str) and not callable(metric):
            raise DataError(
                f"task {self.name!r}: a metric is a name or a function of outputs and labels; got "
                f"a {type(metric).__name__}."
            )
        if direction is None and metric_direction(metric) is None:
            where = "higher_is_better=True or higher_is_better=False"
            if metric is not self.metric:
                where = f"an attribute higher_is_better to {metric_name(metric)}, True or False"
            raise DataError(
                f"task {self.name!r}: whether more of the metric {metric_name(metric)} is better "
                f"is not said; add {where}."
            )

    @property
    def metric_name(self) -> str | None:
        """The leading metric's name, where one was chosen."""
        return None if self.metric is None else metric_name(self.metric)

    @property
    def direction(self) -> bool | None:
        """Whether more of the leading metric is better, where that is known."""
        if self.higher_is_better is not None or self.metric is None:
            return self.higher_is_better is not False
        return metric_direction(self.metric)
