"""The model card: what a shipped row is, how to run it, its numbers, its origin and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.formatting import duration, sanitize, score, size
from compress.pareto import readings
from compress.record import Record, Row
from compress.report.page.details import row_facts
from compress.report.provenance import caption
from compress.report.sentences import status_words
from compress.ship.facts import output_rules
from compress.ship.request import Choice
from compress.text_table import Column, markdown_list, markdown_table

__all__ = ["card"]

_CLASSES_SHOWN = 30
#: Facts of a row that are about making it, and not about what is shipped.
_LEFT_OUT = ("Made from", "Took", "Fingerprint", "SHA-256", "Kind")

_HOW: Mapping[str, tuple[str, str]] = {
    "image": ("photo.png", "images, as files"),
    "text": ('"a text"', "texts, or files `.txt` with a text on each line"),
    "array": ("inputs.npy", "arrays, with or without an axis of samples first"),
}


def card(choice: Choice, facts: Mapping[str, Any]) -> str:
    """The content of ``README.md``."""
    record, row = choice.record, choice.row
    parts = [
        f"# {_plain(record.name)}, row {row.index} ({_plain(row.stage)})",
        _what(choice, facts),
        _how(facts),
        "## What goes in and comes out",
        _ports(facts),
        "## Measured",
        _numbers(choice, facts),
        "## How it was made",
        _lineage(record, row, choice.found.target),
        "## Limits",
        markdown_list(_limits(choice, facts)).rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


def _what(choice: Choice, facts: Mapping[str, Any]) -> str:
    record, row = choice.record, choice.row
    about = sanitize(record.recipe.get("description") or "", 400)
    advice = "the row that the run advises" if choice.advised == row.index else (
        f"chosen by hand: the run advises row {choice.advised}"
    )  # fmt: skip
    made = (
        f"A model for the task {sanitize(record.task.name, 60)}, made by compresskit "
        f"{facts['provenance']['compresskit']} from the recipe {sanitize(record.name, 60)}: "
        f"{advice}, for the target {sanitize(choice.found.target, 60)}."
    )
    return markdown_list(
        [
            *([about] if about else []),
            made,
        ]
    ).rstrip()


def _how(facts: Mapping[str, Any]) -> str:
    example, what = _HOW[facts["preprocessing"]["kind"]]
    controls = facts["preprocessing"].get("controls") or []
    if controls:
        name, at = sanitize(controls[0]["name"], 40), controls[0]["default"]
        example += f" --{name} {at:g}"
        what += "; `--help` names the controls"
    elif len(facts["inputs"]) > 1:
        names = ", ".join(sanitize(port["name"], 40) for port in facts["inputs"])
        example, what = "inputs.npz", f"a file with an array for each input by its name: {names}"
    elif facts["preprocessing"]["kind"] != "array":
        what += "; arrays (`.npy`, `.npz`) are fed as they are"
    count = facts["samples"]["count"]
    return f"""## Run it

It needs Python with numpy and onnxruntime, and nothing of compresskit.

```
pip install numpy onnxruntime
python run.py {example}
python run.py --check
```

`run.py` takes {what}.
`--json` prints JSON. `--check` runs the {count:,} test samples of `samples.npz`, and prints the
score beside the record's. `model.json` says all of this for programs, and so do the metadata of
the ONNX file."""


def _ports(facts: Mapping[str, Any]) -> str:
    lines = [f"Input {port['name']}: {port['type']} {_shape(port)}." for port in facts["inputs"]]
    lines.append(f"Made of: {_preprocessing(facts['preprocessing'])}.")
    for one in facts["preprocessing"].get("controls") or []:
        ends = f"from {one['low']:g} to {one['high']:g}, and {one['default']:g} where none is given"
        lines.append(f"Control {sanitize(one['name'], 40)}: a number {ends}.")
    lines += [f"Output {port['name']}: {port['type']} {_shape(port)}." for port in facts["outputs"]]
    lines += [f"Answer, {rule}" for rule in output_rules(facts)]
    if names := facts["classes"]:
        shown = ", ".join(sanitize(name, 40) for name in names[:_CLASSES_SHOWN])
        more = len(names) - _CLASSES_SHOWN
        lines.append(f"Classes: {shown}{f' and {more} more' if more > 0 else ''}.")
    return markdown_list(lines).rstrip()


def _preprocessing(form: Mapping[str, Any]) -> str:
    if form["kind"] == "array":
        names = ", ".join(form["features"])
        return (
            f"numbers in the order {names}" if names else "arrays as samples of the data have them"
        )
    if form["kind"] == "text":
        by = "a token for each character" if form["characters"] else "`tokenizer.json`"
        return f"a text by {by}, {form['length']} tokens, the {form['keep']} of a longer one"
    fit = {
        "cover": "scaled to cover",
        "contain": "scaled to fit into",
        "stretch": "each side scaled to",
    }[form["fit"]]
    color = "grey" if form["channels"] == 1 else "red, green and blue"
    mean, std = (", ".join(f"{value:g}" for value in form[key]) for key in ("mean", "std"))
    return (
        f"an image in {color}, {fit} {form['height']} by {form['width']} pixels; bytes times "
        f"{form['highest']:g}/255, less the mean {mean}, over {std}"
    )


def _numbers(choice: Choice, facts: Mapping[str, Any]) -> str:
    record, target = choice.record, choice.found.target
    lines = [
        f"{name}: {text}"
        for name, text in row_facts(record, choice.row, target)
        if name not in _LEFT_OUT
    ]
    beside = "" if facts["model"]["was_measured"] else (
        "**These numbers are not of this file:** it was lowered again for another batch, and "
        "checked against the same module. Measure it by `compresskit bench model.onnx`.\n\n"
    )  # fmt: skip
    return f"{beside}{sanitize(caption(record, target), 400)}\n\n{markdown_list(lines).rstrip()}"


def _lineage(record: Record, row: Row, target: str) -> str:
    rows = record.rows[: row.index + 1]
    found = [one.on(target) for one in rows]
    metric, read = record.task.metric, readings(record, target)
    p50_s = {row: of["latency_p50_s"].value for row, of in read.items() if "latency_p50_s" in of}
    return markdown_table(
        [
            Column("row", "", tuple(str(one.index) for one in rows)),
            Column("stage", "", tuple(sanitize(one.stage, 40) for one in rows), left=True),
            Column(
                sanitize(metric, 40),
                "",
                tuple(score(metric, f.accuracy.value) if f and f.accuracy else "-" for f in found),
            ),
            Column(
                "p50",
                "",
                tuple(duration(p50_s[one.index]) if one.index in p50_s else "-" for one in rows),
            ),
            Column("file", "", tuple(size(f.artifact.bytes) if f else "-" for f in found)),
            Column("fingerprint", "", tuple(sanitize(one.fingerprint, 40) for one in rows)),
        ]
    ).rstrip()


def _limits(choice: Choice, facts: Mapping[str, Any]) -> list[str]:
    record, samples = choice.record, facts["samples"]
    batch = "any number of samples" if facts["model"]["open"] else f"{facts['model']['batch']}"
    device = facts["measured"]["device"]
    found = [
        *status_words(record),
        f"The score is that of {record.task.test_samples:,} test samples of the task's data.",
        "It says nothing of inputs that are unlike them.",
        f"Times are those of {device}; another device has others.",
        f"Samples of one inference: {batch}."
        + (" What is missing of the last batch is filled up." if batch.isdigit() else ""),
    ]
    if facts["measured"]["scored_against"] != "labels":
        found.append(f"The data have no labels: it was scored against "
                     f"{facts['measured']['scored_against']}.")  # fmt: skip
    if samples["rule"] is None:
        found.append("`--check` compares outputs alone: it does not work this metric out.")
    if any(output["kind"] is None for output in facts["outputs"]):
        found.append("Nothing in the run says what the outputs mean; they are given as numbers.")
    warnings = [*facts["measured"]["warnings"], *facts["model"]["warnings"]]
    found += [f"Warning: {sanitize(text, 400)}" for text in warnings]
    return found + [f"Note: {sanitize(text, 400)}" for text in choice.row.notes]


def _shape(port: Mapping[str, Any]) -> str:
    return (
        "("
        + ", ".join(str(size) for size in port["shape"])
        + ("," * (len(port["shape"]) == 1))
        + ")"
    )


def _plain(text: str) -> str:
    return markdown_list([sanitize(text, 80)])[2:].rstrip()
