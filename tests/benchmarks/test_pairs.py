"""What the benchmarks that compare two sides compute, on numbers worked out by hand."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.tasks.arrays import ArrayDataset

pytestmark = pytest.mark.fast

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def rows(pairs, *scores):
    return [
        {"seed": seed, **pairs.scored(np.array(one, np.float32))} for seed, one in enumerate(scores)
    ]


def test_a_difference_is_paired_by_seed_and_by_sample(script):
    pairs = script("pairs")
    ours = rows(pairs, [100, 100, 0, 100], [100, 100, 100, 100])
    theirs = rows(pairs, [100, 0, 0, 100], [0, 100, 100, 0])
    found = pairs.difference(ours[::-1], theirs)
    assert found.by_seed == (25, 50)
    assert found.mean == 37.5
    # t(0.975, 1) = 12.706, of two seeds 25 apart
    assert found.over_seeds == pytest.approx((37.5 - 158.83, 37.5 + 158.83), abs=0.01)
    # samples 50, 50, 0, 50: deviation 25, and t(0.975, 3) = 3.182
    assert found.over_samples == pytest.approx((37.5 - 39.78, 37.5 + 39.78), abs=0.01)


SCORES = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
VALUES = torch.tensor([[1.0], [0.0], [1.0], [0.0]])


@pytest.mark.parametrize(
    ("outputs", "labels", "score"),
    [
        (SCORES, torch.tensor([0, 1, 1, 1]), 75),
        (torch.tensor([[0.5], [0.5], [1.0], [0.0]]), VALUES, 50),
    ],
    ids=["accuracy", "R²"],
)
def test_scores_of_samples_have_the_metric_as_their_mean(script, outputs, labels, score):
    found = script("pairs").sample_scores(nn.Identity(), ArrayDataset(outputs, labels))
    assert found.shape == (4,)
    assert found.mean() == pytest.approx(score)


def test_the_stage_gets_as_many_epochs_as_fit_into_the_time_of_the_loop(script):
    module = script("by_hand_distill")
    pilot = {"hand_s": 40.0, "asked_s": 42.0, "read_s": 8.0}
    left_s = 160.0 * module.MARGIN - 84.0  # what the two that ask leave for others
    fitting = module.epochs_that_fit(pilot, 4, 2)
    assert 8.0 * (fitting - 2) <= left_s < 8.0 * (fitting - 1)
    assert module.epochs_that_fit({**pilot, "hand_s": 1.0}, 4, 2) == 3
