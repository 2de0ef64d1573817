"""Small nets as files, in float and in int8, and short sessions."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
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


@pytest.fixture(scope="session")
def model(one, folder):
    """A linear model at batch 1."""
    return shutil.copy(one, folder / "linear.onnx")


@pytest.fixture(scope="session")
def open_batch(any_batch):
    """A linear model that leaves the batch open."""
    return any_batch


@pytest.fixture(scope="session")
def tokens(two_inputs):
    """Two inputs, open sizes, integers."""
    return two_inputs


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
