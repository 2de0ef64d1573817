"""Folders of images with COCO's annotations of boxes: right ones, and those of strangers."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from compress.errors import DataError, RecipeError
from compress.tasks import TaskConfig, coco_folder, make_task
from compress.training.data import head

pytestmark = pytest.mark.fast

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(image, category, box, **more):
    return {"image_id": image, "category_id": category, "bbox": list(box), **more}


def fill(folder, count=20, inner="", **content):
    """Images of 40 by 20 pixels, on each of which a white box is a cat."""
    (folder / inner).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        pixels = np.zeros((20, 40, 3), np.uint8)
        pixels[4:12, 8 + number % 8 : 24 + number % 8] = 255
        Image.fromarray(pixels).save(folder / inner / f"{number}.png")
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": 40, "height": 20})
        annotations.append(annotation(100 + number, 3, (8 + number % 8, 4, 16, 8)))
    table = {"images": images, "annotations": annotations, "categories": copy.deepcopy(CATEGORIES)}
    table |= content
    rewrite(folder, table)
    return table


def rewrite(folder, table):
    (folder / "annotations.json").write_text(json.dumps(table))


def task_of(folder, **options):
    return make_task(TaskConfig(name="coco-folder", folder=folder, **{"size": 32, **options}))


def everything(task):
    parts = [head(part, len(part)) for part in (task.train, task.validation, task.test)]
    labels = {name: torch.cat([p.labels[name] for p in parts]) for name in ("boxes", "scores")}
    return torch.cat([part.inputs for part in parts]), labels


@pytest.mark.parametrize("inner", ["", "images"])
def test_boxes_are_scaled_with_their_images(inner, tmp_path):
    fill(tmp_path, inner=inner)
    task = task_of(tmp_path)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [16, 2, 2]
    inputs, labels = everything(task)
    assert inputs.shape == (20, 3, 32, 32)
    assert float(inputs[:, :, 16:].abs().max()) < 0.01  # below the image, which is twice as wide
    assert labels["scores"].tolist() == [[0]] * 20  # by the ids of categories
    assert task.classes == ("cat", "dog")
    for image, box in zip(inputs, labels["boxes"][:, 0], strict=True):
        x0, y0, x1, y1 = box.tolist()
        assert (y0, y1, x1 - x0) == pytest.approx((3.2, 9.6, 12.8), abs=1e-4)
        columns = (image[0, 6] > 0.5).nonzero().flatten()
        assert abs(float(columns.min()) - x0) < 1.5
        assert abs(float(columns.max()) + 1 - x1) < 1.5


def test_images_have_as_many_boxes_as_they_have(tmp_path):
    table = fill(tmp_path)
    table["annotations"] = [
        annotation(100, 7, (-5, -5, 25, 15)),
        annotation(100, 3, (0, 0, 40, 20)),
        annotation(101, 3, (5, 5, 0, 9)),
        annotation(101, 3, (0, 0, 9, 9), iscrowd=1),
        annotation(102, 3, (60, 5, 10, 9)),
    ]
    rewrite(tmp_path, table)
    _, labels = everything(task_of(tmp_path))
    counts = (labels["scores"] >= 0).sum(1)
    assert sorted(counts.tolist()) == [0] * 19 + [2]
    [place] = (counts == 2).nonzero().flatten()
    assert labels["scores"][place].tolist() == [1, 0]
    assert labels["boxes"][place].tolist() == [[0, 0, 16, 8], [0, 0, 32, 16]]
    assert bool(labels["boxes"][counts == 0].isnan().all())


@pytest.mark.parametrize("own", ["validation", "valid", "val", None])
def test_parts_that_are_split_already_stay_so(own, tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 3)
    if own:
        fill(tmp_path / own, 2)
    task = task_of(tmp_path, grey=True)
    sizes = [len(part) for part in (task.train, task.validation, task.test)]
    assert sizes == ([10, 2, 3] if own else [9, 1, 3])
    assert head(task.train, 1).inputs.shape == (1, 1, 32, 32)


def first(table, key, **change):
    table[key][0].update(change)
    return table


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: [], "has no list 'categories' of objects"),
        (lambda t: {**t, "images": {}}, "has no list 'images' of objects"),
        (lambda t: {**t, "annotations": [3]}, "has no list 'annotations' of objects"),
        (lambda t: {**t, "categories": []}, "has no categories"),
        (lambda t: first(t, "categories", name=3), "has a category without a name"),
        (lambda t: first(t, "images", id="a"), "'images' whose 'id' is no whole number"),
        (lambda t: first(t, "images", width=0), "has an image without 'width' and 'height'"),
        (lambda t: first(t, "images", width=41), r"0\.png has 40 by 20 pixels, and .* 41 by 20"),
        (lambda t: first(t, "images", file_name=None), "has an image without a 'file_name'"),
        (lambda t: first(t, "images", file_name="../0.png"), "is no path within its folder"),
        (lambda t: first(t, "images", file_name="/etc/passwd"), "is no path within its folder"),
        (lambda t: first(t, "images", file_name="none.png"), r"none\.png: there is no such file"),
        (lambda t: first(t, "annotations", image_id=9), "annotation of image 9, which is not in"),
        (lambda t: first(t, "annotations", category_id=9), "annotation of category 9, which is"),
        (lambda t: first(t, "annotations", bbox=[1, 2, 3]), r"'bbox' is \[1, 2, 3\]; it is the"),
        (lambda t: first(t, "annotations", bbox=[1, 2, 3, True]), "an annotation whose 'bbox' is"),
        (lambda t: {**t, "annotations": t["annotations"][:1] * 501}, "has 501 boxes in image 100"),
    ],
)
def test_annotations_that_are_none_are_explained(spoil, message, tmp_path):
    rewrite(tmp_path, spoil(fill(tmp_path)))
    with pytest.raises(DataError, match=f"task coco-folder: .*{message}"):
        task_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as JSON"),
        ('{"images": [NaN]}', "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
    ],
)
def test_a_file_that_is_no_json_is_named(text, message, tmp_path):
    fill(tmp_path)
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(DataError, match=rf"annotations\.json: {message}"):
        task_of(tmp_path)


def test_a_folder_has_one_file_of_annotations(tmp_path):
    with pytest.raises(DataError, match=r"must hold one file of annotations, \*\.json; it .* none"):
        task_of(tmp_path)
    fill(tmp_path)
    (tmp_path / "more.json").write_text("{}")
    with pytest.raises(DataError, match=r"it holds 2 \(annotations\.json, more\.json\)"):
        task_of(tmp_path)


def test_parts_have_the_same_categories(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 3, categories=[{"id": 3, "name": "cow"}])
    with pytest.raises(DataError, match="has the categories cow, and other parts have cat, dog"):
        task_of(tmp_path)


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path):
    folder = tmp_path / "mine"
    table = fill(folder)
    (tmp_path / "secret.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "deep").symlink_to(tmp_path)
    for name in ("link.png", "deep/secret.png"):
        rewrite(folder, first(table, "images", file_name=name))
        with pytest.raises(DataError, match=r"is a link to .*secret\.png, outside of"):
            task_of(folder)


def test_large_tables_are_refused(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(coco_folder, "_MOST_BYTES", 100)
    with pytest.raises(DataError, match=r"annotations\.json: it has .* at most 100 bytes"):
        task_of(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": None}, "give the folder that holds annotations"),
        ({"size": 60}, "a multiple of 8"),
    ],
)
def test_options_are_checked(options, message, tmp_path):
    fill(tmp_path)
    with pytest.raises(RecipeError, match=message):
        task_of(**{"folder": tmp_path, **options})
