"""Files for targets that leave batch or length open: what they take, and what has no such form."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress import Candidate, LocalTarget
from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.errors import LoweringError
from compress.modules.inputs import forward
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.testing.nets import NETS
from compress.training.data import head
from tests.covering import covering, kept_of

DYNAMIC = {"weights": "int8", "activations": "dynamic"}


def candidate_of(case, rule=None):
    candidate = Candidate.of(case.build(), case.example())
    if rule is None:
        return candidate
    return replace(candidate, numerics=Numerics((QuantRule(format=LayerFormat(**rule)),)))


def lowered(candidate, check, path, **lowering):
    target = Lowering(avoid_saturation=True, **lowering)
    return lower(candidate, target, calibration=[check], check=check, path=path)


def sizes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("name", "kind"), covering(["mlp", "resnet", "attention"], ["dynamic", "float"], each=1)
)
def test_a_file_takes_any_batch_and_is_as_large_a_computation(name, kind, tmp_path):
    case, rule = NETS[name], {"dynamic": DYNAMIC, "float": None}[kind]
    candidate, check = candidate_of(case, rule), head(case.make_task().validation, 9).inputs
    artifact = lowered(candidate, check, tmp_path / "any.onnx", open=("batch",))
    one = lowered(candidate, check, tmp_path / "one.onnx")
    graph = onnx.load(artifact.path).graph
    assert [sizes(value)[0] for value in (*graph.input, *graph.output)] == ["batch", "batch"]
    assert artifact.census.macs == one.census.macs
    assert artifact.to_json()["open"] == ["batch"]
    assert "open" not in one.to_json()
    assert any("over all samples of the batch" in text for text in artifact.warnings) == bool(rule)
    expected = forward(candidate.module, check).detach().numpy()
    for batch in (1, 4, 9):
        found = LocalTarget(batch=batch).predict(artifact.path, {"": check.numpy()})[0]
        assert np.allclose(found, expected, atol=0.05 if rule else 1e-4)


def test_texts_may_have_any_length_too(tmp_path):
    case = NETS["causal-lm"]
    candidate, check = candidate_of(case), head(case.make_task().validation, 6).inputs
    artifact = lowered(candidate, check, tmp_path / "m.onnx", open=("batch", "length"))
    one = lowered(candidate, check, tmp_path / "one.onnx")
    (value,) = onnx.load(artifact.path).graph.input
    assert sizes(value) == ["batch", "length"]
    assert artifact.census.macs == one.census.macs
    short = check[:3, :5]
    found = LocalTarget(batch=3).predict(artifact.path, {"": short.numpy()})[0]
    assert np.allclose(found, forward(candidate.module, short).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("batch", kept_of([1, 2], [2]))
def test_a_length_alone_may_be_open(batch, tmp_path):
    case = NETS["causal-lm"]
    check = head(case.make_task().validation, 6).inputs
    artifact = lowered(
        candidate_of(case), check, tmp_path / "m.onnx", open=("length",), batch=batch
    )
    (value,) = onnx.load(artifact.path).graph.input
    assert sizes(value) == [batch, "length"]


def test_what_is_no_text_has_no_length(tmp_path):
    case = NETS["mlp"]
    check = head(case.make_task().validation, 6).inputs
    said = (
        r"^length: any is for texts, whose inputs are whole numbers of shape \(n, tokens\); the "
        r"inputs are float32 \(\d+, 24\): leave length out\.$"
    )
    with pytest.raises(LoweringError, match=said):
        lowered(candidate_of(case), check, tmp_path / "m.onnx", open=("length",))


def test_fixed_ranges_are_refused_by_name(tmp_path):
    case = NETS["mlp"]
    check = head(case.make_task().validation, 6).inputs
    rule = {"weights": "int8", "activations": "int8"}
    with pytest.raises(LoweringError, match=r"activations of fixed ranges, whose form in a file"):
        lowered(candidate_of(case, rule), check, tmp_path / "m.onnx", open=("batch",))


class OfTwo(nn.Module):
    """Takes the batch that it was made for."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) + torch.zeros(2, 1)


def test_a_model_of_one_batch_is_refused(tmp_path):
    candidate = Candidate.of(OfTwo(), torch.randn(2, 4))
    with pytest.raises(LoweringError, match=r"for one size alone of an axis that is to stay open"):
        lowered(candidate, torch.randn(2, 4), tmp_path / "m.onnx", open=("batch",))


def test_facts_of_a_lowering_are_as_before_where_nothing_is_open():
    assert "open" not in Lowering(batch=4).facts()
    assert Lowering(open=("batch",)).facts()["open"] == ("batch",)
    assert [Lowering(batch=n, open=("batch",)).traced for n in (1, 2, 8)] == [2, 2, 8]
    assert Lowering(batch=1).traced == Lowering(batch=1, open=("length",)).traced == 1
