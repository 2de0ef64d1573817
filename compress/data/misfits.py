"""What to do about parts of samples that are none: a clause for the sentence that refuses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["a_thing", "batch_hint", "input_cure", "is_number_array", "is_picture"]
__all__ += ["label_cure"]

_NUMBER_KINDS = "biufc"
_IMAGE_AXES = 4
_CHANNELS = (1, 3, 4)
_TO_TENSOR = "torch.tensor(numpy.asarray(image)).permute(2, 0, 1) / 255"
_OF_CLASSES = "number the classes, and name them in the task's classes"


def is_number_array(part: np.ndarray[Any, Any]) -> bool:
    """Whether an array holds numbers, not texts, dates, records or objects."""
    return part.dtype.kind in _NUMBER_KINDS


def a_thing(part: Any) -> str:
    """What kind of thing a part is, with an article."""
    if isinstance(part, (np.ndarray, np.generic)) and not is_number_array(np.asarray(part)):
        return f"an array of the type {part.dtype}"
    name = type(part).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def input_cure(part: Any) -> str:
    """What makes an input of a part, as a clause with its semicolon; empty where nothing does."""
    if is_picture(part):
        return f"; make a tensor of it, such as {_TO_TENSOR}"
    if isinstance(part, (str, bytes, PurePath)):
        return (
            "; open files in the data set itself, or name a task that does: image-folder, "
            "mask-folder; texts become ids of a tokenizer"
        )
    if isinstance(part, (list, tuple)):
        return "; lists are taken where they hold numbers, in rows of one length"
    if isinstance(part, np.ndarray):
        return "; make numbers of it, such as array.astype('float32')"
    return ""


def label_cure(label: Any) -> str:
    """What makes a label of it, as a clause with its colon; empty where nothing does."""
    first = label
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    is_text = isinstance(first, np.ndarray) and first.dtype.kind in "SU"
    return f": {_OF_CLASSES}" if is_text or isinstance(first, (str, bytes)) else ""


def is_picture(part: Any) -> bool:
    """Whether it is an image of Pillow, or a list of them."""
    first = part
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    return type(first).__module__.partition(".")[0] == "PIL"


def batch_hint(inputs: Tensor | Mapping[str, Tensor]) -> str:
    """What is wrong with inputs that a model cannot take, as a clause; empty where unclear."""
    for tensor in [inputs] if isinstance(inputs, Tensor) else inputs.values():
        shape = tuple(tensor.shape)
        is_last = len(shape) == _IMAGE_AXES and shape[-1] in _CHANNELS
        if is_last and shape[1] not in _CHANNELS:
            scale = "" if tensor.is_floating_point() else " / 255"
            return (
                "images have their channels first (channels, height, width): "
                f"image.permute(2, 0, 1){scale}"
            )
        if tensor.dtype in (torch.uint8, torch.int8) and len(shape) == _IMAGE_AXES:
            return "images of bytes become numbers that nets take by image / 255"
        if len(shape) > _IMAGE_AXES and shape[1] == 1:
            return "a sample has no axis for the batch: give sample[0]"
    return ""
