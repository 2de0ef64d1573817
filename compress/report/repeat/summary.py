"""A recipe over seeds: what ``repeat.json`` says, from the records of its runs alone.

The interval of a score in one record is about the test sample: another sample of as many, the same
trained model. What another training would have given is not in it. Runs that differ in the seed
alone have that, and this is what is made of them.

A score of run ``i`` is taken as ``mu + T_i + S``: ``T_i`` is what its training did, of another seed
each time; ``S`` is what the test sample did, and that is **the same for all runs**, since the seed
does not move the split. With N runs of mean ``m`` and standard deviation ``s`` there are three 95 %
intervals:

``ci95_seeds``
    ``m ± t s / sqrt(N)``, ``t`` Student's 97.5 % quantile of N - 1 degrees of freedom (Student
    1908): another training, this test sample.
``ci95_sample``
    the mean of the runs' own intervals: these trainings, another test sample. More seeds do not
    narrow it.
``ci95``
    both, by variances that add: each end is as far from ``m`` as the root of the summed squares of
    both distances (Zou and Donner 2008, "MOVER", which keeps unequal ends unequal). It is the one
    to give of a recipe. It is rather too wide than too narrow: runs also differ in which samples
    they get right, and that is in both parts.

Changes to the baseline row are differences **within** a run, so what a seed does to both cancels.
That seeds vary results by as much as the methods that are compared is known (Bouthillier et al.
2021, "Accounting for variance in machine learning benchmarks"). No torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from compress.errors import RecordError
from compress.measure.quantities import QUANTITIES
from compress.measure.quantity import Quantity
from compress.measure.stats import student_quantile
from compress.pareto import recommend
from compress.record import Measurement, Record, Row
from compress.report.repeat.facts import (
    FEWEST_SEEDS,
    REPEAT_NAME,
    Choice,
    Ends,
    FailedSeed,
    Range,
    Repeat,
    RepeatedMeasurement,
    RepeatedRow,
    Spread,
)

__all__ = [
    "gather",
    "is_repeat",
    "outside",
    "seed_folder",
    "spread",
    "student_975",
    "student_half_width",
    "summary",
]

_SEED = "seed-"


# -- statistics -------------------------------------------------------------------------------


def spread(values: Sequence[float], own: Sequence[Ends] | None) -> Spread:
    """What the seeds' scores say, by the formulas at the head of this file.

    Args:
        values: one for each seed, at least two.
        own: each run's own 95 % interval, about the test sample alone, if there is one.
    """
    mean, half = statistics.fmean(values), student_half_width(values)
    sample, both = None, None
    if own is not None:
        sample = (statistics.fmean(lo for lo, _ in own), statistics.fmean(hi for _, hi in own))
        both = (
            mean - math.hypot(half, mean - sample[0]),
            mean + math.hypot(half, sample[1] - mean),
        )
    return Spread(
        values=list(values),
        own_ci95=None if own is None else list(own),
        mean=mean,
        sd_seeds=statistics.stdev(values),
        ci95_seeds=(mean - half, mean + half),
        ci95_sample=sample,
        ci95=both,
    )


def student_half_width(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean of at least two ``values``."""
    return student_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


@lru_cache
def student_975(df: int) -> float:
    """Student's 97.5 % quantile."""
    return student_quantile(0.975, df)


def outside(interval: Ends | None) -> int:
    """1 where the whole interval is above zero, -1 where it is below, 0 otherwise."""
    if interval is None:
        return 0
    return 1 if interval[0] > 0 else -1 if interval[1] < 0 else 0


# -- from records -----------------------------------------------------------------------------


def summary(records: Sequence[Record], failed: Mapping[int, str] | None = None) -> Repeat:
    """What finished runs of one recipe say together.

    Args:
        records: one for each seed.
        failed: for each seed whose run did not finish, why.

    Raises:
        RecordError: fewer than two records, or records that differ in more than the seed.
    """
    if len(records) < FEWEST_SEEDS:
        raise RecordError(
            f"a repeated run needs {FEWEST_SEEDS} finished seeds at least; got {len(records)}."
        )
    first = records[0]
    targets = [t for t in first.targets if all(t in record.targets for record in records)]
    for record in records[1:]:
        if _identity(record) != _identity(first):
            raise RecordError(
                f"the runs of seed {first.seed} and seed {record.seed} differ in more than the "
                "seed (recipe, task or rows); repeat the run of all seeds."
            )
    return Repeat(
        name=first.name,
        recipe=_seedless(first),
        seeds=[record.seed for record in records],
        failed=[FailedSeed(seed=seed, error=error) for seed, error in (failed or {}).items()],
        task=first.task,
        baseline=first.baseline,
        rows=[
            _row(targets, k == first.baseline, [record.rows[k] for record in records])
            for k in range(len(first.rows))
        ],
        choices=[_choice(records, target) for target in targets],
    )


def _seedless(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.recipe.items() if key != "seed"}


def _identity(record: Record) -> tuple[object, ...]:
    rows = [(row.index, row.stage) for row in record.rows]
    return _seedless(record), record.task, record.baseline, rows


def _row(targets: Sequence[str], is_baseline: bool, rows: Sequence[Row]) -> RepeatedRow:
    first = rows[0]
    found = {target: [m for row in rows if (m := row.on(target))] for target in targets}
    return RepeatedRow(
        index=first.index,
        stage=first.stage,
        kind=first.kind,
        same_model=len({row.fingerprint for row in rows}) == 1,
        measurements=[
            _measurement(target, is_baseline, measured)
            for target, measured in found.items()
            if len(measured) == len(rows)
        ],
    )


def _measurement(
    target: str, is_baseline: bool, found: Sequence[Measurement]
) -> RepeatedMeasurement:
    return RepeatedMeasurement(
        target=target,
        score=_score(found),
        change=None if is_baseline else _change(found),
        speedup=_range(found, lambda m: m.speedup.value if m.speedup else None),
        p50_s=_range(found, lambda m: m.latency.p50_s if m.latency else None),
        artifact_bytes=_range(found, lambda m: m.artifact.bytes),
        model_peak_bytes=_range(found, lambda m: m.memory.model_peak_bytes if m.memory else None),
        quantities=_declared(found),
    )


def _declared(found: Sequence[Measurement]) -> dict[str, Range]:
    """The quantities that a record keeps by name, and not in a block of its own."""
    kept = {q.name: q for q in QUANTITIES if any(q.name in m.quantities for m in found)}
    ranges = {name: _range(found, partial(_value, quantity)) for name, quantity in kept.items()}
    return {name: values for name, values in ranges.items() if values is not None}


def _value(quantity: Quantity, found: Measurement) -> float | None:
    read = quantity.in_session(found)
    return None if read is None else read.value


def _score(found: Sequence[Measurement]) -> Spread | None:
    scores = [m.accuracy for m in found if m.accuracy is not None]
    if len(scores) < len(found) or not _finite(score.value for score in scores):
        return None
    own = [score.ci95 for score in scores]
    return spread(
        [s.value for s in scores], own if _finite(e for ends in own for e in ends) else None
    )


def _change(found: Sequence[Measurement]) -> Spread | None:
    # What others' records, or rows of a run that were not compared, may lack.
    versus = [(m.accuracy.versus_baseline or {}) if m.accuracy else {} for m in found]
    values = [v.get("delta", math.nan) for v in versus]
    if not _finite(values):
        return None
    own = [(v.get("delta_ci_lo", math.nan), v.get("delta_ci_hi", math.nan)) for v in versus]
    return spread(values, own if _finite(end for ends in own for end in ends) else None)


def _range(
    found: Sequence[Measurement], read: Callable[[Measurement], float | None]
) -> Range | None:
    values = [read(m) for m in found]
    known = [float(value) for value in values if value is not None]
    if len(known) < len(found) or not _finite(known):
        return None
    return Range(values=known, median=statistics.median(known), low=min(known), high=max(known))


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))


def _choice(records: Sequence[Record], target: str) -> Choice:
    advice = [recommend(record, target) for record in records]
    return Choice(
        target=target,
        rows=[each.index for each in advice],
        meets_budget=[each.meets_budget for each in advice],
    )


# -- on disk ----------------------------------------------------------------------------------


def seed_folder(folder: Path, seed: int) -> Path:
    """The run folder of one seed."""
    return folder / f"{_SEED}{seed}"


def is_repeat(folder: Path) -> bool:
    """Whether ``folder`` holds a repeated run, finished or not."""
    return (folder / REPEAT_NAME).exists() or bool(_seeds_in(folder))


def _seeds_in(folder: Path) -> list[int]:
    found = [path.parent.name.removeprefix(_SEED) for path in folder.glob(f"{_SEED}*/record.json")]
    return sorted(int(seed) for seed in found if seed.isdecimal())


def gather(folder: Path) -> Repeat:
    """A repeated run from the records below ``folder``.

    The seeds are those of its ``repeat.json``, or else all that are there; where the records are
    gone, ``repeat.json`` is what there is.

    Raises:
        RecordError: nothing that can be read, fewer than two finished seeds, or runs that differ in
            more than the seed.
    """
    there = seeds = _seeds_in(folder)
    failed: dict[int, str] = {}
    if (folder / REPEAT_NAME).exists():
        known = Repeat.load(folder)
        if not set(known.seeds) <= set(there):
            return known
        failed = {each.seed: each.error for each in known.failed}
        seeds = sorted({*known.seeds, *failed})
    records = {seed: Record.load(seed_folder(folder, seed)) for seed in seeds if seed in there}
    done = [record for record in records.values() if record.status == "done"]
    if len(done) < FEWEST_SEEDS:
        raise RecordError(
            f"{folder}: a repeated run needs {FEWEST_SEEDS} finished seeds, and here "
            f"{'is' if len(done) == 1 else 'are'} {len(done)}; repeat the command that started "
            "it, and it resumes."
        )
    for seed, record in records.items():
        failed.pop(seed, None)
        if record.status != "done":
            failed[seed] = record.error or "it has not finished."
    return summary(done, failed)
