"""What the outputs of a model mean, and what that asks of labels.

The one owner of these rules, for losses, for the task's own loss and for metrics. Shapes have
samples on axis 0. Plain data: no torch and no numpy.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, get_args

from compress.errors import DataError
from compress.quoting import in_yaml

__all__ = [
    "CLASS_KINDS",
    "OUTPUT_KINDS",
    "Implied",
    "LabelFacts",
    "OutputKind",
    "Shape",
    "check_class_range",
    "check_yes_or_no",
    "derive_kind",
    "kind_of_metric",
    "label_shape",
    "unknown_output_kind",
]

#: ``class-scores``: logits of one class for each sample or position, ``(n, classes, ...)``.
#: ``values``: numbers, such as a regression's or an embedding. ``independent-logits``: a yes or no
#: for each output, before the sigmoid. ``image``: values ``(n, channels, height, width)``.
#: ``tokens``: logits of a token at every place, ``(n, vocabulary, places)``.
OutputKind = Literal["class-scores", "values", "independent-logits", "image", "tokens"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

#: Kinds of which a softmax over axis 1 makes probabilities.
CLASS_KINDS: frozenset[OutputKind] = frozenset({"class-scores", "tokens"})

#: What a loss implies: the kind of a model's outputs; or of the output of a name, where a loss says
#: which it is about; and with ``None`` for the kind, that labels of one tensor are for that output.
Implied = OutputKind | tuple[str, OutputKind | None]

Shape = tuple[int, ...]

_IMAGE_CHANNELS = (1, 3, 4)
_OF_METRIC: dict[str, OutputKind] = {
    "mse": "values",
    "r2": "values",
    "binary-accuracy": "independent-logits",
    "psnr": "image",
    "ssim": "image",
}


def kind_of_metric(metric: str) -> OutputKind | None:
    """What outputs are that a built-in metric scores; ``None`` where that alone does not say."""
    return _OF_METRIC.get(metric)


@dataclass(frozen=True)
class LabelFacts:
    """What is known of some labels ``(n, ...)``; ``lowest`` and ``highest`` leave out NaN.

    ``is_whole``: whether every label is a whole number, of whatever type.
    """

    shape: Shape
    is_float: bool
    is_whole: bool
    lowest: float
    highest: float

    @property
    def is_binary(self) -> bool:
        """Whether every label is 0 or 1."""
        return self.is_whole and self.lowest >= 0 and self.highest <= 1


def label_shape(
    kind: OutputKind, outputs: Shape, labels: Shape, *, is_float: bool, is_bytes: bool = False
) -> Shape:
    """The shape that labels are brought to; nothing is ever broadcast.

    Class kinds take the index of a class for each sample and position, ``(n, ...)``, with or
    without an axis of one in the place of the classes, or, in floating point, a probability for
    each class. The other kinds take a label for each output; axes of one may be left out.

    Raises:
        DataError: the labels do not fit the outputs.
    """
    if kind == "image" and is_bytes:
        raise DataError(
            "labels that are images of bytes have another range than the model's outputs; give "
            "them as floating-point numbers in the range that the model should answer in."
        )
    if kind not in CLASS_KINDS:
        if _without_ones(outputs) == _without_ones(labels):
            return outputs
        raise DataError(
            f"outputs that are {kind} need a label for each of them; the outputs are {outputs} and "
            f"the labels {labels}{_class_hint(outputs, labels, is_float=is_float)}."
        )
    if len(outputs) < 2 or outputs[1] < 2:
        raise DataError(
            f"{kind} are logits of two classes or more, (n, classes, ...), and the outputs are "
            f"{outputs}; with one output for each sample say outputs: independent-logits for yes "
            "or no, or outputs: values for a number."
        )
    places = (outputs[0], *outputs[2:])
    if is_float and labels == outputs:
        return labels
    if is_float:
        raise DataError(
            f"{kind} need labels that are the index of a class, in whole numbers, and the labels "
            "are floating-point numbers; convert them (labels.long()), or say outputs: values "
            "where they are what the model should give."
        )
    if labels == places or (len(labels) == len(outputs) and _without(labels, 1) == places):
        return places
    raise DataError(_misfit(kind, outputs, labels))


def check_class_range(lowest: float, highest: float, classes: int) -> None:
    """Refuse indices that are no class.

    Raises:
        DataError: one is negative, or beyond the last class.
    """
    if lowest >= 0 and highest < classes:
        return
    wrong = highest if highest >= classes else lowest
    hint = ""
    if wrong == 255:
        hint = ", and where 255 marks what is of no class, say ignore_index: 255"
    elif wrong == classes and lowest >= 1:
        hint = ", and classes are counted from 0"
    raise DataError(
        f"the label {wrong:g} is no class: the model has outputs for {classes} classes, 0 to "
        f"{classes - 1}{hint}."
    )


def check_yes_or_no(lowest: float, highest: float) -> None:
    """Refuse labels of independent logits that are neither yes nor no, nor between.

    Raises:
        DataError: one is below 0 or above 1.
    """
    if not 0 <= lowest <= highest <= 1:
        raise DataError(
            f"independent-logits need labels from 0 to 1, and these reach from {lowest:g} to "
            f"{highest:g}; say outputs: values where they are numbers."
        )


def derive_kind(
    outputs: Shape,
    labels: LabelFacts | None,
    *,
    metric: str | None = None,
    implied: Collection[OutputKind] = (),
    inputs: Shape | None = None,
) -> OutputKind | None:
    """What the outputs are, where that is certain; ``None`` where it has to be asked for.

    Args:
        outputs: their shape.
        labels: facts about labels, or ``None`` where there are none.
        metric: the name of a built-in metric, if one was chosen.
        implied: what the losses that were chosen are about.
        inputs: the shape of the inputs, where they are one tensor of floating-point numbers.
    """
    if metric in _OF_METRIC:
        return _OF_METRIC[metric]
    if metric == "accuracy":
        one = len(outputs) < 2 or outputs[1] == 1
        return (
            "independent-logits" if one and (labels is None or labels.is_binary) else "class-scores"
        )
    if labels is not None:
        return _by_labels(outputs, labels)
    chosen = set(implied)
    if "image" in chosen and chosen <= {"image", "values"}:
        return "image"
    if len(chosen) != 1:
        same = inputs == outputs and len(outputs) == 4 and outputs[1] in _IMAGE_CHANNELS
        return "image" if not chosen and same else None
    kind = chosen.pop()
    is_image = kind == "values" and len(outputs) == 4 and outputs[1] in _IMAGE_CHANNELS
    return "image" if is_image else kind


def unknown_output_kind(
    task: str, outputs: Shape, labels: LabelFacts | None, name: str | None = None
) -> DataError:
    """The error that asks what the outputs are; with a name, that of several which is meant."""
    shape = None if labels is None else (outputs[0], *labels.shape[1:])
    if labels is not None and not labels.is_float and len(outputs) > 2 and shape == outputs[:-1]:
        return DataError(f"task {task!r}: {_misfit('class-scores', outputs, outputs[:-1])}")
    why = "there are no labels that would tell"
    if labels is not None:
        type_ = "floating-point numbers" if labels.is_float else "whole numbers"
        why = (
            f"labels {_of_any(labels.shape)} of {type_} from {labels.lowest:g} to "
            f"{labels.highest:g} do not tell"
        )
    if name is not None:
        return DataError(
            f"task {task!r}: what kind the model's output {name!r}, {_of_any(outputs)}, is of is "
            f"not known, and {why}; say it in the task: outputs: {{{in_yaml(name)}: KIND}}, where "
            f"KIND is {', '.join(OUTPUT_KINDS[:-1])} or {OUTPUT_KINDS[-1]}."
        )
    return DataError(
        f"task {task!r}: what the model's outputs {_of_any(outputs)} are is not known, and {why}; "
        f"say it in the task: outputs: {', '.join(OUTPUT_KINDS[:-1])} or {OUTPUT_KINDS[-1]}."
    )


def _by_labels(outputs: Shape, facts: LabelFacts) -> OutputKind | None:
    # Of other samples, and perhaps of more.
    labels = replace(facts, shape=(outputs[0], *facts.shape[1:]))
    each = _without_ones(outputs) == _without_ones(labels.shape)
    if labels.is_float:
        return "values" if each and not _may_be_chances(labels) else None
    several = len(outputs) >= 2 and outputs[1] >= 2
    if several and not (each and len(labels.shape) > 1):
        try:
            label_shape("class-scores", outputs, labels.shape, is_float=False)
        except DataError:
            return None
        return "class-scores"
    return "independent-logits" if each and labels.is_binary else None


def _may_be_chances(labels: LabelFacts) -> bool:
    # Probabilities, or yes and no as floating-point numbers.
    return labels.lowest >= 0 and labels.highest <= 1


def _misfit(kind: OutputKind, outputs: Shape, labels: Shape) -> str:
    given = f"the outputs are {outputs} and the labels {labels}"
    if labels == outputs[:-1] and len(outputs) > 2:
        return (
            f"{kind} have their classes on axis 1, (n, classes, ...); {given}, so that classes "
            "seem to lie last: return outputs.movedim(-1, 1) from the model."
        )
    if labels == outputs:
        return (
            f"{kind} need the index of one class for each sample; {given}: give labels.argmax(1) "
            "of one-hot labels, or say outputs: independent-logits where several classes can be "
            "right."
        )
    return (
        f"{kind} need the index of one class for each sample and position; {given}, and labels "
        f"{(outputs[0], *outputs[2:])} would fit."
    )


def _class_hint(outputs: Shape, labels: Shape, *, is_float: bool) -> str:
    fits = len(outputs) > 1 and outputs[1] > 1 and labels == (outputs[0], *outputs[2:])
    if fits and not is_float:
        return ": say outputs: class-scores where labels are the index of a class"
    return ""


def _of_any(shape: Shape) -> str:
    """The shape for any number of samples, in words."""
    return f"({', '.join(['n', *map(str, shape[1:])])}{',' * (len(shape) == 1)})"


def _without(shape: Shape, axis: int) -> Shape | None:
    return (*shape[:axis], *shape[axis + 1 :]) if shape[axis] == 1 else None


def _without_ones(shape: Shape) -> Shape:
    return (*shape[:1], *(size for size in shape[1:] if size != 1))
