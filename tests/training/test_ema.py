import numpy as np
import pytest
import torch
from torch import nn

from compress.modules.tensors import tensors_of
from compress.training.ema import BestWeights, MovingAverage

pytestmark = pytest.mark.fast


def normed(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_that_of_numpy(decay):
    net = normed()
    average = MovingAverage(lambda: tensors_of(net), decay)
    expected = {k: v.numpy().astype(np.float64) for k, v in tensors_of(net).items()}
    for steps in range(1, 30):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
            net(torch.randn(8, 2))
        now = min(decay, (1 + steps) / (10 + steps))
        for name, tensor in tensors_of(net).items():
            value = tensor.numpy().astype(np.float64)
            whole = name.endswith("num_batches_tracked")
            expected[name] = value if whole else now * expected[name] + (1 - now) * value
        average.update(steps)
    for name, tensor in average.tensors.items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-5)


def test_whole_numbers_stay_whole():
    net = normed()
    average = MovingAverage(lambda: tensors_of(net), 0.9)
    for steps in range(1, 4):
        net(torch.randn(4, 2))
        average.update(steps)
    assert average.tensors["1.num_batches_tracked"] == 3
    assert average.tensors["1.num_batches_tracked"].dtype == torch.int64


def test_the_weights_are_back_once_the_average_is_taken_off_again():
    net = normed()
    average = MovingAverage(lambda: tensors_of(net), 0.9)
    with torch.no_grad():
        net[0].weight.add_(1)
    average.update(1)
    moved = net[0].weight.detach().clone()
    with average.applied():
        assert torch.equal(net[0].weight, average.tensors["0.weight"])
        assert not torch.equal(net[0].weight, moved)
    assert torch.equal(net[0].weight, moved)


def test_zeros_that_stay_are_zero_in_the_average():
    net = normed()
    with torch.no_grad():
        net[0].weight[0] = 0
    average = MovingAverage(lambda: tensors_of(net), 0.9)
    for steps in range(1, 9):
        with torch.no_grad():
            net[0].weight[1:].add_(1)
        average.update(steps)
    assert bool((average.tensors["0.weight"][0] == 0).all())


@pytest.mark.parametrize(
    ("losses", "best", "late"),
    [
        ([1.0, 2.0, 3.0], 0, [False, False, True]),
        ([3.0, 2.0, 1.0], 2, [False, False, False]),
        ([2.0, 2.0, 2.0], 0, [False, False, True]),
        ([float("nan"), 2.0, float("inf")], 1, [False, False, False]),
        ([float("nan"), float("nan"), 2.0], 2, [False, True, False]),
    ],
)
def test_the_best_is_the_first_of_the_lowest(losses, best, late):
    net, keeper, seen = nn.Linear(1, 1), BestWeights(patience=2), []
    for epoch, loss in enumerate(losses):
        with torch.no_grad():
            net.weight.fill_(epoch)
        keeper.update(epoch, loss, tensors_of(net))
        seen.append(keeper.should_stop(epoch))
    assert keeper.epoch == best
    assert keeper.tensors["weight"] == best
    assert seen == late
