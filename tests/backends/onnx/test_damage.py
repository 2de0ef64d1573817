"""Graphs that are damaged on purpose, where they are exported and where they are encoded."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compress.backends.onnx.build
import compress.backends.onnx.float_graph
from compress.errors import ParityError
from tests.covering import covering

from .formats import FORMATS, exported_once, lower_in


class Net(nn.Module):
    """Something of everything that can be got wrong."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 8, 1)
        self.hidden, self.head = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.first(x) - 0.2)
        x = torch.cat([self.left(x) - self.right(x), F.leaky_relu(x - 0.5, 0.2)], 1)
        x = F.avg_pool2d(x, 2).clamp(-1.0, 1.5)
        return self.head(F.relu(self.hidden(x.mean((2, 3)))))


def nodes(model, *kinds):
    return [node for node in model.graph if node.op_type in kinds]


def constant(model, array, name):
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value


def source_of(value):
    """What a value was before it was rounded or converted."""
    while value.producer() is not None and value.producer().op_type in (
        *("QuantizeLinear", "DequantizeLinear", "Cast", "Clip", "Identity"),
    ):
        value = value.producer().inputs[0]
    return value


def swap_operands(model):
    node = next(n for n in nodes(model, "Sub") if source_of(n.inputs[1]).const_value is None)
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


def swap_parts(model):
    (node,) = nodes(model, "Concat")
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


def shift_pads(model):
    nodes(model, "Conv")[0].attributes["pads"] = ir.AttrInt64s("pads", [2, 2, 0, 0])


def dilate(model):
    node = nodes(model, "Conv")[0]
    node.attributes["pads"] = ir.AttrInt64s("pads", [2, 2, 2, 2])
    node.attributes["dilations"] = ir.AttrInt64s("dilations", [2, 2])


def forget_activation(model):
    node = nodes(model, "Relu", "LeakyRelu")[0]
    node.op_type = "Neg"
    node.attributes.clear()


def change_slope(model):
    (node,) = (n for n in nodes(model, "LeakyRelu") if n.attributes["alpha"].as_float() > 0)
    node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.6)


def pool_largest(model):
    node = next(n for n in nodes(model, "AveragePool") if "kernel_shape" in n.attributes)
    node.op_type = "MaxPool"
    node.attributes.pop("count_include_pad", None)


def scale_twice(model):
    """The step of the first weight in integers, or the weight itself."""
    value = nodes(model, "Conv")[0].inputs[1]
    maker = value.producer()
    if maker is not None and maker.op_type in ("Mul", "DequantizeLinear"):
        node, place = maker, 1
    else:
        node, place = nodes(model, "Conv")[0], 1
    old = node.inputs[place].const_value.numpy()
    node.replace_input_with(place, constant(model, (old * 2).astype(old.dtype), "twice"))


def negate_channel(model):
    value = nodes(model, "Conv")[1].inputs[1]
    while value.producer() is not None:
        value = value.producer().inputs[0]
    array = value.const_value.numpy().copy()
    array[0] = -array[0]
    value.const_value = ir.tensor(array, name=value.name)


def forget_bias(model):
    node = nodes(model, "Conv")[0]
    value = node.inputs[2]
    while value.producer() is not None:
        value = value.producer().inputs[0]
    array = value.const_value.numpy()
    value.const_value = ir.tensor(np.zeros_like(array), name=value.name)


def turn_weight(model):
    """The square weight of the hidden layer, read the other way."""
    for node in nodes(model, "Gemm", "MatMul", "MatMulInteger"):
        value = node.inputs[1]
        while value.producer() is not None:
            value = value.producer().inputs[0]
        array = value.const_value.numpy()
        if array.shape == (16, 16):
            value.const_value = ir.tensor(np.ascontiguousarray(array.T), name=value.name)
            return
    raise AssertionError("there is no square weight")


def reverse_channels(model):
    (node,) = nodes(model, "Concat")
    value = node.outputs[0]
    order = constant(model, np.arange(16)[::-1].copy(), "order")
    gather = ir.node("Gather", [value, order], {"axis": 1})
    model.graph.insert_after(node, gather)
    gather.outputs[0].name = "reversed"
    for user, place in tuple(value.uses()):
        if user is not gather:
            user.replace_input_with(place, gather.outputs[0])


DAMAGES = (
    swap_operands,
    swap_parts,
    shift_pads,
    dilate,
    forget_activation,
    change_slope,
    pool_largest,
    scale_twice,
    negate_channel,
    forget_bias,
    turn_weight,
    reverse_channels,
)


def make(format, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, x = Net().eval(), torch.randn(48, 3, 8, 8)
    return lower_in(format, module, x, tmp_path / "model.onnx")


@pytest.mark.parametrize("format", FORMATS)
def test_the_net_is_right_as_it_is(format, tmp_path):
    assert make(format, tmp_path).parity.r_squared > 0.99


# Compared before anything is encoded, so that one format stands for those that encode.
@pytest.mark.parametrize(("damage", "format"), covering(DAMAGES, ["float32", "int8"], each=1))
def test_a_damaged_export_is_caught(damage, format, tmp_path, monkeypatch):
    export = compress.backends.onnx.float_graph.export

    def damaged(*arguments, **options):
        model = export(*arguments, **options)
        damage(model)
        return model

    monkeypatch.setattr(compress.backends.onnx.float_graph, "export", damaged)
    named = r"graph does not compute what the module computes, from \w+ .*line \d+ of .*test_damage"
    with pytest.raises(ParityError, match=named):
        make(format, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def exported():
    """The export of the net, which is the same in all formats."""
    return exported_once(compress.backends.onnx.float_graph.export)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_caught(damage, format, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(compress.backends.onnx.float_graph, "export", exported)
    finish = compress.backends.onnx.build.finish

    def damaged(model):
        finish(model)
        damage(model)

    monkeypatch.setattr(compress.backends.onnx.build, "finish", damaged)
    with pytest.raises(ParityError, match=r"artifact does not compute what its .* R² must be 0\.9"):
        make(format, tmp_path)
    assert not list(tmp_path.iterdir())
