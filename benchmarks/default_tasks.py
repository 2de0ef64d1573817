"""The data sets of ``defaults.py``, each with a teacher and a small student.

Teachers are what one has who wants to distill: larger than the student, and trained until they are
good. Those that are not shipped are trained here, once, and kept beside the trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compress import Candidate
from compress.candidate import load_weights
from compress.config.references import CodeReferences
from compress.distillation.teachers import frozen_teacher
from compress.models.build import build_module
from compress.models.settings import ModelSettings, build_model
from compress.stages import Context, Stage, TrainStage
from compress.task import Task
from compress.tasks import TaskConfig, make_task
from compress.tasks.arrays import ArrayDataset, first, split
from compress.training.data import head

SHIPPED = Path(__file__).parent / "models" / "resnet.safetensors"
VALIDATION_SAMPLES = 500  # the stages report on it in every epoch, and no choice looks at it
WORDS = 8_000
TEST_PATIENTS, VALIDATION_PATIENTS = 110, 66

_OWN_NETS = CodeReferences(frozenset({"default_tasks"}))


class Bag(nn.Module):
    """The mean of a text's word vectors, to classes: 128,765 parameters."""

    def __init__(self, width: int = 16, classes: int = 45) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of each text."""
        logits: Tensor = self.head(_mean(self.embed(input_ids), attention_mask))
        return logits


class WideBag(nn.Module):
    """The mean of a text's word vectors beside their maximum, to classes: 2,071,085 parameters."""

    def __init__(self, width: int = 256, classes: int = 45) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of each text."""
        words = self.embed(input_ids)
        most = words.masked_fill(attention_mask[..., None] == 0, -math.inf).amax(1)
        logits: Tensor = self.head(self.drop(torch.cat((_mean(words, attention_mask), most), 1)))
        return logits


def _mean(words: Tensor, attention_mask: Tensor) -> Tensor:
    known = attention_mask[..., None].float()
    return (words * known).sum(1) / known.sum(1).clamp(min=1)


@dataclass(frozen=True)
class Setting:
    """A data set with its two nets.

    ``make`` gets the folder where what is made once is kept. ``training`` are settings of the
    ``train`` stage that makes the teacher; where there are none, it is shipped. ``epochs`` are the
    lengths to train for, where ``None`` is the stage's own.
    """

    make: Callable[[Path], Task]
    student: Mapping[str, Any]
    teacher: Mapping[str, Any]
    seeds: int
    epochs: tuple[int | None, ...] = (None,)
    training: Mapping[str, Any] = field(default_factory=dict)


def digits(_: Path) -> Task:
    """8 x 8 images, 1,077 to train on."""
    return make_task("digits")


def fashion(limit: int | None) -> Callable[[Path], Task]:
    """Fashion-MNIST, the first ``limit`` of its 55,000 images or all."""
    return lambda _: make_task(TaskConfig(name="fashion-mnist", limit=limit))


def wordnet(folder: Path) -> Task:
    """112,000 definitions in 45 classes, as words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    from compress.tasks.wordnet import find, read_glosses

    place = folder / "words"
    if not (place / "tokenizer.json").exists():
        words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        words.normalizer = normalizers.Lowercase()
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(vocab_size=WORDS, special_tokens=["[PAD]", "[UNK]"])
        words.train_from_iterator(list(read_glosses(find())), trainer)
        place.mkdir(parents=True, exist_ok=True)
        words.save(str(place / "tokenizer.json"))
    return make_task(TaskConfig(name="wordnet", tokenizer=place, labels=True))


def diabetes(_: Path) -> Task:
    """442 patients' ten measurements and the course of their illness, all standardized."""
    from sklearn.datasets import load_diabetes

    tables = (torch.tensor(table, dtype=torch.float32) for table in load_diabetes(return_X_y=True))
    inputs, labels = ((table - table.mean(0)) / table.std(0) for table in tables)
    rest, test = split(ArrayDataset(inputs, labels[:, None]), TEST_PATIENTS, seed=0)
    train, validation = split(rest, VALIDATION_PATIENTS, seed=0)
    return Task("diabetes", train, validation, test, metric="mse")


_RESNET = {"arch": "resnet", "width": 16}
_SMALL_RESNET = {"arch": "resnet", "width": 8, "blocks": 1, "stem_stride": 2}  # as in distill_gain
SETTINGS: Mapping[str, Setting] = {
    "digits": Setting(
        digits,
        student={"arch": "mlp", "in_features": 64, "width": 32},
        teacher={**_RESNET, "blocks": 1},
        training={"epochs": 60, "batch_size": 64, "learning_rate": 0.004},
        seeds=10,
        epochs=(None, 30),
    ),
    "fashion-mnist, 2,000": Setting(
        fashion(2_000), student=_SMALL_RESNET, teacher=_RESNET, seeds=10
    ),
    "fashion-mnist": Setting(fashion(None), student=_SMALL_RESNET, teacher=_RESNET, seeds=4),
    "wordnet": Setting(
        wordnet,
        student={"arch": "default_tasks:Bag"},
        teacher={"arch": "default_tasks:WideBag"},
        training={"epochs": 8, "learning_rate": 0.003},
        seeds=3,
    ),
    "diabetes": Setting(
        diabetes,
        student={"arch": "mlp", "in_features": 10, "classes": 1, "width": 16, "depth": 1},
        teacher={"arch": "mlp", "in_features": 10, "classes": 1, "depth": 1},
        training={
            "epochs": 40,
            "batch_size": 32,
            "learning_rate": 0.003,
            "weight_decay": 3.0,  # without it, it fits its noise
        },
        seeds=10,
        epochs=(None, 50),
    ),
}


@dataclass(frozen=True)
class Case:
    """A data set that is there, with a teacher that is trained."""

    task: Task
    setting: Setting
    teacher: nn.Module

    @property
    def points(self) -> str:
        """What scores are of."""
        return "R²" if self.task.metric == "mse" else "accuracy"

    def trained(self, stage: Stage, model: nn.Module, seed: int, workdir: Path) -> Candidate:
        """What a stage makes, where ``model`` enters it."""
        start = Candidate.of(model, head(self.task.validation, 4).inputs)
        context = Context(
            task=self.task,
            teacher=frozen_teacher(self.teacher, start.example),
            origin=start,
            seed=seed,
            workdir=workdir,
            build=lambda architecture: build_module(architecture, _OWN_NETS),
            report=lambda _: None,
        )
        return stage.run(start, context)


def built(settings: Mapping[str, Any], seed: int) -> nn.Module:
    """A net from nothing, as a stage builds its student."""
    build = ModelSettings.model_validate(settings)
    return build_model(build, lambda architecture: build_module(architecture, _OWN_NETS), seed)


@lru_cache(maxsize=1)
def case(name: str, folder: Path) -> Case:
    """The data set of this name; its teacher is trained where ``folder`` does not have it."""
    setting = SETTINGS[name]
    task = setting.make(folder)
    task = replace(task, validation=first(task.validation, VALIDATION_SAMPLES))
    teacher = built(setting.teacher, seed=0)
    weights = folder / f"{name}.safetensors" if setting.training else SHIPPED
    if not weights.exists():
        stage = TrainStage.model_validate(setting.training)
        found = Case(task, setting, teacher).trained(stage, teacher, 0, folder)
        unfinished = weights.with_suffix(".unfinished")
        save_file(found.module.state_dict(), unfinished)
        unfinished.rename(weights)
    load_weights(teacher, weights)
    return Case(task, setting, teacher.eval())
