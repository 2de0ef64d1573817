"""Folders of images: labeled or not, split or not, and files that are none."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from compress import Recipe
from compress.errors import DataError, RecipeError
from compress.tasks import TaskConfig, image_files, make_task
from compress.training.data import head, is_labeled

pytestmark = pytest.mark.fast

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def write(path, color, size=(20, 14)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def fill(folder, count=10, suffix=".png", classes=tuple(COLORS)):
    for name in classes:
        for number in range(count):
            write(folder / name / f"{number}{suffix}", COLORS[name])


def task_of(folder, **options):
    return make_task(TaskConfig(name="image-folder", folder=folder, **options))


def test_classes_have_the_order_that_is_given(tmp_path):
    fill(tmp_path)
    plain = task_of(tmp_path, size=16)
    task = task_of(tmp_path, size=16, classes=["red", "white", "green", "blue"])
    assert task.classes == ("red", "white", "green", "blue")
    for one, other in ((plain.train, task.train), (plain.test, task.test)):
        assert torch.equal(head(one, 50).inputs, head(other, 50).inputs)
        names = [[t.classes[i] for i in head(part, 50).labels] for t, part in
                 ((plain, one), (task, other))]  # fmt: skip
        assert names[0] == names[1]


def test_a_relative_folder_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"photos: there is no such folder in {tmp_path}\.$"):
        task_of("photos")


@pytest.mark.parametrize("classes", [["red"], ["red", "green", "green", "blue"], ["a", "b", "c"]])
def test_classes_that_are_not_those_of_the_folders_are_refused(classes, tmp_path):
    fill(tmp_path)
    with pytest.raises(DataError, match=r"holds the classes blue, green, red, and `classes` names"):
        task_of(tmp_path, classes=classes)


def dominant(inputs):
    """Which of the classes a batch of images shows, by its color."""
    return 2 - inputs.mean((2, 3)).argmax(1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".gif", ".webp", ".tiff"])
def test_folders_are_classes(suffix, tmp_path):
    fill(tmp_path, suffix=suffix)
    (tmp_path / "red" / "notes.txt").write_text("not an image, and not named like one")
    task = task_of(tmp_path, size=16)
    assert task.classes == ("blue", "green", "red")
    assert [len(part) for part in (task.train, task.validation, task.test)] == [24, 3, 3]
    for part in (task.train, task.validation, task.test):
        batch = head(part, len(part))
        assert batch.inputs.shape[1:] == (3, 16, 16)
        assert float(batch.inputs.max()) == pytest.approx(1, abs=0.05)
        assert float(batch.inputs.min()) == pytest.approx(-1, abs=0.05)
        assert torch.equal(dominant(batch.inputs), batch.labels)
    one, label = task.train[0]
    assert torch.equal(one, head(task.train, 1).inputs[0])
    assert int(label) == int(head(task.train, 1).labels[0])


def test_a_folder_without_classes_has_no_labels(tmp_path):
    for number in range(20):
        write(tmp_path / f"{number}.png", COLORS["red"])
    task = task_of(tmp_path)
    assert not is_labeled(task.train)
    assert head(task.train, 2).inputs.shape == (2, 3, 32, 32)
    assert task.classes == ()


@pytest.mark.parametrize("validation", [True, False])
def test_parts_that_are_split_already_stay_so(validation, tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 2)
    if validation:
        fill(tmp_path / "validation", 1)
    task = task_of(tmp_path)
    sizes = [len(part) for part in (task.train, task.validation, task.test)]
    assert sizes == ([30, 3, 6] if validation else [27, 3, 6])


def test_images_are_scaled_to_cover_and_cut_in_the_middle(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    Image.fromarray(wide).save(tmp_path / "0.png")
    for number in range(1, 20):
        write(tmp_path / f"{number}.png", (255, 255, 255))
    task = task_of(tmp_path, size=8)
    inputs = torch.cat([head(p, len(p)).inputs for p in (task.train, task.validation, task.test)])
    assert float(inputs.min()) > 0.9


def test_grey_has_one_channel(tmp_path):
    fill(tmp_path)
    assert head(task_of(tmp_path, grey=True).train, 2).inputs.shape == (2, 1, 32, 32)


def test_a_photograph_that_was_turned_is_upright(tmp_path):
    top = np.zeros((8, 8, 3), np.uint8)
    top[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    for number in range(20):
        Image.fromarray(top).save(tmp_path / f"{number}.png", exif=exif)
    image = head(task_of(tmp_path, size=8).train, 1).inputs[0]
    assert float(image[:, :4].mean()) < 0 < float(image[:, 4:].mean())


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width, height):
    """A small PNG file that claims to be a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


def cut(path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read as an image"),
        (lambda path: path.write_bytes(b"hello"), "cannot be read as an image"),
        (cut, "cannot be read as an image"),
        (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "cannot be read as an image"),
        (lambda path: path.write_bytes(bomb(9_000, 9_000)), "unfolds to 9000 by 9000 pixels"),
        (lambda path: path.write_bytes(bomb(50_000, 50_000)), "cannot be read as an image"),
    ],
    ids=["empty", "text", "cut", "postscript", "large", "bomb"],
)
def test_a_file_that_is_no_image_is_named(spoil, message, tmp_path):
    fill(tmp_path)
    spoil(tmp_path / "green" / "3.png")
    with pytest.raises(DataError, match=rf"green/3\.png: {message}"):
        task_of(tmp_path)


def note(folder):
    (folder / "a.heic").write_text("of another kind")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "holds no images"),
        (lambda folder: folder.rmdir(), "there is no such folder"),
        (lambda folder: fill(folder, classes=["red"]), "holds the one class 'red'"),
        (
            lambda folder: (fill(folder), write(folder / "0.png", (0, 0, 0))),
            "holds both images and folders of images",
        ),
        (
            lambda folder: (fill(folder), (folder / "grey").mkdir()),
            r"grey lies beside \d folders with images of a class, and is empty; put images",
        ),
        (
            lambda folder: (fill(folder), (folder / "notes").mkdir(), note(folder / "notes")),
            r"notes lies .* and holds no image by its name, but .*a\.heic; put .* elsewhere\.",
        ),
        (
            lambda folder: (
                fill(folder / "train"),
                fill(folder / "test", 2, classes=["red", "blue"]),
            ),
            "test holds the classes blue, red and the training images have blue, green, red",
        ),
    ],
    ids=["empty", "gone", "one class", "both", "empty class", "no images", "other classes"],
)
def test_a_folder_that_is_none_is_explained(prepare, message, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(DataError, match=message):
        task_of(folder)


def test_more_images_than_memory_should_hold_are_refused(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(image_files, "_MOST_BYTES", 10_000)
    with pytest.raises(DataError, match=r"30 images of 32 by 32 pixels .* give a smaller size"):
        task_of(tmp_path)


def test_a_folder_must_be_given():
    with pytest.raises(RecipeError, match="give the folder that holds the images"):
        make_task("image-folder")


def test_built_in_nets_take_channels_and_classes_from_the_folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            picture = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{number}.png")
    recipe = Recipe.loads(
        f"name: r\ntask: {{name: image-folder, folder: {tmp_path / 'photos'}, size: 16}}\n"
        "model: {arch: resnet, width: 8}\n"
        "stages: [{kind: distill, student: {arch: mobilenet-v2, width: 8, depth: 3}, epochs: 1}]\n"
    )
    task = recipe.make_task()
    start = recipe.make_candidate(task)
    assert start.architecture.options == {"width": 8, "in_channels": 3, "classes": 2}
    plan = recipe.plan(workdir=tmp_path / "run")
    assert [line.label for line in plan.stages] == ["input", "distill"]
    assert plan.notes[0].startswith("outputs are class-scores; rows are scored by accuracy")
    said = Recipe.loads(recipe.dumps().replace("width: 8\n", "width: 8\n  classes: 10\n", 1))
    with pytest.raises(DataError, match=r"outputs for 10 classes and the task has 2 \(cat, dog\)"):
        said.plan(workdir=tmp_path / "run")
