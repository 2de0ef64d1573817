"""What each criterion of pruning costs: one cut, no training after it, on the same nets.

Each trial removes the same share from one net of ``benchmarks/models`` by one criterion; the score
is of the deployed file on the 10,000 test images of Fashion-MNIST, paired with that of the net that
came in. ``random`` is what the others have to beat.

    python benchmarks/prune_criteria.py            # 12 min; goes on where it was stopped
    python benchmarks/prune_criteria.py --seed 1   # what is drawn at random once more
    python benchmarks/prune_criteria.py --smoke    # digits and a net that was not trained
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from claims import Claim, at_least, script_parser, write
from nets import DSCNN, RESNET
from trials import each

from compress import PruneStage, Recipe, ReplayTarget
from compress.errors import CompressError
from compress.pruning.importance import CRITERIA

NETS: Mapping[str, Mapping[str, Any]] = {
    "resnet": RESNET,
    "dscnn": DSCNN,
    "smoke": {"arch": "resnet", "width": 8},
}
DIGITS = {"name": "digits", "limit": 200}
#: What is removed, and how much of it: enough for the choice to matter.
CUTS: Mapping[str, float | None] = {"channels": 0.25, "weights": 0.7, "2:4": None}
_RANDOM = "random"


def plan_of(nets: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """Every criterion with every granularity that it ranks, on every net."""
    for net in nets:
        for granularity in CUTS:
            for name, criterion in CRITERIA.items():
                if criterion.is_learned:  # in training, of which there is none here
                    continue
                ranks_channels = not criterion.of_weights
                # Single weights go by their size where the criterion is one of magnitude: once.
                ranks_weights = criterion.of_weights or name == "l1"
                if ranks_channels if granularity == "channels" else ranks_weights:
                    yield {
                        "net": net,
                        "granularity": granularity,
                        "importance": name,
                        "seed": seed,
                    }


def trial(given: Mapping[str, Any]) -> dict[str, Any]:
    """The score before and after one cut; ``error`` where the criterion cannot rank the net."""
    ratio = CUTS[given["granularity"]]
    settings = {key: given[key] for key in ("granularity", "importance")}
    stage = PruneStage(**settings, **({} if ratio is None else {"ratio": ratio}))
    task = (
        {"name": "digits", "limit": 200} if given["net"] == "smoke" else {"name": "fashion-mnist"}
    )
    recipe = Recipe(
        name="criteria", seed=given["seed"], task=task, model=NETS[given["net"]], stages=(stage,)
    )
    data = recipe.make_task()
    with tempfile.TemporaryDirectory(prefix="compresskit-criteria-") as folder:
        try:
            record = recipe.run(
                recipe.make_candidate(data),
                data,
                workdir=folder,
                targets=[ReplayTarget()],
                cache="none",
                report=False,
            )
        except CompressError as error:
            return {"error": str(error)}
    before, after = (row.measurements[0].accuracy for row in record.rows)
    assert before is not None
    assert after is not None
    versus = after.versus_baseline
    assert versus is not None
    return {
        "before": before.value,
        "after": after.value,
        "delta_ci95": [versus["delta_ci_lo"], versus["delta_ci_hi"]],
        "nonzero": record.rows[1].nonzero_parameters / record.rows[0].nonzero_parameters,
    }


def claims_of(found: Sequence[Mapping[str, Any]]) -> Iterator[Claim]:
    """What each criterion keeps above a random choice of as many channels."""
    random = {one["net"]: one for one in found if one["importance"] == _RANDOM}
    for one in found:
        beaten = random.get(one["net"])
        if one["granularity"] != "channels" or beaten in (None, one) or "error" in one:
            continue
        half = math.hypot(_half_width(one), _half_width(beaten))
        better = one["after"] - beaten["after"]
        yield at_least(
            f"{one['net']}-{one['importance']}",
            f"{one['net']}: accuracy kept by {one['importance']} above a random choice",
            better,
            0.0,
            (better - half, better + half),
        )


def _half_width(one: Mapping[str, Any]) -> float:
    low, high = one["delta_ci95"]
    return float(high - low) / 2


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The score of every cut, the best first within what was removed."""
    lines = [
        "| net | removed | importance | accuracy before | after | change, points |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
    ]
    for one in sorted(
        found, key=lambda one: (one["net"], one["granularity"], -one.get("after", -1.0))
    ):
        ratio = CUTS[one["granularity"]]
        removed = one["granularity"] + ("" if ratio is None else f", {ratio:g}")
        start = f"| {one['net']} | {removed} | {one['importance']} "
        if "error" in one:
            lines.append(f"{start}| | cannot rank it | |")
            continue
        low, high = (100 * end for end in one["delta_ci95"])
        change = 100 * (one["after"] - one["before"])
        lines.append(
            f"{start}| {one['before']:.4f} | {one['after']:.4f} "
            f"| {change:+.2f} \\[{low:+.2f}, {high:+.2f}\\] |"
        )
    return "\n".join(lines)


def main() -> None:
    """Cut by every criterion, and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the recipe (default: %(default)s)")
    arguments = parser.parse_args()
    nets = ("smoke",) if arguments.smoke else ("resnet", "dscnn")
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "prune_criteria.partial.jsonl"
    found = list(each(plan_of(nets, arguments.seed), trial, kept))
    write(
        "prune_criteria", {"trials": found}, list(claims_of(found)), arguments.results, table(found)
    )
    kept.unlink()


if __name__ == "__main__":
    main()
