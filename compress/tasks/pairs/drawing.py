"""What a net gets: parts of photographs, changed as a camera's images differ, and controls.

Everything is drawn from a seed, the photograph and a number, so that any pair can be made again by
itself. Validation and test have parts as they are; only what is trained on is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.effects.reading import part_at_size

__all__ = ["CONTROL_STEPS", "VERSION", "drawn_controls", "drawn_image"]

Array = np.ndarray[Any, Any]
_Random = np.random.RandomState  # whose stream is frozen for good (NumPy Enhancement Proposal 19)

#: Part of what pairs depend on.
VERSION = 1
#: Of each control in validation and test: its ends and what lies evenly between.
CONTROL_STEPS = 5

# The chance of each change of a training image, and how large it may be.
_COLORED, _GAIN, _GAMMA = 0.5, 0.25, 0.3
_NOISY, _NOISE = 0.3, 12.0
_OCCLUDED, _LEAST, _LARGEST = 0.3, 0.15, 0.45
# Of controls in training, the share that is at an end of its range.
_AT_AN_END = 0.2


def drawn_image(pixels: Array, size: int, seed: Sequence[int], *, is_training: bool) -> Array:
    """A square part of a photograph, ``(size, size, 3)`` in bytes.

    Args:
        pixels: of the photograph, ``(height, width, 3)``.
        size: of the part, in pixels.
        seed: numbers that say which part.
        is_training: whether it is changed: in color, by noise, and by what stands before it.
    """
    random = _Random(list(seed))
    shorter = min(pixels.shape[:2])
    # From the whole height of the photograph down to its own pixels.
    side = int(random.randint(min(size, shorter), shorter + 1))
    top = int(random.randint(pixels.shape[0] - side + 1))
    left = int(random.randint(pixels.shape[1] - side + 1))
    image = part_at_size(pixels, left, top, side, size)
    return _changed(image, random) if is_training else image


def drawn_controls(
    ranges: Mapping[str, tuple[float, float]],
    seed: Sequence[int],
    number: int,
    *,
    is_training: bool,
) -> dict[str, float]:
    """A value of each control: at random in training, else one of five that lie evenly.

    Args:
        ranges: of the controls, by name.
        seed: numbers that say which values.
        number: of the pair, which goes through the five.
        is_training: whether it is for training.
    """
    random = _Random([*seed, 1])
    found = {}
    for name, (low, high) in ranges.items():
        share = float(random.uniform())
        if not is_training:
            share = number % CONTROL_STEPS / (CONTROL_STEPS - 1)
            number //= CONTROL_STEPS
        elif random.uniform() < _AT_AN_END:
            share = round(share)
        found[name] = low + share * (high - low)
    return found


def _changed(image: Array, random: _Random) -> Array:
    found = image[:, ::-1] if random.uniform() < 0.5 else image
    values = found.astype(np.float64)
    if random.uniform() < _COLORED:
        gamma = np.exp(random.uniform(-_GAMMA, _GAMMA))
        gains = 1 + random.uniform(-_GAIN, _GAIN, 3)
        values = 255 * (values / 255) ** gamma * gains
    if random.uniform() < _OCCLUDED:
        values = _occluded(values, random)
    if random.uniform() < _NOISY:
        values = values + random.normal(0, random.uniform(0, _NOISE), values.shape)
    changed: Array = np.rint(values.clip(0, 255)).astype(np.uint8)
    return changed


def _occluded(values: Array, random: _Random) -> Array:
    """With a rectangle of one color before it."""
    height, width = values.shape[:2]
    high, wide = (random.uniform(_LEAST, _LARGEST, 2) * (height, width)).astype(int)
    top, left = random.randint(height - high + 1), random.randint(width - wide + 1)
    found = values.copy()
    found[top : top + high, left : left + wide] = random.uniform(0, 255, 3)
    return found
