"""A sustained run on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.formatting import duration, energy
from compress.measure.input_sizes import words
from compress.measure.outcomes import blocks
from compress.measure.sustained import Slot, Sustained
from compress.measure.target import Failure
from compress.text_table import Column, text_lines

__all__ = ["text"]

_ROWS = 10


def text(found: Sequence[tuple[str, Sustained | Failure]]) -> str:
    """Each model's throughput over time, in ten pieces; then a sentence for each model."""
    measured = [each for _, each in found if isinstance(each, Sustained)]
    notes = [each.summary for each in measured]
    if len(measured) > 1:
        notes.append("The models ran in this order: each but the first began on a warm machine.")
    return "\n".join([*blocks(found, _model), *notes]) + "\n"


def _model(own: Sustained) -> str:
    parts = np.array_split(np.arange(len(own.slots)), min(_ROWS, len(own.slots)))
    pieces = [Slot.joined(own.slots[part[0] : part[-1] + 1]) for part in parts]
    columns = {
        "until": [f"{piece.end_s:.0f} s" for piece in pieces],
        "runs/s": [f"{piece.per_s:.4g}" for piece in pieces],
        "of first": [f"{100 * piece.per_s / own.first_per_s:.1f} %" for piece in pieces],
        "MHz": [_scaled(piece.clock_khz, 1000) for piece in pieces],
        "°C": [_scaled(piece.temperature_mc, 1000) for piece in pieces],
        "W": [_power(piece) for piece in pieces],
        "throttled": ["yes" if piece.throttled else "" for piece in pieces],
    }
    lines = text_lines(
        [Column(name, "", tuple(cells)) for name, cells in columns.items() if any(cells)]
    )
    batch = f" of {own.batch} samples" if own.batch > 1 else ""
    head = [f"{own.name}", f"  {duration(own.seconds)} back to back, runs{batch}"]
    if own.inference_j is not None:
        head[1] += f"; {energy(own.inference_j)} a run, from {own.energy_source}"
    inputs = f"inputs: {words(own.shapes)}" if own.shapes else "no inputs"
    head += [f"  {inputs}", *(f"  note: {note}" for note in own.notes)]
    return "\n".join([*head, *(f"  {line}" for line in lines), ""])


def _scaled(value: int | None, divisor: int) -> str:
    return "" if value is None else f"{value / divisor:.0f}"


def _power(piece: Slot) -> str:
    return "" if piece.energy_j is None else f"{piece.energy_j / piece.busy_s:.2f}"
