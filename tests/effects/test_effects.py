"""The effects that teach: identity where nothing is asked for, the size of the input, a change."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from compress.config.references import CodeReferences
from compress.effects import photographs, style_transfer
from compress.effects.oil_paint import OilPaint
from compress.effects.photographs import PHOTOGRAPHS, photograph
from compress.effects.reading import part_at_size, read_square
from compress.effects.style_transfer import StyleTransfer
from compress.errors import DataError, MissingExtra, RecipeError
from compress.tasks.pairs.teacher import ImageTeacherSettings
from compress.zoo import build

needs_skimage = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="needs scikit-image"
)


@pytest.fixture
def image():
    return read_square(photograph("china").path, 48)


@needs_skimage
def test_oil_paint_follows_its_strength(image):
    effect = OilPaint(search=3)
    made = [effect(image, {"strength": strength}) for strength in (0.0, 0.5, 1.0)]
    assert np.array_equal(made[0], image.astype(np.float32) / 255)
    change = [float(np.abs(one - made[0]).mean()) for one in made]
    assert 0.005 < change[1] < change[2]
    assert np.array_equal(effect(image, {}), made[2])
    assert {one.shape for one in made} == {(48, 48, 3)}


@pytest.mark.parametrize(
    ("controls", "problem"),
    [({"strength": 1.5}, "is from 0 to 1; it was given 1.5"), ({"size": 1.0}, "was given size")],
)
def test_oil_paint_checks_its_controls(image, controls, problem):
    with pytest.raises(RecipeError, match=problem):
        OilPaint()(image, controls)


def test_without_scikit_image_the_extra_is_named(image, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.restoration", None)
    with pytest.raises(MissingExtra, match=r"compresskit\[effects\]"):
        OilPaint()(image, {})


@pytest.fixture
def weights(monkeypatch):
    """Random ones: the features of any net have a style."""
    torch.manual_seed(0)
    net = build("efficientnet-lite0", {"in_channels": 3, "classes": 1000, "depth": 5})
    monkeypatch.setattr(style_transfer, "lite0_weights", net.state_dict)


def test_style_transfer_brings_an_image_nearer_to_the_style(image, weights):
    effect = StyleTransfer(style="flower", iterations=4)
    made = effect(image, {})
    assert made.shape == image.shape
    assert 0 <= made.min() < made.max() <= 1
    assert np.abs(made - image / 255).mean() > 0.001

    def distance(pixels):
        given = torch.tensor(pixels).permute(2, 0, 1)[None].float()
        return float(effect._style_loss(effect._features(given)))

    assert distance(made) < distance(image / 255)
    assert np.array_equal(effect(image, {}), made)


def test_style_transfer_refuses_what_it_does_not_have(image, weights):
    with pytest.raises(RecipeError, match="has no controls; it was given strength"):
        StyleTransfer(style="flower")(image, {"strength": 1.0})
    with pytest.raises(RecipeError, match="there is no file nowhere, and no photograph"):
        StyleTransfer(style="nowhere")(image, {})


def test_effects_are_told_apart_by_their_options(tmp_path):
    def identity(**options):
        return ImageTeacherSettings(**options).build(CodeReferences()).identity

    oil = identity(name="oil-paint")
    assert oil == identity(name="oil-paint")
    assert oil != identity(name="oil-paint", radius=5)
    path = tmp_path / "style.png"
    path.write_bytes(b"1")
    style = identity(name="style-transfer", style=str(path))
    path.write_bytes(b"2")
    assert style != identity(name="style-transfer", style=str(path))


def test_both_views_of_a_scene_are_in_one_part():
    parts = {one.name: one.part for one in PHOTOGRAPHS}
    assert len(parts) == len(PHOTOGRAPHS) == 17
    assert parts["motorcycle_left"] == parts["motorcycle_right"]
    assert set(parts.values()) == {"train", "validation", "test"}


def test_photographs_that_are_not_installed_name_the_extra(monkeypatch):
    monkeypatch.setattr(photographs.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"comes with scikit-learn.*compresskit\[effects\]"):
        _ = photograph("china").path


def test_a_part_of_an_image_at_another_size():
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[4:14, 8:18] = 200
    assert (part_at_size(pixels, 8, 4, 10, 5) == 200).all()
    assert part_at_size(pixels, 0, 0, 20, 40).shape == (40, 40, 3)


def test_a_style_that_is_no_image_is_named(tmp_path):
    (tmp_path / "style.png").write_text("no image")
    with pytest.raises(DataError, match=r"style\.png: cannot be read as an image"):
        read_square(tmp_path / "style.png", 16)
