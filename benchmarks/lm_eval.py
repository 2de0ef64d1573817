"""How well does each row of recipes/lm.yaml predict text, and does it write what its teacher does?

For every row of a finished run, with its file as it was deployed: bits per token and perplexity on
the test texts, and how far its greedy continuation of 200 test prompts agrees with that of the
teacher, the row that was trained on labels. The paired speedup is the record's.

    compresskit run recipes/lm.yaml --out runs/lm
    python benchmarks/lm_eval.py --run runs/lm    # a minute
    python benchmarks/lm_eval.py --smoke          # half a minute, on made-up words
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, at_least, at_most, script_parser, write
from torch import Tensor

from compress.backends.onnx.feeds import batches
from compress.backends.onnx.session import open_session, run
from compress.measure.perplexity import (
    bits_per_token,
    continuation_agreement,
    greedy_continuations,
    perplexity,
)
from compress.measure.stats import bootstrap_mean
from compress.recipe import Recipe
from compress.record import Measurement, Record, Row
from compress.task import Task
from compress.tasks import TaskConfig, make_task
from compress.tasks.language import decode
from compress.training.data import head

PROMPTS = 200
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Setting:
    """A finished run, its task, and how its rows are asked to write."""

    run: Path
    record: Record
    task: Task
    prompt: int
    tokens: int


def full(run: Path) -> Setting:
    """The run of the recipe; prompts are those that its student learned from."""
    record = Record.load(run / "record.json")
    return Setting(run, record, make_task(TaskConfig.model_validate(record.recipe["task"])), 16, 16)


def smoke(folder: Path) -> Setting:
    """A quick run on made-up words: whether the script runs."""
    random = np.random.RandomState(0)
    words = ["".join(random.choice(list("abcde"), 3)) for _ in range(8)]
    lines = (" ".join(random.choice(words, 6)) + f" {number}" for number in range(300))
    (folder / "words.txt").write_text("\n\n".join(lines))
    recipe = Recipe.loads(
        f"task: {{name: language, path: {folder / 'words.txt'}, length: 16, limit: 256}}\n"
        "model: {arch: causal-lm, width: 16, depth: 1, context: 16}\n"
        "stages:\n"
        "  - {kind: train, epochs: 1, learning_rate: 0.01}\n"
        "  - kind: distill\n"
        "    losses: [{kind: sequence, prompt: 8}, {kind: gkd, prompt: 8}]\n"
        "  - {kind: quantize, weights: int8, activations: dynamic}\n"
    )
    recipe.execute(workdir=folder / "run", mode="quick", report=False)
    record = Record.load(folder / "run" / "record.json")
    return Setting(folder / "run", record, recipe.make_task(), 8, 8)


def teacher_of(record: Record) -> Row:
    """The row that the students learned from: the last that was trained on labels."""
    trained = [row for row in record.rows if row.kind == "train"]
    return trained[-1] if trained else record.rows[0]


def measured(row: Row) -> Measurement:
    """The row on the first target."""
    return row.measurements[0]


@dataclass(frozen=True)
class Written:
    """What one row makes of the test texts: bits per token of each, and continuations."""

    bits: Array
    tokens: Array


def write_all(setting: Setting) -> dict[str, Written]:
    """What every row's file makes of the test texts."""
    test = head(setting.task.test, len(setting.task.test))
    assert isinstance(test.inputs, Tensor)
    assert test.labels is not None
    windows, labels = test.inputs.numpy(), test.labels.numpy()
    found = {}
    for row in setting.record.rows:
        ask = partial(predict, open_session(setting.run / measured(row).artifact.path))
        tokens = greedy_continuations(ask, windows[:PROMPTS], setting.prompt, setting.tokens)
        found[row.stage] = Written(bits_per_token(ask(windows), labels), tokens)
    return found


def predict(session: Any, windows: Array) -> Array:
    """Scores of next tokens, in the batch that the file was made for."""
    feeds = batches([torch.from_numpy(windows)], session)
    return np.concatenate([run(session, None, feed)[0][-new:] for feed, new in feeds])


def summary(setting: Setting, written: dict[str, Written]) -> dict[str, dict[str, Any]]:
    """Every row in a few numbers, with 95 % intervals over texts."""
    reference = written[teacher_of(setting.record).stage].tokens
    found = {}
    for row in setting.record.rows:
        own, speedup = written[row.stage], measured(row).speedup
        same = continuation_agreement(own.tokens, reference)
        found[row.stage] = {
            "bytes": measured(row).artifact.bytes,
            "bits_per_token": float(own.bits.mean()),
            "bits_ci95": [*bootstrap_mean(own.bits)],
            "perplexity": perplexity(float(own.bits.mean())),
            "agreement": float(same.mean()),
            "agreement_ci95": [*bootstrap_mean(same)],
            "speedup": speedup.model_dump(mode="json") if speedup else None,
            "text": decode(own.tokens[0].tolist()),
        }
    return found


def claims_of(
    setting: Setting, written: dict[str, Written], rows: dict[str, dict[str, Any]]
) -> Iterator[Claim]:
    """What the students are to show; differences are of the same texts."""
    record = setting.record
    teacher = teacher_of(record).stage
    small = next(row.stage for row in record.rows if row.kind == "quantize")
    students = [row.stage for row in record.rows if row.kind == "distill"]
    first, last = students[0], students[-1]

    lost = written[small].bits - written[last].bits
    said = "bits per token that int8 costs the student"
    yield at_most("int8", said, float(lost.mean()), 0.02, bootstrap_mean(lost))
    lost = written[small].bits - written[teacher].bits
    said = "bits per token that the int8 student needs more than its teacher"
    yield at_most("student", said, float(lost.mean()), 0.4, bootstrap_mean(lost))
    smaller = rows[teacher]["bytes"] / rows[small]["bytes"]
    yield at_least("bytes", "times smaller than its teacher: the int8 student's file", smaller, 8)
    speed = rows[small]["speedup"]
    said = "times as fast as the record's baseline: the int8 student"
    yield at_least("speed", said, speed["value"], 2.0, tuple(speed["ci95"]))
    later, sooner = (
        continuation_agreement(written[stage].tokens, written[teacher].tokens)
        for stage in (last, first)
    )
    said = "share of the teacher's greedy text gained by learning from its texts"
    gained = later - sooner
    yield at_least("sequence", said, float(gained.mean()), 0.0, bootstrap_mean(gained))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'':<12}{'KiB':>7}{'bits':>7}{'perplexity':>12}{'agreement':>11}  times as fast"]
    for stage, row in rows.items():
        speed = f"{row['speedup']['value']:.2f}" if row["speedup"] else "-"
        lines.append(
            f"{stage:<12}{row['bytes'] / 1024:>7.0f}{row['bits_per_token']:>7.3f}"
            f"{row['perplexity']:>12.2f}{row['agreement']:>11.3f}  {speed}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the comparison and write its result."""
    parser = script_parser(__doc__, smoke="half a minute; shows that it runs")
    parser.add_argument("--run", type=Path, default=Path("runs/lm"), help="a finished run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        setting = smoke(Path(scratch)) if arguments.smoke else full(arguments.run)
        written = write_all(setting)
        rows = summary(setting, written)
    claims = list(claims_of(setting, written, rows))
    write("lm_eval", {"rows": rows}, claims, arguments.results, table(rows))


if __name__ == "__main__":
    main()
