"""What does distilling through a stage cost, compared with a loop written by hand?

``asked``: a ``distill`` stage that runs its teacher on every batch, against :func:`by_hand` with
the same teacher, student, loss, optimizer, augmentation, batch and memory format. ``kept``: a stage
whose teacher's outputs are cached (``views``), against :func:`by_hand` on labels, without a
teacher: what is left is reading the outputs, and the checksums that tie them to the batch.

A machine's speed moves within seconds, so both train in one process on one thread each, and take
turns step by step: never do two compute at once, and what slows one slows the other. The ratio of
images per second is of each epoch, and its interval Student's over epochs; the first and the last
epoch are left out, where starting and ending fall. The stage's time includes its validation, on 32
images, which the loop by hand does not have.

    python benchmarks/distill_overhead.py            # about 5 min
    python benchmarks/distill_overhead.py --smoke    # seconds, on digits
"""

from __future__ import annotations

import copy
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from claims import Claim, at_least, mean_interval, script_parser, write
from torch import nn
from torch.nn import functional as F

from compress import Candidate, DistillStage
from compress.candidate import load_weights
from compress.distillation.teachers import frozen_teacher
from compress.stages import Context
from compress.task import Task
from compress.tasks import TaskConfig, make_task
from compress.tasks.arrays import ArrayDataset, first
from compress.training.data import head
from compress.zoo import build

TEACHER = Path(__file__).parent / "models" / "resnet.safetensors"
STUDENT = {"width": 8, "blocks": 1, "stem_stride": 2}  # that of distill_gain.py
BATCH, RATE, DECAY, CLIP, TEMPERATURE = 128, 0.005, 0.01, 1.0, 4.0
VALIDATION_IMAGES = 32
EPOCHS, SMOKE_EPOCHS = {"asked": 16, "kept": 48}, {"asked": 2, "kept": 2}
ASKED_BOUND, KEPT_BOUND, LOW_BOUND = 0.97, 0.93, 0.93


class Turns:
    """Lets one of two threads compute at a time, a step each, and times every step."""

    def __init__(self, first: str, second: str) -> None:
        self._other = {first: second, second: first}
        self._turn = {first: threading.Semaphore(1), second: threading.Semaphore(0)}
        self._began_s: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = {first: [], second: []}

    def step(self, name: str) -> None:
        """Where a step of ``name`` begins: its last one is over, and the other's turn comes."""
        if name in self._began_s:
            self.seconds[name].append(time.perf_counter() - self._began_s[name])
            self._turn[self._other[name]].release()
        self._turn[name].acquire()
        self._began_s[name] = time.perf_counter()

    def leave(self, name: str) -> None:
        """Never wait for ``name`` again."""
        self._turn[self._other[name]].release(1_000_000)


@dataclass(frozen=True)
class Setting:
    """What is trained on what; ``epochs`` are those that are timed."""

    task: Task
    teacher: nn.Module
    epochs: Mapping[str, int]

    @property
    def data(self) -> ArrayDataset:
        """The training images, in memory."""
        assert isinstance(self.task.train, ArrayDataset)
        return self.task.train

    def timed(self, turns: Turns, name: str) -> Setting:
        """The same, where ``augment``, which both sides call once a step, begins a turn."""
        augment = self.task.augment
        assert augment is not None

        def in_turn(images: Any, generator: torch.Generator) -> Any:
            turns.step(name)
            return augment(images, generator)

        return replace(self, task=replace(self.task, augment=in_turn))


def make_setting(*, smoke: bool) -> Setting:
    """The trained teacher on Fashion-MNIST; for a smoke run, digits."""
    name, images = ("digits", 256) if smoke else ("fashion-mnist", 3840)
    task = make_task(TaskConfig(name=name, augment=True, limit=images))
    task = replace(task, validation=first(task.validation, VALIDATION_IMAGES))
    teacher = build("resnet", {"width": 16})
    load_weights(teacher, TEACHER)
    return Setting(task, teacher.eval(), SMOKE_EPOCHS if smoke else EPOCHS)


def by_hand(setting: Setting, epochs: int, teacher: nn.Module | None) -> None:
    """The loop as one writes it, from the teacher or from labels."""
    torch.manual_seed(0)
    images, labels, augment = setting.data.inputs, setting.data.labels, setting.task.augment
    assert labels is not None
    assert augment is not None
    generator = torch.Generator().manual_seed(0)
    student = build("resnet", STUDENT).to(memory_format=torch.channels_last).train()
    if teacher is not None:
        teacher = copy.deepcopy(teacher).to(memory_format=torch.channels_last)
    groups = [
        {"params": [p for p in student.parameters() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in student.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            x = augment(images[rows], generator).contiguous(memory_format=torch.channels_last)
            logits = student(x)
            if teacher is None:
                loss = F.cross_entropy(logits, labels[rows])
            else:
                with torch.no_grad():
                    taught = F.log_softmax(teacher(x) / TEMPERATURE, dim=1)
                ours = F.log_softmax(logits / TEMPERATURE, dim=1)
                loss = F.kl_div(ours, taught, reduction="batchmean", log_target=True)
                loss = loss * TEMPERATURE**2
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)


def by_stage(setting: Setting, epochs: int, views: int | None, workdir: Path) -> None:
    """The same by a ``distill`` stage."""
    start = Candidate.of(setting.teacher, head(setting.task.validation, 4).inputs)
    context = Context(
        task=setting.task,
        teacher=frozen_teacher(setting.teacher, start.example),
        origin=start,
        seed=0,
        workdir=workdir,
        build=lambda architecture: build(architecture.arch, architecture.options),
        report=lambda _: None,
    )
    stage = DistillStage(
        student={"arch": "resnet", **STUDENT},
        losses=[{"kind": "response", "temperature": TEMPERATURE}],
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=RATE,
        weight_decay=DECAY,
        clip_norm=CLIP,
        views=views,
    )
    stage.run(start, context)


def in_turns(setting: Setting, sides: Mapping[str, Callable[[Setting], None]]) -> Turns:
    """Both sides trained, a step each in turn."""
    turns = Turns(*sides)

    def run(name: str) -> None:
        try:
            sides[name](setting.timed(turns, name))
        finally:
            turns.leave(name)

    with ThreadPoolExecutor(len(sides), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done in [pool.submit(run, name) for name in sides]:
            done.result()
    return turns


def by_epoch(turns: Turns, setting: Setting, epochs: int) -> list[dict[str, float]]:
    """Images per second of both sides, and their ratio, for every epoch that is timed."""
    images, steps = len(setting.data), -(-len(setting.data) // BATCH)
    found = []
    for epoch in range(1, epochs + 1):
        spans = {
            name: sum(seconds[epoch * steps : (epoch + 1) * steps])
            for name, seconds in turns.seconds.items()
        }
        rates = {name: images / seconds for name, seconds in spans.items()}
        found.append(rates | {"ratio": rates["stage"] / rates["by hand"]})
    return found


def measured(setting: Setting, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Every timed epoch of both comparisons."""
    asked, kept = (setting.epochs[name] + 2 for name in ("asked", "kept"))
    by_stage(setting, 2, 1, folder / "kept")  # fills the cache, since the seeded epoch repeats
    turns = {
        "asked": in_turns(
            setting,
            {
                "stage": lambda own: by_stage(own, asked, None, folder / "asked"),
                "by hand": lambda own: by_hand(own, asked, own.teacher),
            },
        ),
        "kept": in_turns(
            setting,
            {
                "stage": lambda own: by_stage(own, kept, 1, folder / "kept"),
                "by hand": lambda own: by_hand(own, kept, None),
            },
        ),
    }
    return {name: by_epoch(turns[name], setting, setting.epochs[name]) for name in turns}


def claims_of(found: Mapping[str, list[dict[str, float]]]) -> list[Claim]:
    """What the measuring is to show."""
    bounds = {
        "asked": ("a loop written by hand that does the same", ASKED_BOUND),
        "kept": ("a loop by hand that trains on labels alone, once answers are kept", KEPT_BOUND),
    }
    claims = []
    for name, (what, bound) in bounds.items():
        ratio, ci95 = mean_interval([one["ratio"] for one in found[name]])
        assert ci95 is not None, "at least two epochs"
        statement = f"images per second of a distill stage over those of {what}"
        claims.append(at_least(name, statement, ratio, bound, ci95))
        if name == "asked":
            claims.append(
                at_least("asked-low", "the lower end of its interval", ci95[0], LOW_BOUND)
            )
    return claims


def main() -> None:
    """Measure, and write the result."""
    arguments = script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    setting = make_setting(smoke=arguments.smoke)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(setting, Path(folder))
    raw = {"images": len(setting.data), "epochs": found}
    write("distill_overhead", raw, claims_of(found), arguments.results)


if __name__ == "__main__":
    main()
