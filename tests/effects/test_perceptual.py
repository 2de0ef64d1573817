"""The perceptual distance: none to itself, more with every change, on features of a frozen net."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.effects import lite0_features
from compress.effects import perceptual as module
from compress.effects.perceptual import perceptual
from compress.effects.photographs import photograph
from compress.effects.reading import read_square
from compress.errors import DataError, MissingExtra
from compress.metrics import metric_direction, metric_name
from compress.zoo import build


@pytest.fixture
def weights(monkeypatch):
    """Random ones: any net tells an image from another."""
    torch.manual_seed(0)
    state = build(
        "efficientnet-lite0", {"in_channels": 3, "classes": 1000, "depth": 5}
    ).state_dict()
    monkeypatch.setattr(lite0_features, "lite0_weights", lambda: state)
    module._net.cache_clear()
    yield
    module._net.cache_clear()


@pytest.fixture
def images():
    names = ("china", "flower", "china")
    read = [read_square(photograph(name).path, 48) for name in names]
    return np.stack(read).transpose(0, 3, 1, 2).astype(np.float32) / 255


def test_equal_images_have_none_and_more_noise_is_farther(weights, images):
    noise = np.random.RandomState(0).normal(0, 1, images.shape)
    assert perceptual(images, images.astype(np.float64)).tolist() == [0, 0, 0]
    near, far = (perceptual(images + level * noise, images) for level in (0.02, 0.2))
    assert (near > 0).all()
    assert (far > 2 * near).all()
    assert (far < 4).all()
    assert np.allclose(perceptual(images[1:2] + 0.2 * noise[1:2], images[1:2]), far[1], rtol=1e-4)


def test_pixels_are_cut_off_as_they_are_shown(weights, images):
    white = np.ones_like(images)
    assert perceptual(white + 1, white).tolist() == [0, 0, 0]


def test_less_is_better_and_the_name_is_its_own():
    assert metric_direction(perceptual) is False
    assert metric_name(perceptual) == "perceptual"


def test_the_net_is_made_without_touching_random_numbers(weights, images):
    before = torch.random.get_rng_state()
    perceptual(images, images)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("shape", [(3, 1, 48, 48), (3, 3 * 48 * 48), (2, 3, 48, 48)])
def test_what_is_no_pair_of_images_is_refused(shape, images):
    with pytest.raises(DataError, match="perceptual is of images"):
        perceptual(np.zeros(shape), images)


def test_without_the_weights_the_extra_is_named(images, monkeypatch):
    def missing():
        raise MissingExtra("of another")

    monkeypatch.setattr(lite0_features, "lite0_weights", missing)
    module._net.cache_clear()
    with pytest.raises(MissingExtra, match=r"the metric perceptual .* 'compresskit\[effects\]'"):
        perceptual(images, images)
