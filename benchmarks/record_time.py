"""How long does it take to measure a record of four rows?

A recipe of three stages that take next to no time (a prune, a distillation on 64 images, a
quantization), on a task of the size of Fashion-MNIST: 10,000 test images of 28 x 28 pixels, which
are random, since nothing here depends on what they show. The four rows are a residual net of
175,000 parameters, the same with half its channels, a depthwise student of 14,000, and the student
in int8. What is timed is the whole run: stages, lowering, scoring, and the rounds of the mode.

    python benchmarks/record_time.py            # about ten minutes; resumes where it was stopped
    python benchmarks/record_time.py --smoke    # seconds
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from claims import Claim, at_most, mean_interval, script_parser, write
from trials import each

from compress import Candidate, DistillStage, LocalTarget, PruneStage, QuantizeStage, Recipe, Task
from compress.measure.ondevice.machine import cpu_count
from compress.measure.target import Mode
from compress.record import Record
from compress.tasks.arrays import ArrayDataset
from compress.zoo import build

BOUNDS_S: dict[Mode, float] = {"quick": 60, "default": 240}
ROWS, REPEATS = 4, 3
TEST_IMAGES, SMOKE_IMAGES = 10_000, 200
STAGES = (
    PruneStage(ratio=0.5, round_to=8),
    DistillStage(student={"arch": "dscnn", "width": 16}, epochs=1),
    QuantizeStage(),
)


def random_task(test_images: int) -> Task:
    """Noise in ten classes."""
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> ArrayDataset:
        labels = torch.randint(10, (count,), generator=draw)
        return ArrayDataset(torch.randn(count, 1, 28, 28, generator=draw), labels)

    return Task("random", train=images(64), validation=images(256), test=images(test_images))


def record_of(task: Task, mode: Mode, folder: Path) -> Record:
    """The recipe's record, measured."""
    torch.manual_seed(0)
    candidate = Candidate.of(build("resnet", {"width": 16}), task.test.inputs[:4])
    recipe = Recipe(name="four-rows", stages=STAGES)
    return recipe.run(
        candidate, task, targets=[LocalTarget()], workdir=folder, mode=mode, report=False
    )


def trial(mode: Mode, task: Task) -> dict[str, Any]:
    """Seconds of one run; fails unless every row was measured in full."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        record = record_of(task, mode, Path(folder))
        seconds = time.perf_counter() - begin
    measured = [row.measurements[0] for row in record.rows]
    if len(measured) != ROWS or any(m.latency is None or m.memory is None for m in measured):
        raise SystemExit(f"{mode}: a row was not measured: {[m.warnings for m in measured]}")
    processes = [m.latency.processes for m in measured if m.latency]
    return {"seconds": seconds, "processes": processes}


def trials(modes: list[Mode], repeats: int, task: Task, kept: Path) -> Iterator[dict[str, Any]]:
    """All trials; those in the file ``kept`` are not done again."""
    plan = [{"mode": mode, "number": number} for number in range(repeats) for mode in modes]
    for found in each(plan, lambda told: trial(told["mode"], task), kept):
        print(f"{found['mode']}: {found['seconds']:.1f} s", flush=True)
        yield found


def claims_of(raw: list[dict[str, Any]], modes: list[Mode]) -> Iterator[Claim]:
    """What the trials are to show."""
    for mode in modes:
        seconds, ci95 = mean_interval([t["seconds"] for t in raw if t["mode"] == mode])
        statement = f"seconds for a record of {ROWS} rows in {mode} mode on {cpu_count()} cores"
        yield at_most(f"{mode}-s", statement, seconds, BOUNDS_S[mode], ci95)


def main() -> None:
    """Time the runs and write the result."""
    arguments = script_parser(__doc__).parse_args()
    modes: list[Mode] = ["quick"] if arguments.smoke else ["quick", "default"]
    task = random_task(SMOKE_IMAGES if arguments.smoke else TEST_IMAGES)
    kept = arguments.results / "record_time.partial.jsonl"
    raw = list(trials(modes, 1 if arguments.smoke else REPEATS, task, kept))
    write("record_time", {"trials": raw}, list(claims_of(raw, modes)), arguments.results)
    kept.unlink()


if __name__ == "__main__":
    main()
