"""The end of a report: training curves, operators, environment, recipe, how to run it again."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import yaml

from compress.formatting import sanitize
from compress.record import Record
from compress.report.page.curves import Curve, curves_of, svg_of
from compress.report.page.markup import data_table, scroller, text

__all__ = ["environment_section", "operators_section", "recipe_section", "training_section"]
__all__ += ["widths_section"]

_EPOCHS = 40  # lines that a table of epochs has at most
_OPERATORS = 30


def training_section(record: Record) -> str:
    """The curves of every row that was trained; empty where none was."""
    blocks = []
    for row in record.rows:
        curves = curves_of(row.history)
        drawn = "".join(_figure(curve) for curve in curves)
        if drawn:
            blocks.append(
                f'<h3>Row {row.index}: {text(row.stage, 80)}</h3><div class="curves">{drawn}</div>'
                f"<details><summary>The numbers</summary>{_epochs_table(curves)}</details>"
            )
    if not blocks:
        return ""
    return f"<section><h2>Training curves</h2>{''.join(blocks)}</section>"


def widths_section(record: Record) -> str:
    """Every layer's channels before and after each cut; empty where none was made."""
    blocks = []
    for row in record.rows:
        if not row.widths:
            continue
        lines = [
            [
                sanitize(width.layer, 60),
                f"{width.before} → {width.after}" if width.after != width.before else "",
                str(width.after),
                sanitize(width.reason, 200),
            ]
            for width in row.widths
        ]
        table = data_table(
            ["layer", "cut", "channels", "why some could not be removed"],
            lines,
            f"Row {row.index}, {sanitize(row.stage, 40)}: channels that each layer gives.",
        )
        cut = sum(width.after < width.before for width in row.widths)
        blocks.append(
            f"<details><summary>Row {row.index}, {text(row.stage, 80)}: {cut} of "
            f"{len(row.widths)} layers were cut</summary>{table}</details>"
        )
    if not blocks:
        return ""
    return f"<section><h2>Pruned layers</h2>{''.join(blocks)}</section>"


def _figure(curve: Curve) -> str:
    note = " <small>before its weight</small>" if curve.is_part else ""
    caption = f"<figcaption>{text(curve.name)}{note}</figcaption>"
    return f"<figure>{caption}{svg_of(curve)}</figure>"


def _epochs_table(curves: Sequence[Curve]) -> str:
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
    return data_table(
        ["epoch", *(curve.name for curve in curves)],
        lines,
        f"What training reported.{each}{some}",
    )


def operators_section(record: Record) -> str:
    """How many nodes of each type every row's file has; empty where no record says."""
    found = {
        f"{row.index} {sanitize(row.stage, 20)}": row.measurements[0].artifact
        for row in record.rows
        if row.measurements and row.measurements[0].artifact.operators
    }
    if not found:
        return ""
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
    table = data_table(
        ["operator", *found], lines, f"Nodes of each type in the file of every row.{more}"
    )
    return f"<section><h2>Operators</h2>{table}</section>"


def environment_section(record: Record) -> str:
    """Every fact that the record keeps about software and machines."""
    lines = "".join(
        f'<tr><th scope="row">{text(name, 120)}</th><td class="left">{text(value, 600)}</td></tr>'
        for name, value in _flat(record.environment)
    )
    return (
        "<section><h2>Environment</h2><details><summary>What the numbers were measured with"
        f"</summary>{scroller('Environment')}"
        '<table class="plain"><caption>Software and machines.</caption><tbody>'
        f"{lines}</tbody></table></div></details></section>"
    )


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


def recipe_section(record: Record) -> str:
    """The recipe as YAML, and the commands that repeat the run."""
    recipe = _yaml(record.recipe)
    packages = record.environment.get("packages")
    pins = " ".join(
        f"{sanitize(name, 60)}=={sanitize(version, 40)}"
        for name, version in (packages.items() if isinstance(packages, Mapping) else ())
    )
    commands = [f"pip install {pins}"] if pins else []
    mode = {"quick": " --quick", "strict": " --strict"}.get(record.environment.get("mode", ""), "")
    commands.append(f"compresskit run recipe.yaml{mode}")
    return (
        "<section><h2>Recipe</h2><p>As it ran, with every default filled in.</p>"
        f'<pre tabindex="0"><code>{escape(recipe)}</code></pre>'
        "<h2>How to reproduce</h2><p>Save the recipe above as <code>recipe.yaml</code>; the seed "
        f"is {record.seed}. Fingerprints of rows repeat on the same package versions; times and "
        "sizes of memory are the device's.</p>"
        f'<pre tabindex="0"><code>{escape(chr(10).join(commands))}</code></pre></section>'
    )
