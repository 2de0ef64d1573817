import pytest
import torch
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx.canonicalize import canonicalize
from compress.backends.onnx.export import export
from compress.backends.onnx.partition import cast_nodes, layers_with, static_nodes
from compress.quantization.fakequant import quantizable_layers
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule


def chosen(name, exported, net, rules, select=static_nodes, activations="int8"):
    formats = net(name).formats(*rules)
    model = exported(name)
    canonicalize(model, formats)
    return model.graph, select(model.graph, formats, activations)


def operators(graph, nodes):
    return [node.op_type for node in graph if node in nodes]


def test_what_stands_between_int8_layers_is_int8(exported, net, rule):
    graph, nodes = chosen("residual", exported, net, [rule()])
    assert nodes == set(graph)
    assert {"Add", "Relu", "GlobalAveragePool", "Flatten", "Gemm"} < set(operators(graph, nodes))


def test_float_only_operators_end_a_region(exported, net, rule):
    graph, nodes = chosen("gated", exported, net, [rule()])
    assert [node.op_type for node in graph if node not in nodes] == ["HardSwish", "AveragePool"]


def test_normalization_softmax_and_products_of_activations_stay_float(exported, net, rule):
    graph, nodes = chosen("encoder", exported, net, [rule()])
    outside = {node.op_type for node in graph if node not in nodes}
    assert {"LayerNormalization", "Softmax", "MatMul", "Add", "ReduceMean"} <= outside
    assert operators(graph, nodes).count("Gemm") == len(net("encoder").formats())


def test_nothing_behind_the_last_int8_layer_is_int8(exported, net, rule):
    graph, nodes = chosen("residual", exported, net, [rule(exclude=("head",))])
    assert operators(graph, nodes)[-1] == "Conv"
    assert "Add" not in operators(graph, nodes)


def test_an_activation_function_belongs_to_the_int8_layer_before_it(exported, net, rule):
    graph, nodes = chosen("residual", exported, net, [rule(select=("stem",))])
    assert operators(graph, nodes) == ["Conv", "Relu"]


def test_an_excluded_layer_is_not_int8(exported, net, rule):
    graph, nodes = chosen("residual", exported, net, [rule(exclude=("conv1", "stem"))])
    static = layers_with(graph, net("residual").formats(rule()), lambda f: f.needs_range)
    assert {name for name, node in static if node in nodes} == {"conv2", "head"}


def test_a_module_without_int8_layers_keeps_its_own_operators():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return x + self.conv(x)

    module = nn.Sequential(Block(), Block(), Block()).eval()
    model = export(module, torch.zeros(1, 2, 4, 4), Lowering())
    format = LayerFormat(weights="int8", activations="int8")
    rules = Numerics((QuantRule(exclude=("1",), format=format),))
    nodes = static_nodes(model.graph, rules.resolve(quantizable_layers(module)), "int8")
    assert [node.op_type for node in model.graph if node in nodes] == ["Conv", "Conv"]


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_no_declared_format_means_no_region(kind, exported, net):
    select = static_nodes if kind == "int8" else cast_nodes
    _, nodes = chosen("gated", exported, net, [], select, kind)
    assert nodes == set()


def test_float16_reaches_what_stands_between_its_layers(exported, net, rule):
    rules = [rule("float16", "float16")]
    graph, nodes = chosen("residual", exported, net, rules, cast_nodes, "float16")
    assert nodes == set(graph)
