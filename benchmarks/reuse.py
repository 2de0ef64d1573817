"""What do keys, store and manifests cost, and what do they save?

- ``overhead``: a run of ``recipes/fashion-mnist.yaml`` with fewer epochs, of some ten minutes; the
  time in all that is there for re-use (content of data and code, keys, manifests, the store) over
  that of the run.
- ``cached``: the same recipe in another folder, with the store that the first one left: wall time
  of the process, less what it spent measuring.
- ``hashing``: 60,000 images of 28 x 28 floats, hashed for the first time, and again.
- ``orders``: the six orders of three stages on digits, with one store: stages that were run.

    python benchmarks/reuse.py            # about 15 min
    python benchmarks/reuse.py --smoke    # on digits
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from claims import at_least, at_most, script_parser, write

from compress import Recipe, ReplayTarget
from compress.fingerprints import DataDigestCache, data_fingerprint
from compress.running import digests, earlier_results, evaluator, folder, job
from compress.tasks.arrays import ArrayDataset

RECIPE = Path(__file__).parents[1] / "recipes" / "fashion-mnist.yaml"
SHORTER = (
    *("stages.0.epochs=2", "stages.1.epochs=5", "stages.1.views=2"),
    *("stages.3.finetune.epochs=2", "stages.3.finetune.views=1"),
)
SMOKE = (*SHORTER, "task={name: digits, limit: 640}")
IMAGES, REPEATS = 60_000, 5
ORDERS = """\
schema: 1
name: orders
task: {name: digits, limit: 400}
model: {arch: mlp, in_features: 64, width: 16}
stages:
  - {kind: train, epochs: 2}
  - {kind: quantize}
  - {kind: prune, ratio: 0.3, finetune: {epochs: 1}}
"""
#: All that would not be there if nothing were used again; none of these calls another of them.
OWN = (
    (digests.ContentDigests, "of"),
    (job, "of_stage"),
    (evaluator, "of_measurement"),
    (earlier_results.EarlierResults, "stage"),
    (earlier_results.EarlierResults, "seem_to_have"),
    (earlier_results.EarlierResults, "provisional"),
    (earlier_results.EarlierResults, "measurement"),
    (earlier_results.EarlierResults, "keep_stage"),
    (earlier_results.EarlierResults, "keep_measurement"),
    (folder.RunFolder, "prepare"),
)


class Clock:
    """Adds up the time in functions, less that in others of them which they call."""

    def __init__(self) -> None:
        self.spent_s: Counter[str] = Counter()
        self._inside = 0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*given: Any, **named: Any) -> Any:
            self._inside += 1
            began_s = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self._inside -= 1
                if not self._inside:
                    self.spent_s[name] += time.perf_counter() - began_s

        return call


def run(settings: tuple[str, ...], out: Path, store: Path, *, smoke: bool) -> dict[str, Any]:
    """Run the recipe; seconds in all, in what is there for re-use, and in measuring."""
    clock, measured_s, since_s = Clock(), 0.0, time.perf_counter()
    began_s, is_measuring = since_s, False

    def observer(event: Mapping[str, Any]) -> None:
        nonlocal measured_s, since_s, is_measuring
        now_s = time.perf_counter()
        measured_s += (now_s - since_s) * is_measuring
        since_s = now_s
        is_measuring = event["event"] == "measure" or (
            is_measuring and event["event"] not in ("stage", "reuse", "row", "end")
        )

    stack = [
        patch.object(owner, name, clock.timed(name, getattr(owner, name))) for owner, name in OWN
    ]
    for one in stack:
        one.start()
    try:
        recipe = Recipe.load(RECIPE, settings=list(settings))
        record = recipe.run(
            recipe.make_candidate(task := recipe.make_task()),
            task,
            workdir=out,
            cache=store,
            observer=observer,
            targets=[ReplayTarget()] if smoke else None,
            report=False,
        )
    finally:
        for one in stack:
            one.stop()
    return {
        "seconds": time.perf_counter() - began_s,
        "own_s": dict(clock.spent_s),
        "measuring_s": measured_s,
        "cached": [row.cached for row in record.rows[1:]],
    }


def hashing() -> dict[str, Any]:
    """Seconds to hash the images once, and again."""
    found: dict[str, list[float]] = {"first_s": [], "again_s": []}
    for seed in range(REPEATS):
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(IMAGES, 1, 28, 28, generator=generator)
        data, memory = (
            ArrayDataset(images, torch.zeros(IMAGES, dtype=torch.long)),
            DataDigestCache(),
        )
        for times in found.values():
            began_s = time.perf_counter()
            data_fingerprint(data, "the training data", memory)
            times.append(time.perf_counter() - began_s)
    return found


def orders(root: Path, most: int) -> list[list[bool]]:
    """For each order of three stages, or ``most`` of them, which stages were there already."""
    recipe = Recipe.loads(ORDERS)
    task = recipe.make_task()
    found = []
    for number, stages in enumerate(itertools.permutations(recipe.stages)):
        if number == most:
            break
        one = recipe.model_copy(update={"stages": stages})
        record = one.run(
            one.make_candidate(task),
            task,
            workdir=root / f"order-{number}",
            targets=[ReplayTarget()],
            cache=root / "orders",
            report=False,
        )
        found.append([row.cached for row in record.rows[1:]])
    return found


def main() -> None:
    """Measure all, and write the result."""
    arguments = script_parser(__doc__).parse_args()
    smoke = arguments.smoke
    settings = SMOKE if smoke else SHORTER
    with tempfile.TemporaryDirectory(prefix="compresskit-reuse-") as name:
        root = Path(name)
        whole = run(settings, root / "first", root / "store", smoke=smoke)
        cached = run(settings, root / "second", root / "store", smoke=smoke)
        found = orders(root, 2 if smoke else 6)
    hashed = hashing()
    share = sum(whole["own_s"].values()) / whole["seconds"]
    executed = sum(not there for order in found for there in order)
    rest_s = cached["seconds"] - cached["measuring_s"]
    first_s, again_s = (statistics.median(times) for times in hashed.values())
    claims = [
        at_most("overhead", "share of a whole run that goes into what is for re-use", share, 0.02),
        at_most("cached", "seconds of the same run elsewhere, less measuring", rest_s, 15),
        at_least("all", "stages of it that were there already", sum(cached["cached"]), 4),
        at_most("orders", "of 18 stages in six orders of three, those that were run", executed, 15),
        at_most("first", f"seconds to hash {IMAGES:,} images once, median of 5", first_s, 2),
        at_most("again", "seconds to hash them again", again_s, 0.05),
    ]
    raw = {"whole": whole, "cached": cached, "orders": found, "hashing": hashed}
    write("reuse", raw, claims, arguments.results)


if __name__ == "__main__":
    main()
