"""Maps of colors: one that is there is found, one that is not does not hide what places have."""

import numpy as np
import pytest

from compress.tasks.pairs.color_map import ColorMap, without_net

pytestmark = pytest.mark.fast


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (6, 3, 8, 9)).astype(np.uint8)


def test_a_map_that_follows_a_control_is_found(images):
    strength = np.linspace(0, 1, 6, dtype=np.float32)[:, None]
    shares = strength[:, :, None, None]
    made = np.rint((1 - shares) * images + shares * (255 - images)).astype(np.uint8)
    found = ColorMap((images, made, {"strength": strength}))
    for place, image in enumerate(images):
        mapped = found(image, {"strength": float(strength[place, 0])})
        assert np.abs(255 * mapped - made[place]).max() < 1.5


def test_channels_may_be_mixed_and_results_are_within_range(images):
    mixed = (images[:, [2, 0, 1]] / 255.0) ** 2
    made = np.rint(255 * mixed).astype(np.uint8)
    found = ColorMap((images, made, {}))(images[0], {})
    assert np.abs(found - mixed[0]).max() < 0.01
    assert 0 <= found.min() <= found.max() <= 1


def test_what_depends_on_places_is_not_reached(images):
    made = images[..., ::-1].copy()
    found = without_net((images[:4], made[:4], {}), (images[4:], made[4:], {}))
    assert found.unchanged.shape == found.color_map.shape == found.own_color_map.shape == (2,)
    assert (found.unchanged < found.own_color_map).all()
    assert (found.own_color_map < 20).all()
    same = without_net((images, images, {}), (images, images, {}))
    assert (same.unchanged == 60).all()
    assert (same.color_map > 50).all()
