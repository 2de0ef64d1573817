"""What does distilling through a stage cost beside a loop written by hand?

``asked``: a ``distill`` stage that asks its teacher about every batch, against :func:`by_hand` with
the same teacher, student, loss, optimiser, augmentation, batch and memory format. ``kept``: a stage
whose teacher has answered before (``views``), against :func:`by_hand` on labels, without a teacher:
what is left is reading the answers and the marks that show that they belong to the batch.

Both sides train in one process on one thread, in turns whose order changes from round to round. A
training is timed from the end of its first epoch to the end of its last, so that starting up counts
for neither; the stage's time includes its validation, on 32 images, which the loop by hand does
not have. The ratio of images per second is of each round, and its interval Student's over rounds.

    python benchmarks/distill_overhead.py            # about 5 min
    python benchmarks/distill_overhead.py --smoke    # seconds, on digits
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from claims import RESULTS, Claim, at_least, mean_interval, write
from torch import nn
from torch.nn import functional as F

from compress import Candidate, DistillStage
from compress.algorithms.batches import head
from compress.candidate import load_weights
from compress.stages import Context
from compress.stages.teachers import frozen_teacher
from compress.task import Task
from compress.tasks import TaskConfig, make_task
from compress.tasks.arrays import ArrayDataset, first
from compress.zoo import build

TEACHER = Path(__file__).parent / "models" / "resnet.safetensors"
STUDENT = {"width": 8, "blocks": 1, "stem_stride": 2}  # that of distill_gain.py
BATCH, RATE, DECAY, CLIP, TEMPERATURE = 128, 0.005, 0.01, 1.0, 4.0
VALIDATION_IMAGES = 32
ROUNDS, SMOKE_ROUNDS = 8, 2
ASKED_BOUND, KEPT_BOUND, LOW_BOUND = 0.97, 0.93, 0.93


@dataclass(frozen=True)
class Setting:
    """What is trained on what; ``epochs`` of each comparison, the first of which is not timed."""

    task: Task
    teacher: nn.Module
    epochs: Mapping[str, int]

    @property
    def data(self) -> ArrayDataset:
        """The training images, in memory."""
        assert isinstance(self.task.train, ArrayDataset)
        return self.task.train

    def rate_of(self, comparison: str, seconds: float) -> float:
        """Images per second of the epochs that are timed."""
        return (self.epochs[comparison] - 1) * len(self.data) / seconds


def make_setting(*, smoke: bool) -> Setting:
    """The trained teacher on Fashion-MNIST; for a smoke run, digits."""
    name, images = ("digits", 256) if smoke else ("fashion-mnist", 3840)
    task = make_task(TaskConfig(name=name, augment=True, limit=images))
    task = replace(task, validation=first(task.validation, VALIDATION_IMAGES))
    teacher = build("resnet", {"width": 16})
    load_weights(teacher, TEACHER)
    return Setting(task, teacher.eval(), {"asked": 3, "kept": 2 if smoke else 9})


def by_hand(setting: Setting, epochs: int, teacher: nn.Module | None) -> float:
    """The loop as one writes it, from the teacher or from labels; seconds after its first epoch."""
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
    start = 0.0
    for epoch in range(epochs):
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
        start = start if epoch else time.perf_counter()
    return time.perf_counter() - start


def by_stage(setting: Setting, epochs: int, views: int | None, workdir: Path) -> float:
    """The same by a ``distill`` stage; seconds after its first epoch."""
    ends: list[float] = []

    def report(event: Mapping[str, Any]) -> None:
        if event["event"] == "epoch":
            ends.append(time.perf_counter())

    start = Candidate.of(setting.teacher, head(setting.task.validation, 4).inputs)
    context = Context(
        task=setting.task,
        teacher=frozen_teacher(setting.teacher),
        origin=start,
        seed=0,
        workdir=workdir,
        build=lambda architecture: build(architecture.arch, architecture.options),
        report=report,
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
    return ends[-1] - ends[0]


def measured(setting: Setting, rounds: int, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Images per second of both sides, and their ratio, of every round of both comparisons."""
    epochs = setting.epochs
    sides: dict[str, dict[str, Callable[[], float]]] = {
        "asked": {
            "stage": lambda: by_stage(setting, epochs["asked"], None, folder / "asked"),
            "by hand": lambda: by_hand(setting, epochs["asked"], setting.teacher),
        },
        "kept": {
            "stage": lambda: by_stage(setting, epochs["kept"], 1, folder / "kept"),
            "by hand": lambda: by_hand(setting, epochs["kept"], None),
        },
    }
    by_stage(setting, epochs["kept"], 1, folder / "kept")  # the teacher answers, once
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, both in sides.items():
            order = list(both)[:: -1 if number % 2 else 1]
            rates = {side: setting.rate_of(name, both[side]()) for side in order}
            found[name].append(rates | {"ratio": rates["stage"] / rates["by hand"]})
            print(number, name, {key: round(value, 3) for key, value in found[name][-1].items()})
    return found


def claims_of(found: Mapping[str, list[dict[str, float]]]) -> list[Claim]:
    """What the measuring is to show."""
    bounds = {
        "asked": ("a loop written by hand that does the same", ASKED_BOUND),
        "kept": ("a loop by hand that trains on labels alone, once answers are kept", KEPT_BOUND),
    }
    claims = []
    for name, (what, bound) in bounds.items():
        ratio, ci95 = mean_interval([one["ratio"] for one in found[name]])
        assert ci95 is not None, "at least two rounds"
        statement = f"images per second of a distill stage over those of {what}"
        claims.append(at_least(name, statement, ratio, bound, ci95))
        if name == "asked":
            claims.append(
                at_least("asked-low", "the lower end of its interval", ci95[0], LOW_BOUND)
            )
    return claims


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds; shows that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, help=f"at least 2; default: {ROUNDS}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds = arguments.rounds or (SMOKE_ROUNDS if arguments.smoke else ROUNDS)
    setting = make_setting(smoke=arguments.smoke)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(setting, rounds, Path(folder))
    raw = {"images": len(setting.data), "epochs": setting.epochs, "rounds": found}
    write("distill_overhead", raw, claims_of(found), arguments.results)


if __name__ == "__main__":
    main()
