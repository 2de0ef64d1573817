"""The effects that teach: identity where nothing is asked for, the size of the input, a change."""

from __future__ import annotations

import importlib.util
from typing import get_args

import numpy as np
import pytest
import torch

from compress.config.references import CodeReferences
from compress.effects import lite0_features, photographs, style_transfer
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


@needs_skimage
@pytest.mark.parametrize("strength", [1e-9, 1e-3, 0.01])
def test_the_least_strength_changes_the_least(strength):
    """No patch of noise is like another at a scale that is nearly nothing."""
    noise = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    made = OilPaint(search=3)(noise, {"strength": strength})
    assert np.isfinite(made).all()
    assert np.abs(made - noise / 255).max() <= strength + 1e-6


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
    monkeypatch.setattr(lite0_features, "lite0_weights", net.state_dict)


def test_style_transfer_brings_an_image_nearer_to_the_style(image, weights):
    effect = StyleTransfer(style="coffee", iterations=4)
    made = effect(image, {})
    assert made.shape == image.shape
    assert 0 <= made.min() < made.max() <= 1
    assert np.abs(made - image / 255).mean() > 0.001
    wanted = effect._wanted(pixels_of(image / 255), (3, 5))

    def distance(given):
        shifted = style_transfer._shifted(pixels_of(given), (3, 5))
        return float(effect._distance(effect._features(shifted), wanted))

    assert distance(made) < distance(image / 255)
    assert np.array_equal(effect(image, {}), made)


def test_an_image_in_its_own_style_wants_its_own_features(weights):
    """Each place is most like itself, where one alone counts."""
    effect = StyleTransfer(style="china", temperature=1e-5)
    pixels, shift = style_transfer._style_pixels("china"), style_transfer._STYLE_SHIFTS[1]
    own = effect._features(style_transfer._shifted(pixels, shift))
    wanted = effect._wanted(pixels, shift)
    assert own.keys() == wanted.keys()
    # Flat areas are like each other as well.
    assert effect._distance(wanted, own) < 0.01
    assert effect._distance(wanted, {block: -one for block, one in own.items()}) > 0.5


def test_smoothness_leaves_less_variation(image, weights):
    made = [
        StyleTransfer(style="coffee", iterations=4, smoothness=one)(image, {}) for one in (0, 50)
    ]
    varied = [float(np.abs(np.diff(one, axis=0)).mean()) for one in made]
    assert varied[1] < varied[0]


def pixels_of(image):
    return torch.tensor(image).permute(2, 0, 1)[None].float()


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
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "style.png")
    assert style == identity(name="style-transfer", style=str(moved))
    moved.write_bytes(b"2")
    assert style != identity(name="style-transfer", style=str(moved))


def test_the_name_of_a_photograph_is_no_path():
    given = {"name": "style-transfer", "style": "retina"}
    settings = ImageTeacherSettings.model_validate(given, context={"folder": "recipes"})
    assert settings.options["style"] == "retina"
    settings = ImageTeacherSettings.model_validate(
        {**given, "style": "mine.png"}, context={"folder": "recipes"}
    )
    assert str(settings.options["style"]) == "recipes/mine.png"


def test_both_views_of_a_scene_are_in_one_part():
    parts = {one.name: one.part for one in PHOTOGRAPHS}
    assert len(parts) == len(PHOTOGRAPHS) == 17
    assert tuple(parts) == get_args(photographs.PhotographName)
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
