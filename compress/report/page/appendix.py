"""The end of a report: training curves, operators, environment, recipe, how to run it again."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from compress.formatting import sanitize
from compress.record import Record, Row
from compress.report.page.markup import DataTable, Markup
from compress.report.page.plots.curves import Curve, curves_of, svg_of

__all__ = [
    "DrawnCurve",
    "environment_data",
    "operators_data",
    "recipe_data",
    "training_data",
    "widths_data",
]

_EPOCHS = 40  # lines that a table of epochs has at most
_OPERATORS = 30


@dataclass(frozen=True)
class DrawnCurve:
    """A curve as a drawing; ``is_part``: whether it is one of several losses."""

    name: str
    drawing: Markup
    is_part: bool


def training_data(record: Record) -> list[dict[str, object]] | None:
    """The curves of every row that was trained; ``None`` where none was."""
    found = [(row, curves_of(row.history)) for row in record.rows]
    trained = [
        {
            "index": row.index,
            "stage": row.stage,
            "curves": [DrawnCurve(each.name, svg_of(each), each.is_part) for each in curves],
            "table": _epochs_table(curves),
        }
        for row, curves in found
        if curves
    ]
    return trained or None


def widths_data(record: Record) -> list[dict[str, object]] | None:
    """Every layer's channels before and after each cut; ``None`` where none was made."""
    pruned = [
        {
            "index": row.index,
            "stage": row.stage,
            "cut": sum(width.after < width.before for width in row.widths),
            "table": _widths_table(row),
        }
        for row in record.rows
        if row.widths
    ]
    return pruned or None


def _widths_table(row: Row) -> DataTable:
    lines = [
        [
            sanitize(width.layer, 60),
            f"{width.before} → {width.after}" if width.after != width.before else "",
            str(width.after),
            sanitize(width.reason, 200),
        ]
        for width in row.widths
    ]
    return DataTable(
        ["layer", "cut", "channels", "why some could not be removed"],
        lines,
        f"Row {row.index}, {sanitize(row.stage, 40)}: channels that each layer gives.",
    )


def _epochs_table(curves: Sequence[Curve]) -> DataTable:
    """The curves of one row by epoch; of many epochs evenly spaced ones, with the last."""
    values = [dict(curve.points) for curve in curves]
    epochs = sorted({epoch for found in values for epoch in found})
    step = -(-len(epochs) // _EPOCHS)
    shown = sorted({*epochs[::step], epochs[-1]})
    lines = [
        [f"{epoch:g}", *(f"{found[epoch]:.4g}" if epoch in found else "-" for found in values)]
        for epoch in shown
    ]
    some = f" {len(shown)} of {len(epochs)} epochs; all are in record.json." if step > 1 else ""
    each = " Each loss is before its weight." if any(curve.is_part for curve in curves) else ""
    return DataTable(
        ["epoch", *(curve.name for curve in curves)],
        lines,
        f"What training reported.{each}{some}",
    )


def operators_data(record: Record) -> DataTable | None:
    """How many nodes of each type every row's file has; ``None`` where no record says."""
    found = {
        f"{row.index} {sanitize(row.stage, 20)}": row.measurements[0].artifact
        for row in record.rows
        if row.measurements and row.measurements[0].artifact.operators
    }
    if not found:
        return None
    totals: dict[str, int] = {}
    for artifact in found.values():
        for name, number in artifact.operators.items():
            totals[name] = totals.get(name, 0) + number
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    lines = [
        [name, *(str(artifact.operators.get(name, 0) or "-") for artifact in found.values())]
        for name in ranked[:_OPERATORS]
    ]
    shares = [f"{100 * artifact.int8_mac_fraction:.0f} %" for artifact in found.values()]
    lines.append(["computed in int8", *shares])
    left = len(ranked) - _OPERATORS
    more = f" {left} rarer types are in record.json." if left > 0 else ""
    return DataTable(
        ["operator", *found], lines, f"Nodes of each type in the file of every row.{more}"
    )


def environment_data(record: Record) -> list[tuple[str, str]]:
    """Every fact that the record keeps about software and machines, by name."""
    return list(_flat(record.environment))


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} › ")
        else:
            yield f"{prefix}{name}", str(value)


def _yaml(recipe: Mapping[str, Any]) -> str:
    """The recipe as YAML; escaped throughout where characters would change how it reads."""
    shown = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=88)
    if any(unicodedata.category(char) == "Cf" for char in shown):
        return yaml.safe_dump(dict(recipe), sort_keys=False, width=88)
    return shown


def recipe_data(record: Record) -> dict[str, object]:
    """The recipe as YAML, and the commands that repeat the run."""
    packages = record.environment.get("packages")
    pins = " ".join(
        f"{sanitize(name, 60)}=={sanitize(version, 40)}"
        for name, version in (packages.items() if isinstance(packages, Mapping) else ())
    )
    commands = [f"pip install {pins}"] if pins else []
    mode = {"quick": " --quick", "strict": " --strict"}.get(record.environment.get("mode", ""), "")
    commands.append(f"compresskit run recipe.yaml{mode}")
    return {"recipe": _yaml(record.recipe), "seed": record.seed, "commands": commands}
