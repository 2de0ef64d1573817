"""The task image-to-image: photographs of every kind, teachers of every kind, and pairs on disk."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from compress.config.references import CodeReferences
from compress.errors import CompressError, DataError, RecipeError
from compress.tasks import TaskConfig, make_task
from compress.tasks.image_to_image import plan_of
from compress.tasks.pairs.dataset import MirroredPairs
from compress.training.data import SeededEpochs

SMALL = {"size": 32, "pairs": 3, "frames": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "compresskit" / "pairs"


@pytest.fixture
def photos(tmp_path):
    folder, random = tmp_path / "photos", np.random.RandomState(0)
    folder.mkdir()
    for number in range(5):
        pixels = gaussian_filter(random.rand(40 + number, 52, 3), (3, 3, 0))
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        Image.fromarray((255 * pixels).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


class Calls:
    """A teacher that inverts, as far as its control says, and is interrupted at a call."""

    def __init__(self):
        self.count, self.last = 0, None


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of ``mine:invert``."""
    found, module = Calls(), types.ModuleType("mine")

    def invert(image, controls, level=1.0):
        found.count += 1
        if found.count == found.last:
            raise KeyboardInterrupt
        pixels = image.astype(np.float32) / 255
        return pixels + level * controls.get("strength", 1.0) * (1 - 2 * pixels)

    invert.__module__ = "mine"
    module.invert = invert
    monkeypatch.setitem(sys.modules, "mine", module)
    # Closed over by the function, and no part of what it computes.
    monkeypatch.setattr("compress.tasks.pairs.teacher.code_fingerprint", lambda *_: "code")
    return found


REFERENCES = CodeReferences.of(["mine"])


def config(photos, **options):
    options = {"teacher": {"name": "mine:invert"}, **SMALL, **options}
    return TaskConfig(name="image-to-image", images=photos, **options)


def made(photos, **options):
    return make_task(config(photos, **options), REFERENCES)


def test_a_task_has_pairs_of_images_from_0_to_1(photos, calls):
    task = made(photos)
    assert (len(task.train), len(task.validation), len(task.test)) == (9, 1, 1)
    image, label = task.train[0]
    assert image.shape == label.shape == (3, 32, 32)
    assert torch.allclose(label, 1 - image, atol=1 / 255)
    assert (task.metric, task.outputs) == ("psnr", "image")
    assert torch.equal(task.calibration[0], task.validation[0][0])


def test_pairs_are_made_once_for_all_that_they_depend_on(photos, calls, cache):
    first = made(photos)
    assert calls.count == 11
    again = made(photos)
    assert calls.count == 11
    assert torch.equal(first.train[4][0], again.train[4][0])
    made(photos, teacher={"name": "mine:invert", "level": 0.5})
    made(photos, seed=2)
    Image.new("RGB", (40, 40)).save(photos / "more.png")
    made(photos)
    assert calls.count == 11 + 11 + 11 + 14
    assert len(list(cache.iterdir())) == 4


def test_who_is_interrupted_goes_on_where_it_was(photos, calls):
    calls.last = 5
    with pytest.raises(KeyboardInterrupt):
        made(photos)
    calls.last = None
    plan = plan_of(config(photos), REFERENCES)
    assert (len(plan.pairs), len(plan.missing)) == (11, 7)
    events = []
    plan.make(events.append)
    assert calls.count == 5 + 7
    assert [event.done for event in events] == list(range(5, 12))
    assert events[-1].of == 11
    assert events[-1].left_s == 0
    assert all(event.teacher_s > 0 for event in events)
    assert plan.teacher_s > 0


def test_a_damaged_pair_is_made_again(photos, calls):
    first = made(photos)
    folder = plan_of(config(photos), REFERENCES).folder
    path = folder / "train-00001-00001.npz"
    path.write_bytes(path.read_bytes()[:300])
    again = made(photos)
    assert calls.count == 12
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first.train, again.train, strict=True))


def test_no_photograph_is_in_two_parts(photos, calls):
    parts = plan_of(config(photos), REFERENCES).photos.parts
    names = [photo.name for part in parts.values() for photo in part]
    assert sorted(names) == sorted(path.name for path in photos.iterdir())
    Image.open(photos / "0.png").save(photos / "twin.bmp")
    plan = plan_of(config(photos), REFERENCES)
    assert sum(map(len, plan.photos.parts.values())) == 5
    assert "is the same photograph as another" in plan.photos.note


def test_files_of_every_kind(photos, calls):
    random = np.random.RandomState(1)
    Image.fromarray((255 * random.rand(40, 40, 4)).astype(np.uint8), "CMYK").save(photos / "c.jpg")
    Image.fromarray((65_535 * random.rand(40, 40)).astype(np.uint16)).save(photos / "deep.png")
    frames = [Image.new("P", (40, 40), color) for color in (0, 1)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (1, 1)).save(photos / "one.png")
    (photos / "text.png").write_text("no image")
    whole = (photos / "0.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    plan = plan_of(config(photos), REFERENCES)
    names = {photo.name for part in plan.photos.parts.values() for photo in part}
    assert names == {*(f"{n}.png" for n in range(5)), "c.jpg", "deep.png", "moving.gif"}
    assert plan.photos.note.startswith("3 files left out: ")
    assert len(plan.photos.skipped) == 3


def test_too_few_photographs_are_an_error(tmp_path, calls):
    folder = tmp_path / "few"
    folder.mkdir()
    Image.new("RGB", (40, 40)).save(folder / "a.png")
    (folder / "b.png").write_text("no image")
    with pytest.raises(DataError, match=r"few has 1 photograph that can be used.*1 file left out"):
        made(folder)


RETURNS = {
    "size": (lambda image: image[:-1], r"returned an image of the shape \(31, 32, 3\)"),
    "nothing": (lambda image: None, "returned a NoneType, which is no array"),
    "integers": (lambda image: image.astype(np.int64), "returned pixels of int64"),
    "nan": (lambda image: image * np.nan, "returned pixels that are not finite"),
    "range": (lambda image: image.astype(np.float32), "returned pixels from"),
    "failure": (lambda image: image.no_such, "failed with AttributeError"),
}


@pytest.mark.parametrize("kind", RETURNS)
def test_a_teacher_that_returns_something_else_is_named(photos, kind, monkeypatch, calls):
    returns, problem = RETURNS[kind]
    monkeypatch.setattr("mine.invert", lambda image, controls: returns(image), raising=False)
    with pytest.raises(DataError, match=f"the teacher mine:invert {problem}") as refused:
        made(photos, crop=32)
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize("to", [torch.tensor, lambda made: (255 * made).astype(np.uint8)])
def test_a_teacher_may_return_tensors_and_bytes(photos, monkeypatch, calls, to):
    monkeypatch.setattr("mine.invert", lambda image, controls: to(image / 255.0), raising=False)
    image, label = made(photos).train[0]
    assert torch.allclose(image, label, atol=1.01 / 255)


def test_a_teacher_cannot_write_to_what_the_student_sees(photos, monkeypatch, calls):
    def blackened(image, controls):
        image[:] = 0
        return image

    monkeypatch.setattr("mine.invert", blackened, raising=False)
    image, label = made(photos).train[0]
    assert float(image.max()) > 0
    assert float(label.max()) == 0


def test_controls_are_inputs_by_name(photos, calls):
    task = made(
        photos, controls={"strength": [0, 2]}, teacher={"name": "mine:invert", "level": 0.5}
    )
    inputs, label = task.test[0]
    assert set(inputs) == {"image", "strength"}
    values = [float(sample[0]["strength"]) for sample in task.test]
    assert values == [0, 0.5, 1, 1.5, 2]
    assert all(torch.equal(sample[0]["image"], inputs["image"]) for sample in task.test)
    assert torch.equal(label, inputs["image"])  # of no strength
    assert torch.allclose(task.test[4][1], 1 - inputs["image"], atol=1 / 255)
    seen = [float(sample[0]["strength"]) for sample in task.train]
    assert all(0 <= value <= 2 for value in seen)
    assert len(set(seen)) > 4


def test_both_images_of_a_pair_are_mirrored(photos, calls):
    task = made(photos)
    epochs = SeededEpochs(task.train, 4, 0, task.augment)
    (first, *_), (again, *_) = (list(epochs.batches(seed)) for seed in (0, 0))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.allclose(first.labels, 1 - first.inputs, atol=1 / 255)
    plain = next(iter(SeededEpochs(task.train, 4, 0).batches(0)))
    assert not torch.equal(first.inputs, plain.inputs)
    with pytest.raises(DataError, match="the labels are none"):
        MirroredPairs().pair(plain.inputs, None, torch.Generator())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"controls": {"strength": [1, 0]}}, r"controls\.strength: a range is .* got \[1, 0\]"),
        ({"controls": {"image": [0, 1]}}, "'image' is no name of a control"),
        ({"teacher": {"name": "oil"}}, "there is no effect 'oil'; built in are diffusion, oil"),
        ({"teacher": {"name": "oil-paint", "radiu": 3}}, "did you mean 'radius'"),
        ({"teacher": {"name": "oil-paint", "radius": 0}}, "radius.* at least 1|greater than"),
        ({"teacher": None}, "give images .* and a teacher"),
        ({"teacher": {"name": "other:effect"}}, "add `--import other`"),
    ],
)
def test_settings_are_checked(photos, calls, options, problem):
    with pytest.raises((CompressError, ValueError), match=problem):
        made(photos, **options)


def test_more_pairs_than_memory_takes_are_refused(photos, calls):
    with pytest.raises(DataError, match=r"pairs would take .* GiB of memory"):
        made(photos, size=2048, pairs=100_000)
    assert calls.count == 0


def test_another_task_has_no_pairs():
    assert plan_of(TaskConfig(name="digits"), REFERENCES) is None
    with pytest.raises(RecipeError, match="give images"):
        make_task("image-to-image")
