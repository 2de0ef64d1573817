from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.errors import RecipeError, SettingsError
from compress.tasks import TaskConfig, make_task
from compress.tasks.digits import digit_splits
from compress.tasks.scenes import BORDER, Canvas, make_scenes
from compress.training.data import head

pytestmark = pytest.mark.fast

CANVAS = Canvas(size=64, most=4, sides=(0.25, 0.5), turn=0.2)
KINDS = ("boxes", "mask", "digits", "pose")


def task_of(label, samples=64, **options):
    return make_task(TaskConfig(name="digit-scenes", label=label, samples=samples, **options))


@pytest.fixture(scope="module")
def scenes():
    [pictures, _, _] = digit_splits()
    return make_scenes(*pictures, 80, CANVAS, seed=0)


def there(scenes):
    """Each picture: the canvas that it is on, its place among those, and its class."""
    for image, place in zip(*np.nonzero(scenes.classes >= 0), strict=True):
        yield image, place, scenes.classes[image, place]


def test_there_are_one_to_four_pictures_on_a_canvas_each_about_as_often(scenes):
    counts = np.bincount((scenes.classes >= 0).sum(1), minlength=5)
    assert counts[0] == 0
    assert counts[1:].min() >= 10
    assert scenes.images.shape == (80, 1, 64, 64)


def test_a_box_holds_all_pixels_of_its_class_and_touches_them(scenes):
    for image, place, label in there(scenes):
        if (scenes.classes[image] == label).sum() > 1:
            continue
        rows, columns = np.nonzero(scenes.masks[image] == label + 1)
        x0, y0, x1, y1 = scenes.boxes[image, place]
        assert x0 <= columns.min()
        assert columns.max() < x1
        assert y0 <= rows.min()
        assert rows.max() < y1
        # Another picture may cover a little of it.
        assert abs(columns.max() + 1 - x1) + abs(rows.max() + 1 - y1) <= 4


def test_what_is_not_there_has_no_number(scenes):
    missing = scenes.classes < 0
    for part in (scenes.boxes, scenes.positions):
        assert np.isnan(part[missing]).all()
        assert not np.isnan(part[~missing]).any()
    assert np.isnan(scenes.turns[missing]).all()
    assert float(np.abs(scenes.turns[~missing]).max()) <= 1


def test_pictures_hardly_cover_one_another(scenes):
    for image in range(80):
        boxes = scenes.boxes[image, scenes.classes[image] >= 0]
        for row, box in enumerate(boxes):
            for other in boxes[row + 1 :]:
                both = np.clip(
                    np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None
                )
                smaller = min((each[2:] - each[:2]).prod() for each in (box, other))
                assert both.prod() <= 0.051 * smaller


def test_ink_is_lighter_than_the_ground_and_edges_are_between(scenes):
    pixels = scenes.images[:, 0].astype(float)
    ground, edge, ink = (
        pixels[part].mean()
        for part in (
            scenes.masks == 0,
            scenes.masks == BORDER,
            (scenes.masks > 0) & (scenes.masks != BORDER),
        )
    )
    assert ground + 20 < edge < ink - 20


def test_a_picture_is_where_its_position_says_and_turned_as_its_angle_says():
    bar = np.zeros((1, 8, 8))
    bar[0, :, 3:5] = 1.0
    canvas = Canvas(size=64, most=1, sides=(0.4, 0.5), turn=1.0)
    scenes = make_scenes(bar, np.zeros(1, int), 30, canvas, seed=3)
    for image in range(30):
        rows, columns = np.nonzero(scenes.masks[image] == 1)
        center = (scenes.positions[image, 0] + 1) * 32
        assert np.abs(center - [columns.mean() + 0.5, rows.mean() + 0.5]).max() < 0.7
        # The bar's direction, from the second moments of its pixels.
        x, y = columns - columns.mean(), rows - rows.mean()
        angle = 0.5 * np.arctan2(2 * (x * y).mean(), (y * y - x * x).mean())
        assert angle == pytest.approx(-scenes.turns[image, 0], abs=0.08)


@pytest.mark.parametrize("label", KINDS)
def test_equal_options_give_equal_canvases(label):
    for one, other in zip(*(splits(task_of(label)) for _ in range(2)), strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert repr(one.labels) == repr(other.labels)


def splits(task):
    return [head(part, len(part)) for part in (task.train, task.validation, task.test)]


def test_splits_share_no_canvas_and_no_digit():
    train, validation, test = splits(task_of("boxes"))
    assert [len(part.inputs) for part in (train, validation, test)] == [64, 8, 8]
    pictures = [{picture.tobytes() for picture in images} for images, _ in digit_splits()]
    assert not pictures[0] & pictures[1]
    assert not pictures[0] & pictures[2]
    assert not torch.equal(train.inputs[:8], test.inputs)


def test_labels_are_what_is_asked_for():
    boxes, mask, digits, pose = (head(task_of(label).train, 32) for label in KINDS)
    assert boxes.inputs.shape == mask.inputs.shape == (32, 1, 64, 64)
    assert float(boxes.inputs.min()) >= -1
    assert {name: tuple(part.shape) for name, part in boxes.labels.items()} == {
        "boxes": (32, 4, 4),
        "scores": (32, 4),
    }
    assert set(mask.labels.unique().tolist()) <= {*range(11), BORDER}
    assert BORDER in mask.labels
    present = [sorted(set(row[row >= 0].tolist())) for row in boxes.labels["scores"]]
    assert [row.nonzero().flatten().tolist() for row in digits.labels] == present
    assert {name: tuple(part.shape) for name, part in pose.labels.items()} == {
        "position": (32, 2),
        "angle": (32, 1),
    }
    assert not any(bool(part.isnan().any()) for part in pose.labels.values())


def test_a_size_that_nets_cannot_divide_is_refused():
    with pytest.raises(RecipeError, match=r"size must be a multiple of 8, .*; got 60"):
        task_of("boxes", size=60)
    with pytest.raises(SettingsError, match="label"):
        task_of("circles")
