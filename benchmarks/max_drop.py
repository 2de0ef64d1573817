"""Does a net that was quantized within ``max_drop`` keep it on the test split?

The stage decides on the validation split, which layers go back to float32 as few as needed. Here
every row is compared with the float net on the 10,000 test images of Fashion-MNIST, sample by
sample: the loss of accuracy with its 95 % interval. Nothing is timed.

- ``resnet`` and ``dscnn``: those of ``benchmarks/models``.
- ``student``, ``mlp``, ``mobilenet``: a residual net of a ninth of the parameters, fully connected
  layers, and MobileNetV2; trained here for a few epochs.

    python benchmarks/max_drop.py            # 20 min; goes on where it was stopped
    python benchmarks/max_drop.py --smoke    # digits
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import Claim, at_most, script_parser, write
from nets import DSCNN, RESNET
from trials import each

from compress import QuantizeStage, Recipe, ReplayTarget, Stage, TrainStage

MAX_DROP, LARGEST = 0.003, 0.006
#: What each net is, and for how many epochs it is trained.
NETS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "resnet": (RESNET, 0),
    "dscnn": (DSCNN, 0),
    "student": ({"arch": "resnet", "width": 8, "blocks": 1, "stem_stride": 2}, 4),
    "mlp": ({"arch": "mlp", "width": 128}, 4),
    "mobilenet": ({"arch": "mobilenet-v2"}, 2),
    "smoke": ({"arch": "mlp", "width": 16}, 2),
}
FORMATS = ("int8", "int4")
"""Of the weights; activations are int8."""


def trial(given: Mapping[str, Any], cache: Path) -> dict[str, Any]:
    """One net in one format; nets are trained once, their results are in the cache."""
    model, epochs = NETS[given["net"]]
    stages: list[Stage] = [TrainStage(epochs=epochs, batch_size=64)] if epochs else []
    stages.append(QuantizeStage(weights=given["weights"], activations="int8", max_drop=MAX_DROP))
    recipe = Recipe(
        name=given["net"],
        seed=given["seed"],
        task="digits" if given["net"] == "smoke" else "fashion-mnist",
        model=model,
        stages=tuple(stages),
    )
    with tempfile.TemporaryDirectory(prefix="compresskit-max-drop-") as folder:
        task = recipe.make_task()
        record = recipe.run(
            recipe.make_candidate(task),
            task,
            workdir=Path(folder),
            targets=[ReplayTarget()],
            cache=cache,
            report=False,
        )
    before, after = record.rows[-2], record.rows[-1]
    scores = [row.measurements[0].accuracy for row in (before, after)]
    assert scores[0] is not None
    assert scores[1] is not None
    pair = scores[1].versus_baseline
    assert pair is not None
    return {
        "score": [one.value for one in scores],
        "lost": -pair["delta"],
        "lost_ci95": sorted((-pair["delta_ci_lo"], -pair["delta_ci_hi"])),
        "bytes": [row.measurements[0].artifact.bytes for row in (before, after)],
        "notes": list(after.notes),
    }


def claims_of(found: Mapping[str, Any]) -> list[Claim]:
    """What is lost is at most what was allowed, and its interval ends soon above."""
    name = f"{found['net']}-{found['weights']}-seed-{found['seed']}"
    what = f"{found['net']}, weights {found['weights']}, max_drop 0.3pt: accuracy lost on test"
    interval = tuple(found["lost_ci95"])
    return [
        at_most(name, what, found["lost"], MAX_DROP, interval),
        at_most(f"{name}-upper", f"{what}, upper end of the interval", interval[1], LARGEST),
    ]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """What each net lost."""
    lines = [
        "| net | weights | float, % | lost, points | bytes |",
        "| :-- | :-- | --: | --: | --: |",
    ]
    for one in found:
        low, high = (100 * end for end in one["lost_ci95"])
        lines.append(
            f"| {one['net']} | {one['weights']} | {100 * one['score'][0]:.2f} "
            f"| {100 * one['lost']:+.2f} \\[{low:+.2f}, {high:+.2f}\\] "
            f"| {one['bytes'][1] / one['bytes'][0]:.3f}x |"
        )
    return "\n".join(lines)


def main() -> None:
    """Quantize every net in every format, and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the recipe (default: %(default)s)")
    arguments = parser.parse_args()
    nets = ("smoke",) if arguments.smoke else [net for net in NETS if net != "smoke"]
    plan = [
        {"net": net, "weights": weights, "seed": arguments.seed}
        for net in nets
        for weights in FORMATS
    ]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "max_drop.partial.jsonl"
    with tempfile.TemporaryDirectory(prefix="compresskit-max-drop-") as cache:
        found = list(each(plan, lambda one: trial(one, Path(cache)), kept))
    claims = [claim for one in found for claim in claims_of(one)]
    write("max_drop", {"trials": found}, claims, arguments.results, table(found))
    kept.unlink()


if __name__ == "__main__":
    main()
