"""Task: what a model is for: its data, loss and metric.

Data sets are torch map-style: ``len(d)`` and ``d[i]`` giving ``(input, label)`` or ``input`` alone,
where an input is a tensor or a dictionary of tensors. Torch is imported for typing only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from compress.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Augment", "Dataset", "Loss", "Metric", "Task"]


class Dataset(Protocol):
    """A torch map-style data set.

    One that also has ``__getitems__(indices)`` returning one collated batch is read batch-wise.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


#: ``(batch_of_inputs, generator) -> batch_of_inputs``; all randomness must come from the generator.
Augment = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]
#: ``(outputs, labels) -> scalar``.
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
#: ``(outputs, labels) -> score of each sample``, in numpy, shape ``(n,)``.
Metric = Callable[["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Task:
    """What the model is for.

    Args:
        name: shown in records and plots.
        train: what training stages see; may be unlabelled for distillation, or partly labelled: a
            label of ``None`` or NaN, or with the metric ``accuracy`` a negative one, is none.
        validation: what every choice looks at (early stopping, calibration checks, sweeps).
        test: what the record's accuracy is computed on, and nothing else.
        metric: ``accuracy`` (top-1; outputs ``(n, classes, ...)``, labels ``(n, ...)``),
            ``mse``, or a callable.
        higher_is_better: ``None`` derives it: true, except for ``mse``.
        loss: ``None`` derives it: cross-entropy for ``accuracy``, mean squared error for ``mse``.
        augment: applied to training batches.
        calibration: inputs for quantisation ranges; ``None`` takes them from ``train``.
        classes: class names, for error messages and reports.
        tokenizer: identifies what made the inputs, where they are ids of tokens
            (:func:`compress.huggingface.tokenizer_digest`); models made for another are refused.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    metric: Literal["accuracy", "mse"] | Metric = "accuracy"
    higher_is_better: bool | None = None
    loss: Loss | None = None
    augment: Augment | None = None
    calibration: Dataset | None = None
    classes: tuple[str, ...] = field(default=())
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
            if len(getattr(self, split)) == 0:
                raise DataError(f"task {self.name!r}: the {split} split is empty.")

    @property
    def metric_name(self) -> str:
        """The metric's name as records show it."""
        return self.metric if isinstance(self.metric, str) else self.metric.__name__

    @property
    def maximise(self) -> bool:
        """Whether a larger metric is better."""
        return self.metric != "mse" if self.higher_is_better is None else self.higher_is_better
