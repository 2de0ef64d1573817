import logging
import re
import warnings

import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn.utils import rnn

from compress.artifact import Lowering
from compress.backends.onnx.export import export, layer_of, scopes
from compress.errors import LoweringError
from compress.modules.inputs import at_batch
from compress.quantization.fakequant import layers_with_formats

ALL = ["residual", "plain", "preactivation", "gated", "unet", "encoder", "two", "one_d"]


@pytest.mark.parametrize("name", ALL)
def test_every_layer_is_found_in_the_graph(name, net, exported):
    found = [layer_of(node) for node in exported(name).graph if layer_of(node) is not None]
    assert sorted(found) == sorted(layers_with_formats(net(name).module))


def test_layers_with_equal_weights_are_told_apart():
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    norm = nn.BatchNorm2d(3)
    with torch.random.fork_rng():
        module = nn.Sequential(layer, norm, nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1, bias=False))
    module[3].load_state_dict(layer.state_dict())
    model = export(module.eval(), torch.zeros(1, 3, 4, 4), Lowering())
    products = [node for node in model.graph if node.op_type == "Conv"]
    assert [layer_of(node) for node in products] == ["0", "3"]
    assert not [node for node in model.graph if node.op_type == "BatchNormalization"]


def test_a_module_under_two_names_is_known_by_its_first(exported):
    names = [layer_of(node) for node in exported("tied").graph if layer_of(node) is not None]
    assert names == ["embed", "twice", "twice", "head"]


def test_a_model_that_is_one_layer_has_the_empty_path():
    model = export(nn.Linear(3, 2), torch.zeros(2, 3), Lowering())
    assert [layer_of(node) for node in model.graph] == [""]


def test_inputs_keep_the_names_of_forward_and_the_output_is_called_output(exported):
    graph = exported("two").graph
    assert {value.name for value in graph.inputs} == {"image", "meta"}
    assert [value.name for value in graph.outputs] == ["output"]


def test_nodes_know_the_modules_that_they_came_from():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 3), nn.GELU())

        def forward(self, x):
            return torch.tanh(self.inner(x))

    model = export(Outer().eval(), torch.zeros(1, 3), Lowering())
    assert {node.op_type: scopes(node) for node in model.graph} == {
        "Gemm": ["", "inner", "inner.0"],
        "Gelu": ["", "inner", "inner.1"],
        "Tanh": [""],
    }


def test_the_batch_is_static_whatever_the_example_holds(net, exported):
    assert exported("residual").graph.inputs[0].shape == ir.Shape([1, 2, 6, 6])
    model = export(net("residual").module, net("residual").inputs(2), Lowering(batch=3))
    assert model.graph.inputs[0].shape == ir.Shape([3, 2, 6, 6])
    assert model.graph.outputs[0].shape == ir.Shape([3, 4])


def test_at_batch_repeats_from_the_start():
    assert at_batch(torch.tensor([1, 2]), 5).tolist() == [1, 2, 1, 2, 1]
    assert at_batch({"x": torch.tensor([1, 2, 3])}, 2)["x"].tolist() == [1, 2]


def test_nothing_global_is_changed_and_nothing_is_said(net, capfd):
    def state():
        root = logging.getLogger()
        return (
            torch.random.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            root.handlers[:],
            root.manager.disable,
            warnings.filters[:],
        )

    module = net("residual").module
    before, weights = state(), {k: v.clone() for k, v in module.state_dict().items()}
    export(module, net("residual").inputs(2), Lowering())
    assert state() == before
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())
    assert capfd.readouterr() == ("", "")


class Gate(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.gate = nn.Linear(3, 3), Gate()

    def forward(self, x):
        return self.gate(self.fc(x))


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Broken(nn.Module):
    def forward(self, x):
        if torch.compiler.is_exporting():
            raise ValueError("no exporting please")
        return x


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 2, batch_first=True)

    def forward(self, x):
        lengths = (x.unsqueeze(-1) > 0).sum((1, 2)).clamp(min=1)
        packed = rnn.pack_padded_sequence(x.unsqueeze(-1), lengths, batch_first=True)
        return rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Holder(), r"the module 'gate' \(Gate\) decides by the values of a tensor \('if x.sum"),
        (Gate(), r"the model itself \(Gate\) decides by .* line \d+ of .*test_export.py.*mask"),
        (Bessel(), r"the operator '.*bessel_j0' has no ONNX form; replace it"),
        (Broken(), r"ONNX: no exporting please \(line \d+ of .*test_export\.py\); see torch"),
        (Packed(), r"packed sequences have no ONNX form \(line \d+ of .*test_export\.py\); give"),
    ],
)
def test_what_cannot_be_exported_is_named_with_a_way_out(module, message):
    with pytest.raises(LoweringError, match=message):
        export(module.eval(), torch.ones(2, 3), Lowering())


def test_weights_that_are_not_finite_are_named():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight.data[0, 0] = torch.nan
    with pytest.raises(LoweringError, match=re.escape("the weight '1.weight' holds values that")):
        export(module, torch.zeros(2, 3), Lowering())


@pytest.mark.parametrize(
    ("opset", "message"),
    [
        (17, "lowering.opset must be 18 or more, the oldest that torch exports; got 17"),
        (99, r"opset 99 is not one that this torch can export; opset \d+ would do"),
    ],
)
def test_an_opset_out_of_reach_is_refused(opset, message):
    with pytest.raises(LoweringError, match=message):
        export(nn.Linear(3, 3), torch.zeros(2, 3), Lowering(opset=opset))


def test_the_oldest_opset_has_no_newer_operators():
    module = nn.Sequential(nn.Linear(3, 3), nn.GELU())
    model = export(module, torch.zeros(2, 3), Lowering(opset=18))
    assert model.opset_imports[""] == 18
    assert "Gelu" not in [node.op_type for node in model.graph]
