"""Does a ``distill`` stage that names no more than its student beat the labels alone?

For every data set of ``default_tasks.py``, ``{kind: distill, student: ...}`` is compared with
``{kind: train}`` on the same student: the same first weights, order of the data and augmentation,
as many steps, and on both sides whatever the stages do by default. A user who names no loss, no
temperature and no learning rate must not lose by having a teacher.

The defaults were chosen by such comparisons on digits, Fashion-MNIST and WordNet, on the very test
samples that are asked here: on these, a small gain looks larger than it is elsewhere. Diabetes had
no part in the choice of the losses for classes.

Differences are paired by seed, in points: of accuracy, or for diabetes of R² times 100. Intervals
over seeds are Student's, of training again on the same test samples. Those over test samples are of
the mean over seeds, paired by sample: of testing the same students on other samples.

    python benchmarks/defaults.py            # about 20 min on 2 cores; resumes where it was stopped
    python benchmarks/defaults.py --smoke    # under a minute, on digits and diabetes

The whole needs Debian's dataset-fashion-mnist and wordnet-base, and the extra ``transformers``.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from claims import Claim, at_least, script_parser, write
from default_tasks import SETTINGS, Case, built, case
from pairs import Row, difference, sample_scores, scored, without_samples
from trials import add, known

from compress import DistillStage
from compress.stages import TrainStage

LABELS, TEACHER = "labels", "teacher"
OWN_EPOCHS = TrainStage().epochs
SMOKE, SMOKE_SEEDS = ("digits", "diabetes"), 2
MOST_WORSE = {"accuracy": -1.0, "R²": -2.0}  # in points


@dataclass(frozen=True)
class Job:
    """One seed of one data set, for one number of epochs; ``None`` is the stage's own."""

    data: str
    epochs: int | None
    seed: int

    def stage(self, side: str, case: Case) -> TrainStage | DistillStage:
        """The stage of one side, with nothing that it does not need."""
        told = {} if self.epochs is None else {"epochs": self.epochs}
        if side == LABELS:
            return TrainStage(**told)
        return DistillStage.model_validate({"student": dict(case.setting.student), **told})


def lengths(name: str) -> list[int | None]:
    """The numbers of epochs to compare for, each once."""
    return [epochs for epochs in SETTINGS[name].epochs if epochs != OWN_EPOCHS]


def plan(names: Sequence[str], seeds: int | None) -> list[Job]:
    """All jobs, the long ones first, so that no core is left with one."""
    longest = sorted(names, key=lambda name: SETTINGS[name].seeds)
    return [
        Job(name, epochs, seed)
        for name in longest
        for epochs in lengths(name)
        for seed in range(seeds or SETTINGS[name].seeds)
    ]


def trained(job: Job, side: str, here: Case, workdir: Path) -> Row:
    """One student, trained once from labels or teacher."""
    stage = job.stage(side, here)
    began_s = time.perf_counter()
    student = here.trained(stage, built(here.setting.student, job.seed), job.seed, workdir)
    seconds = time.perf_counter() - began_s
    steps = stage.epochs * math.ceil(len(here.task.train) / stage.batch_size)
    return {
        **asdict(job),
        "side": side,
        "steps": steps,
        "seconds": seconds,
        "notes": list(student.notes),
        **scored(sample_scores(student.module, here.task.test)),
    }


def work(job: Job, sides: Sequence[str], kept: Path, folder: Path) -> None:
    """Train some sides of one job, on one thread; each row goes to the file ``kept`` at once."""
    torch.set_num_threads(1)
    here = case(job.data, folder)
    with tempfile.TemporaryDirectory() as workdir:
        for side in sides:
            row = trained(job, side, here, Path(workdir))
            add(kept, row)
            where = f"{job.data}, {row['steps']} steps, seed {job.seed}, {side}"
            print(f"{where}: {row['score']:.2f} in {row['seconds']:.0f} s", flush=True)


def taught(name: str, folder: Path) -> Row:
    """The teacher of one data set, trained if it is not there yet, and how good it is."""
    torch.set_num_threads(1)
    here = case(name, folder)
    score = scored(sample_scores(here.teacher, here.task.test))["score"]
    return {"data": name, "score": score, "points": here.points}


def run(
    names: Sequence[str], jobs: Sequence[Job], kept: Path, workers: int
) -> tuple[list[Row], list[Row]]:
    """Teachers, and the rows of all jobs; those in the file ``kept`` are not trained again."""
    folder = kept.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    there = {(Job(r["data"], r["epochs"], r["seed"]), r["side"]) for r in known(kept)}
    left = [(job, [s for s in (LABELS, TEACHER) if (job, s) not in there]) for job in jobs]

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:

        def submit(*, shipped: bool) -> list[Future[None]]:
            return [
                pool.submit(work, job, sides, kept, folder)
                for job, sides in left
                if sides and shipped is not bool(SETTINGS[job.data].training)
            ]

        teachers = [pool.submit(taught, name, folder) for name in names]
        begun = submit(shipped=True)  # beside the training of the other teachers
        found = [teacher.result() for teacher in teachers]
        for future in [*begun, *submit(shipped=False)]:
            future.result()
    wanted = set(jobs)
    rows = [r for r in known(kept) if Job(r["data"], r["epochs"], r["seed"]) in wanted]
    return found, rows


def summaries(teachers: Sequence[Row], rows: Sequence[Row]) -> Iterator[Row]:
    """What came of every data set and length."""
    for teacher in teachers:
        own = [row for row in rows if row["data"] == teacher["data"]]
        for epochs in lengths(teacher["data"]):
            some = [row for row in own if row["epochs"] == epochs]
            labels, distilled = (
                [row for row in some if row["side"] == side] for side in (LABELS, TEACHER)
            )
            yield {
                "data": teacher["data"],
                "by default": epochs is None,
                "steps": some[0]["steps"],
                "points": teacher["points"],
                "teacher": teacher["score"],
                "labels": statistics.fmean(row["score"] for row in labels),
                **asdict(difference(distilled, labels)),
            }


def table(found: Sequence[Row]) -> Iterator[str]:
    """A line for each data set and length."""
    yield (
        f"{'data':<22}{'steps':>6}{'seeds':>6}{'teacher':>9}{'labels':>8}{'distill':>9}"
        f"{'difference':>12}{'over seeds':>19}{'over samples':>19}"
    )
    for one in found:
        (low, high), (least, most) = one["over_seeds"], one["over_samples"]
        yield (
            f"{one['data']:<22}{one['steps']:>6}{len(one['by_seed']):>6}{one['teacher']:>9.2f}"
            f"{one['labels']:>8.2f}{one['labels'] + one['mean']:>9.2f}"
            f"{one['mean']:>+12.2f}{f'[{low:+.2f}, {high:+.2f}]':>19}"
            f"{f'[{least:+.2f}, {most:+.2f}]':>19}"
        )


def claims_of(found: Sequence[Row]) -> Iterator[Claim]:
    """What the training is to show."""
    for one in found:
        length = "its own epochs" if one["by default"] else f"{one['steps']:,} steps"
        yield at_least(
            f"{one['data']}-{'own' if one['by default'] else one['steps']}",
            f"{one['data']}, {length}: points of {one['points']} that a bare distill stage adds to "
            "labels alone, lower end of the interval over seeds",
            one["over_seeds"][0],
            MOST_WORSE[one["points"]],
            one["over_seeds"],
        )
    better = sum(one["mean"] > 0 for one in found)
    most = len(found) // 2 + 1
    yield at_least("better", f"of {len(found)} such comparisons, where it is better", better, most)
    yield at_least("seeds", "seeds of each", min(len(one["by_seed"]) for one in found), 3)


def main() -> None:
    """Train what is not trained yet, and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument("--data", nargs="+", choices=list(SETTINGS), help="default: all")
    parser.add_argument("--seeds", type=int, help="at least 2; default: those of each data set")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: %(default)s")
    arguments = parser.parse_args()
    names = arguments.data or (SMOKE if arguments.smoke else list(SETTINGS))
    seeds = arguments.seeds or (SMOKE_SEEDS if arguments.smoke else None)
    kept = arguments.results / "defaults.partial.jsonl"
    teachers, rows = run(names, plan(names, seeds), kept, arguments.workers)
    found = list(summaries(teachers, rows))
    raw = {"found": found, "rows": without_samples(rows)}
    claims, lines = list(claims_of(found)), "\n".join(table(found))
    write("defaults", raw, claims, arguments.results, lines)
    kept.unlink()
    shutil.rmtree(kept.with_suffix(""))


if __name__ == "__main__":
    main()
