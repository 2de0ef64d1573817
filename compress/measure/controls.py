"""How a net that makes images follows the numbers that it is given beside them, its controls."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compress.measure.named_arrays import Array, Arrays
from compress.measure.ondevice.scoring import scores
from compress.measure.score import accuracy_facts
from compress.record_images import ControlValue

__all__ = ["control_names", "followed", "image_name"]

#: Of one control. Where each sample has a value of its own there is nothing to average.
_MOST_VALUES = 32


def image_name(inputs: Mapping[str, Array], made: Arrays) -> str | None:
    """The name of the only input that is an image of the size of what is made of it, if any.

    Args:
        inputs: by name, with samples on axis 0.
        made: of them, ``(n, channels, height, width)``; anything else is no image.
    """
    if not isinstance(made, np.ndarray) or made.ndim != 4:
        return None
    found = [name for name, array in inputs.items() if array.shape == made.shape]
    return found[0] if len(found) == 1 else None


def control_names(inputs: Mapping[str, Array], image: str) -> tuple[str, ...]:
    """The names of the inputs beside the image, where each is one number for a sample."""
    others = {name: array for name, array in inputs.items() if name != image}
    are_numbers = all(a.shape[1:] == (1,) and a.dtype.kind == "f" for a in others.values())
    return tuple(others) if are_numbers else ()


def followed(
    inputs: Mapping[str, Array], made: Arrays, wanted: Arrays
) -> dict[str, list[ControlValue]]:
    """How the images that were made follow each control, at each of its values in some samples.

    Args:
        inputs: by name: an image ``(n, channels, height, width)`` with pixels from 0 to 1, and the
            controls, ``(n, 1)``.
        made: of them, of the image's shape.
        wanted: what the teacher makes of them, likewise.

    Returns:
        The values of each control in ascending order, by its name. Empty where no image of an image
        is made, where there are no controls; one with more than 32 values is left out.
    """
    image = image_name(inputs, made)
    if image is None or not isinstance(made, np.ndarray) or not isinstance(wanted, np.ndarray):
        return {}
    if wanted.shape != made.shape:
        return {}
    shown, found = inputs[image], {}
    for name in control_names(inputs, image):
        values = inputs[name][:, 0]
        each = np.unique(values)
        if len(each) > _MOST_VALUES:
            continue
        groups = [(value, values == value) for value in each]
        found[name] = [
            _at_value(float(value), shown[own], made[own], wanted[own]) for value, own in groups
        ]
    return found


def _at_value(value: float, shown: Array, made: Array, wanted: Array) -> ControlValue:
    # A control is a number in float32, and 0.7 is meant where it is 0.699999988.
    return ControlValue(
        value=float(f"{value:.6g}"),
        to_teacher=accuracy_facts(scores(made, wanted, "psnr"), None, higher_is_better=True),
        to_input=accuracy_facts(scores(made, shown, "psnr"), None, higher_is_better=True),
        teacher_to_input=float(scores(wanted, shown, "psnr").mean()),
    )
