"""Task: what a model is for: its data, loss and metric.

Data sets are torch map-style: ``len(d)`` and ``d[i]``; splits of other kinds are brought into that
form when a task is made (:mod:`compress.data`). Importing this imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from compress.errors import DataError
from compress.metrics import (
    METRICS,
    Metric,
    MetricName,
    MetricOn,
    metric_direction,
    metric_name,
    written,
)
from compress.outputs import CLASS_KINDS, OUTPUT_KINDS, OutputKind
from compress.preprocessing import Preprocessing
from compress.quoting import shown

if TYPE_CHECKING:
    import torch

    from compress.data.fields import Fields

__all__ = [
    "METRICS",
    "SERVING",
    "SLICE_NAME",
    "Augment",
    "Dataset",
    "Loss",
    "Metric",
    "MetricName",
    "MetricOn",
    "PairedAugment",
    "Task",
    "metric_direction",
    "metric_name",
    "slice_key",
]

#: What the sample of what is served is called among splits.
SERVING = "serving"
#: What slices may be called: their names are headings, and keys of records.
SLICE_NAME = r"[\w-][\w -]{0,28}[\w-]|[\w-]"


def slice_key(name: str) -> str:
    """What a slice is called among splits."""
    return f"slice {name}"


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


@runtime_checkable
class PairedAugment(Protocol):
    """An augmentation that moves labels with the inputs, such as images that are mirrored both.

    All randomness must come from the generator.
    """

    def pair(self, inputs: Any, labels: Any, generator: torch.Generator, /) -> tuple[Any, Any]:
        """A batch's inputs and labels, both ``(n, ...)``, in memory of their own."""
        ...


#: ``(outputs, labels) -> scalar``. Of a model with several outputs they are a dictionary by name,
#: and labels are as the data have them, a dictionary where these are by name too.
Loss = Callable[[Any, Any], "torch.Tensor"]
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
        "psnr": frozenset({"image"}),
        "ssim": frozenset({"image"}),
    }
)


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
            logits), ``spearman`` (mean rank correlation over outputs), ``psnr`` (in dB) or ``ssim``
            of images with pixels from 0 to 1, a callable of outputs and
            labels, or a ``torchmetrics.Metric``; ``None`` takes the one that fits the outputs. Of
            several outputs :class:`MetricOn` says which one it is on.
        higher_is_better: of a callable metric it must be said, here or by an attribute of that name
            on the callable; the built-in ones know it.
        further_metrics: are recorded beside the leading ``metric``, which alone decides what is
            better. Callables say their direction by an attribute ``higher_is_better``.
        loss: on labels; ``None`` derives it from the outputs: cross-entropy for class scores and
            tokens, mean squared error for values and images, binary cross-entropy for independent
            logits.
        augment: applied to training batches; a :class:`PairedAugment` gets labels, too.
        calibration: inputs for quantization ranges; ``None`` takes them from ``train``.
        classes: class names, for error messages and reports.
        tokenizer: identifies what made the inputs, where they are ids of tokens
            (:func:`compress.models.huggingface.tokenizer_digest`); models of another are refused.
        outputs: what the model's outputs are (:data:`compress.outputs.OutputKind`); ``None``
            derives it from metric and labels where these leave no doubt. Of several outputs, by
            their names; the named ones alone are then what ships.
        ignore_index: a label that says that there is none, such as 255 in masks.
        preprocessing: how a file or a text becomes an input, for what is shipped (docs/ship.md);
            without it that takes arrays, as samples have them.
        fields: which parts of a sample are inputs and label, and what is padded; the splits that
            the task then has are in the form that this says.
        serving: a sample of what the device will see, with labels or without: rows are scored on it
            beside the test split, and nothing else ever looks at it.
        slices: further such samples, by name, each scored by itself.

    Raises:
        DataError: a split that is empty, or is none, a name that is no text, or a metric of one's
            own that does not say which direction is better.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    metric: MetricName | Metric | MetricOn | None = None
    higher_is_better: bool | None = None
    loss: Loss | None = None
    augment: Augment | PairedAugment | None = None
    calibration: Dataset | None = None
    classes: tuple[str, ...] = field(default=())
    tokenizer: str | None = None
    outputs: OutputKind | Mapping[str, OutputKind] | None = None
    ignore_index: int | None = None
    further_metrics: tuple[MetricName | Metric | MetricOn, ...] = ()
    preprocessing: Preprocessing | None = None
    fields: InitVar[Fields | None] = None
    serving: Dataset | None = None
    slices: Mapping[str, Dataset] = field(default_factory=dict, hash=False)

    def __post_init__(self, fields: Fields | None) -> None:
        from compress.data.splits import adapted

        if not isinstance(self.name, str):
            raise DataError(f"a task has a name, such as 'digits'; got {shown(self.name)}.")
        names = ("train", "validation", "test", "calibration")
        given = {name: split for name in names if (split := getattr(self, name)) is not None}
        self._check_slices()
        found = adapted(given, fields, f"task {self.name!r}", self.served)
        for name in given:
            object.__setattr__(self, name, found[name])
        if self.serving is not None:
            object.__setattr__(self, "serving", found[SERVING])
        object.__setattr__(self, "slices", {name: found[slice_key(name)] for name in self.slices})
        self._check_outputs_and_metrics()

    @property
    def served(self) -> dict[str, Dataset]:
        """The serving sample and the slices, by the names that sentences have for them."""
        own = {} if self.serving is None else {SERVING: self.serving}
        return {**own, **{slice_key(name): split for name, split in self.slices.items()}}

    def _check_slices(self) -> None:
        given: object = self.slices
        if not isinstance(given, Mapping):
            raise DataError(
                f"task {self.name!r}: slices are data sets by name, such as {{'dark': dark}}; got "
                f"{shown(given)}."
            )
        for name in given:
            if not isinstance(name, str) or not re.fullmatch(SLICE_NAME, name) or name == SERVING:
                raise DataError(
                    f"task {self.name!r}: the name of a slice is up to 30 letters, digits, -, _ or "
                    f"spaces, and not {SERVING!r}; got {shown(name)}."
                )

    @property
    def ships(self) -> tuple[str, ...]:
        """The names of the outputs that ship; empty where all do that the model gives."""
        return tuple(self.outputs) if isinstance(self.outputs, Mapping) else ()

    def kind_of(self, output: str | None) -> OutputKind | None:
        """What an output is said to be: the named one, or with ``None`` the only one."""
        if not isinstance(self.outputs, Mapping):
            return self.outputs
        only = next(iter(self.outputs.values())) if len(self.outputs) == 1 else None
        return only if output is None else self.outputs.get(output)

    def built_in_metric(self, output: str, *, is_only: bool) -> MetricName | None:
        """The built-in metric on an output, or on an only one; ``None`` where there is none."""
        for metric in (self.metric, *self.further_metrics):
            named = isinstance(metric, MetricOn) and metric.on == output
            found = metric.metric if isinstance(metric, MetricOn) else metric
            if isinstance(found, str) and (named or (is_only and metric is self.metric)):
                return found
        return None

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

    def _check_outputs_and_metrics(self) -> None:
        self._check_outputs()
        self._check_preprocessing()
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

    def _check_outputs(self) -> None:
        if isinstance(self.outputs, Mapping):
            object.__setattr__(self, "outputs", dict(self.outputs))
        said: Mapping[str, object] = (
            self.outputs if isinstance(self.outputs, Mapping) else {"": self.outputs or "values"}
        )
        if not said:
            raise DataError(
                f"task {self.name!r}: outputs has no name in it; give each output that ships with "
                "its kind, or leave it out for all that the model gives."
            )
        for name, kind in said.items():
            if kind not in OUTPUT_KINDS:
                which = f"outputs.{name}" if name else "outputs"
                raise DataError(
                    f"task {self.name!r}: {which} is one of {', '.join(OUTPUT_KINDS)}; got "
                    f"{kind!r}."
                )

    def _check_preprocessing(self) -> None:
        given: object = self.preprocessing
        if given is not None and not isinstance(given, Preprocessing):
            raise DataError(
                f"task {self.name!r}: preprocessing is an ImagePreprocessing, a TextPreprocessing "
                f"or an ArrayPreprocessing; got {type(given).__name__}."
            )

    def _check_metric(self, metric: MetricName | Metric | MetricOn, direction: bool | None) -> None:
        of = metric.metric if isinstance(metric, MetricOn) else metric
        self._check_is_metric(of)
        kind = self._kind_for(metric)
        if isinstance(of, str) and kind is not None and kind not in _KINDS_OF[of]:
            raise DataError(self._misfit(of, _on(metric), kind))
        if direction is None and metric_direction(metric) is None:
            where = "higher_is_better=True or higher_is_better=False"
            if metric is not self.metric:
                where = f"an attribute higher_is_better to {metric_name(of)}, True or False"
            raise DataError(
                f"task {self.name!r}: whether more of the metric {metric_name(of)} is better "
                f"is not said; add {where}."
            )

    def _check_is_metric(self, metric: object) -> None:
        if isinstance(metric, str) and metric not in METRICS:
            raise DataError(
                f"task {self.name!r}: there is no metric {metric!r}; built in are "
                f"{', '.join(METRICS)}, and one of your own is a function of outputs and labels."
            )
        if not isinstance(metric, str) and not callable(metric):
            raise DataError(
                f"task {self.name!r}: a metric is a name or a function of outputs and labels; got "
                f"a {type(metric).__name__}."
            )

    def _kind_for(self, metric: MetricName | Metric | MetricOn) -> OutputKind | None:
        """What the output is that a metric is on, where that is said.

        Raises:
            DataError: there is no such output, or it is not said which of several.
        """
        on, names = _on(metric), ", ".join(self.ships)
        if on is not None and self.ships and on not in self.ships:
            raise DataError(
                f"task {self.name!r}: the metric {metric_name(metric)} is on {on!r}, and the "
                f"outputs that ship are {names}."
            )
        if on is None and len(self.ships) > 1 and isinstance(metric, str):
            raise DataError(self.which_output(metric, self.ships))
        return self.kind_of(on)

    def _misfit(self, metric: MetricName, on: str | None, kind: OutputKind) -> str:
        fits = " or ".join(sorted(_KINDS_OF[metric]))
        if on is None:
            return (
                f"task {self.name!r}: the metric {metric} is for outputs that are {fits}, and they "
                f"are said to be {kind}; leave the metric out for the one that fits."
            )
        return (
            f"task {self.name!r}: the metric {metric} is for an output that is {fits}, and {on!r} "
            f"is said to be {kind}; take another metric, or put it on another output."
        )

    def which_output(self, metric: str, outputs: Collection[str]) -> str:
        """The sentence for a metric that is not said to be on one of several outputs."""
        first = next(iter(outputs))
        return (
            f"task {self.name!r}: the metric {metric} is on one output, and the model has "
            f"{len(outputs)} ({', '.join(outputs)}); say which, such as metric: "
            f"{written(metric, first)}, in Python MetricOn({metric!r}, {first!r})."
        )


def _on(metric: MetricName | Metric | MetricOn) -> str | None:
    return metric.on if isinstance(metric, MetricOn) else None
