"""A net that makes images, before its teacher: what is found, its folder, and both in words."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from compress.cascade.folder import PROGRAM, written
from compress.cascade.frames import FrameFacts, Looked
from compress.cascade.threshold import NEVER, sent_back
from compress.formatting import duration, sanitize
from compress.overwriting import CASCADE
from compress.text_table import Column, columns_of, text_lines, wrapped

__all__ = ["FrameCascade", "Samples", "frames_bytes", "frames_text", "write_frames"]

Array = np.ndarray[Any, Any]

_PROSE = 100
_SAMPLES = 8
_SCORE = "agreement"


@dataclass(frozen=True)
class FrameCascade:
    """A net, and the teacher for frames that it has not learned what to do with.

    Args:
        run: the name of the recipe.
        target: that the row was measured on.
        row: its number in the record.
        stage: the label of its stage.
        teacher: its name, with its options.
        wanted: what the threshold was chosen for, in words.
        score: that decides: ``agreement``, in dB.
        threshold: frames with less go back; ``None`` where all do.
        at_zero_db: the PSNR that is expected at an agreement of 0 dB.
        for_each_db: more for each dB of agreement.
        validation: the frames that threshold and expectation were chosen on.
        test: what they do on the test frames.
        curve: of the test frames: a share sent back, mean and least PSNR of the others.
        foreign: other pictures.
        net_s: one run of the net, as it was measured; ``None`` where it was not.
        teacher_s: the teacher's time for a frame.
        controls: that the net takes beside the image: ``name``, ``low``, ``high``, ``default``.
        notes: what is to be known.
        file: of the net, in the folder.
        files: beside this one, with their checksums.
    """

    run: str
    target: str
    row: int
    stage: str
    teacher: str
    wanted: str
    threshold: float | None
    at_zero_db: float
    for_each_db: float
    validation: FrameFacts
    test: FrameFacts
    curve: list[tuple[float, float, float]]
    foreign: list[FrameFacts]
    net_s: float | None
    teacher_s: float | None
    controls: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    score: str = _SCORE
    file: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def mean_s(self) -> float | None:
        """Mean seconds of a test frame: two runs of the net, and the share's part of the teacher's.

        ``None`` where one of these was not measured.
        """
        if self.net_s is None or self.teacher_s is None:
            return None
        return 2 * self.net_s + self.test.share * self.teacher_s


@dataclass(frozen=True)
class _File:
    kind: Literal["compresskit-cascade"]
    schema: Literal[1]
    files: dict[str, str]
    frames: FrameCascade


@dataclass(frozen=True)
class Samples:
    """Frames that lie in the folder, with what is found of them.

    Args:
        images: ``(n, 3, height, width)`` in bytes.
        looked: what was found of them.
    """

    images: Array
    looked: Looked


def frames_bytes(found: FrameCascade) -> bytes:
    """The content of ``cascade.json``."""
    whole = _File(CASCADE, 1, found.files, found)
    return TypeAdapter(_File).dump_json(whole, indent=1) + b"\n"


def write_frames(found: FrameCascade, model: Path, samples: Samples, folder: Path) -> FrameCascade:
    """Write what was found to a folder of its own, with the net and what runs it.

    Args:
        found: what is said of it.
        model: the net's file.
        samples: frames that the runner is tried on.
        folder: is made, or has an earlier cascade, which is replaced.

    Returns:
        The same, with the files.

    Raises:
        RecipeError: something is in the folder that this tool did not write.
        StorageError: the disk refused; what was there before can be written over again.
    """
    with written(folder) as to_be:
        says = {"recipe": found.run, "row": str(found.row)}
        name = to_be.add_model(model, "student", says)
        shutil.copyfile(PROGRAM / "frames.py", to_be.draft / "run.py")
        (to_be.draft / "samples.npz").write_bytes(_samples(found, samples))
        found = replace(found, file=name, files=to_be.files())
        to_be.put(found.files, frames_bytes(found))
    return found


def _samples(found: FrameCascade, samples: Samples) -> bytes:
    count = len(samples.images)
    places = np.unique(np.linspace(0, count - 1, min(count, _SAMPLES)).astype(int))
    looked = samples.looked
    threshold = float("inf") if found.threshold is None else found.threshold
    arrays = {
        "image": samples.images[places],
        "agreement": looked.agreement_db[places],
        "sent_back": sent_back(looked.agreement_db[places], threshold),
        **{f"control/{name}": values[places] for name, values in looked.controls.items()},
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def frames_text(found: FrameCascade) -> str:
    """All of it, as lines for a terminal."""
    run, target, stage = (sanitize(one, 40) for one in (found.run, found.target, found.stage))
    lines = [
        f"{run} on {target}: row {found.row} ({stage}) answers, its teacher where it is not sure",
        "",
    ]
    for sentence in _sentences(found):
        lines += wrapped(sentence, _PROSE)
    lines += ["", "The curve on the test frames, PSNR against the teacher of what the net answers"]
    lines += ["", *text_lines(_curve(found)), ""]
    lines += ["Frames", "", *text_lines(_frames(found)), ""]
    for note in found.notes:
        lines += wrapped(f"Note: {note}.", _PROSE)
    return "\n".join(lines) + "\n"


def _sentences(found: FrameCascade) -> Iterator[str]:
    test, on = found.test, found.validation
    sign = "-" if found.for_each_db < 0 else "+"
    yield (
        "How sure the net is: its image of a frame, moved by a few pixels, beside its image of the "
        f"moved frame, in dB. {_predicts(test)}"
    )
    yield (
        f"A PSNR of {found.at_zero_db:.1f} {sign} {abs(found.for_each_db):.2f} times that is "
        f"expected, from {on.frames} validation frames of {on.photographs} photographs; on test "
        f"frames it is off by {test.off_db:.1f} dB (root mean square)."
    )
    threshold = "" if found.threshold in (None, NEVER) else f", {found.threshold:.2f} dB,"
    yield (
        f"The threshold{threshold} was chosen on the validation frames for {found.wanted}: "
        f"{100 * on.share:.1f} % of them go back, and {100 * test.share:.1f} % of "
        "the test frames."
    )
    if found.net_s is None or found.teacher_s is None or found.mean_s is None:
        return
    yield (
        f"Every frame takes the net twice ({duration(found.net_s)} a run), what goes back the "
        f"teacher, too ({duration(found.teacher_s)}): {duration(found.mean_s)} on average over "
        f"the test frames, {100 * found.mean_s / found.teacher_s:.2g} % of the teacher's."
    )


def _predicts(test: FrameFacts) -> str:
    of = f"{test.frames} test frames of {test.photographs} photographs"
    if test.correlation is None:
        return f"On {of} it cannot be ranked against the PSNR to the teacher."
    if test.ci95 is None:
        return (
            f"Its rank correlation with the PSNR to the teacher is {test.correlation:.2f} ({of})."
        )
    low, high = test.ci95
    found = f"{test.correlation:.2f} [{low:.2f}, {high:.2f}] over {of}"
    if low > 0:
        return f"It predicts the PSNR to the teacher: rank correlation {found}."
    return f"It is not shown to predict the PSNR to the teacher: rank correlation {found}."


def _curve(found: FrameCascade) -> list[Column]:
    rows = [(f"{100 * back:.1f} %", f"{m:.2f}", f"{least:.2f}") for back, m, least in found.curve]
    return columns_of(rows, ("sent back", "mean, dB", "least, dB"), left=())


def _frames(found: FrameCascade) -> list[Column]:
    rows = [
        (
            sanitize(each.name, 40),
            str(each.frames),
            "-" if each.correlation is None else f"{each.correlation:.2f}",
            f"{100 * each.share:.1f} %",
            f"{each.psnr_db:.2f} ({each.worst_db:.2f})",
            _or_none(each.kept_db, each.worst_kept_db),
            f"{each.off_db:.1f}",
        )
        for each in (found.validation, found.test, *found.foreign)
    ]
    heads = ("", "frames", "rank corr.", "sent back", "all, dB (least)", "answered", "off by, dB")
    return columns_of(rows, heads)


def _or_none(mean: float | None, least: float | None) -> str:
    return "-" if mean is None or least is None else f"{mean:.2f} ({least:.2f})"
