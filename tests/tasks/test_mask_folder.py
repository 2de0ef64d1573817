"""Folders of images with a mask for each: right ones, and those of strangers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from compress.errors import DataError, RecipeError
from compress.tasks import TaskConfig, make_task
from compress.training.data import head

pytestmark = pytest.mark.fast


def fill(folder, count=20, mode="L"):
    """Images of 40 by 20 pixels, white where the mask is 2."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = np.zeros((20, 40), np.uint8)
        mask[4:12, 8 + number % 8 : 24 + number % 8] = 2
        mask[0] = 255
        Image.fromarray(np.where(mask == 2, 255, 0).astype(np.uint8)).convert("RGB").save(
            folder / "images" / f"{number}.jpg", quality=95
        )
        image = Image.fromarray(mask)
        if mode == "P":
            image = Image.frombytes("P", (40, 20), mask.tobytes())
            image.putpalette([7 * i % 256 for i in range(768)])
        image.save(folder / "masks" / f"{number}.png")


def task_of(folder, **options):
    return make_task(TaskConfig(name="mask-folder", folder=folder, **{"size": 32, **options}))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_are_scaled_with_their_images(mode, tmp_path):
    fill(tmp_path, mode=mode)
    task = task_of(tmp_path)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [16, 2, 2]
    batch = head(task.train, 16)
    assert batch.inputs.shape == (16, 3, 32, 32)
    assert batch.labels.shape == (16, 32, 32)
    assert set(batch.labels.unique().tolist()) == {0, 2, 255}
    assert bool((batch.labels[:, 16:] == 255).all())  # below the image, which is twice as wide
    agree = (batch.inputs[:, 0] > 0) == (batch.labels == 2)
    assert float(agree[:, 1:16].float().mean()) > 0.97
    assert task.classes == ("class 0", "class 1", "class 2")
    assert task.ignore_index == 255


def test_masks_of_one_bit_are_yes_and_no(tmp_path):
    fill(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) == 2).save(path)
    task = task_of(tmp_path, grey=True, classes=("ground", "thing"))
    labels = head(task.train, 4).labels
    assert set(labels[:, :16].unique().tolist()) == {0, 1}
    assert task.classes == ("ground", "thing")


def test_parts_that_are_split_already_stay_so(tmp_path):
    for name, count in (("train", 10), ("val", 2), ("test", 3)):
        fill(tmp_path / name, count)
    task = task_of(tmp_path)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [10, 2, 3]


def save(array, path):
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "masks" / "3.png").unlink(), r"3\.jpg has no mask of its name in .*masks"),
        (
            lambda f: save(np.zeros((20, 41), np.uint8), f / "masks" / "3.png"),
            r"3\.png has 41 by 20 pixels, and its image 40 by 20",
        ),
        (
            lambda f: save(np.zeros((20, 40, 3), np.uint8), f / "masks" / "3.png"),
            "its pixels are RGB, and a mask has one number of 8 bits for each",
        ),
        (
            lambda f: save(np.full((20, 40), 9, np.uint8), f / "masks" / "3.png"),
            "has the class 9, and 3 classes are named, the first of which is 0",
        ),
        (lambda f: (f / "masks" / "3.png").write_text("no"), "cannot be read as an image"),
        (
            lambda f: [path.unlink() for path in (f / "images").iterdir()],
            "images holds no images",
        ),
    ],
)
def test_what_is_no_mask_is_explained(spoil, message, tmp_path):
    fill(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=f"task mask-folder: .*{message}"):
        task_of(tmp_path, classes=("a", "b", "c"))


@pytest.mark.parametrize("name", ["images", "masks"])
def test_links_that_lead_out_of_the_folder_are_refused(name, tmp_path):
    folder = tmp_path / "mine"
    fill(folder)
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match=r"is a link to .*, outside of"):
        task_of(folder)


def test_a_link_of_one_mask_is_refused_too(tmp_path):
    folder = tmp_path / "mine"
    fill(folder)
    mask = folder / "masks" / "3.png"
    mask.rename(tmp_path / "3.png")
    mask.symlink_to(tmp_path / "3.png")
    with pytest.raises(DataError, match=r"3\.png is a link to .*, outside of"):
        task_of(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": None}, "give the folder that holds images and masks"),
        ({"size": 60}, "of 8; got"),
    ],
)
def test_options_are_checked(options, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        task_of(**{"folder": tmp_path, **options})


def test_the_numbers_of_pixels_stay_whole(tmp_path):
    fill(tmp_path)
    labels = head(task_of(tmp_path, size=64).train, 16).labels
    assert labels.dtype == torch.uint8
    assert set(labels.unique().tolist()) == {0, 2, 255}
