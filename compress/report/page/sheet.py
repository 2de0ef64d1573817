"""The contact sheet on the page of a run: a picture in the page itself, with its words."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from compress.errors import RecordError
from compress.formatting import sanitize, score
from compress.io.files import read_bounded
from compress.record import Record
from compress.record_images import CONTACT_SHEET, ContactSheet
from compress.report.page.markup import png_image

__all__ = ["sheet_data"]

_MOST_BYTES = 2 << 20


def sheet_data(record: Record, folder: Path) -> dict[str, object] | None:
    """What stands on the page; ``None`` where the record has no sheet.

    A file that is gone, or is another than the record's, is a sentence in its place.
    """
    found = record.contact_sheet
    if found is None:
        return None
    again = "run the recipe again, which makes it"
    try:
        content = read_bounded(folder / CONTACT_SHEET, _MOST_BYTES, RecordError)
    except RecordError as error:
        return {"problem": f"{str(error).rstrip('.')}; {again}."}
    if hashlib.sha256(content).hexdigest() != found.sha256:
        return {"problem": f"{CONTACT_SHEET} is not the picture of this record; {again}."}
    picture = png_image(base64.b64encode(content).decode(), _alt(record, found))
    return {"problem": "", "picture": picture, "caption": _caption(found)}


def _alt(record: Record, found: ContactSheet) -> str:
    metric, columns = record.task.metric, []
    for row in record.rows:
        if row.index in found.rows:
            measured = row.on(found.target)
            known = measured.accuracy if measured is not None else None
            said = "" if known is None else f" ({metric} {score(metric, known.value)})"
            columns.append(f"row {row.index} {sanitize(row.stage, 40)}{said}")
    return (
        f"Contact sheet of {found.images} test images. Columns: input, teacher, "
        f"{', '.join(columns)}; below each image of a row its difference to the teacher's, "
        f"{found.amplification:g} times as large."
    )


def _caption(found: ContactSheet) -> str:
    at = ", ".join(f"{sanitize(name, 40)} {value:g}" for name, value in found.controls.items())
    return (
        f"{found.images} images of the test split{f' at {at}' if at else ''}, as the file of each "
        "row makes them; the numbers above are means over the whole split. Differences to the "
        f"teacher's image are {found.amplification:g} times as large as they are, and black where "
        "there are none."
    )
