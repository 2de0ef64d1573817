"""What a record has of rows that make images: how they follow controls, and a sheet of pictures.

Blocks of ``record.json`` (:mod:`compress.record`).
"""

from __future__ import annotations

from compress.record_scores import Accuracy, RecordFacts

__all__ = ["CONTACT_SHEET", "ContactSheet", "ControlValue"]

#: The file in the run folder.
CONTACT_SHEET = "contact-sheet.png"


class ControlValue(RecordFacts):
    """How a row follows one value of a control: PSNR in dB, means over the test samples with it.

    ``to_teacher`` is of its images against the labels, and ``to_input`` against the images that
    came in; ``teacher_to_input`` is of the labels against these. Equal images have 60 dB.
    """

    value: float
    to_teacher: Accuracy
    to_input: Accuracy
    teacher_to_input: float


class ContactSheet(RecordFacts):
    """The pictures in ``contact-sheet.png``: a few test samples as ``rows`` make them.

    ``images`` of the test split, with ``controls`` at these values, on ``target``. Differences to
    the labels are ``amplification`` times as large as they are. ``sha256`` is that of the file, and
    ``made_from`` a digest of the rows' files and of the samples.
    """

    sha256: str
    target: str
    rows: list[int]
    images: int
    controls: dict[str, float]
    amplification: float
    made_from: str
