"""``lower``, from candidate to checked file."""

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from compress.artifact import Lowering, file_sha256, modules_file
from compress.backends.onnx import lower
from compress.candidate import Candidate
from compress.errors import LoweringError, StorageError
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

GUARDED = Lowering(avoid_saturation=True)


def lowered(net, path, *rules, lowering=GUARDED):
    return lower(
        net.candidate(*rules),
        lowering,
        calibration=[net.inputs(8, 1), net.inputs(5, 2)],
        check=net.inputs(20, 3),
        path=path,
    )


def test_an_artifact_describes_the_file_that_it_is(net, rule, tmp_path):
    made = lowered(net("residual"), tmp_path / "deep" / "model.onnx", rule())
    assert made.path == tmp_path / "deep" / "model.onnx"
    assert made.path.is_absolute()
    assert made.bytes == made.path.stat().st_size
    assert made.sha256 == file_sha256(made.path)
    assert made.lowering == GUARDED
    assert made.census.int8_mac_fraction == 1
    assert made.warnings == ()
    assert made.parity.samples == 20
    assert made.parity.agreement >= 0.9
    assert made.parity.sqnr_db > 30
    assert {*made.path.parent.iterdir()} == {made.path, modules_file(made.path)}


def test_the_modules_of_an_artifact_are_noted_beside_it(net, rule, tmp_path):
    made = lowered(net("residual"), tmp_path / "model.onnx", rule())
    noted = json.loads(modules_file(made.path).read_text())
    assert noted["sha256"] == made.sha256
    products = {
        noted["modules"][node.name]
        for node in onnx.load(made.path).graph.node
        if node.op_type in ("Conv", "Gemm")
    }
    assert products == {"stem", "conv1", "conv2", "head"}


def test_a_float_candidate_gives_a_small_float_file(net, tmp_path):
    made = lowered(net("residual"), tmp_path / "model.onnx")
    assert made.parity.max_error < 1e-4
    assert made.census.weight_bytes.keys() == {"float32"}
    assert made.census.graph_bytes < 2000


def test_the_same_candidate_gives_the_same_bytes_and_is_left_alone(net, rule, tmp_path):
    def state():
        root = logging.getLogger()
        rng = torch.random.get_rng_state().tolist()
        return rng, torch.is_grad_enabled(), root.handlers[:], warnings.filters[:]

    candidate = net("two").candidate(rule(method="percentile"))
    check = net("two").inputs(6)
    fingerprint, before = candidate.fingerprint, state()
    digests = {
        lower(candidate, GUARDED, calibration=[check], check=check, path=tmp_path / name).sha256
        for name in ("one.onnx", "two.onnx")
    }
    assert len(digests) == 1
    assert candidate.fingerprint == fingerprint
    assert state() == before
    candidate.validate()


def test_a_batch_that_does_not_divide_the_samples_loses_none(net, rule, tmp_path):
    lowering = Lowering(batch=3, avoid_saturation=True)
    made = lowered(net("unet"), tmp_path / "model.onnx", rule(), lowering=lowering)
    assert made.parity.samples == 20
    assert made.parity.agreement >= 0.9
    one = lowered(net("unet"), tmp_path / "one.onnx", rule())
    assert made.census.macs == one.census.macs


def test_what_the_graph_weighs_is_a_few_kilobytes(tmp_path):
    layers = []
    for _ in range(12):
        layers += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    module = nn.Sequential(nn.Conv2d(1, 8, 3), *layers, nn.Flatten(), nn.Linear(8 * 36, 4))
    example = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    format = LayerFormat(weights="int8", activations="int8")
    numerics = Numerics((QuantRule(format=format),))
    candidate = replace(Candidate.of(module, example), numerics=numerics)
    made = lower(
        candidate, GUARDED, calibration=[example], check=example, path=tmp_path / "model.onnx"
    )
    weights = sum(p.numel() for p in module.parameters() if p.dim() > 1)
    assert made.bytes - weights < 12_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.LSTM(3, 3, batch_first=True),
            r"an output '1.0' of shape \(1, 2, 3\) for a batch of 2; its first axis has",
        ),
        (lambda: _nan(), "the weight 'weight' holds values that are not finite"),
        (lambda: _Huge(), "outputs on the check inputs are not finite"),
    ],
)
def test_what_cannot_be_lowered_is_refused(make, message, tmp_path):
    example = torch.ones(2, 4, 3)
    candidate = Candidate(make().eval(), example)
    with pytest.raises(LoweringError, match=message):
        lower(candidate, GUARDED, calibration=[], check=1e30 * example, path=tmp_path / "m.onnx")


def _nan():
    layer = nn.Linear(3, 3)
    layer.bias.data.zero_()
    layer.weight.data.fill_(torch.nan)
    return layer


class _Huge(nn.Module):
    def forward(self, x):
        return x * x * x


class _Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) + torch.randn_like(x)


class _Nonzero(nn.Module):
    def forward(self, x):
        return torch.nonzero(x > 0).float()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (_Random(), "gives other outputs each time that it is run on the same inputs, which a"),
        (_Nonzero(), r"gives outputs of shape \(\d+, 2\) for a batch of 8; their first"),
    ],
)
def test_a_file_that_computes_something_else_is_refused_and_not_left(module, message, tmp_path):
    example = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    with pytest.raises(LoweringError, match=message):
        lower(
            Candidate(module.eval(), example),
            GUARDED,
            calibration=[],
            check=example,
            path=tmp_path / "model.onnx",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_refused_folder_is_a_storage_error(net, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"the artifact could not be written"):
        lowered(net("plain"), tmp_path / "file" / "model.onnx")


def test_an_older_artifact_is_replaced_with_its_external_data(net, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    Path(f"{path}.data").write_bytes(b"old weights")
    made = lowered(net("plain"), path)
    assert {*tmp_path.iterdir()} == {path, modules_file(path)}
    assert made.bytes == path.stat().st_size
    onnx.checker.check_model(onnx.load(path))
