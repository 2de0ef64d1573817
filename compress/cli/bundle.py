"""``compresskit bundle``: a run in one file for a device, and the program that measures it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from compress.cli.outputs import run_folder_of
from compress.config.references import CodeReferences
from compress.device.bundle import Contents, Samples, write_bundle
from compress.metrics import is_rate
from compress.recipe import Recipe
from compress.record import Record
from compress.running.split_arrays import SplitArrays

_NORMAL_975 = 1.96


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    folder = Path(arguments.run)
    record = Record.load(folder)
    CodeReferences.of(arguments.imports).imported()
    recipe = Recipe.of_record(record, imports=arguments.imports)
    task = recipe.make_task()
    test, scoring = SplitArrays.of(task.test), recipe.scoring(task)
    out = Path(arguments.out or f"{record.name}.zip")
    contents = write_bundle(
        record,
        run_folder_of(folder),
        out,
        Samples(
            test.inputs,
            scoring.device_labels(test),
            scoring.rule,
            scoring.leading.as_labels,
            scoring.leading.output,
        ),
        target=arguments.target,
        samples=arguments.samples,
    )
    print(describe(record, contents, out))
    return 0


def describe(record: Record, contents: Contents, out: Path) -> str:
    """What was written, how sure a score can be with so many samples, and what to do with it."""
    score = f"{contents.samples:,} of {contents.of_samples:,} test samples"
    found = [m.accuracy.value for m in record.rows[record.baseline].measurements if m.accuracy]
    if is_rate(record.task.metric) and found:
        half = _NORMAL_975 * math.sqrt(found[0] * (1 - found[0]) / contents.samples)
        score += f" (enough for {record.task.metric} to ±{100 * half:.1f} points)"
    return (
        f"wrote {out}: {contents.rows} models, {score}, {contents.bytes / 2**20:.1f} MiB\n"
        f"wrote {contents.program}: what measures it; needs Python 3.9, numpy and onnxruntime\n"
        f"on the device: python3 {contents.program.name} {out.name}\n"
        f"then here:     compresskit merge RUN {out.stem}-result.json"
    )
