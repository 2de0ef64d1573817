"""Does the recipe's distill stage make a better student in the time of a loop written by hand?

The loop is :func:`by_hand`: what a good engineer writes in forty lines of torch. The student sees
fresh crops in every epoch, and the teacher runs on each of them, both in the memory format that is
fastest. The stage is that of ``recipes/fashion-mnist-kd.yaml``, with the same teacher, student,
losses, augmentation, batch, optimizer and learning rate. It caches the teacher's outputs for a few
seeded epochs (``views``), so that its other epochs cost no teacher.

- ``time``: as many epochs of the stage as fit into the time of the loop. A pilot, in which short
  pieces of both take turns, tells how many those are; what is compared is what both then took, all
  of it: the teacher's outputs, and the stage's own validation, which the loop does not have. Both
  sides of a seed start together, each in a process on a thread of its own, so that a machine whose
  speed moves moves both; when the first ends, the other continues alone, which is no slower.
- ``epochs``: the stage for as many epochs as the loop, a new view in each; two seeds at a time.

Run it on two cores where nothing else runs. Intervals over seeds are Student's, of training again;
those over the 10,000 test images are of the mean over seeds, paired by image.

    python benchmarks/by_hand_distill.py            # about 25 min; resumes where it was stopped
    python benchmarks/by_hand_distill.py --smoke    # seconds, on digits
"""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from claims import Claim, at_least, at_most, script_parser, write
from pairs import Difference, Row, difference, sample_scores, scored, without_samples
from torch import nn
from torch.nn import functional as F
from trials import each

from compress import Recipe
from compress.config.references import CodeReferences
from compress.distillation.teachers import frozen_teacher
from compress.models.build import build_module
from compress.stages import Context
from compress.task import Task
from compress.tasks.arrays import ArrayDataset, first
from compress.zoo import build

RECIPE = Path(__file__).parents[1] / "recipes" / "fashion-mnist-kd.yaml"
STUDENT = {"width": 8, "blocks": 1, "stem_stride": 2}  # that of the recipe
BATCH, RATE, DECAY, CLIP, WARMUP = 128, 0.005, 0.01, 1.0, 0.05
TEMPERATURE, TAUGHT, TOLD = 4.0, 0.9, 0.1  # weights of the teacher and of labels
HAND, TIME, EPOCHS, PILOT = "by hand", "time", "epochs", "pilot"
HAND_EPOCHS, VIEWS, SEEDS = 4, 2, 5
MARGIN = 0.8  # of the loop's time is what the stage is planned for: pilots are a tenth off
MOST_TIME = 1.02
LEAST = {TIME: 0.0, EPOCHS: -0.5}  # points; as many epochs are the same work, done twice
PILOT_SHARE, PILOT_ROUNDS = 10, 3  # a tenth of the data, three times


@dataclass(frozen=True)
class Setting:
    """What both sides train on, and for how long the loop does."""

    task: Task
    teacher: nn.Module
    settings: tuple[str, ...]
    epochs: int
    seeds: int

    @property
    def data(self) -> ArrayDataset:
        """The training images, in memory."""
        assert isinstance(self.task.train, ArrayDataset)
        return self.task.train

    def part(self) -> Setting:
        """A tenth of the data, on both splits that a training reads."""
        task = self.task
        train, validation = (
            first(split, len(split) // PILOT_SHARE) for split in (task.train, task.validation)
        )
        return replace(self, task=replace(task, train=train, validation=validation))


def make_setting(*, smoke: bool) -> Setting:
    """The recipe's own task and teacher; for a smoke run, a few digits."""
    settings = ("task={name: digits, limit: 640, augment: true}",) if smoke else ()
    recipe = Recipe.load(RECIPE, settings=list(settings))
    task = recipe.make_task()
    teacher = recipe.make_candidate(task).module.eval()
    return Setting(task, teacher, settings, 2 if smoke else HAND_EPOCHS, 2 if smoke else SEEDS)


def by_hand(setting: Setting, epochs: int, seed: int) -> nn.Module:
    """The loop as one writes it."""
    torch.manual_seed(seed)
    images, labels, augment = setting.data.inputs, setting.data.labels, setting.task.augment
    assert labels is not None
    assert augment is not None
    generator = torch.Generator().manual_seed(seed)
    student = build("resnet", STUDENT).to(memory_format=torch.channels_last).train()
    teacher = copy.deepcopy(setting.teacher).to(memory_format=torch.channels_last).eval()
    groups = [
        {"params": [p for p in student.parameters() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in student.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, steps, pct_start=WARMUP, cycle_momentum=False
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            x = augment(images[rows], generator).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                taught = F.log_softmax(teacher(x) / TEMPERATURE, dim=1)
            logits = student(x)
            ours = F.log_softmax(logits / TEMPERATURE, dim=1)
            taught_by = F.kl_div(ours, taught, reduction="batchmean", log_target=True)
            told = F.cross_entropy(logits, labels[rows])
            loss = TAUGHT * TEMPERATURE**2 * taught_by + TOLD * told
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), CLIP)
            optimizer.step()
            schedule.step()
    return student.eval()


def by_stage(
    setting: Setting, epochs: int, views: int, seed: int, ends_s: list[float] | None = None
) -> nn.Module:
    """The same by the recipe's stage; ``ends_s`` gets the time at which each epoch ended."""
    lengths = (f"stages.0.epochs={epochs}", f"stages.0.views={views}", f"seed={seed}")
    recipe = Recipe.load(RECIPE, settings=[*setting.settings, *lengths])
    start = recipe.make_candidate(setting.task)

    def report(event: Mapping[str, Any]) -> None:
        if event["event"] == "epoch" and ends_s is not None:
            ends_s.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            task=setting.task,
            teacher=frozen_teacher(setting.teacher, start.example),
            origin=start,
            seed=seed,
            workdir=Path(folder),
            build=lambda architecture: build_module(architecture, CodeReferences()),
            report=report,
        )
        return recipe.stages[0].run(start, context).module


def piloted(setting: Setting) -> Row:
    """Seconds of an epoch: by hand; of the stage, one that asks the teacher and one that reads."""
    part, found = setting.part(), []
    share = len(setting.data) / len(part.data)
    for _ in range(PILOT_ROUNDS):
        ends_s: list[float] = []
        began_s = time.perf_counter()
        by_hand(part, 1, 0)
        ends_s.append(time.perf_counter())
        by_stage(part, 3, 1, 0, ends_s)
        found.append([share * (b - a) for a, b in zip([began_s, *ends_s], ends_s, strict=False)])
    hand_s, asked_s, *read_s = (statistics.median(times) for times in zip(*found, strict=True))
    return {"hand_s": hand_s, "asked_s": asked_s, "read_s": statistics.fmean(read_s)}


def epochs_that_fit(pilot: Row, epochs: int, views: int) -> int:
    """Epochs of the stage, ``views`` of which ask, in the time of ``epochs`` by hand."""
    left_s = MARGIN * epochs * pilot["hand_s"] - views * pilot["asked_s"]
    return views + max(1, int(left_s / pilot["read_s"]))


def plan(setting: Setting, fitting: int) -> Iterator[list[Row]]:
    """All trainings, those that run at the same time together."""
    seeds = range(setting.seeds)
    for seed in seeds:
        hand = {"side": HAND, "seed": seed, "epochs": setting.epochs, "views": None}
        yield [hand, {"side": TIME, "seed": seed, "epochs": fitting, "views": VIEWS}]
    alike = [
        {"side": EPOCHS, "seed": seed, "epochs": setting.epochs, "views": setting.epochs}
        for seed in seeds
    ]
    for first_of_two in range(0, len(alike), 2):
        yield alike[first_of_two : first_of_two + 2]


def trained(setting: Setting, trial: Row) -> Row:
    """One student: how long it took, on the clock and of a processor, and what it recognizes."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    if trial["side"] == HAND:
        student = by_hand(setting, trial["epochs"], trial["seed"])
    else:
        student = by_stage(setting, trial["epochs"], trial["views"], trial["seed"])
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    found = scored(sample_scores(student, setting.task.test))
    where = f"seed {trial['seed']}, {trial['side']}, {trial['epochs']} epochs"
    print(f"{where}: {found['score']:.2f} % in {seconds:.0f} s", flush=True)
    return {**trial, "seconds": seconds, "cpu_s": cpu_s, **found}


def in_process(smoke: bool, trial: Row, started: threading.Barrier) -> Row:
    """One trial in a process of its own, begun when the others of its group are ready too."""
    torch.set_num_threads(1)
    setting = make_setting(smoke=smoke)
    started.wait(timeout=300)
    return piloted(setting) if trial["side"] == PILOT else trained(setting, trial)


def together(smoke: bool, trials: Sequence[Row]) -> list[Row]:
    """What trials give that run at the same time."""
    spawn = multiprocessing.get_context("spawn")
    with (
        spawn.Manager() as manager,
        ProcessPoolExecutor(len(trials), mp_context=spawn) as processes,
    ):
        started = itertools.repeat(manager.Barrier(len(trials)))
        return list(processes.map(in_process, itertools.repeat(smoke), trials, started))


def run(setting: Setting, kept: Path, *, smoke: bool) -> tuple[Row, list[Row]]:
    """The pilot and all trainings; those in the file ``kept`` are not done again."""

    def groups(trials: Iterable[list[Row]]) -> Iterator[list[Row]]:
        named = ({"trials": group} for group in trials)
        for found in each(named, lambda it: {"found": together(smoke, it["trials"])}, kept):
            yield found["found"]

    (pilots,) = groups([[{"side": PILOT}] * 2])
    pilot = {key: statistics.fmean(one[key] for one in pilots) for key in pilots[0]}
    fitting = epochs_that_fit(pilot, setting.epochs, VIEWS)
    return pilot, list(itertools.chain.from_iterable(groups(plan(setting, fitting))))


def of_side(rows: Sequence[Row], side: str) -> list[Row]:
    """The rows of one side, by seed."""
    return sorted((row for row in rows if row["side"] == side), key=lambda row: row["seed"])


def table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each side."""
    yield f"{'':<16}{'epochs':>7}{'views':>7}{'seconds':>9}{'cpu s':>8}{'test %':>8}"
    for side, name in {HAND: HAND, TIME: "stage, time", EPOCHS: "stage, epochs"}.items():
        own = of_side(rows, side)
        means = (statistics.fmean(row[key] for row in own) for key in ("seconds", "cpu_s", "score"))
        seconds, cpu_s, score = means
        views = own[0]["views"] or "new"
        epochs = own[0]["epochs"]
        yield f"{name:<16}{epochs:>7}{views:>7}{seconds:>9.1f}{cpu_s:>8.1f}{score:>8.2f}"


def claims_of(rows: Sequence[Row], found: Mapping[str, Difference]) -> Iterator[Claim]:
    """What the training is to show."""
    hand, timed = of_side(rows, HAND), of_side(rows, TIME)
    ratios = [ours["seconds"] / theirs["seconds"] for ours, theirs in zip(timed, hand, strict=True)]
    longest = "time of the stage over that of the loop by hand, the largest of the seeds"
    yield at_most("time", longest, max(ratios), MOST_TIME)
    lengths = {TIME: "in the same time", EPOCHS: "in as many epochs"}
    for side, length in lengths.items():
        gain = found[side]
        statement = f"points of test accuracy that the stage adds {length}, mean of the seeds"
        yield at_least(f"{side}-gain", statement, gain.mean, LEAST[side], gain.over_seeds)
        for what, interval in (("seeds", gain.over_seeds), ("images", gain.over_samples)):
            end, place = ("lower", 0) if side == TIME else ("upper", 1)
            words = f"the {end} end of its interval over {what}"
            yield at_least(f"{side}-{end}-{what}", words, interval[place], 0.0, interval)
    yield at_least("seeds", "seeds of each", len(hand), 3)


def main() -> None:
    """Train what is not trained yet, and write the result."""
    arguments = script_parser(__doc__).parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "by_hand_distill.partial.jsonl"
    pilot, rows = run(make_setting(smoke=arguments.smoke), kept, smoke=arguments.smoke)
    hand = of_side(rows, HAND)
    found = {side: difference(of_side(rows, side), hand) for side in (TIME, EPOCHS)}
    raw = {
        "pilot": pilot,
        "rows": without_samples(rows),
        "differences": {side: asdict(gain) for side, gain in found.items()},
    }
    claims, lines = list(claims_of(rows, found)), "\n".join(table(rows))
    write("by_hand_distill", raw, claims, arguments.results, lines)
    kept.unlink()


if __name__ == "__main__":
    main()
