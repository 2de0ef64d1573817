"""Small nets as files, in float and in int8, and short sessions."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx.encoding import encode as encode_graph
from compress.backends.onnx.export import export
from compress.backends.onnx.files import save as save_graph
from compress.candidate import Candidate
from compress.measure.local import LocalTarget
from compress.measure.modes import PLANS
from compress.measure.ondevice import worker
from compress.measure.ondevice.runtimes import open_model
from compress.quantization.fakequant import quantizable_layers
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.running.encoding import encode
from compress.testing.nets import NETS

FORMATS = {
    "float": (),
    "int8": (QuantRule(format=LayerFormat(weights="int8", activations="int8")),),
    "weights": (QuantRule(format=LayerFormat(weights="int8")),),  # float32 arithmetic
}


def save_linear(path, batch):
    """x (batch, 4) @ w -> y (batch, 3)."""
    w = np.arange(12, dtype=np.float32).reshape(4, 3) / 4
    return save(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, [batch, 4])},
        {"y": (TensorProto.FLOAT, [batch, 3])},
        {"w": w},
    )


def save_tokens(path):
    """Embedded ids (n, length), masked and averaged: two inputs, open sizes, integers."""
    table = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    return save(
        path,
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["rows", "wide"], ["kept"]),
            helper.make_node("ReduceMean", ["kept", "middle"], ["y"], keepdims=0),
        ],
        {
            "ids": (TensorProto.INT64, ["n", "length"]),
            "mask": (TensorProto.FLOAT, ["n", "length"]),
        },
        {"y": (TensorProto.FLOAT, ["n", 5])},
        {"table": table, "last": np.array([2]), "middle": np.array([1])},
    )


def save(path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture(scope="session")
def model(folder):
    """A linear model at batch 1."""
    return save_linear(folder / "linear.onnx", 1)


@pytest.fixture(scope="session")
def open_batch(folder):
    """A linear model that leaves the batch open."""
    return save_linear(folder / "open.onnx", "n")


@pytest.fixture(scope="session")
def tokens(folder):
    return save_tokens(folder / "tokens.onnx")


@pytest.fixture(scope="session")
def artifact(folder):
    """A net of ``compress.testing`` as its artifact in one of ``FORMATS``, made once."""
    made = {}

    def make(name, format):
        if (name, format) not in made:
            case = NETS[name]
            candidate = Candidate.of(case.build(), case.example())
            candidate = replace(candidate, numerics=Numerics(FORMATS[format]))
            path = folder / f"{name}-{format}.onnx"
            made[name, format] = encode(candidate, case.make_task(), LocalTarget(), path)
        return made[name, format]

    return make


@pytest.fixture(scope="session")
def adversary(folder):
    """A net of large weights of one sign, its positive inputs, and its int8 files by their grid."""
    draw = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten()).eval()
    for layer in (module[0], module[2]):
        layer.weight.data = 0.9 + 0.1 * torch.rand(layer.weight.shape, generator=draw)
        layer.bias.data.zero_()
    x = torch.rand(16, 4, 8, 8, generator=draw)
    formats = dict.fromkeys(quantizable_layers(module), FORMATS["int8"][0].format)
    files = {"plain": folder / "plain.onnx", "guarded": folder / "guarded.onnx"}
    for name, path in files.items():
        graph = export(module, x[:2], Lowering())
        made, *_ = encode_graph(graph, formats, [x], avoid_saturation=name == "guarded")
        save_graph(ir.to_proto(made), path)
    return module, x.numpy(), files


@pytest.fixture
def work():
    """A job in this process, as a worker would answer it."""

    def answer(kind, model, **settings):
        return worker.answer(json.dumps({"kind": kind, "model": str(model), **settings}))

    return answer


@pytest.fixture
def answers():
    """The first output of a runtime for every sample, from a model at batch 1."""

    def run(model, x, runtime):
        session = open_model({"model": str(model), "runtime": runtime})
        (port,) = session.get_inputs()
        rows = [session.run(None, {port.name: x[i : i + 1]})[0] for i in range(len(x))]
        return np.concatenate(rows)

    return run


@pytest.fixture
def hasty(monkeypatch):
    """Real sessions of two rounds, however busy the machine that tests them is."""
    quick = replace(PLANS["quick"], min_rounds=2, max_rounds=2)
    monkeypatch.setattr("compress.measure.rounds.PLANS", {"quick": quick})
