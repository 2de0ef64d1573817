"""Files with open batch and length: names, formats, refusals, and that sizes are checked."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress.backends.onnx.export import OpenShapes
from compress.backends.onnx.open_file import lower_open
from compress.candidate import Candidate
from compress.errors import LoweringError, ParityError
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

SHAPES = OpenShapes({"x": {0: "batch_size", 1: "sequence_length"}}, "logits")
SIZES = ((2, 6), (3, 9), (1, 4))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class OfSixTokens(Net):
    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.randn(6, 8))

    def forward(self, x):
        return super().forward(x + self.places)


class KnowsItsLength(Net):
    def forward(self, x):
        return super().forward(x) * (2.0 if x.shape[1] < 7 else 3.0)


def batches(sizes=SIZES):
    return [torch.randn(*size, 8) for size in sizes]


def made(module, path, sizes=SIZES, rule=None):
    candidate = Candidate.of(module, torch.randn(2, 6, 8))
    if rule is not None:
        numerics = Numerics((QuantRule(format=LayerFormat(**rule)),))
        candidate = Candidate(candidate.module, candidate.example, numerics=numerics)
    return lower_open(candidate, SHAPES, batches(sizes), path / "model.onnx")


def axes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_axes_and_outputs_have_their_names_and_every_size_is_compared(tmp_path):
    file = made(Net(), tmp_path)
    graph = onnx.load(file.path).graph
    assert [axes(value) for value in graph.input] == [["batch_size", "sequence_length", 8]]
    assert [value.name for value in graph.output] == ["logits"]
    assert axes(graph.output[0]) == ["batch_size", "sequence_length", 3]
    assert [parity.samples for parity in file.parities] == [2, 3, 1]
    assert all(parity.max_error < 1e-5 for parity in file.parities)
    assert file.warnings == ()


@pytest.mark.parametrize("activations", ["dynamic", "float32"])
def test_integer_weights_with_ranges_of_each_run_or_without_stay_open(activations, tmp_path):
    file = made(Net(), tmp_path, rule={"weights": "int8", "activations": activations})
    graph = onnx.load(file.path).graph
    assert {t.data_type for t in graph.initializer} >= {onnx.TensorProto.INT8}
    assert np.mean([parity.r_squared for parity in file.parities]) > 0.99
    said = [w for w in file.warnings if "over all samples of the batch" in w]
    assert len(said) == (activations == "dynamic")


def test_fixed_ranges_have_no_form_with_open_sizes(tmp_path):
    said = (
        r"^first is declared int8 with int8 activations of fixed ranges, whose form in a file has "
        r"a fixed batch and length; take a row with `activations: dynamic` or with weights alone "
        r"in integers\.$"
    )
    with pytest.raises(LoweringError, match=said):
        made(Net(), tmp_path, rule={"weights": "int8", "activations": "int8"})


def test_a_model_of_one_length_is_refused_by_what_it_says(tmp_path):
    said = r"does not run on inputs of shape \(3, 9, 8\), so that a file cannot leave their sizes"
    with pytest.raises(LoweringError, match=said):
        made(OfSixTokens(), tmp_path)


def test_a_model_of_one_length_is_refused_where_only_that_is_checked(tmp_path):
    with pytest.raises(LoweringError, match="works for one size alone of an axis that is to stay"):
        made(OfSixTokens(), tmp_path, sizes=((2, 6), (3, 6)))


def test_a_branch_on_a_length_is_found_or_refused(tmp_path):
    with pytest.raises((LoweringError, ParityError), match=r"does not compute|one size alone"):
        made(KnowsItsLength(), tmp_path)


def test_a_batch_of_no_numbers_is_refused(tmp_path):
    candidate = Candidate.of(Net(), torch.randn(2, 6, 8))
    bad = torch.full((2, 6, 8), torch.nan)
    with pytest.raises(LoweringError, match=r"the check\[1\] input holds NaN in 2 of 2 samples"):
        lower_open(candidate, SHAPES, [batches()[0], bad], tmp_path / "model.onnx")
