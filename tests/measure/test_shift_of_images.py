"""What is said of a rotated, darkened sample of Fashion-MNIST, with a net that learned the data."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.errors import DataError
from compress.measure.shift import features_of, told_apart
from compress.measure.without_labels import estimated, trials
from compress.tasks.fashion_mnist import make_task

pytestmark = pytest.mark.exhaustive

_MEAN, _STD = 0.2860, 0.3530


def served(images, degrees, brightness):
    turn = np.deg2rad(degrees)
    cosine, sine = np.cos(turn), np.sin(turn)
    grid = torch.tensor([[[cosine, -sine, 0], [sine, cosine, 0]]], dtype=torch.float32)
    places = F.affine_grid(grid.repeat(len(images), 1, 1), images.shape, align_corners=False)
    pixels = F.grid_sample(images * _STD + _MEAN, places, align_corners=False)
    return (pixels * brightness - _MEAN) / _STD


def trained(task):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 49, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for rows in (part for _ in range(3) for part in torch.randperm(12_000).split(64)):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(task.train.inputs[rows]), task.train.labels[rows])
        loss.backward()
        optimizer.step()
    return net.eval()


def test_the_interval_holds_the_truth_or_there_is_none_and_the_sample_is_told_apart():
    try:
        task = make_task()
    except DataError:
        pytest.skip("Fashion-MNIST is not on this machine")
    net = trained(task)
    inputs, classes = task.validation.inputs[:1000].numpy(), task.validation.labels[:1000].numpy()

    @torch.no_grad()
    def predict(given):
        return net(torch.as_tensor(given[""])).numpy()

    def tried(threshold):
        return trials(predict, {"": inputs[:500]}, classes[:500], threshold)

    known, given = predict({"": inputs}), 0
    truth = task.test.labels[:800].numpy()
    for degrees in (0, 10, 20, 90):
        for brightness in (1.0, 0.7, 0.4):
            images = served(task.test.inputs[:800], degrees, brightness)
            logits = predict({"": images.numpy()})
            accuracy = (logits.argmax(1) == truth).mean()
            found = estimated(logits, known, classes, tried)
            if found is not None:
                given += 1
                assert found.ci95.lo <= accuracy <= found.ci95.hi, (degrees, brightness)
            is_shown = told_apart(features_of(known), features_of(logits)).is_shown
            assert is_shown == (degrees > 0 or brightness < 1)
    assert given >= 2
