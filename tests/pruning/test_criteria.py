"""Criteria that rank channels: as their papers define them, and on every kind of net."""

import numpy as np
import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage
from compress.candidate import count_parameters
from compress.errors import StageError
from compress.pruning.channels import ChannelPruning
from compress.pruning.importance import CRITERIA, accumulate_gradients, score_pool
from compress.pruning.search import Search
from compress.pruning.widths import pools_of
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.testing.structures import STRUCTURES

KINDS = ("resnet-basic", "mobilenet-v2", "vit-separate", "unet", "crnn", "conv-bilstm")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def scores_of(net, name):
    """The scores of the six hidden channels."""
    request = ChannelPruning(ratio=0.5, importance=name)
    search = Search(net, torch.randn(2, 4), request, net)
    ids = search.planner.plan().ids
    (pool,) = [pool for pool in pools_of(ids) if len(pool.classes) == 6]
    return np.array(score_pool(net, ids, pool, CRITERIA[name]))


def losses_of(net, size):
    torch.manual_seed(1)
    for _ in range(24 // size):
        yield net(torch.randn(size, 4)).square().mean()


def weights(net):
    """Rows that make the channels, and columns that read them, as rows."""
    return net[0].weight.detach().numpy(), net[2].weight.detach().numpy().T


def test_fpgm_is_the_distance_of_a_filter_to_all_others(net):
    own, _ = weights(net)
    expected = np.linalg.norm(own[:, None] - own[None], axis=2).sum(1)
    assert scores_of(net, "fpgm") == pytest.approx(expected / expected.mean(), rel=1e-5)


def test_lamp_is_a_score_over_that_of_all_that_are_not_smaller(net):
    own, reading = weights(net)
    squares = ((own**2).sum(1) + (reading**2).sum(1)) / 2
    expected = [one / squares[squares >= one].sum() for one in squares]
    assert scores_of(net, "lamp") == pytest.approx(expected, rel=1e-5)
    assert scores_of(net, "lamp").max() == pytest.approx(1)


def test_hessian_is_the_second_order_change_by_the_fisher_information_of_single_samples(net):
    accumulate_gradients(net, losses_of(net, 1), CRITERIA["hessian"])
    found = scores_of(net, "hessian")
    fisher = [0.0, 0.0]
    for loss in losses_of(net, 1):
        own, reading = torch.autograd.grad(loss, [net[0].weight, net[2].weight])
        fisher = [fisher[0] + own.numpy() ** 2 / 24, fisher[1] + reading.numpy().T ** 2 / 24]
    parts = [(one**2 * h).sum(1) for one, h in zip(weights(net), fisher, strict=True)]
    expected = (parts[0] + parts[1]) / 2
    assert found == pytest.approx(expected / expected.mean(), rel=1e-4)


def test_taylor_sums_gradients_and_leaves_none_squared(net):
    accumulate_gradients(net, losses_of(net, 8), CRITERIA["taylor"])
    summed = net[0].weight.grad.clone()
    expected = sum(torch.autograd.grad(loss, net[0].weight)[0] for loss in losses_of(net, 8))
    assert torch.allclose(summed, expected)


@pytest.mark.parametrize("name", ["taylor", "hessian", "snip"])
def test_without_a_loss_there_is_nothing_to_rank_by(name, net):
    with pytest.raises(StageError, match=f"importance {name} needs training batches to take grad"):
        accumulate_gradients(net, (), CRITERIA[name])


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("name", [n for n, one in CRITERIA.items() if not one.of_weights])
def test_every_criterion_goes_by_the_recipe(name, scope, tmp_path):
    case = NETS["resnet"]
    start = Candidate.of(case.build(), case.example())
    made = PruneStage(ratio=0.5, importance=name, scope=scope).run(
        start, bench_context(start, tmp_path)
    )
    assert count_parameters(made.module)[0] < 0.75 * count_parameters(start.module)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lamp", "fpgm"])
def test_every_kind_of_net_can_be_ranked(name, kind, tmp_path):
    structure = STRUCTURES[kind]
    start = Candidate.of(structure.make(), structure.example())
    made = PruneStage(ratio=0.5, importance=name).run(start, bench_context(start, tmp_path))
    assert count_parameters(made.module)[0] < count_parameters(start.module)[0]
