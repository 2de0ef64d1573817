"""Files with a few bytes changed, and JSON of every form: the right thing, or one sentence."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from safetensors.torch import save
from torch import nn

from compress.candidate import Candidate, load_weights
from compress.device.result import load_result
from compress.distillation.cache_files import ArraySpec, EpochArrays
from compress.distillation.onnx_teacher import open_teacher
from compress.errors import CompressError
from compress.measure.arrays import read_arrays
from compress.models.huggingface import build_hub_model, read_architecture
from compress.tasks.idx import IdxFile, read_idx

from .results import RESULT

fuzz = settings(max_examples=60, derandomize=True, deadline=None)

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "cut", "repeat"]),
        st.integers(0, 2**16),
        st.one_of(
            st.sampled_from([b"\x00", b"\xff", b"\x7f", b"\x80", b"{", b'"', b"9"]),
            st.binary(min_size=1, max_size=8),
        ),
    ),
    min_size=1,
    max_size=4,
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([0, -1, 10**9, 2**31, 2**63, "bert", "mean", "../x", "NaN", "\0", "\n"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    found = bytearray(content)
    for kind, place, new in edits:
        at = place % (len(found) + 1)
        if kind == "set":
            found[at : at + len(new)] = new
        elif kind == "insert":
            found[at:at] = new
        elif kind == "delete":
            del found[at : at + len(new)]
        elif kind == "cut":
            del found[at:]
        else:
            found += found[at : at + 64]
    return bytes(found)


def changed(facts, place, value):
    """JSON with one of its values replaced, wherever it lies."""
    places = []

    def walk(inner, path):
        places.append(path)
        for key in inner if isinstance(inner, dict) else range(len(inner)):
            if isinstance(inner[key], (dict, list)):
                walk(inner[key], (*path, key))
            else:
                places.append((*path, key))

    walk(facts, ())
    path = places[place % len(places)]
    if not path:
        return value
    copy = json.loads(json.dumps(facts))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def read(reader):
    """What a reader gives; ``None`` if it refuses in one sentence."""
    try:
        return reader()
    except CompressError as error:
        said = str(error)
        assert said.isprintable(), said
        assert 10 < len(said) < 1200, said
        return None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def net():
    return nn.Linear(3, 2)


WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


@pytest.fixture(scope="module")
def weights(place):
    torch.save(WEIGHTS, place / "whole.pt")
    return {"safetensors": save(WEIGHTS), "pt": (place / "whole.pt").read_bytes()}


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights(kind, weights, place):
    @fuzz
    @given(EDITS)
    def check(edits):
        path, module = place / f"w.{kind}", net()
        path.write_bytes(edited(weights[kind], edits))
        read(lambda: load_weights(module, path))
        assert module.weight.shape == (2, 3)
        assert bool(torch.isfinite(module.weight).all())

    check()


def test_kept_answers(place):
    def kept():
        return EpochArrays(place / "answers", "me", {"outputs": ArraySpec((3,), "float32")}, [4])

    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    kept().write(0, [("m", {"outputs": array})])
    files = {
        path: path.read_bytes()
        for path in (place / "answers" / "0000" / name for name in ("outputs.npy", "epoch.json"))
    }

    @fuzz
    @given(st.sampled_from(sorted(files)), EDITS)
    def check(path, edits):
        path.write_bytes(edited(files[path], edits))
        found = read(lambda: kept().read(0, 0, "m"))
        assert found is None or np.array_equal(found["outputs"], array)
        path.write_bytes(files[path])

    check()


def test_arrays(place):
    path = place / "i.npz"
    np.savez(path, x=np.arange(12).reshape(3, 4))
    whole = path.read_bytes()

    @fuzz
    @given(EDITS)
    def check(edits):
        path.write_bytes(edited(whole, edits))
        found = read(lambda: read_arrays(path))
        assert found is None or all(isinstance(array, np.ndarray) for array in found.values())

    check()


def test_idx(place):
    items = np.arange(24, dtype=np.uint8).reshape(6, 4)
    payload = bytes([0, 0, 8, 2, 0, 0, 0, 6, 0, 0, 0, 4]) + items.tobytes()
    expected = IdxFile("i.gz", (6, 4), hashlib.sha256(payload).hexdigest())
    path = place / "i.gz"

    @fuzz
    @given(EDITS, st.booleans())
    def check(edits, inside):
        packed = gzip.compress(edited(payload, edits) if inside else payload, mtime=0)
        path.write_bytes(packed if inside else edited(packed, edits))
        found = read(lambda: read_idx(path, expected))
        assert found is None or np.array_equal(found, items)

    check()


def graph():
    weight = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("Softmax", ["g"], ["y"], axis=-1),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("n", 4))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("n", 8))],
        [numpy_helper.from_array(weight, "w")],
    )
    imports = [helper.make_opsetid("", 20)]
    model = helper.make_model(made, opset_imports=imports, ir_version=10)
    return bytes(model.SerializeToString())


def test_onnx(place):
    whole, path = graph(), place / "t.onnx"

    @fuzz
    @given(EDITS)
    def check(edits):
        path.write_bytes(edited(whole, edits))
        if teacher := read(lambda: open_teacher(path, None)):
            assert teacher.identity
            teacher.softmax()

    check()


CONFIG = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "id2label": {"0": "a"},
}


def test_configurations(place):
    pytest.importorskip("transformers")
    folder = place / "hub"
    folder.mkdir()

    @fuzz
    @given(st.integers(0, 99), VALUES)
    def check(number, value):
        (folder / "config.json").write_text(json.dumps(changed(CONFIG, number, value)))
        encoder = read(lambda: build_hub_model(read_architecture(folder).options))
        assert encoder is None or isinstance(encoder, nn.Module)

    check()


def test_results(place):
    session = {"kind": "session", "schema": 1, "session": {"models": [{"sha256": "0" * 64}]}}
    facts = {**RESULT, "lines": [session, {"kind": "environment", "cpu": "x"}]}

    @fuzz
    @given(st.integers(0, 99), VALUES)
    def check(number, value):
        (place / "r.json").write_text(json.dumps(changed(facts, number, value)))
        assert read(lambda: load_result(place / "r.json")) is None

    check()


def test_saved_candidates(place):
    whole = place / "whole"
    Candidate.of(net(), torch.ones(2, 3)).save(whole)
    facts = json.loads((whole / "candidate.json").read_text())
    facts["edits"] = []
    tensors = (whole / "weights.safetensors").read_bytes()
    folder = Path(shutil.copytree(whole, place / "candidate"))

    @fuzz
    @given(st.integers(0, 99), VALUES, st.none() | EDITS)
    def check(number, value, edits):
        (folder / "candidate.json").write_text(json.dumps(changed(facts, number, value)))
        content = tensors if edits is None else edited(tensors, edits)
        (folder / "weights.safetensors").write_bytes(content)
        found = read(lambda: Candidate.load(folder, torch.ones(2, 3), lambda _: net()))
        assert found is None or found.module.weight.dtype == torch.float32

    check()
