"""What holds for every reader of a stranger's file: one sentence, soon, whatever the file is."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from PIL import Image

from compress.errors import CompressError

_LONGEST_S = 20


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"a reader is still at work after {_LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def refused() -> Callable[..., str]:
    """The sentence with which a reader refuses; of the class and the words that are expected."""

    def check(read: Callable[[], object], kind: type[CompressError], words: str = "") -> str:
        with pytest.raises(kind, match=words or None) as caught:
            read()
        said = str(caught.value)
        assert type(caught.value) is kind
        assert said.isprintable(), said
        assert 10 < len(said) < 1200
        return said

    return check


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of a tiny BERT; not to be changed."""
    pytest.importorskip("transformers")
    from compress.testing.tiny_bert import write_model

    folder = tmp_path_factory.mktemp("hub") / "tiny-bert"
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of images in two classes; not to be changed."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 255, (2, 10, 12, 12, 3), dtype=np.uint8)
    for name, images in zip(("cat", "dog"), noise, strict=True):
        (folder / name).mkdir()
        for number, pixels in enumerate(images):
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of images with one box each; not to be changed."""
    folder = tmp_path_factory.mktemp("boxes")
    images, annotations = [], []
    for number in range(20):
        Image.new("RGB", (12, 12)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 12, "height": 12})
        annotations.append({"image_id": number, "category_id": 1, "bbox": [1, 2, 3, 4]})
    table = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (folder / "a.json").write_text(json.dumps(table))
    return folder


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of images with masks; not to be changed."""
    folder = tmp_path_factory.mktemp("masks")
    for name in ("images", "masks"):
        (folder / name).mkdir()
        for number in range(20):
            Image.new("L", (12, 12)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def net() -> torch.nn.Module:
    """What weights are loaded into."""
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
