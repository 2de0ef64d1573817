"""Metrics of torchmetrics, as functions of the arrays that targets return."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from compress.errors import DataError
from compress.measure.named_arrays import Array, Arrays
from compress.metrics import Metric, MetricName, metric_direction, metric_name

__all__ = ["as_function"]


class _Metric(Protocol):
    def reset(self) -> None: ...
    def update(self, outputs: Tensor, labels: Tensor, /) -> None: ...
    def compute(self) -> Any: ...


def as_function(
    metric: MetricName | Metric, ignore_index: int | None = None
) -> MetricName | Metric:
    """A ``torchmetrics.Metric`` as a function of outputs and labels; anything else as it is.

    Args:
        metric: with ``reset``, ``update`` and ``compute``, or what it may be instead.
        ignore_index: what the metric gets as the label of what has none.
    """
    parts = [getattr(metric, name, None) for name in ("reset", "update", "compute")]
    # A copy: what the user goes on with stays as it is.
    return _Function(copy.deepcopy(metric), ignore_index) if all(map(callable, parts)) else metric


@dataclass(frozen=True)
class _Function:
    """A metric that is updated once with all samples."""

    metric: Any
    ignore_index: int | None

    @property
    def __name__(self) -> str:
        return metric_name(self.metric)

    @property
    def higher_is_better(self) -> bool | None:
        """Whether more of it is better, where it says so."""
        return metric_direction(self.metric)

    def __call__(self, outputs: Arrays, labels: Arrays) -> float:
        """Its value over all samples.

        Args:
            outputs: of one output, ``(n, ...)``.
            labels: for it, ``(n, ...)``.

        Raises:
            DataError: it takes no such outputs and labels, or does not give one number.
        """
        metric: _Metric = self.metric
        if isinstance(outputs, dict) or isinstance(labels, dict):
            raise DataError(self._of_several(outputs, labels))
        given = torch.from_numpy(np.ascontiguousarray(outputs)), self._labels(labels)
        try:
            metric.reset()
            metric.update(*given)
            found = metric.compute()
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            shapes = " and ".join(str(tuple(part.shape)) for part in given)
            raise DataError(
                f"scoring: the metric {self.__name__} does not take outputs and labels of the "
                f"shapes {shapes} ({str(error).splitlines()[0].rstrip('.')})."
            ) from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(
                f"scoring: the metric {self.__name__} must give one number; got {shape}: choose an "
                "average, such as average='macro'."
            )
        # Resamples hold nothing that was not looked at; looking takes longer than computing.
        if hasattr(self.metric, "validate_args"):
            self.metric.validate_args = False
        return float(found)

    def _labels(self, labels: Array) -> Tensor:
        """Whole numbers as such, whatever they were stored in: classes, and yes or no."""
        is_float = labels.dtype.kind == "f"
        # Its own comes first: it is what it leaves out.
        own = getattr(self.metric, "ignore_index", None)
        ignored = self.ignore_index if own is None else own
        missing = np.isnan(labels) if is_float else labels < 0
        if not isinstance(ignored, int):
            ignored, missing = 0, np.zeros(labels.shape, bool)
        whole = not is_float or bool(np.isin(labels[~missing], (0, 1)).all())
        if whole:
            return torch.from_numpy(np.where(missing, ignored, labels).astype(np.int64))
        return torch.from_numpy(labels.astype(np.float32))

    def _of_several(self, outputs: Arrays, labels: Arrays) -> str:
        names = list(outputs if isinstance(outputs, dict) else labels)
        what = "outputs" if isinstance(outputs, dict) else "labels for several outputs"
        return (
            f"scoring: the metric {self.__name__} is given one output and its labels, and there "
            f"are {what} ({', '.join(names)}); say which, as with MetricOn({self.__name__}(...), "
            f"{names[0]!r}), or write a function of outputs and labels by name that gives it what "
            "it takes."
        )
