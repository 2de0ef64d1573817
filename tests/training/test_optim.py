import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from compress.training.optim import Optimization, make_optimizer, rate

pytestmark = pytest.mark.fast

SCHEDULES = ["cosine", "constant", "one-cycle"]


def closed_form(step, steps, warmup):
    """One-cycle as its paper and torch's documentation describe it."""
    low, high, end = 1 / 25, 1.0, 1 / 25 / 1e4
    top = warmup * steps - 1
    if step <= top:
        return low + (high - low) * (1 - math.cos(math.pi * step / top)) / 2
    return end + (high - end) * (1 + math.cos(math.pi * (step - top) / (steps - 1 - top))) / 2


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("steps", [20, 100, 333])
def test_one_cycle_is_its_closed_form_and_torchs(steps, warmup):
    ours = [rate(step, steps, "one-cycle", warmup) for step in range(steps)]
    assert ours == pytest.approx([closed_form(s, steps, warmup) for s in range(steps)], abs=1e-12)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = OneCycleLR(optimizer, 1.0, steps, pct_start=warmup, cycle_momentum=False)
    for value in ours:
        assert value == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if theirs.last_epoch < steps - 1:
            theirs.step()


def test_cosine_rises_to_one_and_falls_to_zero():
    rates = [rate(step, 100, "cosine", 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_constant_stays_where_it_rose_to():
    assert [rate(step, 10, "constant", 0.2) for step in range(10)] == [0.5] + [1.0] * 9


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_every_step_has_a_rate_between_nothing_and_the_highest(steps, warmup, schedule):
    rates = [rate(step, steps, schedule, warmup) for step in range(steps)]
    assert all(0 < one <= 1 for one in rates)
    assert max(rates) > 0.5


def test_norms_and_biases_are_not_decayed():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    groups = make_optimizer(list(net.parameters()), Optimization(1, 0.1)).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 1e-2), (3, 0.0)]
