"""How well does each row of recipes/lm.yaml foretell text, and does it write what its teacher does?

For every row of a finished run, with its file as it was deployed: bits per token and perplexity on
the test texts, and how far its greedy continuation of 200 test prompts agrees with that of the
teacher, the row that was trained on labels. The paired speedup is the record's.

    compresskit run recipes/lm.yaml --out runs/lm
    python benchmarks/lm_eval.py --run runs/lm    # a minute
    python benchmarks/lm_eval.py --smoke          # half a minute, on made-up words
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from claims import RESULTS, Claim, at_least, at_most, write
from torch import Tensor

from compress.algorithms.batches import head
from compress.lower.session import open_session, run
from compress.measure.language import (
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
    recipe.execute(workdir=folder / "run", mode="quick")
    record = Record.load(folder / "run" / "record.json")
    return Setting(folder / "run", record, recipe.make_task(), 8, 8)


def teacher_of(record: Record) -> Row:
    """The row that the students learned from: the last that was trained on labels."""
    trained = [row for row in record.rows if row.kind == "train"]
    return trained[-1] if trained else record.rows[0]


def measured(row: Row) -> Measurement:
    """The row on the first target."""
    return row.measurements[0]


def compare(setting: Setting) -> dict[str, dict[str, Any]]:
    """Every row of the run against the teacher."""
    test = head(setting.task.test, len(setting.task.test))
    assert isinstance(test.inputs, Tensor)
    assert test.labels is not None
    windows, labels = test.inputs.numpy(), test.labels.numpy()
    prompts = windows[:PROMPTS]
    wrote: dict[str, Array] = {}
    found: dict[str, dict[str, Any]] = {}
    for row in setting.record.rows:
        model = Model(setting.run / measured(row).artifact.path)
        bits = bits_per_token(model(windows), labels)
        wrote[row.stage] = greedy_continuations(model, prompts, setting.prompt, setting.tokens)
        found[row.stage] = {
            "bytes": measured(row).artifact.bytes,
            "bits_per_token": float(bits.mean()),
            "bits_ci95": [*bootstrap_mean(bits)],
            "perplexity": perplexity(float(bits.mean())),
            "text": decode(wrote[row.stage][0].tolist()),
        }
    for row in setting.record.rows:
        same = continuation_agreement(wrote[row.stage], wrote[teacher_of(setting.record).stage])
        found[row.stage]["agreement"] = float(same.mean())
        found[row.stage]["agreement_ci95"] = [*bootstrap_mean(same)]
        speedup = measured(row).speedup
        found[row.stage]["speedup"] = speedup.model_dump(mode="json") if speedup else None
    return found


class Model:
    """A row's file, asked about any number of windows, in the batch that it was made for."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        port = self._session.get_inputs()[0]
        self._name, self._batch = port.name, port.shape[0]

    def __call__(self, windows: Array) -> Array:
        """Scores of next tokens, ``(n, classes, length)``."""
        starts = range(0, len(windows), self._batch)
        assert len(windows) % self._batch == 0
        feeds = ({self._name: windows[start : start + self._batch]} for start in starts)
        return np.concatenate([run(self._session, None, feed)[0] for feed in feeds])


def claims_of(setting: Setting, rows: dict[str, dict[str, Any]]) -> Iterator[Claim]:
    """What the students are to show."""
    record = setting.record
    teacher = rows[teacher_of(record).stage]
    students = [row.stage for row in record.rows if row.kind == "distill"]
    small = rows[next(row.stage for row in record.rows if row.kind == "quantize")]
    lost = small["bits_per_token"] - rows[students[-1]]["bits_per_token"]
    yield at_most("int8", "bits per token that int8 costs the student", lost, 0.02)
    lost = small["bits_per_token"] - teacher["bits_per_token"]
    said = "bits per token that the int8 student needs more than its teacher"
    yield at_most("student", said, lost, 0.4)
    smaller = teacher["bytes"] / small["bytes"]
    yield at_least("bytes", "times smaller than its teacher: the int8 student's file", smaller, 8)
    speed = small["speedup"]
    said = "times as fast as the record's baseline: the int8 student"
    yield at_least("speed", said, speed["value"], 2.0, tuple(speed["ci95"]))
    gained = rows[students[-1]]["agreement"] - rows[students[0]]["agreement"]
    said = "share of the teacher's greedy text gained by learning from its texts"
    yield at_least("sequence", said, gained, 0.0)


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/lm"), help="a finished run")
    parser.add_argument("--smoke", action="store_true", help="half a minute; shows that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        setting = smoke(Path(scratch)) if arguments.smoke else full(arguments.run)
        rows = compare(setting)
    print(table(rows))
    write("lm_eval", {"rows": rows}, list(claims_of(setting, rows)), arguments.results)


if __name__ == "__main__":
    main()
