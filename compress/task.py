"""Task: what a model is for: its data, loss and metric.

Data sets are torch map-style: ``len(d)`` and ``d[i]`` giving ``(input, label)`` or ``input`` alone,
where an input is a tensor or a dictionary of tensors. Torch is imported for typing only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from compress.errors import DataError
from compress.outputs import CLASS_KINDS, OUTPUT_KINDS, OutputKind

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["METRICS", "Augment", "Dataset", "Loss", "Metric", "MetricName", "Task"]


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
#: ``(outputs, labels) -> scalar``.
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
#: ``(outputs, labels) -> score of each sample``, in numpy, shape ``(n,)``.
Metric = Callable[["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]

#: The built-in metrics: of classes, of values twice, and of a yes or no for each output.
MetricName = Literal["accuracy", "mse", "r2", "binary-accuracy"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)

_KINDS_OF: Mapping[str, frozenset[OutputKind]] = MappingProxyType(
    {
        "accuracy": CLASS_KINDS | {"independent-logits"},
        "binary-accuracy": frozenset({"independent-logits"}),
        "mse": frozenset({"values", "image"}),
        "r2": frozenset({"values", "image"}),
    }
)


@dataclass(frozen=True)
class Task:
    """What the model is for.

    Args:
        name: shown in records and plots.
        train: what training stages see; may be unlabeled for distillation, or partly labeled: a
            label of ``None`` or NaN, or of classes a negative one, is none.
        validation: what every choice looks at (early stopping, calibration checks, sweeps).
        test: what the record's accuracy is computed on, and nothing else.
        metric: ``accuracy`` (top-1; outputs ``(n, classes, ...)``, labels ``(n, ...)``), ``mse``,
            ``r2``, ``binary-accuracy`` (the share of outputs on the right side of 0), or a callable
            of outputs and labels; ``None`` takes the one that fits the outputs.
        higher_is_better: of a callable metric it must be said, here or by an attribute of that name
            on the callable; the built-in ones know it.
        loss: on labels; ``None`` derives it from the outputs: cross-entropy for class scores and
            tokens, mean squared error for values and images, binary cross-entropy for independent
            logits.
        augment: applied to training batches.
        calibration: inputs for quantization ranges; ``None`` takes them from ``train``.
        classes: class names, for error messages and reports.
        tokenizer: identifies what made the inputs, where they are ids of tokens
            (:func:`compress.models.huggingface.tokenizer_digest`); models of another are refused.
        outputs: what the model's outputs are (:data:`compress.outputs.OutputKind`); ``None``
            derives it from metric and labels where these leave no doubt.
        ignore_index: a label that says that there is none, such as 255 in masks.

    Raises:
        DataError: a split that is empty or cannot be read by index, or a metric of one's own that
            does not say which direction is better.
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
    outputs: OutputKind | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
            self._check_split(split, getattr(self, split))
        if self.calibration is not None:
            self._check_split("calibration", self.calibration)
        if isinstance(self.metric, str) and self.metric not in METRICS:
            raise DataError(
                f"task {self.name!r}: there is no metric {self.metric!r}; built in are "
                f"{', '.join(METRICS)}, and one of your own is a function of outputs and labels."
            )
        if self.outputs is not None and self.outputs not in OUTPUT_KINDS:
            raise DataError(
                f"task {self.name!r}: outputs is one of {', '.join(OUTPUT_KINDS)}; got "
                f"{self.outputs!r}."
            )
        fits = _KINDS_OF.get(str(self.metric))
        if fits is not None and self.outputs is not None and self.outputs not in fits:
            raise DataError(
                f"task {self.name!r}: the metric {self.metric} is for outputs that are "
                f"{' or '.join(sorted(fits))}, and they are said to be {self.outputs}; leave the "
                "metric out for the one that fits."
            )
        if callable(self.metric) and self.direction is None:
            raise DataError(
                f"task {self.name!r}: whether more of the metric {self.metric_name} is better is "
                "not said; add higher_is_better=True or higher_is_better=False."
            )

    def _check_split(self, split: str, data: Any) -> None:
        where = f"task {self.name!r}: the {split} split"
        if hasattr(data, "dataset") and hasattr(data, "collate_fn"):
            raise DataError(
                f"{where} is a DataLoader, which has an order and batches of its own; give its "
                "data set, such as loader.dataset."
            )
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise DataError(
                f"{where} is a {type(data).__name__}, which cannot be read by index; give a data "
                "set with len(d) and d[i], such as list(d), where each d[i] is an input or "
                "(input, label)."
            )
        try:
            count = len(data)
        except TypeError:  # what IterableDataset inherits refuses to be called
            raise DataError(
                f"{where} is a {type(data).__name__}, which has no length; give a data set with "
                "len(d) and d[i], such as list(d)."
            ) from None
        if count == 0:
            raise DataError(f"task {self.name!r}: the {split} split is empty.")

    @property
    def metric_name(self) -> str | None:
        """The metric's name, where one was chosen."""
        if self.metric is None or isinstance(self.metric, str):
            return self.metric
        return str(getattr(self.metric, "__name__", type(self.metric).__name__))

    @property
    def direction(self) -> bool | None:
        """Whether more of the metric is better, where that is known."""
        if self.higher_is_better is not None:
            return self.higher_is_better
        if self.metric is None or isinstance(self.metric, str):
            return self.metric != "mse"
        said = getattr(self.metric, "higher_is_better", None)
        return said if isinstance(said, bool) else None
