"""To the same goal, does a ratio of its own for each layer keep more than one for all?

The residual net of ``benchmarks/models`` is pruned to a goal with each ``scope``: ``local``, the
same ratio for every layer; ``global``, channels compared over all layers by their importance;
``sensitivity``, ratios chosen by what a layer's cut does to the outputs and costs of the goal. All
are trained alike after the cut, and compared on the same 10,000 test images of Fashion-MNIST.

    python benchmarks/cut_scopes.py            # 40 min; goes on where it was stopped
    python benchmarks/cut_scopes.py --seed 1   # trained in another order
    python benchmarks/cut_scopes.py --smoke    # digits, and multiply-accumulates alone
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import Claim, at_least, script_parser, write
from equal_time import compared, measured, share_of
from trials import each

from compress.record import Record

Trial = Mapping[str, Any]
#: What is asked for, and of which the last is by far the quickest to reach.
GOALS: Mapping[str, Mapping[str, float]] = {
    "latency_p50 0.5": {"latency_p50": 0.5},
    "macs 0.5": {"macs": 0.5},
}
SCOPES = ("sensitivity", "local", "global")


def trial(given: Trial, runs: Path) -> dict[str, Any]:
    """One goal with one scope, trained; but for the first scope also how far it is below that."""
    first, folder = (
        runs / f"{given['net']}-{given['goal']}-{scope}-{given['seed']}".replace(" ", "-")
        for scope in (SCOPES[0], given["scope"])
    )
    settings = {"goal": GOALS[given["goal"]], "scope": given["scope"]}
    found = measured(given, settings, folder, train=True)
    assert found.speedup is not None
    assert found.accuracy is not None
    return {
        "time": share_of(found),
        "time_ci95": sorted(1 / end for end in found.speedup.ci95),
        "artifact_bytes": found.artifact.bytes,
        "macs": Record.load(folder).rows[-1].macs,
        "score": found.accuracy.value,
        **({} if folder == first else compared(first, folder)),
    }


def claims_of(found: Sequence[Trial]) -> list[Claim]:
    """Under each goal, that the first scope keeps more than each of the others."""
    return [
        at_least(
            f"{one['net']}-{one['goal']}-{one['scope']}-seed-{one['seed']}".replace(" ", "-"),
            f"{one['net']}, goal {one['goal']}: score by scope {SCOPES[0]} less that by scope "
            f"{one['scope']}",
            one["delta"],
            0.0,
            (one["delta_ci95"][0], one["delta_ci95"][1]),
        )
        for one in found
        if "delta" in one
    ]


def table(found: Sequence[Trial]) -> str:
    """What each cut takes and keeps."""
    lines = [
        "| net, goal | scope | time | MACs, M | KiB | score |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]
    for one in found:
        low, high = one["time_ci95"]
        lines.append(
            f"| {one['net']}, {one['goal']} | {one['scope']} | {one['time']:.3f}x "
            f"\\[{low:.3f}, {high:.3f}\\] | {one['macs'] / 1e6:.2f} | "
            f"{one['artifact_bytes'] / 1024:.1f} | {one['score']:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Cut with every scope, and write the result."""
    parser = script_parser(__doc__, smoke="a minute; shows that it runs")
    parser.add_argument("--seed", type=int, default=0, help="of the recipe (default: %(default)s)")
    arguments = parser.parse_args()
    goals = ["macs 0.5"] if arguments.smoke else [*GOALS]
    plan = [
        {
            "net": "smoke" if arguments.smoke else "fashion",
            "goal": goal,
            "scope": scope,
            "seed": arguments.seed,
        }
        for goal in goals
        for scope in SCOPES
    ]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "cut_scopes.partial.jsonl"
    runs = kept.with_name("cut_scopes.runs")
    found = list(each(plan, lambda one: trial(one, runs), kept))
    write("cut_scopes", {"trials": found}, claims_of(found), arguments.results, table(found))
    kept.unlink()
    shutil.rmtree(runs)


if __name__ == "__main__":
    main()
