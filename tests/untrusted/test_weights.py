"""Files of weights: safetensors and what torch.save writes, whole, forged and dangerous."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shlex
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from compress.candidate import Candidate, load_weights
from compress.errors import CheckpointError

pytestmark = pytest.mark.fast


def state_of(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def packed(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


WHOLE = save({"weight": torch.ones(2, 3), "bias": torch.ones(2)})
NOT_ONE = "not a readable safetensors file, nor one of torch.save"

# -- safetensors ------------------------------------------------------------------------------

BAD = {
    "nothing": (b"", NOT_ONE),
    "a header alone": (packed({}), "missing weight, bias"),
    "length of 2**63": (struct.pack("<Q", 2**63) + b"{}", r"says that 9,223,372,036,854,775,808"),
    "length of 2**64 - 1": (b"\xff" * 64, "says that 18,446,744,073,709,551,615 are its header"),
    "cut in its header": (WHOLE[:40], NOT_ONE),
    "cut in its data": (WHOLE[:-8], r"(?i)incomplete|not fully covered|invalid"),
    "more behind": (WHOLE + b"more", NOT_ONE),
    "no JSON": (packed(b"{" * 50), NOT_ONE),
    "nested too deeply": (packed(b'{"a":' * 90_000), "nested too deeply"),
    "a list": (packed([1]), "its header is not a mapping"),
    "not UTF-8": (packed(b'{"\xff": 1}'), "is not UTF-8"),
    "a name twice": (
        packed(b'{"w":' + json.dumps(entry()).encode() + b',"w":{}}', bytes(24)),
        "it names 'w' twice",
    ),
    "huge offsets": (packed({"weight": entry(offsets=(0, 2**62))}, bytes(24)), NOT_ONE),
    "offsets backwards": (packed({"weight": entry(offsets=(24, 0))}, bytes(24)), NOT_ONE),
    "negative offsets": (packed({"weight": entry(offsets=(-1, 23))}, bytes(24)), NOT_ONE),
    "overlapping": (
        packed({"weight": entry(), "bias": entry(shape=(2,), offsets=(0, 8))}, bytes(24)),
        NOT_ONE,
    ),
    "a shape that overflows": (packed({"weight": entry(shape=(2**63, 2))}, bytes(24)), NOT_ONE),
    "a negative shape": (packed({"weight": entry(shape=(-2, -3))}, bytes(24)), NOT_ONE),
    "a shape in words": (packed({"weight": entry() | {"shape": "2x3"}}, bytes(24)), NOT_ONE),
    "an unknown dtype": (packed({"weight": entry("F7")}, bytes(24)), NOT_ONE),
    "a dtype that is none": (packed({"weight": entry(None)}, bytes(24)), NOT_ONE),
    "numbers beyond": (packed(b'{"w": 1e999}'), "1e999 is no finite number"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}}), NOT_ONE),
    "another tool's": (b"\x89HDF\r\n\x1a\n" + bytes(600), NOT_ONE),
    "a web page": (b"<!DOCTYPE html>" + b" " * 600, NOT_ONE),
    "a pointer of git LFS": (b"version https://git-lfs.github.com/spec/v1\n", NOT_ONE),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_of_safetensors_is_one_sentence(name, tmp_path, refused):
    content, words = BAD[name]
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    said = refused(lambda: load_weights(nn.Linear(3, 2), path), CheckpointError, words)
    assert said.startswith(str(path))


TENSORS = {
    "int32": (lambda w: w.int(), "'weight' is int32 and the model has float32, which it cannot"),
    "bool": (lambda w: w.bool(), "'weight' is bool and the model has float32"),
    "uint8": (lambda w: w.byte(), "'weight' is uint8 and the model has float32"),
    "complex": (lambda w: w + 0j, "'weight' is complex64 and the model has float32"),
    "float8": (lambda w: w.to(torch.float8_e4m3fn), "'weight' is float8_e4m3fn and the model has"),
    "NaN": (lambda w: w * torch.nan, "'weight' holds values that are not finite"),
    "infinite": (lambda w: w / 0, "'weight' holds values that are not finite"),
    "too large for float32": (lambda w: w.double() * 1e300, "'weight' holds values that are not"),
    "another shape": (lambda w: w.T.contiguous(), r"shape weight is \(3, 2\), the model has"),
    "no size": (lambda w: w[:0], r"shape weight is \(0, 3\), the model has \(2, 3\)"),
    "one axis more": (lambda w: w[None], r"shape weight is \(1, 2, 3\)"),
}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_the_models_are_refused(name, suffix, tmp_path, refused):
    change, words = TENSORS[name]
    path = tmp_path / f"w.{suffix}"
    tensors = {"weight": change(torch.ones(2, 3)), "bias": torch.ones(2)}
    (save_file if suffix == "safetensors" else torch.save)(tensors, path)
    refused(lambda: load_weights(nn.Linear(3, 2), path), CheckpointError, words)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_precision_become_the_models(dtype, tmp_path):
    path, net = tmp_path / "w.safetensors", nn.Linear(3, 2)
    save_file({name: t.to(dtype) for name, t in state_of(net).items()}, path)
    other = nn.Linear(3, 2)
    load_weights(other, path)
    assert other.weight.dtype == torch.float32
    assert torch.equal(other.weight, net.weight.to(dtype).float())


def test_buffers_keep_what_they_may_hold(tmp_path, refused):
    class Masked(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
            self.register_buffer("steps", torch.tensor(7))

    path, net = tmp_path / "w.safetensors", Masked()
    save_file(state_of(net) | {"steps": torch.tensor(9, dtype=torch.int32)}, path)
    load_weights(net, path)
    assert int(net.steps) == 9
    assert net.steps.dtype == torch.int64
    save_file(state_of(net) | {"steps": torch.tensor(9.5)}, path)
    refused(lambda: load_weights(net, path), CheckpointError, "'steps' is float32 and the model")
    save_file(state_of(net) | {"mask": torch.tensor([0.0, torch.nan])}, path)
    refused(lambda: load_weights(net, path), CheckpointError, "'mask' holds values that are not")


def test_names_of_strangers_are_shown_on_one_line(tmp_path, refused):
    path = tmp_path / "w.safetensors"
    save_file({"a\0b\n\x1b[31m": torch.ones(1), "x" * 5000: torch.ones(1)}, path)
    refused(lambda: load_weights(nn.Linear(3, 2), path), CheckpointError, r"a\\x00b\\n")


# -- torch.save -------------------------------------------------------------------------------

WRAPPED = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": state, "scheduler": None},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "twice": lambda state: {"model": {"state_dict": state}},
    "only an average": lambda state: {"epoch": 1, "ema": state},
    "weights before their average": lambda state: {
        "model_ema": {k: v * 0 for k, v in state.items()},
        "state_dict": state,
    },
    "processes": lambda state: {f"module.{name}": t for name, t in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": t for name, t in state.items()},
    "compiled in processes": lambda state: {f"module._orig_mod.{n}": t for n, t in state.items()},
    "averaged": lambda state: {
        "n_averaged": torch.tensor(3),
        **{f"module.{n}": t for n, t in state.items()},
    },
    "Lightning": lambda state: {"state_dict": {f"model.{n}": t for n, t in state.items()}},
    "parameters": lambda state: (
        {n: nn.Parameter(t) for n, t in state.items() if t.is_floating_point()}
        | {n: t for n, t in state.items() if not t.is_floating_point()}
    ),
}


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt", "safetensors"])
@pytest.mark.parametrize("name", WRAPPED)
def test_weights_are_found_in_what_trainings_save(name, suffix, tmp_path, net):
    path = tmp_path / f"w.{suffix}"
    torch.save(WRAPPED[name](net.state_dict()), path)
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    load_weights(other, path)
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in net.state_dict().items())


def test_a_model_whose_names_begin_so_keeps_them(tmp_path):
    net = nn.ModuleDict({"module": nn.Linear(3, 2)})
    torch.save(net.state_dict(), tmp_path / "w.pt")
    load_weights(net, tmp_path / "w.pt")


def repacked(path, change, packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = change(members)
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def whole(path):
    torch.save(nn.Linear(3, 2), path)


def with_numpy(path):
    torch.save({"model": nn.Linear(3, 2).state_dict(), "best": np.float64(0.5)}, path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {shlex.quote(str(self.marker))}",)


def evil(path):
    torch.save({"model": nn.Linear(3, 2).state_dict(), "x": Evil(path.with_name("ran"))}, path)


def evil_without_archive(path):
    path.write_bytes(pickle.dumps(Evil(path.with_name("ran"))))


def legacy(path):
    torch.save(nn.Linear(3, 2).state_dict(), path, _use_new_zipfile_serialization=False)


def old_tar(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def script(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("t/data.pkl", "t/code/__torch__.py", "t/constants.pkl"):
            archive.writestr(name, "x")


def plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


def empty_zip(path):
    with zipfile.ZipFile(path, "w"):
        pass


def cut(path):
    torch.save(nn.Linear(3, 2).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


def bomb(path):
    torch.save(nn.Linear(3, 2).state_dict(), path)
    more = {"w/data/9": bytes(50 << 20)}
    repacked(path, lambda members: members | more, zipfile.ZIP_DEFLATED)


def overlapping(path):
    torch.save(nn.Linear(3, 2).state_dict(), path)
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(content)


def slip(path):
    torch.save(nn.Linear(3, 2).state_dict(), path)
    repacked(path, lambda members: members | {"w/../../x": b"1"})


def without_a_storage(path):
    torch.save(nn.Linear(3, 2).state_dict(), path)
    repacked(path, lambda members: {n: c for n, c in members.items() if not n.endswith("/0")})


def damaged_pickle(path):
    torch.save(nn.Linear(3, 2).state_dict(), path)
    repacked(path, lambda m: {n: b"\x80\x02\xff" if n.endswith("pkl") else c for n, c in m.items()})


def a_list(path):
    torch.save([torch.ones(3)], path)


def a_number(path):
    torch.save(3, path)


def a_tensor(path):
    torch.save(torch.ones(2, 3), path)


def nothing_in_it(path):
    torch.save({}, path)


def sparse(path):
    torch.save({"weight": torch.ones(2, 3).to_sparse(), "bias": torch.ones(2)}, path)


def on_no_device(path):
    torch.save({"weight": torch.ones(2, 3, device="meta"), "bias": torch.ones(2)}, path)


def wide(path):
    torch.save({"weight": torch.ones(1).expand(2**20, 2**20), "bias": torch.ones(2)}, path)


def of_itself(path):
    content: dict[str, object] = {"epoch": 1}
    content["state_dict"] = content
    torch.save(content, path)


def with_numbers(path):
    torch.save({**nn.Linear(3, 2).state_dict(), "epoch": 3}, path)


CODE = "which cannot be opened without running its code; only if you trust who made it, convert it"
PICKLES = {
    whole: rf"objects of Python \(torch\.nn\.\S+\), {CODE}",
    with_numpy: rf"objects of Python \(numpy\.\S+\), {CODE}",
    evil: rf"objects of Python \(posix\.system\), {CODE}",
    evil_without_archive: f"a pickle without torch's archive around it, .*{CODE}",
    legacy: f"a pickle without torch's archive around it, as of torch before 1.6, {CODE}",
    old_tar: f"a pickle without torch's archive around it, as of torch before 1.6, {CODE}",
    script: f"a program of TorchScript, {CODE}",
    plain_zip: "a zip archive, but none that torch.save wrote",
    empty_zip: NOT_ONE,
    cut: "a damaged zip archive",
    bomb: "is compressed, which torch never does",
    overlapping: r"its members have .* together, and the file",
    slip: "a member of the archive leads out of it",
    without_a_storage: r"a damaged file of torch\.save",
    damaged_pickle: r"a damaged file of torch\.save",
    a_list: "it holds list where weights are a mapping of names to tensors",
    a_number: "it holds int where weights are a mapping",
    a_tensor: "it holds Tensor where weights are a mapping",
    nothing_in_it: r"holds other things than weights \(is empty\)",
    sparse: r"'weight' is a tensor that is sparse_coo",
    on_no_device: r"'weight' is a tensor that is meta",
    wide: r"shape weight is \(1048576, 1048576\), the model has \(2, 3\)",
    of_itself: r"'epoch' is of type int",
    with_numbers: r"'epoch' is of type int",
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("make", PICKLES, ids=lambda make: make.__name__)
def test_a_bad_file_of_torch_is_one_sentence_and_runs_nothing(make, tmp_path, refused):
    path = tmp_path / "w.pt"
    make(path)
    refused(lambda: load_weights(nn.Linear(3, 2), path), CheckpointError, PICKLES[make])
    assert [one.name for one in tmp_path.iterdir()] == ["w.pt"]


def test_the_line_that_converts_does(tmp_path, refused, net):
    path = tmp_path / "it's a net.pt"
    torch.save({"epoch": np.float64(1), "state_dict": net.state_dict()}, path)
    said = refused(lambda: load_weights(net, path), CheckpointError, CODE)
    line = re.search(r"convert it: (python -c .*)$", said)
    command = shlex.split(line[1])
    subprocess.run([sys.executable, *command[1:]], check=True)
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    load_weights(other, path.with_suffix(".safetensors"))
    assert torch.equal(other[0].weight, net[0].weight)


# -- saved candidates -------------------------------------------------------------------------

EXAMPLE = torch.ones(2, 3)


def edited(**changes):
    return lambda facts: facts | changes


CANDIDATES = {
    "a list": (lambda facts: [facts], "not a saved candidate"),
    "no architecture": (
        lambda facts: {k: v for k, v in facts.items() if k != "architecture"},
        r"not a saved candidate \(architecture: Field required",
    ),
    "an architecture of words": (edited(architecture="mlp"), "not a saved candidate"),
    "notes of one text": (edited(notes="abc"), "notes: Input should be a valid tuple"),
    "a lineage of numbers": (edited(lineage=[1]), r"lineage\.0: Input should be a valid string"),
    "a structure of lists": (edited(structure=[]), "structure: Input should be a valid dict"),
    "a number for a layer": (edited(structure={"": 3}), r"structure\.: Input should be a valid"),
    "text for a number": (edited(structure={"": {"in_features": "3"}}), "not a saved candidate"),
    "yes for a number": (edited(structure={"": {"in_features": True}}), "not a saved candidate"),
    "a huge number": (
        edited(structure={"": {"in_features": 10**40, "out_features": 2}}),
        "in_features is not part of this architecture",
    ),
    "an empty list": (
        edited(structure={"": {"in_features": [], "out_features": 2}}),
        "in_features is not part of this architecture",
    ),
    "unknown zeros": (
        edited(invariants=[{"kind": "keep-zeros", "tensors": ["no.such\nname"]}]),
        r"declares zeros of 'no\.such\\\\nname', which this architecture cannot have",
    ),
    "a pattern of words": (
        edited(invariants=[{"kind": "keep-zeros", "tensors": ["weight"], "pattern": "a:b"}]),
        "declares zeros 'a:b', which this architecture cannot have",
    ),
    "a pattern of nothing": (
        edited(invariants=[{"kind": "keep-zeros", "tensors": ["weight"], "pattern": "0:0"}]),
        "declares zeros '0:0'",
    ),
    "ties of unknown names": (edited(ties=[["weight", "gone"]]), "no tensor of the model"),
    "ties of numbers": (edited(ties=[[1, 2]]), "not a saved candidate"),
}


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_forged_candidate_is_one_sentence(name, tmp_path, refused):
    change, words = CANDIDATES[name]
    Candidate.of(nn.Linear(3, 2), EXAMPLE).save(tmp_path)
    path = tmp_path / "candidate.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))

    def load():
        return Candidate.load(tmp_path, EXAMPLE, lambda _: nn.Linear(3, 2))

    refused(load, CheckpointError, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.int(), "'weight' is int32 and the model has float32"),
        (lambda w: w.half(), "'weight' is float16 and the model has float32"),
        (lambda w: w[0], r"shape weight is \(3,\), the model has \(2, 3\)"),
    ],
)
def test_a_candidate_has_its_modules_dtypes(change, words, tmp_path, refused):
    Candidate.of(nn.Linear(3, 2), EXAMPLE).save(tmp_path)
    save_file({"weight": change(torch.ones(2, 3)), "bias": torch.ones(2)}, tmp_path / WEIGHTS)

    def load():
        return Candidate.load(tmp_path, EXAMPLE, lambda _: nn.Linear(3, 2))

    refused(load, CheckpointError, words)


WEIGHTS = "weights.safetensors"


def test_what_a_class_thinks_of_forged_options_is_one_sentence(tmp_path, refused):
    Candidate.of(nn.Linear(3, 2), EXAMPLE).save(tmp_path)

    def build(_):
        return nn.Linear(3, "two")

    words = r"candidate\.json: its architecture cannot be built \("
    refused(lambda: Candidate.load(tmp_path, EXAMPLE, build), CheckpointError, words)


def test_a_huge_file_of_weights_is_refused_by_its_size(tmp_path, refused, monkeypatch):
    monkeypatch.setattr("compress.io.weights.memory_bytes", lambda: 100)
    path = Path(tmp_path / "w.safetensors")
    path.write_bytes(WHOLE)
    words = r"it has \d+ bytes, and this machine 100 bytes"
    refused(lambda: load_weights(nn.Linear(3, 2), path), CheckpointError, words)
