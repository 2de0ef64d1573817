"""Do nets that learned slow image filters do what they were made for, on photographs held back?

Both recipes are run into ``runs/``, or found there; the photographs of the test split are neither
trained on nor chosen by. Every row's file is run on them in onnxruntime.

- ``effect``: style transfer, which is optimized for each image. PSNR against the filter's images,
  beside the best global map of colors: a cubic one that learned from the training pairs, and one
  that is fitted to each image with its answer. Time beside the filter's, in turns.
- ``effect-oil``: the same student with a control. Strength 0 gives the image back, and more
  strength changes it more.

Intervals are Student's, over photographs: parts of one photograph are alike.

    compresskit pairs recipes/effect.yaml && compresskit pairs recipes/effect-oil.yaml
    python benchmarks/effects.py            # 2 h on one core; goes on where it was stopped
    python benchmarks/effects.py --smoke    # a tiny net
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from claims import Claim, at_least, at_most, mean_interval, script_parser, write

from compress import Recipe
from compress.cli.filtering import DeployedFilter
from compress.config.references import CodeReferences
from compress.measure.ondevice.scoring import scores
from compress.measure.target import Mode
from compress.tasks.image_to_image import plan_of
from compress.tasks.pairs.color_map import without_net
from compress.tasks.pairs.drawing import CONTROL_STEPS
from compress.tasks.pairs.making import PairsPlan

RECIPES = Path(__file__).parent.parent / "recipes"
NAMES = ("effect", "effect-oil")
SMOKE = """
schema: 1
name: {name}
task:
  name: image-to-image
  images: photographs
  teacher: {{name: oil-paint, search: 3, radius: 1}}
  size: 32
  pairs: 2
  frames: 1
{controls}
model: {{arch: mobile-unet, width: 8, depth: 2, blocks: 1{net}}}
stages:
  - {{kind: distill, teacher: {{labels: true}}, epochs: 1, losses: [{{kind: l1}}]}}
  - {{kind: quantize, weights: int8, activations: int8}}
targets:
  - {{kind: local, runtime: onnxruntime}}
"""
# The teacher and the net are timed in turns, so often.
TURNS = 5

Found = dict[str, Any]


def found_of(recipe: Recipe, folder: Path, mode: Mode) -> Found:
    """What a recipe's rows make of the test split."""
    task = recipe.make_task()
    record = recipe.run(recipe.make_candidate(task), task, workdir=folder, mode=mode)
    assert recipe.task is not None
    plan = plan_of(recipe.task, CodeReferences())
    assert plan is not None
    images, made, controls = plan.arrays("test")
    wanted, unchanged = made / 255.0, images / 255.0
    rows = []
    for row in record.rows[1:]:
        net = DeployedFilter(record.artifact(row.index))
        filtered = np.stack(
            [
                net(image, {name: float(values[place, 0]) for name, values in controls.items()})
                for place, image in enumerate(unchanged)
            ]
        )
        measured = row.measurements[0]
        assert measured.latency is not None
        rows.append(
            {
                "row": row.stage,
                "teacher_db": scores(filtered, wanted, "psnr").tolist(),
                "unchanged_db": scores(filtered, unchanged, "psnr").tolist(),
                "distance": np.abs(filtered - unchanged).mean(axis=(1, 2, 3)).tolist(),
                "p50_s": measured.latency.p50_s,
                "p50_ci95_s": measured.latency.ci95_p50_s,
                "int8_mac_fraction": measured.artifact.int8_mac_fraction,
                "bytes": measured.artifact.bytes,
                "ratio": ratio_to_teacher(plan, net),
            }
        )
    beside = without_net(plan.arrays("train"), (images, made, controls))
    return {
        "name": recipe.name,
        "photographs": plan.photographs("test"),
        "controls": {name: values[:, 0].tolist() for name, values in controls.items()},
        "without_net_db": {name: values.tolist() for name, values in vars(beside).items()},
        "rows": rows,
    }


def ratio_to_teacher(plan: PairsPlan, net: DeployedFilter) -> list[float]:
    """How many times as fast as the teacher a net is on one image, in turns."""
    images, _, controls = plan.arrays("test")
    values = {name: float(each[-1, 0]) for name, each in controls.items()}
    image = images[-1].transpose(1, 2, 0)
    given = images[-1].astype(np.float32) / 255
    net.warm_up(values)
    found = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        plan.teacher(image, values)
        teacher_s = time.perf_counter() - begin
        own = []
        for _ in range(TURNS):
            begin = time.perf_counter()
            net(given, values)
            own.append(time.perf_counter() - begin)
        found.append(teacher_s / statistics.median(own))
    return found


def over_photographs(
    values: Sequence[float], photographs: Sequence[int]
) -> tuple[float, tuple[float, float] | None]:
    """The mean, with the interval over photographs of their own means."""
    by_photograph: dict[int, list[float]] = {}
    for place, value in zip(photographs, values, strict=True):
        by_photograph.setdefault(place, []).append(value)
    return mean_interval([statistics.fmean(each) for each in by_photograph.values()])


def claims_of(found: Found) -> Iterator[Claim]:
    """What a filter's net was made for."""
    rows, name = found["rows"], found["name"]
    first, last = rows[0], rows[-1]
    if found["controls"]:
        yield from claims_of_control(found)
    else:
        mean, ci95 = over_photographs(first["teacher_db"], found["photographs"])
        yield at_least(f"{name}-psnr", f"{name}: PSNR of the float student, dB", mean, 24, ci95)
        for kind, words in (
            ("color_map", "the map of colors that fits the training pairs"),
            ("own_color_map", "a map of colors fitted to each image and its answer"),
        ):
            more = np.subtract(first["teacher_db"], found["without_net_db"][kind]).tolist()
            mean, ci95 = over_photographs(more, found["photographs"])
            yield at_least(f"{name}-{kind}", f"{name}: dB above {words}", mean, 4, ci95)
    lost = np.subtract(first["teacher_db"], last["teacher_db"]).tolist()
    mean, ci95 = over_photographs(lost, found["photographs"])
    yield at_most(f"{name}-lost", f"{name}: dB lost by the stages after it", mean, 1, ci95)
    low, high = (1000 * end for end in last["p50_ci95_s"])
    p50_ms = 1000 * last["p50_s"]
    yield at_most(f"{name}-ms", f"{name}: ms for a frame in the end", p50_ms, 33, (low, high))
    mean, ci95 = mean_interval(last["ratio"])
    yield at_least(f"{name}-speed", f"{name}: times as fast as the filter", mean, 100, ci95)
    share = last["int8_mac_fraction"]
    yield at_least(f"{name}-int8", f"{name}: share of multiply-accumulates in int8", share, 0.95)


def claims_of_control(found: Found) -> Iterator[Claim]:
    """Nothing is changed at the lowest value, and more at each further one."""
    (control,) = found["controls"].values()
    lowest = np.array(control) == min(control)
    places = np.array(found["photographs"])[lowest].tolist()
    for row in found["rows"]:
        name, what = f"{found['name']}-{row['row']}", f"{found['name']}, {row['row']}"
        unchanged = np.array(row["unchanged_db"])[lowest].tolist()
        mean, ci95 = over_photographs(unchanged, places)
        words = f"{what}: PSNR against the image that came in at the lowest strength, dB"
        yield at_least(f"{name}-identity", words, mean, 30, ci95)
        # The values of one image are one after another.
        by_image = np.array(row["distance"]).reshape(-1, CONTROL_STEPS)
        grows = float((np.diff(by_image, axis=1) > 0).all(axis=1).mean())
        words = f"{what}: share of images whose change grows at each of {CONTROL_STEPS} strengths"
        yield at_least(f"{name}-grows", words, grows, 1)


def table(found: Sequence[Found]) -> str:
    """Every row, and what is reached without a net."""
    lines = [
        "| recipe | row | PSNR, dB | ms | times as fast as the filter | bytes |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    for one in found:
        for kind, values in one["without_net_db"].items():
            mean, ci95 = over_photographs(values, one["photographs"])
            name = kind.replace("_", " ")
            lines.append(f"| {one['name']} | {name} | {_with(mean, ci95, '.2f')} | | | |")
        for row in one["rows"]:
            mean, ci95 = over_photographs(row["teacher_db"], one["photographs"])
            ratio, of_ratio = mean_interval(row["ratio"])
            lines.append(
                f"| {one['name']} | {row['row']} | {_with(mean, ci95, '.2f')} "
                f"| {1000 * row['p50_s']:.1f} | {_with(ratio, of_ratio, '.0f')} "
                f"| {row['bytes']:,} |"
            )
    return "\n".join(lines)


def _with(value: float, ci95: tuple[float, float] | None, form: str) -> str:
    interval = f" \\[{ci95[0]:{form}}, {ci95[1]:{form}}\\]" if ci95 else ""
    return f"{value:{form}}{interval}"


def recipes_of(*, is_smoke: bool, folder: Path) -> Iterator[Recipe]:
    """The recipes to run."""
    for name in NAMES:
        path = RECIPES / f"{name}.yaml"
        if is_smoke:
            has_control = name != NAMES[0]
            controls = "  controls: {strength: [0, 1]}" if has_control else ""
            net = ", controls: {strength: 1}" if has_control else ""
            path = folder / f"{name}.yaml"
            path.write_text(SMOKE.format(name=name, controls=controls, net=net))
        yield Recipe.load(path)


def main() -> None:
    """Run both recipes, and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compresskit-effects-") as scratch:
        runs = Path(scratch) if arguments.smoke else arguments.runs
        recipes = recipes_of(is_smoke=arguments.smoke, folder=Path(scratch))
        mode: Mode = "quick" if arguments.smoke else "default"
        found = [found_of(recipe, runs / recipe.name, mode) for recipe in recipes]
    claims = [claim for one in found for claim in claims_of(one)]
    raw: Mapping[str, Any] = {"filters": found}
    write("effects", raw, claims, arguments.results, table(found))


if __name__ == "__main__":
    main()
