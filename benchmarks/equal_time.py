"""At the same measured time, which cut keeps more of the score?

A net is pruned to a share of its time (``goal: {latency_p50: ...}``), by a goal of
multiply-accumulates, and by one ratio for all layers. The second and the third are moved, without
training, until they take as long as the first; then all three are trained alike, timed anew in a
session of their own and compared on the test split, sample by sample.

    python benchmarks/equal_time.py                 # an hour; goes on where it was stopped
    python benchmarks/equal_time.py --share 0.5     # a share of the time
    python benchmarks/equal_time.py --smoke         # digits
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from claims import Claim, at_least, at_most, script_parser, write
from trials import each, known

from compress import LocalTarget, PruneStage, Recipe, Stage, TrainStage
from compress.errors import CompressError
from compress.measure.stats import paired_difference
from compress.record import Measurement
from compress.running.split_arrays import SplitArrays

MODELS = Path(__file__).parent / "models"
NETS: Mapping[str, Mapping[str, Any]] = {
    "fashion": {
        "task": "fashion-mnist",
        "model": {"arch": "resnet", "width": 16, "weights": MODELS / "resnet.safetensors"},
    },
    "smoke": {"task": "digits", "model": {"arch": "resnet", "width": 8}},
}
LOSSES = (
    {"kind": "response", "temperature": 4.0, "weight": 0.9},
    {"kind": "label", "weight": 0.1},
)
#: How near the other cuts have to come to the time of the first, as a share of it.
NEAR, MOST_STEPS = 0.03, 7
#: A cut may be worse by this much of the accuracy: half of what 10,000 samples tell apart.
MARGIN = 0.002
Trial = Mapping[str, Any]


def measured(
    given: Trial, settings: Mapping[str, Any], folder: Path, *, train: bool
) -> tuple[Measurement, Recipe]:
    """The last row of a recipe that prunes so, and trains after it if asked to."""
    epochs = given["epochs"]
    finetune = {
        "finetune": {
            "epochs": epochs,
            "batch_size": 128,
            "learning_rate": 0.003,
            "views": min(4, epochs),
            "losses": LOSSES,
        }
    }
    first: list[Stage] = [TrainStage(epochs=4)] if given["net"] == "smoke" else []
    recipe = Recipe(
        name=given["net"],
        seed=given["seed"],
        stages=(*first, PruneStage.model_validate({**settings, **(finetune if train else {})})),
        **NETS[given["net"]],
    )
    task = recipe.make_task()
    record = recipe.run(
        recipe.make_candidate(task),
        task,
        workdir=folder,
        mode="default" if train else "quick",
        report=False,
    )
    return record.rows[-1].measurements[0], recipe


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
                found, _ = measured(given, settings(number), Path(folder), train=False)
                time = share_of(found)
            except CompressError as error:  # so little that nothing goes, or so much that all does
                print(f"{settings(number)}: {error}", flush=True)
                time = 1.0 if number > share else 0.0
        print(f"{settings(number)}: {time:.3f} of the time, {share:.3f} wanted", flush=True)
        best = min(best, (abs(time / share - 1), number))
        if best[0] <= NEAR:
            break
        low, high = (low, number) if time > share else (number, high)
    return settings(best[1])


def trial(given: Trial, done: Sequence[Trial]) -> dict[str, Any]:
    """One cut, trained; where it is not the first, as slow as that."""
    settings: dict[str, Any] = {"goal": {"latency_p50": given["share"]}}
    if given["cut"] != "latency":
        first = next(one for one in done if one["cut"] == "latency")
        makers: dict[str, Callable[[float], dict[str, Any]]] = {
            "macs": lambda number: {"goal": {"macs": number}},
            "ratio": lambda number: {"ratio": 1 - number, "scope": "local"},
        }
        settings = as_slow_as(given, makers[given["cut"]], first["time"])
    with tempfile.TemporaryDirectory(prefix="compresskit-equal-time-") as folder:
        found, recipe = measured(given, settings, Path(folder), train=True)
        assert found.speedup is not None
        assert found.accuracy is not None
        test = SplitArrays.of(recipe.make_task().test)
        (outputs,) = LocalTarget().predict(Path(folder) / found.artifact.path, test.inputs)
    right = outputs.argmax(1) == np.asarray(test.labels)
    return {
        "settings": settings,
        "time": share_of(found),
        "time_ci95": sorted(1 / end for end in found.speedup.ci95),
        "score": found.accuracy.value,
        "right": np.packbits(right).tobytes().hex(),
        "samples": len(right),
    }


def claims_of(found: Sequence[Trial]) -> list[Claim]:
    """The goal is reached, the others take as long, and none of them keeps more."""
    claims = []
    for first in (one for one in found if one["cut"] == "latency"):
        name = f"{first['net']}-{first['share']:g}-seed-{first['seed']}"
        what = f"{first['net']}, latency_p50 {first['share']:g}"
        off = sorted(abs(end / first["share"] - 1) for end in first["time_ci95"])
        claims.append(
            at_most(
                f"{name}-lands",
                f"{what}: share by which the measured time is off",
                abs(first["time"] / first["share"] - 1),
                0.05,
                (off[0], off[1]),
            )
        )
        for other in found:
            alike = all(other[key] == first[key] for key in ("net", "share", "seed", "epochs"))
            if not alike or other is first:
                continue
            difference, low, high = _difference(first, other)
            near = other["time"] / first["time"]
            claims.append(
                at_least(
                    f"{name}-{other['cut']}",
                    f"{what}: accuracy less that of the cut by {other['cut']}, which takes "
                    f"{near:.3f} of its time",
                    difference,
                    -MARGIN,
                    (low, high),
                )
            )
    return claims


def _difference(one: Trial, other: Trial) -> tuple[float, float, float]:
    """Of the accuracies, with the 95 % interval from the same samples."""
    first, second = (
        np.unpackbits(np.frombuffer(bytes.fromhex(each["right"]), np.uint8))[: each["samples"]]
        for each in (one, other)
    )
    lost, gained = int((second > first).sum()), int((first > second).sum())
    low, high = paired_difference(lost, gained, one["samples"])
    return (gained - lost) / one["samples"], low, high


def table(found: Sequence[Trial]) -> str:
    """What each cut takes and keeps."""
    lines = ["| net, share | cut by | time | accuracy, % |", "| :-- | :-- | --: | --: |"]
    for one in found:
        low, high = one["time_ci95"]
        lines.append(
            f"| {one['net']}, {one['share']:g} | {one['cut']} | {one['time']:.3f}x "
            f"\\[{low:.3f}, {high:.3f}\\] | {100 * one['score']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Cut in three ways, and write the result."""
    parser = script_parser(__doc__, smoke="minutes; shows that it runs")
    parser.add_argument("--seed", type=int, default=0, help="of the recipe (default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.67, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="after a cut (default: %(default)s)")
    arguments = parser.parse_args()
    plan = [
        {
            "net": "smoke" if arguments.smoke else "fashion",
            "cut": cut,
            "share": arguments.share,
            "seed": arguments.seed,
            "epochs": 1 if arguments.smoke else arguments.epochs,
        }
        for cut in ("latency", "macs", "ratio")
    ]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "equal_time.partial.jsonl"
    found = list(each(plan, lambda one: trial(one, known(kept)), kept))
    write("equal_time", {"trials": found}, claims_of(found), arguments.results, table(found))
    kept.unlink()


if __name__ == "__main__":
    main()
