"""What does a student win with its teacher behind it, and does it know what it never saw?

A residual net of a ninth of the teacher's parameters learns Fashion-MNIST from the 93.46 % net of
``benchmarks/models``, and becomes int8. It answers, and at most a tenth of the test images goes
back to the teacher: the threshold is chosen on validation images, for 9.5 % of them.

- ``cascade``: accuracy and time on the test images; then images with noise, blurred, of less
  contrast, rotated, and handwritten digits, which are no clothes.
- ``held-out``: the same net, trained on labels without the last two classes (bags and ankle boots),
  and shown these.

The area under the ROC curve says how well a score tells test images from the others; distances to
neighbors among training images (``neighbors``) are what claims are about, the table has all scores.

    python benchmarks/cascade.py            # 40 min on one core; goes on where it was stopped
    python benchmarks/cascade.py --smoke    # digits
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from claims import Claim, at_least, at_most, script_parser, write
from nets import RESNET
from torch import Tensor
from trials import each

from compress import DistillStage, LocalTarget, QuantizeStage, Recipe, ReplayTarget, TrainStage
from compress.cascade.build import Asked, build
from compress.cascade.threshold import Wanted
from compress.preprocessing import ImagePreprocessing
from compress.stage import Stage
from compress.task import Task
from compress.tasks.arrays import ArrayDataset
from compress.tasks.digits import digit_splits

STUDENT = {"arch": "resnet", "width": 16, "blocks": 1, "stem_stride": 2}
SHARE, LARGEST_SHARE, LARGEST_LOSS, LARGEST_RATIO = 0.095, 0.1, 0.002, 0.35
LEAST_DIGITS, LEAST_HELD_OUT = 0.95, 0.80
DETECTS = "neighbors"
SCORES = ("probability", "neighbors", "mahalanobis", "margin", "energy")


@dataclass(frozen=True)
class Setting:
    """One of the two questions: which data and models."""

    task: str
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    stages: tuple[Stage, ...]
    held_out: int = 0


FASHION = ImagePreprocessing(28, 28, channels=1, upright=False, mean=(0.2860,), std=(0.3530,))
SETTINGS = {
    "cascade": Setting(
        "fashion-mnist",
        RESNET,
        STUDENT,
        (
            DistillStage(
                student=STUDENT,
                losses=[
                    {"kind": "response", "temperature": 4.0, "weight": 0.9},
                    {"kind": "label", "weight": 0.1},
                ],
                epochs=32,
                batch_size=128,
                learning_rate=0.005,
                views=8,
            ),
            QuantizeStage(
                weights="int8",
                activations="int8",
                calibration={"method": "percentile", "percentile": 99.99, "samples": 512},
            ),
        ),
    ),
    "held-out": Setting(
        "fashion-mnist",
        STUDENT,
        STUDENT,
        (
            TrainStage(epochs=3, batch_size=128, learning_rate=0.005),
            QuantizeStage(weights="int8", activations="int8"),
        ),
        held_out=2,
    ),
}
_SMALL = {"arch": "mlp", "in_features": 64, "width": 16}
SMOKE = {
    "held-out": Setting(
        "digits",
        _SMALL,
        _SMALL,
        (TrainStage(epochs=3, batch_size=32, learning_rate=0.01), QuantizeStage()),
        held_out=2,
    ),
}


def trial(given: Mapping[str, Any], settings: Mapping[str, Setting], work: Path) -> dict[str, Any]:
    """Train, going on where it was stopped, and measure; all that is found."""
    setting, smoke = settings[given["question"]], settings is SMOKE
    recipe = Recipe(
        name=given["question"],
        task=setting.task,
        model=setting.teacher,
        stages=setting.stages,
    )
    whole = recipe.make_task()
    task, out_of_it = without(whole, setting.held_out) if setting.held_out else (whole, {})
    start = recipe.make_candidate(task)
    folder = work / given["question"]
    record = recipe.run(
        start,
        task,
        workdir=folder,
        targets=[ReplayTarget(name="local")],
        cache="none",
        report=False,
    )
    job = recipe.job(start, task, workdir=folder, targets=[LocalTarget()])
    asked = Asked(
        Wanted(share=SHARE),
        folder / "cascade",
        row=record.rows[-1].index,
        scores=SCORES,
        mode="quick" if smoke else "default",
    )
    found = build(record, folder, job, asked, {**out_of_it, **others(task)})
    return {"found": asdict(replace(found, files={}, model={}, preprocessing={}))}


def without(task: Task, classes: int) -> tuple[Task, dict[str, ArrayDataset]]:
    """The task without its last classes, and their test images as foreign ones."""
    count = len(task.classes) - classes
    parts, foreign = {}, None
    for name in ("train", "validation", "test"):
        split = getattr(task, name)
        labels = torch.as_tensor(split.labels)
        parts[name] = ArrayDataset(split.inputs[labels < count], labels[labels < count])
        foreign = split.inputs[labels >= count]
    assert foreign is not None
    name = f"{task.name}-{count}-classes"
    made = replace(task, name=name, classes=task.classes[:count], **parts)
    return made, {"held-out classes": ArrayDataset(foreign)}


# -- other images ---------------------------------------------------------------------------------


def others(task: Task) -> dict[str, ArrayDataset]:
    """Test images that are spoilt, with their labels; of clothes handwritten digits, too."""
    form = task.preprocessing
    assert isinstance(form, ImagePreprocessing)
    test: Any = task.test
    mean, std = form.mean[0] / form.highest, form.std[0] / form.highest
    pixels = (test.inputs * std + mean).clamp(0, 1)
    found = {
        name: ArrayDataset((spoil(pixels) - mean) / std, test.labels)
        for name, spoil in SPOILT.items()
    }
    if form.height == FASHION.height:
        images = torch.tensor(np.concatenate([part for part, _ in digit_splits()]))[:, None]
        large = F.interpolate(images.float(), size=(28, 28), mode="bilinear")
        found["digits"] = ArrayDataset((large.clamp(0, 1) - mean) / std)
    return found


def noise(pixels: Tensor) -> Tensor:
    drawn = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    return (pixels + 0.15 * drawn).clamp(0, 1)


def blur(pixels: Tensor) -> Tensor:
    line = torch.exp(-0.5 * (torch.arange(-2, 3) / 1.2) ** 2)
    kernel = torch.outer(line, line)[None, None]
    return F.conv2d(pixels, kernel / kernel.sum(), padding=2)


def contrast(pixels: Tensor) -> Tensor:
    return 0.4 * (pixels - pixels.mean((1, 2, 3), keepdim=True)) + pixels.mean(
        (1, 2, 3), keepdim=True
    )


def rotated(degrees: float) -> Callable[[Tensor], Tensor]:
    turn = torch.deg2rad(torch.tensor(degrees))
    matrix = torch.tensor([[turn.cos(), -turn.sin(), 0], [turn.sin(), turn.cos(), 0]])

    def turned(pixels: Tensor) -> Tensor:
        grid = F.affine_grid(
            matrix.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False
        )
        return F.grid_sample(pixels, grid, align_corners=False)

    return turned


SPOILT: Mapping[str, Callable[[Tensor], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "rotated by 30": rotated(30),
    "rotated by 90": rotated(90),
}


# -- what is said ---------------------------------------------------------------------------------


def claims_of(trial: Mapping[str, Any]) -> list[Claim]:
    """What the two questions are about."""
    found = trial["found"]
    point = found["point"]
    foreign = {each["name"]: each["auroc"] for each in found["foreign"]}
    claims = []
    if trial["question"] == "cascade":
        low, high = point["change_ci95"]
        claims = [
            at_most(
                "share",
                "share of test images sent back to the teacher",
                point["share"],
                LARGEST_SHARE,
            ),
            at_most(
                "accuracy",
                "accuracy lost to the teacher on the test images",
                -point["change"],
                LARGEST_LOSS,
                (-high, -low),
            ),
            at_most(
                "time",
                "mean time over that of the teacher alone",
                point["ratio"],
                LARGEST_RATIO,
                tuple(point["ratio_ci95"]),
            ),
            _area("digits", "handwritten digits", foreign["digits"], LEAST_DIGITS),
        ]
    else:
        what = "two classes that the student never saw"
        claims.append(_area("held-out", what, foreign["held-out classes"], LEAST_HELD_OUT))
    return claims


def _area(name: str, what: str, areas: Mapping[str, Any], least: float) -> Claim:
    found = areas[DETECTS]
    statement = f"area under the ROC curve, test images against {what}, by {DETECTS}"
    return at_least(name, statement, found["value"], least, tuple(found["ci95"]))


def table(trials: Sequence[Mapping[str, Any]]) -> str:
    """The curve, the areas, and accuracy at fixed shares."""
    lines = []
    for one in trials:
        found = one["found"]
        if one["question"] == "cascade":
            lines += _curve(found)
        lines += _areas(one["question"], found)
        if one["question"] == "cascade":
            lines += _shares(found)
    return "\n".join(lines[:-1])


def _curve(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "| sent back | accuracy, % | against the teacher | mean time over its |",
        "| --: | --: | --: | --: |",
    ]
    for point in found["scores"][0]["curve"]:
        low, high = (100 * end for end in point["change_ci95"])
        lines.append(
            f"| {100 * point['share']:.2f} % | {100 * point['accuracy']:.2f} "
            f"| {100 * point['change']:+.2f} \\[{low:+.2f}, {high:+.2f}\\] "
            f"| {point['ratio']:.3f}x |"
        )
    return [*lines, ""]


def _areas(question: str, found: Mapping[str, Any]) -> list[str]:
    head = f"| AUROC, {question} |" + "".join(f" {score} |" for score in SCORES)
    lines = [head, "| :-- |" + " --: |" * len(SCORES)]
    for foreign in found["foreign"]:
        cells = (foreign["auroc"][score] for score in SCORES)
        words = (f"{c['value']:.3f} \\[{c['ci95'][0]:.3f}, {c['ci95'][1]:.3f}\\]" for c in cells)
        lines.append(f"| {foreign['name']} | {' | '.join(words)} |")
    return [*lines, ""]


def _shares(found: Mapping[str, Any]) -> list[str]:
    labeled = [each for each in found["foreign"] if each["fixed"]]
    shares = list(labeled[0]["fixed"])
    lines = [
        "| accuracy, %, by the share sent back |"
        + "".join(f" {100 * float(s):g} % |" for s in shares),
        "| :-- |" + " --: |" * len(shares),
    ]
    for foreign in labeled:
        cells = (f"{100 * foreign['fixed'][share]:.2f}" for share in shares)
        lines.append(f"| {foreign['name']} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    """Train and measure, and write the result."""
    arguments = script_parser(__doc__).parse_args()
    settings = SMOKE if arguments.smoke else SETTINGS
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "cascade.partial.jsonl"
    plan = [{"question": question} for question in settings]
    work = arguments.results / "cascade.work"
    found = list(each(plan, lambda one: trial(one, settings, work), kept))
    claims = [claim for one in found for claim in claims_of(one)]
    write("cascade", {"trials": found}, claims, arguments.results, table(found))
    kept.unlink()
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
