"""Samples, a few small nets for them, and what it takes to plan and run a recipe on them."""

import pytest
import torch
from torch import nn

from compress import Candidate, Recipe, ReplayTarget
from compress.running.preflight import preflight
from compress.training.data import head

STAGES = (
    "  - {kind: train, epochs: 1, batch_size: 16, learning_rate: 0.01}\n"
    "  - {kind: quantize, calibration: {samples: 16}}\n"
)


class Pair(nn.Module):
    """Of two inputs: an image and its depth."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, image, depth):
        return self.outer(torch.relu(self.inner(torch.cat([image, depth], 1))))


class Numbers(nn.Module):
    """Of two numbers."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, a, b):
        return self.outer(torch.relu(self.inner(torch.stack([a, b], 1))))


class Named(nn.Module):
    """Of one input, by its name."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, pixel_values):
        return self.outer(torch.relu(self.inner(pixel_values)))


class Plain(Named):
    """Of one input without a name."""

    def forward(self, x):
        return super().forward(x)


class Text(nn.Module):
    """Of tokens with their mask; what is padding does not count."""

    def __init__(self):
        super().__init__()
        self.words, self.outer = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1).float()
        return self.outer((self.words(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1))


NETS = {"plain": Plain, "named": Named, "pair": Pair, "numbers": Numbers, "text": Text}


@pytest.fixture
def job_on(tmp_path):
    """Makes the job of a short recipe on a task, with a net of a kind."""

    def make(task, net):
        torch.manual_seed(0)
        candidate = Candidate.of(NETS[net]().eval(), head(task.validation, 4).inputs)
        recipe = Recipe.loads(f"name: r\nstages:\n{STAGES}")
        return recipe, candidate, task

    return make


@pytest.fixture
def plan(job_on, tmp_path):
    """The preflight of such a job."""

    def of(task, net="plain"):
        recipe, candidate, task = job_on(task, net)
        return preflight(recipe.job(candidate, task, workdir=tmp_path / "p", mode="quick"))

    return of


@pytest.fixture
def run(job_on, tmp_path):
    """Such a job, run."""

    def of(task, net="plain"):
        recipe, candidate, task = job_on(task, net)
        return recipe.run(
            candidate,
            task,
            targets=[ReplayTarget()],
            workdir=tmp_path / "run",
            mode="quick",
            cache="none",
            report=False,
        )

    return of
