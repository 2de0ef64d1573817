"""A run of a module with tied parameters: what is resumed is what an uninterrupted run gives."""

import shutil

import pytest
import torch
from torch import nn

from compress import Candidate, Recipe, ReplayTarget, TrainStage
from compress.candidate import count_parameters
from compress.task import Task
from compress.tasks.arrays import ArrayDataset


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mid = nn.Embedding(20, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.mid(self.embed(x)).relu().mean(1))


@pytest.fixture
def tokens():
    return torch.randint(20, (96, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def task(tokens):
    data = ArrayDataset(tokens, tokens[:, 0])
    return Task(name="first token", train=data, validation=data, test=data)


def rows(stages, start, task, folder):
    recipe = Recipe(name="tied", stages=[TrainStage(epochs=1, batch_size=32)] * stages)
    record = recipe.run(
        start,
        task,
        targets=[ReplayTarget()],
        workdir=folder,
        mode="quick",
        cache="none",
        report=False,
    )
    return [(row.parameters, row.fingerprint) for row in record.rows], [
        r.cached for r in record.rows
    ]


def test_a_resumed_run_goes_on_with_what_is_tied(tokens, task, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = Candidate.of(Tied(), tokens[:4])
    expected, _ = rows(2, start, task, tmp_path / "whole")
    assert {parameters for parameters, _ in expected} == {count_parameters(start.module)[0]}
    rows(2, start, task, tmp_path / "resumed")
    (last,) = (tmp_path / "resumed" / "stages").glob("02-*")
    shutil.rmtree(last)
    again, cached = rows(2, start, task, tmp_path / "resumed")
    assert cached == [False, True, False]
    assert again == expected
    assert rows(2, start, task, tmp_path / "resumed") == (expected, [False, True, True])
