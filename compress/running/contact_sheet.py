"""The contact sheet of a run whose rows make images: what a reader sees before any number.

A few images of the test split, what the teacher makes of them and what the file of each row does,
and below each how far it is from the teacher's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.effects.contact_sheet import Strip, drawn_sheet
from compress.errors import CompressError
from compress.events import Notice
from compress.formatting import score
from compress.io.atomic import write_atomically
from compress.measure.controls import control_names, image_name
from compress.measure.named_arrays import Array
from compress.record import Row
from compress.record_images import CONTACT_SHEET, ContactSheet
from compress.running.run_state import RunState
from compress.running.split_arrays import SplitArrays

__all__ = ["add_contact_sheet"]

_IMAGES = 3
_MOST_ROWS = 6
_AMPLIFICATION = 4.0
_MOST_BYTES = 1 << 20
_CHANNELS = (1, 3)
# Layout, fonts and amplification are of this form; another one is made again.
_VERSION = 1


@dataclass(frozen=True)
class _Samples:
    """Test samples, ``(n, channels, height, width)`` from 0 to 1, and their controls."""

    inputs: dict[str, Array]
    image: str
    wanted: Array
    controls: dict[str, float]


def add_contact_sheet(run: RunState) -> None:
    """Write ``contact-sheet.png`` into the folder of a finished run, and say so in its record.

    Nothing is written where rows make no images of images with pixels from 0 to 1, or where the
    data have no labels. A sheet that cannot be made stops no run: a notice says why.

    Raises:
        StorageError: the disk refused.
    """
    if not run.evaluator.makes_images:
        return
    samples = _samples(SplitArrays.of(run.job.task.test))
    if samples is None:
        return
    own = [row for row in run.record.rows if row.index >= run.record.baseline]
    rows = own if len(own) <= _MOST_ROWS else [own[0], *own[1 - _MOST_ROWS :]]
    made_from = _digest(run, rows, samples)
    place, known = run.job.folder.root / CONTACT_SHEET, None
    if run.earlier is not None:
        known = run.earlier.contact_sheet
    if known is not None and known.made_from == made_from and _sha256(place) == known.sha256:
        run.record.contact_sheet = known
        return
    try:
        content = _drawn(run, rows, samples)
    except CompressError as error:
        run.job.emit_and_log(Notice(f"there is no contact sheet: {error}"))
        return
    write_atomically(place, content)
    run.record.contact_sheet = ContactSheet(
        sha256=hashlib.sha256(content).hexdigest(),
        target=run.evaluator.targets[0].name,
        rows=[row.index for row in rows],
        images=len(samples.wanted),
        controls=samples.controls,
        amplification=_AMPLIFICATION,
        made_from=made_from,
    )


def _samples(split: SplitArrays) -> _Samples | None:
    """Evenly spaced samples with all controls as high as they are in the split."""
    labels = split.labels
    name = None if labels is None else image_name(split.inputs, labels)
    if name is None or not isinstance(labels, np.ndarray) or labels.shape[1] not in _CHANNELS:
        return None
    for pixels in (labels, split.inputs[name]):
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            return None
    names = control_names(split.inputs, name)
    highest = {each: split.inputs[each].max() for each in names}
    fitting = np.ones(len(labels), bool)
    for each in names:
        fitting &= split.inputs[each][:, 0] == highest[each]
    # Controls that are drawn at random need not be at their ends in one sample.
    places = np.flatnonzero(fitting if fitting.any() else np.ones(len(labels), bool))
    count = min(_IMAGES, len(places))
    # The middle of each part of the split: its ends may be of one photograph.
    places = places[((np.arange(count) + 0.5) * len(places) / count).astype(int)]
    inputs = {key: array[places] for key, array in split.inputs.items()}
    controls = {key: float(f"{highest[key]:.6g}") for key in names if fitting.any()}
    return _Samples(inputs, name, labels[places], controls)


def _drawn(run: RunState, rows: Sequence[Row], samples: _Samples) -> bytes:
    inputs = {row.index: row for row in run.inputs}
    made = []
    for row in rows:
        found = run.evaluator.images(inputs[row.index], samples.inputs)
        assert isinstance(found, np.ndarray)
        made.append(found.clip(0, 1))
    heads = [["input", *_at(samples.controls)], ["teacher"], *(_head(run, row) for row in rows)]
    says = ["difference to", f"the teacher x {_AMPLIFICATION:g}", "(black: none)"]
    strips = []
    for number, (image, wanted) in enumerate(
        zip(samples.inputs[samples.image], samples.wanted, strict=True)
    ):
        own = [each[number] for each in made]
        strips.append(Strip([_pixels(each) for each in (image, wanted, *own)]))
        differences = [_pixels(_AMPLIFICATION * abs(each - wanted)) for each in own]
        strips.append(Strip([None, None, *differences], says))
    return drawn_sheet(heads, strips, _MOST_BYTES)


def _at(controls: dict[str, float]) -> list[str]:
    return [", ".join(f"{name} {value:g}" for name, value in controls.items())] if controls else []


def _head(run: RunState, row: Row) -> list[str]:
    found = row.on(run.evaluator.targets[0].name)
    if found is None or found.accuracy is None:
        return [f"{row.index} {row.stage}"]
    metric = run.record.task.metric
    return [f"{row.index} {row.stage}", f"{metric} {score(metric, found.accuracy.value)}"]


def _pixels(image: Array) -> Array:
    """``(channels, height, width)`` from 0 to 1 as ``(height, width, 3)`` in bytes."""
    whole = np.repeat(image, 3 // len(image), axis=0).transpose(1, 2, 0)
    found: Array = np.rint(whole.clip(0, 1) * 255).astype(np.uint8)
    return found


def _digest(run: RunState, rows: Sequence[Row], samples: _Samples) -> str:
    target = run.evaluator.targets[0].name
    digest = hashlib.blake2b(f"{_VERSION} {run.record.task.metric} {target}".encode())
    for row in rows:
        found = row.on(target)
        file = "" if found is None else found.artifact.sha256
        digest.update(f"{row.index} {row.stage} {_head(run, row)} {file}\n".encode())
    for name, array in samples.inputs.items():
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(samples.wanted).tobytes())
    return digest.hexdigest()[:32]


def _sha256(path: Path) -> str | None:
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return None
