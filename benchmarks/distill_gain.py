"""Does a student learn more from a teacher than from labels alone, and by which family of losses?

Every recipe of ``recipes/families/`` trains the same student of 19,810 parameters on the same
12,000 images of Fashion-MNIST: ``direct`` on their labels alone, the others from a teacher of
174,970 parameters as well. A seed fixes the student's first weights, the order of the data and the
augmentation, and is the same for all, so that differences to ``direct`` are paired by seed. All
train for as many steps. Their weights are those of the papers, and were not tuned.

- The teacher (``models/resnet.safetensors``, made by ``recipes/benchmark-nets.yaml``) has learned
  from all 55,000 labels. Through it a student hears of more labels than ``direct`` sees, which is
  what most people distill for; the gain is not that of the losses alone.
- The best of many looks better than it is. It is chosen by its mean accuracy on the *validation*
  images; the claim is of its gain on the *test* images, which no choice has looked at.
- Intervals are Student's, over seeds: of training again, on the same test images. In the table they
  are not widened for there being many families. One that holds 0 is called "no difference".

    python benchmarks/distill_gain.py            # about 25 min on 2 cores; resumes where stopped
    python benchmarks/distill_gain.py --smoke    # under a minute, on digits
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from claims import Claim, at_least, at_most, mean_interval, script_parser, write
from trials import add, known

from compress import Recipe
from compress.candidate import count_parameters
from compress.config.references import CodeReferences
from compress.distillation.teachers import frozen_teacher
from compress.models.build import build_module
from compress.modules.inputs import forward
from compress.stages import Context, Stage
from compress.task import Dataset, Task
from compress.training.data import read

FAMILIES = Path(__file__).parents[1] / "recipes" / "families"
DIRECT = "direct"
SEEDS, SMOKE_SEEDS = 3, 2
SMOKE = ("task.name=digits", "task.limit=200", "stages.0.epochs=2", "stages.0.views=1")
LEAST_GAIN, MOST_PARAMETERS = 0.3, 30_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Families that need the same layers of the teacher: one caches its outputs for all."""

    seed: int
    families: tuple[str, ...]
    settings: tuple[str, ...]

    def recipe(self, family: str) -> Recipe:
        """The recipe of a family, with this job's settings."""
        settings = [f"seed={self.seed}", *self.settings]
        return Recipe.load(FAMILIES / f"{family}.yaml", settings=settings)


def layers_asked(stage: Stage) -> tuple[str, ...]:
    """The patterns of the teacher's layers that a stage's losses look at."""
    given = [getattr(loss, "teacher", None) or () for loss in getattr(stage, "losses", ())]
    listed = [[patterns] if isinstance(patterns, str) else patterns for patterns in given]
    return tuple(sorted({pattern for patterns in listed for pattern in patterns}))


def plan(seeds: int, settings: tuple[str, ...]) -> list[Job]:
    """All jobs, seed after seed, so that complete seeds are there early."""
    families = sorted(path.stem for path in FAMILIES.glob("*.yaml"))
    groups: dict[tuple[str, ...], list[str]] = {}
    for family in families:
        stage = Job(0, (), settings).recipe(family).stages[0]
        groups.setdefault(layers_asked(stage), []).append(family)
    return [Job(s, tuple(group), settings) for s in range(seeds) for group in groups.values()]


@torch.no_grad()
def accuracy(module: torch.nn.Module, dataset: Dataset) -> float:
    """Per cent of the samples that are recognized."""
    right = [forward(module, b.inputs).argmax(1) == b.labels for b in read(dataset, 500)]
    return 100 * float(torch.cat(right).double().mean())


def trained(family: str, job: Job, task: Task, workdir: Path) -> Row:
    """One student, trained once."""
    recipe = job.recipe(family)
    start = recipe.make_candidate(task)
    losses: dict[str, float] = {}

    def report(event: Mapping[str, Any]) -> None:
        if event["event"] == "epoch":
            losses.update(event["losses"])

    context = Context(
        task=task,
        teacher=frozen_teacher(start.fork().module),
        origin=start,
        seed=job.seed,
        workdir=workdir,
        build=lambda architecture: build_module(architecture, CodeReferences()),
        report=report,
    )
    begin = time.perf_counter()
    student = recipe.stages[0].run(start, context).module
    return {
        "family": family,
        "seed": job.seed,
        "settings": list(job.settings),
        "seconds": time.perf_counter() - begin,
        "parameters": count_parameters(student)[0],
        "losses": losses,
        "validation": accuracy(student, task.validation),
        "test": accuracy(student, task.test),
    }


def work(job: Job, kept: Path) -> None:
    """Train the families of one job, on one thread; each row goes to the file ``kept`` at once."""
    torch.set_num_threads(1)
    task = job.recipe(job.families[0]).make_task()
    with tempfile.TemporaryDirectory() as folder:
        for family in job.families:
            row = trained(family, job, task, Path(folder))
            add(kept, row)
            said = f"seed {job.seed}, {family}: {row['test']:.2f} % in {row['seconds']:.0f} s"
            print(said, flush=True)


def done(kept: Path, settings: tuple[str, ...]) -> list[Row]:
    """The rows in the file that were trained with these settings."""
    return [row for row in known(kept) if row["settings"] == list(settings)]


def run(jobs: Sequence[Job], kept: Path, workers: int) -> list[Row]:
    """The rows of all jobs; those in the file ``kept`` are not trained again."""
    there = {(row["family"], row["seed"]) for row in done(kept, jobs[0].settings)}
    left = [
        Job(job.seed, tuple(f for f in job.families if (f, job.seed) not in there), job.settings)
        for job in jobs
    ]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(work, job, kept) for job in left if job.families]:
            future.result()
    seeds = {job.seed for job in jobs}
    return [row for row in done(kept, jobs[0].settings) if row["seed"] in seeds]


def scores(rows: Sequence[Row], family: str, split: str) -> list[float]:
    """Accuracy of a family in per cent, by seed."""
    own = sorted((row["seed"], row[split]) for row in rows if row["family"] == family)
    return [score for _, score in own]


def gain(rows: Sequence[Row], family: str, split: str) -> tuple[float, tuple[float, float]]:
    """Points by which a family is better than direct training, with the interval over seeds."""
    pairs = zip(scores(rows, family, split), scores(rows, DIRECT, split), strict=True)
    mean, ci95 = mean_interval([ours - theirs for ours, theirs in pairs])
    assert ci95 is not None, "at least two seeds"
    return mean, ci95


def families_by_validation(rows: Sequence[Row]) -> list[str]:
    """All but direct training, the best on the validation images first."""
    names = {row["family"] for row in rows} - {DIRECT}
    return sorted(
        names, key=lambda name: (-statistics.fmean(scores(rows, name, "validation")), name)
    )


def table(rows: Sequence[Row], teacher: Mapping[str, float]) -> Iterator[str]:
    """A line for each family, the best on the validation images first."""
    yield f"{'':<20}{'validation %':>14}{'test %':>9}{'gain on test, points':>32}"
    yield f"{'teacher':<20}{teacher['validation']:>14.2f}{teacher['test']:>9.2f}"
    for name in [DIRECT, *families_by_validation(rows)]:
        means = [statistics.fmean(scores(rows, name, split)) for split in ("validation", "test")]
        line = f"{name:<20}{means[0]:>14.2f}{means[1]:>9.2f}"
        if name != DIRECT:
            mean, (low, high) = gain(rows, name, "test")
            verdict = "better" if low > 0 else "worse" if high < 0 else "no difference"
            line += f"{mean:>+12.2f} [{low:+.2f}, {high:+.2f}] {verdict}"
        yield line


def claims_of(rows: Sequence[Row]) -> Iterator[Claim]:
    """What the training is to show."""
    chosen = families_by_validation(rows)[0]
    mean, ci95 = gain(rows, chosen, "test")
    seeds = len(scores(rows, chosen, "test"))
    yield at_least(
        "gain",
        f"points of test accuracy by which {chosen}, the best family on the validation images, "
        f"beats direct training, mean of {seeds} seeds",
        mean,
        LEAST_GAIN,
        ci95,
    )
    yield at_least("gain-low", "the lower end of its 95 % interval", ci95[0], 0.0)
    yield at_least("seeds", "seeds, each with a student of every family", seeds, 3)
    most = max(row["parameters"] for row in rows)
    yield at_most("parameters", "parameters of the student", most, MOST_PARAMETERS)


def teacher_scores(job: Job, family: str) -> dict[str, float]:
    """What the teacher itself recognizes."""
    recipe = job.recipe(family)
    task = recipe.make_task()
    module = recipe.make_candidate(task).module
    return {split: accuracy(module, getattr(task, split)) for split in ("validation", "test")}


def main() -> None:
    """Train what is not trained yet, and write the result."""
    parser = script_parser(__doc__, smoke="under a minute; shows that it runs")
    parser.add_argument("--seeds", type=int, help=f"at least 2; default: {SEEDS}")
    parser.add_argument("--epochs", type=int, help="default: those of the recipes")
    parser.add_argument("--limit", type=int, help="training images; default: those of the recipes")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: %(default)s")
    arguments = parser.parse_args()
    settings = list(SMOKE) if arguments.smoke else []
    settings += [f"stages.0.epochs={arguments.epochs}"] if arguments.epochs else []
    settings += [f"task.limit={arguments.limit}"] if arguments.limit else []
    seeds = arguments.seeds or (SMOKE_SEEDS if arguments.smoke else SEEDS)
    jobs = plan(seeds, tuple(settings))
    kept = arguments.results / "distill_gain.partial.jsonl"
    rows = run(jobs, kept, arguments.workers)
    teacher = teacher_scores(jobs[0], families_by_validation(rows)[0])
    raw, lines = {"teacher": teacher, "rows": rows}, "\n".join(table(rows, teacher))
    write("distill_gain", raw, list(claims_of(rows)), arguments.results, lines)
    kept.unlink()


if __name__ == "__main__":
    main()
