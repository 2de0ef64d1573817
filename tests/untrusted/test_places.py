"""A path may lead to anything: every reader says what is there, and waits for nobody."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from compress.candidate import Candidate, load_weights
from compress.device.result import load_result
from compress.distillation.cache_files import ArraySpec, EpochArrays
from compress.distillation.onnx_teacher import open_teacher
from compress.errors import CheckpointError, CompressError, DataError, RecipeError, RecordError
from compress.measure.arrays import read_arrays
from compress.models.huggingface import (
    build_hub_model,
    load_folder,
    read_architecture,
    tokenizer_digest,
)
from compress.tasks.coco_folder import make_task as make_boxes
from compress.tasks.idx import IdxFile, read_idx
from compress.tasks.image_folder import make_task as make_images
from compress.tasks.language import read_entries
from compress.tasks.mask_folder import make_task as make_masks
from compress.tasks.text import read_lines
from compress.tasks.tokens import tokenize
from compress.tasks.wordnet import FILES, read_glosses
from compress.training.checkpoint import Checkpoint

pytestmark = pytest.mark.fast

EXAMPLE = torch.ones(2, 3)


# -- what lies there --------------------------------------------------------------------------


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def noise(path: Path) -> None:
    path.symlink_to("/dev/random")


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # addresses of sockets are short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def endless_link(path: Path) -> None:
    path.symlink_to(path.name)


def dangling_link(path: Path) -> None:
    path.symlink_to("gone")


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # takes no disk


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_bytes(b"\xff\x00 this is neither\n")


def unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")


PLACES = [folder, pipe, zeros, noise, a_socket, endless_link, dangling_link, sparse, empty, text]
PLACES += [unreadable]


# -- who reads it -----------------------------------------------------------------------------


class Reader(NamedTuple):
    """Reads one file, called ``name``, of a folder that ``prepare`` has filled."""

    name: str
    kind: type[CompressError]
    read: Callable[[Path], object]
    prepare: str = ""


def of_net() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


def load_candidate(place: Path) -> object:
    return Candidate.load(place, EXAMPLE, lambda _: of_net())


def load_hub(place: Path) -> object:
    encoder = build_hub_model(read_architecture(place).options)
    load_folder(encoder, place)
    return encoder


def views(place: Path) -> EpochArrays:
    return EpochArrays(place, "me", {"outputs": ArraySpec((3,), "float32")}, [4])


READERS = {
    "weights": Reader("w.pt", CheckpointError, lambda d: load_weights(of_net(), d / "w.pt")),
    "candidate": Reader("candidate.json", CheckpointError, load_candidate, "candidate"),
    "candidate's weights": Reader(
        "weights.safetensors", CheckpointError, load_candidate, "candidate"
    ),
    "checkpoint": Reader(
        "checkpoint.safetensors", CheckpointError, lambda d: Checkpoint(d, "k").read()
    ),
    "configuration": Reader("config.json", RecipeError, load_hub, "hub"),
    "modules": Reader("modules.json", RecipeError, load_hub, "hub"),
    "pooling": Reader("1_Pooling/config.json", RecipeError, load_hub, "hub"),
    "folder's weights": Reader("model.safetensors", CheckpointError, load_hub, "hub"),
    "index": Reader("model.safetensors.index.json", CheckpointError, load_hub, "index"),
    "digest": Reader("tokenizer.json", RecipeError, tokenizer_digest, "hub"),
    "tokenizer": Reader("tokenizer.json", DataError, lambda d: tokenize(["a"], d, 8), "hub"),
    "padding": Reader("tokenizer_config.json", DataError, lambda d: tokenize(["a"], d, 8), "hub"),
    "result": Reader("r.json", RecordError, lambda d: load_result(d / "r.json")),
    "inputs": Reader("i.npz", DataError, lambda d: read_arrays(d / "i.npz")),
    "answers": Reader("0000/outputs.npy", DataError, lambda d: views(d).read(0, 0, "m"), "views"),
    "idx": Reader(
        "i.gz", DataError, lambda d: read_idx(d / "i.gz", IdxFile("i.gz", (4,), "0" * 64))
    ),
    "image": Reader("cat/0.png", DataError, lambda d: make_images(folder=d), "pictures"),
    "annotations": Reader("a.json", DataError, lambda d: make_boxes(folder=d), "boxes"),
    "annotated": Reader("0.png", DataError, lambda d: make_boxes(folder=d), "boxes"),
    "mask": Reader("masks/0.png", DataError, lambda d: make_masks(folder=d), "masks"),
    "lines": Reader("t.txt", DataError, lambda d: read_lines(d / "t.txt")),
    "entries": Reader("t.txt", DataError, lambda d: read_entries([d / "t.txt"])),
    "glosses": Reader(FILES[0], DataError, read_glosses),
    "teacher": Reader("t.onnx", RecipeError, lambda d: open_teacher(d / "t.onnx", None)),
}
# What is there may be a file, and no ONNX.
OF_CONTENT = {("teacher", place): DataError for place in (sparse, empty, text, unreadable)}
# A link to nothing is nothing, where nothing would do; a file of text is no glosses' mistake.
HARMLESS = {("checkpoint", empty)}


@pytest.fixture
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    def prepare(what: str) -> Path:
        place = tmp_path / "place"
        if what in ("hub", "index"):
            shutil.copytree(request.getfixturevalue("hub"), place)
            if what == "index":
                (place / "model.safetensors").unlink()
        elif what in ("pictures", "boxes", "masks"):
            shutil.copytree(request.getfixturevalue(what), place)
        elif what == "candidate":
            Candidate.of(of_net(), EXAMPLE).save(place)
        elif what == "views":
            views(place).write(0, [("m", {"outputs": np.zeros((4, 3), np.float32)})])
        else:
            place.mkdir()
        return place

    return prepare


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("name", READERS)
def test_whatever_lies_at_a_path_is_one_sentence(name, place, prepared, refused):
    reader = READERS[name]
    root = prepared(reader.prepare)
    path = root / reader.name
    path.unlink(missing_ok=True)
    place(path)
    if (name, place) in HARMLESS:
        assert not reader.read(root)
        return
    kind = OF_CONTENT.get((name, place), reader.kind)
    said = refused(lambda: reader.read(root), kind)
    assert path.name in said


WORDS = {
    folder: "it is a folder, and a file is asked for",
    pipe: "it is a pipe, which is not read; give a file",
    zeros: "it is a device, which is not read; give a file",
    a_socket: "it is a socket, which is not read; give a file",
    endless_link: "it is a link that leads back to itself",
    dangling_link: "it is a link to a file that is not there",
    sparse: r"it has 1,099,511,627,776 bytes and says that 0 are its header",
}


@pytest.mark.parametrize("place", WORDS, ids=lambda place: place.__name__)
def test_the_sentence_says_what_is_there(place, tmp_path, refused):
    path = tmp_path / "w.safetensors"
    place(path)
    refused(lambda: load_weights(of_net(), path), CheckpointError, WORDS[place])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.pt", r"gone\.pt: there is no such file"),
        ("a\0b", r"a\\x00b: there is no such file, since a name cannot hold the character NUL"),
        ("n" * 300, "n: its name is longer than this system takes"),
        ("file/w.pt", "there is no such file, and a part of its path is no folder"),
        ("new\nline\x1b[31m", r"new\\nline\\x1b\[31m: there is no such file"),
        (os.fsdecode(b"\xff\xfe"), r"\\udcff\\udcfe: there is no such file"),
        ("/".join(["deep"] * 2000), "…"),
    ],
)
@pytest.mark.parametrize("name_of_reader", ["weights", "result", "inputs", "lines"])
def test_names_of_every_kind_are_one_sentence(name, words, name_of_reader, tmp_path, refused):
    (tmp_path / "file").touch()
    path, kind = tmp_path / name, READERS[name_of_reader].kind
    readers = {
        "weights": lambda: load_weights(of_net(), path),
        "result": lambda: load_result(path),
        "inputs": lambda: read_arrays(path),
        "lines": lambda: read_lines(path),
    }
    refused(readers[name_of_reader], kind, words)


def test_names_of_other_alphabets_are_read(tmp_path, net):
    path = tmp_path / "привет мир 世界 \t.pt"
    torch.save(net.state_dict(), path)
    load_weights(net, path)


@pytest.mark.parametrize("user", [os.geteuid() == 0])
def test_a_file_that_may_not_be_read(user, tmp_path, refused):
    path = tmp_path / "w.pt"
    path.write_text(hashlib.sha256().hexdigest())
    path.chmod(0)
    words = "not a readable safetensors file" if user else "this user may not read it"
    refused(lambda: load_weights(of_net(), path), CheckpointError, words)
