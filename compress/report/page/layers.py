"""The block of layers on the page of a run, of what ``compresskit sensitivity RUN`` found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.errors import RecordError
from compress.formatting import sanitize
from compress.layer_facts import LAYERS_NAME, Change, Sensitivity, read_sensitivity
from compress.record import Record
from compress.report.figures.layers_data import layers_info
from compress.report.page.markup import DataTable
from compress.report.page.plots.layers import layers_svg

__all__ = ["layers_data"]


def layers_data(record: Record, folder: Path) -> dict[str, object] | None:
    """What stands on the page; ``None`` where nothing lies in the folder of the run.

    What cannot be read, or is of another model than the run's, is a sentence in its place.
    """
    try:
        found = read_sensitivity(folder)
    except RecordError as error:
        return {"problem": str(error)}
    if found is None:
        return None
    row = next((row for row in record.rows if row.index == found.row), None)
    if row is None or row.fingerprint != found.fingerprint:
        return {
            "problem": f"{LAYERS_NAME} is about another model than row {found.row} of this run: "
            "run compresskit sensitivity again."
        }
    if not found.layers:
        return {"problem": f"{LAYERS_NAME} names no layers."}
    info = layers_info(found)
    return {
        "problem": "",
        "row": f"{row.index} ({sanitize(row.stage, 60)})",
        "subtitle": info.subtitle,
        "caption": info.caption,
        "series": info.panels[0].series,
        "drawing": layers_svg(info),
        "choices": found.choices,
        "table": _table(found),
    }


def _table(found: Sensitivity) -> DataTable:
    names = list(found.layers[0].formats)
    heads = ["layer", "class", "parameters"]
    for name in [*names, "a tenth cut"]:
        heads += [f"{sanitize(name, 40)}: disturbance", "lost", "KiB won"]
        heads += ["ms won"] if found.timed is not None and name in names else []
    lines = []
    for one in found.layers:
        line = [sanitize(one.layer, 80), sanitize(one.kind, 40), f"{one.parameters:,}"]
        for name in names:
            line += _cells(one.formats.get(name), timed=found.timed is not None)
        lines.append([*line, *_cells(one.cut, timed=False)])
    metric = sanitize(found.metric, 40)
    return DataTable(heads, lines, f"Each layer changed by itself; lost: of {metric}.")


def _cells(change: Change | None, *, timed: bool) -> Sequence[str]:
    if change is None:
        return ["-"] * (4 if timed else 3)
    cells = [f"{change.error:.2g}", f"{change.lost:+.4f}", f"{change.saved_bytes / 1024:,.1f}"]
    if timed and change.saved_s is not None and change.saved_s_ci95 is not None:
        low, high = (1e3 * end for end in change.saved_s_ci95)
        cells.append(f"{1e3 * change.saved_s:+.3f} [{low:+.3f}, {high:+.3f}]")
    elif timed:
        cells.append("-")
    return cells
