"""Is it said when what is served is other data, and how much accuracy is lost there?

An int8 net on Fashion-MNIST, and serving samples of 500 test images: rotated by 15 degrees and
darkened to 0.6, or as they are. The other 9,500 test images, changed likewise, say how much
accuracy is really lost: within the interval of what the record says from the sample with its
labels, and of what it estimates without them. Of 200 samples that are not changed, at most 5 may
be called other data.

    python benchmarks/serving.py            # 15 min; goes on where it was stopped
    python benchmarks/serving.py --smoke    # digits
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from cascade import rotated
from claims import Claim, at_least, at_most, script_parser, write
from nets import RESNET
from torch import Tensor
from trials import each

from compress import QuantizeStage, Recipe, ReplayTarget, Task, TrainStage
from compress.measure.shift import features_of, told_apart
from compress.notebook.record import Record
from compress.report import render_table
from compress.tasks.arrays import ArrayDataset, inputs_of

SAMPLES, DRAWS, MOST_SAID = 500, 200, 5
DEGREES, BRIGHTNESS = 15, 0.6
RUNS = 10
SENTENCE = "the serving sample differs from validation data"


def recipe_of(*, smoke: bool) -> Recipe:
    """The net in int8."""
    if smoke:
        stages = (TrainStage(epochs=4, batch_size=32, learning_rate=0.01), QuantizeStage())
        return Recipe(name="serving", task="digits", model={"arch": "mlp"}, stages=stages)
    stages = (QuantizeStage(weights="int8", activations="int8"),)
    return Recipe(name="serving", task="fashion-mnist", model=RESNET, stages=stages)


def changed(images: Tensor) -> Tensor:
    """Normalized images ``(n, 1, height, width)``, rotated and darkened; black comes in."""
    black = images.min()
    return black + BRIGHTNESS * rotated(DEGREES)(images - black)


def halves(data: ArrayDataset, seed: int, count: int) -> tuple[ArrayDataset, ArrayDataset]:
    """A sample of a split, drawn at random, and the rest of it."""
    order = torch.randperm(len(data.inputs), generator=torch.Generator().manual_seed(seed))
    labels = torch.as_tensor(data.labels)
    first, rest = order[:count], order[count:]
    return (
        ArrayDataset(data.inputs[first], labels[first]),
        ArrayDataset(data.inputs[rest], labels[rest]),
    )


def ran(recipe: Recipe, task: Task, folder: Path, cache: Path) -> Record:
    """The recipe on a task, untimed."""
    return recipe.run(
        recipe.make_candidate(task),
        task,
        workdir=folder / "run",
        targets=[ReplayTarget(name="local")],
        cache=cache,
        report=False,
    )


def trial(given: Mapping[str, Any], recipe: Recipe, cache: Path) -> dict[str, Any]:
    """One serving sample with its labels, and without."""
    task = recipe.make_task()
    count = min(SAMPLES, len(task.test) // 2)
    sample, rest = halves(task.test, given["seed"], count)
    if given["changed"]:
        sample = ArrayDataset(changed(sample.inputs), sample.labels)
        rest = ArrayDataset(changed(rest.inputs), rest.labels)
    found = {}
    for kind, serving in (("labels", sample), ("no labels", inputs_of(sample))):
        served = replace(task, serving=serving, slices={"rest": rest})
        with tempfile.TemporaryDirectory(prefix="compresskit-serving-") as folder:
            record = ran(recipe, served, Path(folder), cache)
        row = record.rows[-1].measurements[0]
        assert row.serving is not None
        assert row.slices["rest"].change is not None
        told = record.rows[record.baseline].measurements[0].serving
        assert told is not None
        assert told.told_apart is not None
        found["truth"] = row.slices["rest"].change.value
        estimate = row.serving.estimate
        change = row.serving.change if kind == "labels" else estimate and estimate.change
        found[kind] = {
            "is_said": SENTENCE in render_table(record),
            "told_apart": told.told_apart.share,
            "change": change.value if change else None,
            "ci95": change.ci95 if change else None,
        }
    return found


def draws(given: Mapping[str, Any], recipe: Recipe, cache: Path) -> dict[str, Any]:
    """How often samples that were not changed are called other data."""
    task = recipe.make_task()
    with tempfile.TemporaryDirectory(prefix="compresskit-serving-") as folder:
        record = ran(recipe, task, Path(folder), cache)
        session = onnxruntime.InferenceSession(record.artifact(len(record.rows) - 1))
        name = session.get_inputs()[0].name
        validation, test = (
            features_of(
                np.concatenate(
                    [session.run(None, {name: x[None]})[0] for x in split.inputs.numpy()]
                )
            )
            for split in (task.validation, task.test)
        )
    random = np.random.default_rng(given["seed"])
    count = min(SAMPLES, len(test) // 2)
    shares = []
    said = 0
    for number in range(given["draws"]):
        sample = test[random.permutation(len(test))[:count]]
        told = told_apart(validation[random.permutation(len(validation))], sample, seed=number)
        assert told is not None
        said += told.is_shown
        shares.append(told.share)
    return {"said": said, "shares": shares}


def claims_of(found: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The sentence is there, and only where it should be; truths are within intervals."""
    claims = []
    runs = [one for one in found if "truth" in one]
    for kind in ("labels", "no labels"):
        said = [one[kind]["is_said"] for one in runs if one["changed"]]
        known = [one for one in runs if one["changed"] and one[kind]["ci95"]]
        within = [one[kind]["ci95"][0] <= one["truth"] <= one[kind]["ci95"][1] for one in known]
        words = f"changed samples, {kind}"
        name = kind.replace(" ", "-")
        claims.append(
            at_least(f"said-{name}", f"{words}: share of runs that say so", float(np.mean(said)), 1)
        )
        if within:
            claims.append(
                at_least(
                    f"within-{name}",
                    f"{words}: share of {len(within)} intervals of the loss that hold the truth",
                    float(np.mean(within)),
                    0.9,
                )
            )
    (equal,) = [one for one in found if "said" in one]
    words = f"of {equal['draws']} samples as they are, so many are called other data"
    claims.append(at_most("equal", words, equal["said"], MOST_SAID))
    return claims


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Each changed sample: what is said of it, and what is true."""
    lines = [
        "| sample | told apart, % | lost, points | estimated without labels | truth |",
        "| --: | --: | --: | --: | --: |",
    ]
    for one in found:
        if one.get("changed"):
            cells = [_points(one[kind]) for kind in ("labels", "no labels")]
            lines.append(
                f"| {one['seed']} | {100 * one['labels']['told_apart']:.1f} "
                f"| {cells[0]} | {cells[1]} | {-100 * one['truth']:+.2f} |"
            )
    return "\n".join(lines)


def _points(one: Mapping[str, Any]) -> str:
    if one["ci95"] is None:
        return "not known"
    low, high = sorted(-100 * end for end in one["ci95"])
    return f"{-100 * one['change']:+.2f} \\[{low:+.2f}, {high:+.2f}\\]"


def main() -> None:
    """Serve changed samples and others, and write the result."""
    arguments = script_parser(__doc__).parse_args()
    recipe = recipe_of(smoke=arguments.smoke)
    runs = 2 if arguments.smoke else RUNS
    plan: list[dict[str, Any]] = [{"changed": True, "seed": seed} for seed in range(runs)]
    plan.append({"draws": 20 if arguments.smoke else DRAWS, "seed": 0})
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "serving.partial.jsonl"
    with tempfile.TemporaryDirectory(prefix="compresskit-serving-") as cache:

        def do(given: Mapping[str, Any]) -> dict[str, Any]:
            return (draws if "draws" in given else trial)(given, recipe, Path(cache))

        found = list(each(plan, do, kept))
    write("serving", {"trials": found}, claims_of(found), arguments.results, table(found))
    kept.unlink()


if __name__ == "__main__":
    main()
