"""Compare: any ONNX files side by side, by the protocol that recipes are measured with.

The first file is what the others are compared with. A file that cannot be measured is a row that
says why, and the others are measured nevertheless.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from compress.backends import ONNX
from compress.measure.input_sizes import Fit, Given, alike, fits, unlike
from compress.measure.quantities import QUANTITIES
from compress.measure.target import Array, BenchmarkConfig, Failure, Mode, Shapes, Target, Timing
from compress.record import Energy, Latency, MeasuredQuantity, Memory, Speedup
from compress.text_table import Column, columns_of, text_lines

__all__ = ["ComparedModel", "compare", "session_table", "table"]


@dataclass(frozen=True)
class ComparedModel:
    """One file. Either ``error`` says why it was not measured, or the facts are there.

    ``shapes`` are those of its inputs, by name. There is no ``speedup`` where the file that the
    others are compared with had inputs of other sizes; ``warnings`` say so.
    """

    name: str
    bytes: int | None
    latency: Latency | None = None
    speedup: Speedup | None = None
    memory: Memory | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    energy: Energy | None = None
    shapes: Shapes = field(default_factory=dict)
    quantities: Mapping[str, MeasuredQuantity] = field(default_factory=dict)


def compare(
    models: Sequence[Path],
    target: Target,
    mode: Mode = "default",
    *,
    inputs: Mapping[str, Array] | None = None,
    given: Given | None = None,
    seed: int = 0,
    raw: Path | None = None,
) -> list[ComparedModel]:
    """Measure ``models`` against the first one; one row each, in order.

    ``inputs`` are samples, on the first axis. Without them each model gets inputs drawn from
    ``seed`` to its own signature: standard normal floats, and integers in a small range. Early
    exits and denormal numbers may make real data faster or slower than that. Sizes that a file
    leaves open are those ``given``, else those of another file, else guessed; see :mod:`.sizes`.

    Raises:
        RecipeError: something is ``given`` of inputs that no file has.
        MeasurementError: the target cannot measure anything.
        StorageError: ``raw`` cannot be written.
    """
    given = given or Given()
    found = {} if inputs else fits(models, target, given)
    shapes = {model: found[model].shapes if model in found else given.shapes for model in models}
    config = BenchmarkConfig(inputs or {}, mode, seed, shapes, given.values)
    outcomes = target.measure(models, config, raw)
    rows = [
        _row(name, model, outcome, found.get(model), given)
        for name, model, outcome in zip(short_names(models), models, outcomes, strict=True)
    ]
    return _fairly_compared(rows, [found.get(model) for model in models])


def _row(
    name: str, model: Path, outcome: Timing | Failure, fit: Fit | None, given: Given
) -> ComparedModel:
    size = model_bytes(model)
    if isinstance(outcome, Failure):
        error = fit.error if fit and fit.error else outcome.error.removeprefix(f"{model}: ")
        return ComparedModel(name, size, error=error)
    return ComparedModel(
        name,
        size,
        outcome.latency,
        outcome.speedup,
        outcome.memory,
        (*(fit.notes(given) if fit else ()), *outcome.warnings),
        energy=outcome.energy,
        shapes=outcome.shapes,
        quantities=outcome.quantities,
    )


def _fairly_compared(
    rows: Sequence[ComparedModel], found: Sequence[Fit | None]
) -> list[ComparedModel]:
    """No ratio of files whose inputs have other sizes than those of the baseline."""
    baselines = (
        i for i, row in enumerate(rows) if row.speedup and row.speedup.verdict == "baseline"
    )
    first = next(baselines, 0)
    fair = []
    for row, fit in zip(rows, found, strict=True):
        if row.error is None and not alike(row.shapes, rows[first].shapes):
            some_open = any(each.is_open for each in (fit, found[first]) if each)
            note = unlike(row.shapes, rows[first].name, rows[first].shapes, some_open)
            row = replace(row, speedup=None, warnings=(note, *row.warnings))
        fair.append(row)
    return fair


def short_names(models: Sequence[Path]) -> list[str]:
    """The ends of the paths that tell them apart; a file given twice keeps one name."""
    paths = [model.absolute() for model in models]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def model_bytes(model: Path) -> int | None:
    """Bytes of a model with the external data files that it names; ``None`` without a file."""
    if not os.path.isfile(model):  # of paths that cannot be looked at, too
        return None
    return sum(part.stat().st_size for part in ONNX.files(model))


_MOST_SHAPES = 3
_HEAD = (
    "model",
    "KiB",
    "p50 ms",
    "95 % interval",
    "p90 ms",
    "speed-up",
    "95 % interval",
    "verdict",
    "peak MiB",
    "inputs",
)


def table(rows: Sequence[ComparedModel]) -> str:
    """Plain text: a line per model, then what went wrong and what to be careful with.

    ``peak MiB`` is memory above the runtime's own. Energy has a column where there was a sensor.
    """
    return _text(rows, _notes(rows, "all"))


def session_table(sessions: Mapping[str, Sequence[ComparedModel]]) -> str:
    """As :func:`table`, of several sessions by their name.

    What is said of every model of a session is said once, under the name of the session.
    """
    notes = [note for name, rows in sessions.items() for note in _notes(rows, name)]
    return _text([row for rows in sessions.values() for row in rows], notes)


def _text(rows: Sequence[ComparedModel], notes: Sequence[str]) -> str:
    *first, inputs = columns_of(map(_cells, rows), _HEAD, left=(0, -1))
    lines = text_lines([*first, *_declared(rows), inputs], rule=True)
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _declared(rows: Sequence[ComparedModel]) -> Iterator[Column]:
    """A column for each quantity without one of its own here that something has measured."""
    for quantity in QUANTITIES:
        found = [quantity.in_session(row) for row in rows]
        if quantity.column is None or quantity.column.always or not any(found):
            continue
        cell = quantity.column.cell or _ms
        head = f"{quantity.column.heading} {quantity.column.unit or 'ms'}"
        yield Column(head, "", tuple("-" if each is None else cell(each.value) for each in found))


def _notes(rows: Sequence[ComparedModel], everything: str) -> list[str]:
    measured = [row for row in rows if row.error is None]
    # What is said of every model is about the machine: once is enough.
    shared = [note for note in measured[0].warnings if _in_all(note, measured)] if measured else []
    notes = [f"{row.name}: {row.error}" for row in rows if row.error]
    for row in measured:
        notes += [f"{row.name}: {note}" for note in row.warnings if note not in shared]
    return list(dict.fromkeys([*notes, *(f"{everything}: {note}" for note in shared)]))


def _in_all(note: str, rows: Sequence[ComparedModel]) -> bool:
    return len(rows) > 1 and all(note in row.warnings for row in rows)


def _cells(row: ComparedModel) -> tuple[str, ...]:
    size = "-" if row.bytes is None else f"{row.bytes / 1024:.1f}"
    if row.latency is None:
        return (row.name, size, "-", "-", "-", "-", "-", "failed", "-", "-")
    p90_s, memory = row.latency.p90_s, row.memory
    ratio = ("-", "-", "not compared")
    if row.speedup:
        ends = f"{row.speedup.ci95[0]:.3f} to {row.speedup.ci95[1]:.3f}"
        ratio = (f"{row.speedup.value:.3f}", ends, row.speedup.verdict)
    return (
        row.name,
        size,
        _ms(row.latency.p50_s),
        f"{_ms(row.latency.ci95_p50_s[0])} to {_ms(row.latency.ci95_p50_s[1])}",
        "-" if p90_s is None else _ms(p90_s),
        *ratio,
        "-" if memory is None else f"{memory.model_peak_bytes / 2**20:.1f}",
        _inputs(row.shapes),
    )


def _inputs(shapes: Shapes) -> str:
    """Sizes without names, as in ``1x512, 2 times 2x1x128``."""
    counts = Counter("x".join(map(str, sizes)) or "scalar" for sizes in shapes.values())
    parts = [f"{n} times {sizes}" if n > 1 else sizes for sizes, n in counts.items()]
    return ", ".join([*parts[:_MOST_SHAPES], *(["…"] if parts[_MOST_SHAPES:] else [])]) or "-"


def _ms(seconds: float) -> str:
    """Milliseconds with three significant figures, never in exponents."""
    return f"{1e3 * seconds:.3f}" if seconds < 1e-2 else f"{1e3 * seconds:.1f}"
