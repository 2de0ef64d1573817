from __future__ import annotations

import pytest
import torch

from compress.errors import DataError
from compress.task import Task
from compress.tasks import fashion_mnist

installed = pytest.mark.skipif(
    not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed"
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty places to look in, and small files that are to be found there."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist, "_VALIDATION_SAMPLES", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def publish(write_idx, monkeypatch):
    """Writes a small set of the four files to a folder, and makes it the published one."""

    def write(folder):
        shapes = [(40, 6, 6), (40,), (20, 6, 6), (20,)]
        files = zip(fashion_mnist.FILES, shapes, strict=True)
        small = tuple(write_idx(folder, shape, file.name) for file, shape in files)
        monkeypatch.setattr(fashion_mnist, "FILES", small)

    return write


def sizes(task: Task) -> tuple[int, int, int]:
    return len(task.train), len(task.validation), len(task.test)


@pytest.mark.parametrize("place", ["given", "debian", "cache/compresskit/fashion-mnist"])
def test_the_files_are_found_in_each_place(places, publish, place):
    publish(places / place)
    assert sizes(fashion_mnist.make_task(folder=places / "given")) == (30, 10, 20)


def test_a_place_that_lacks_a_file_is_passed_over(places, publish):
    publish(places / "given")
    publish(places / "debian")
    (places / "given" / fashion_mnist.FILES[3].name).unlink()
    assert sizes(fashion_mnist.make_task(folder=places / "given")) == (30, 10, 20)


def test_a_missing_data_set_says_the_three_ways_to_get_it(places):
    with pytest.raises(DataError) as caught:
        fashion_mnist.make_task(folder=places / "given")
    message = str(caught.value)
    for part in ("apt-get install dataset-fashion-mnist", "`folder: ...`", "`download: true`"):
        assert part in message
    for place in ("given", "debian", "cache/compresskit/fashion-mnist"):
        assert f"{places / place} (lacks 4 of 4 files)" in message


def test_a_damaged_file_is_refused_even_if_another_place_is_whole(places, publish):
    publish(places / "debian")
    publish(places / "given")
    (places / "given" / fashion_mnist.FILES[1].name).write_bytes(b"")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: not the file it should"):
        fashion_mnist.make_task(folder=places / "given")


@pytest.mark.parametrize("folder", ["given", None])
def test_a_download_goes_to_the_folder_or_the_cache(places, publish, served, monkeypatch, folder):
    source, address = served
    publish(source)
    monkeypatch.setattr(fashion_mnist, "ADDRESS", address)
    given = None if folder is None else places / folder
    assert sizes(fashion_mnist.make_task(folder=given, download=True)) == (30, 10, 20)
    where = given or fashion_mnist.cache_folder()
    assert sorted(p.name for p in where.iterdir()) == sorted(f.name for f in fashion_mnist.FILES)


def test_nothing_is_downloaded_where_the_files_are_at_hand(places, publish, monkeypatch):
    publish(places / "debian")
    monkeypatch.setattr(fashion_mnist, "ADDRESS", "http://127.0.0.1:1/")
    assert sizes(fashion_mnist.make_task(download=True)) == (30, 10, 20)


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fashion_mnist.cache_folder() == tmp_path / ".cache" / "compresskit" / "fashion-mnist"


@pytest.fixture(scope="module")
def published() -> Task:
    return fashion_mnist.make_task()


@installed
def test_the_published_set_has_its_splits(published):
    assert sizes(published) == (55_000, 5_000, 10_000)
    for split, each in ((published.train, 5500), (published.validation, 500)):
        assert split.inputs.shape[1:] == (1, 28, 28)
        assert split.inputs.dtype == torch.float32
        assert torch.bincount(split.labels).tolist() == [each] * 10
    assert len(published.classes) == 10


@installed
def test_the_published_training_images_are_normalized(published):
    std, mean = torch.std_mean(published.train.inputs)
    assert abs(float(mean)) < 0.01
    assert abs(float(std) - 1) < 0.01


@installed
def test_the_published_splits_share_no_image(published):
    splits = (published.train, published.validation, published.test)
    images = [{image.numpy().tobytes() for image in split.inputs} for split in splits]
    assert [len(distinct) for distinct in images] == list(sizes(published))
    assert len(set.union(*images)) == 70_000


@installed
def test_the_background_comes_in_where_images_are_shifted(published):
    images = published.validation.inputs[:64]
    shifted = published.augment(images, torch.Generator().manual_seed(0))
    assert shifted.shape == images.shape
    assert float(shifted.min()) == pytest.approx(float(images.min()), abs=1e-6)
