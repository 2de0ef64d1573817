"""How much memory does a run take for the teacher's outputs that it caches on disk?

Each run is a fresh process that distills for eight epochs from four views of 60,000 samples, after
a small run that brings up all libraries. Its growth is the highest resident memory while it runs
(``VmHWM``, set back before) less that before. ``outputs`` keeps 10 logits for each sample,
``features`` 512 values of a layer beside them; ``asked`` caches nothing and runs the teacher anew.

    python benchmarks/cache_memory.py            # about 3 min, and 500 MB of disk
    python benchmarks/cache_memory.py --smoke
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from claims import at_least, at_most, script_parser, write

MB = 1_000_000
BOUND_MB = 50
SAMPLES, SMOKE_SAMPLES = 60_000, 6_000
VALUES, CLASSES, WIDTH = 64, 10, 512
VIEWS, EPOCHS = 4, 8
RESPONSE = {"kind": "response"}
HINT = {"kind": "hint", "student": "layers.0", "teacher": "layers.0", "weight": 0.1}
SETTINGS: dict[str, tuple[int | None, Sequence[dict[str, Any]]]] = {
    "asked": (None, [RESPONSE]),
    "outputs": (VIEWS, [RESPONSE]),
    "features": (VIEWS, [RESPONSE, HINT]),
}


def resident(field: str) -> int:
    """A line of ``/proc/self/status``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def distill(setting: str, samples: int, folder: Path) -> dict[str, Any]:
    """Distill once, in this process; memory in bytes before, at most, and after each epoch."""
    import torch

    from compress import Candidate, DistillStage
    from compress.tasks.arrays import ArrayDataset
    from compress.testing.stage_contract import bench_candidate, bench_context
    from compress.zoo import build

    torch.manual_seed(0)
    torch.set_num_threads(1)
    inputs = torch.randn(samples, VALUES)
    data = ArrayDataset(inputs, inputs[:, :CLASSES].argmax(1))
    few = data.subset(range(512))
    options = {"in_features": VALUES, "width": WIDTH, "depth": 1, "classes": CLASSES}
    start = Candidate.of(build("mlp", options | {"width": 32}), inputs[:2])
    views, losses = SETTINGS[setting]
    stage = DistillStage(epochs=EPOCHS, batch_size=256, views=views, losses=losses)

    context = bench_context(bench_candidate(), folder / "warm")
    teacher = type(context.teacher)(build("mlp", options).eval())
    classes = tuple(f"class {number}" for number in range(CLASSES))
    task = replace(context.task, train=few, validation=few, test=few, classes=classes)
    context = replace(context, task=task, teacher=teacher)
    stage.run(start, context)

    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before, epochs = resident("VmRSS"), []

    def report(event: Any) -> None:
        if event["event"] == "epoch":
            epochs.append(resident("VmRSS"))

    place = replace(context, task=replace(task, train=data), workdir=folder / "run", report=report)
    stage.run(start, place)
    kept = sum(path.stat().st_size for path in place.workdir.rglob("*.npy"))
    peak = resident("VmHWM")
    return {
        "before_bytes": before,
        "peak_bytes": peak,
        "epochs_bytes": epochs,
        "kept_bytes": kept,
        "growth_mb": (peak - before) / MB,
    }


def in_a_process(setting: str, samples: int) -> dict[str, Any]:
    """The same in a fresh process and folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", setting, str(samples), folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run every setting and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument("--one", nargs=3, metavar=("SETTING", "SAMPLES", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.one:
        setting, samples, folder = arguments.one
        print(json.dumps(distill(setting, int(samples), Path(folder))))
        return
    samples = SMOKE_SAMPLES if arguments.smoke else SAMPLES
    repeats = 1 if arguments.smoke else 3
    raw = {name: [in_a_process(name, samples) for _ in range(repeats)] for name in SETTINGS}
    worst = {name: max(run["growth_mb"] for run in runs) for name, runs in raw.items()}
    what = f"{samples:,} samples x {VIEWS} views"
    claims = [
        at_most(
            "outputs",
            f"MB by which resident memory grows with {CLASSES} logits of {what} on disk",
            worst["outputs"],
            BOUND_MB,
        ),
        at_most(
            "features",
            f"the same with {WIDTH} features beside the logits",
            worst["features"],
            BOUND_MB,
        ),
        at_least(
            "kept",
            "bytes on disk with features, over those that the logits and features have",
            raw["features"][0]["kept_bytes"] / (4 * samples * VIEWS * (CLASSES + WIDTH)),
            1.0,
        ),
    ]
    write("cache_memory", {"samples": samples, "runs": raw}, claims, arguments.results)


if __name__ == "__main__":
    main()
