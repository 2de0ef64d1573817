"""What the module ties is stored once, in every format whose integers agree."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.backends.onnx.graph import finish, is_storage_type
from compress.backends.onnx.session import open_session, run
from compress.candidate import Candidate
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

ROWS, WIDTH = 2000, 64
BYTES = {"float32": 4, "float16": 2, "int8": 1, "float8": 1}


class Tied(nn.Module):
    """An embedding and the output layer of each token, or of their mean, with one weight."""

    def __init__(self, every_token):
        super().__init__()
        self.every_token = every_token
        self.embed, self.mid = nn.Embedding(ROWS, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, ROWS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        y = F.gelu(self.mid(self.embed(x)))
        return self.head(y if self.every_token else y.mean(1))


class Autoencoder(nn.Module):
    """A layer, and its weight again the other way round."""

    def __init__(self):
        super().__init__()
        self.down = nn.Linear(96, WIDTH)

    def forward(self, x):
        return F.linear(torch.relu(self.down(x)), self.down.weight.t())


def lowered(module, inputs, path, *rules, avoid_saturation=False):
    candidate = Candidate.of(module.eval(), inputs[:2])
    made = lower(
        Candidate(candidate.module, candidate.example, numerics=Numerics(rules)),
        Lowering(avoid_saturation=avoid_saturation),
        calibration=[inputs],
        check=inputs,
        path=path,
    )
    return made, onnx.load(path)


def tokens():
    return torch.randint(ROWS, (16, 6), generator=torch.Generator().manual_seed(0))


def rule(weights, activations):
    return QuantRule(format=LayerFormat(weights=weights, activations=activations))


def large(proto):
    return [t for t in proto.graph.initializer if np.prod(t.dims) >= ROWS * WIDTH]


@pytest.mark.parametrize("every_token", [True, False])
@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        ("float32", "float32"),
        ("float16", "float16"),
        ("int8", "float32"),
        ("int8", "dynamic"),
        ("int8", "int8"),
        ("float8", "float32"),
    ],
)
def test_a_tied_embedding_is_stored_once(weights, activations, every_token, tmp_path):
    rules = () if weights == "float32" else (rule(weights, activations),)
    made, proto = lowered(Tied(every_token), tokens(), tmp_path / "model.onnx", *rules)
    (table,) = large(proto)
    assert tuple(table.dims) == (ROWS, WIDTH)
    assert made.bytes < 1.3 * ROWS * WIDTH * BYTES[weights] + 20 * ROWS
    assert made.parity.agreement >= 0.9
    if weights == "float32":
        assert made.parity.max_error < 1e-4


def test_its_rows_are_looked_up_where_they_are_stored(tmp_path):
    _, proto = lowered(Tied(True), tokens(), tmp_path / "model.onnx")
    (table,) = large(proto)
    readers = {n.op_type: n for n in proto.graph.node if table.name in n.input}
    assert readers.keys() == {"Gather", "Transpose"}
    (head,) = [n for n in proto.graph.node if readers["Transpose"].output[0] in n.input]
    assert head.op_type == "MatMul"


def test_the_transpose_is_gone_once_the_file_is_loaded(tmp_path):
    import onnxruntime as ort

    lowered(Tied(True), tokens(), tmp_path / "model.onnx", rule("int8", "dynamic"))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(tmp_path / "model.onnx"), options)
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "Transpose" not in operators
    assert operators.count("DynamicQuantizeMatMul") == 2


def test_a_weight_that_is_read_both_ways_is_stored_once(tmp_path):
    inputs = torch.randn(8, 4, 96, generator=torch.Generator().manual_seed(0))
    made, proto = lowered(Autoencoder(), inputs, tmp_path / "model.onnx")
    matrices = [t for t in proto.graph.initializer if len(t.dims) == 2]
    assert [np.prod(t.dims) for t in matrices] == [96 * WIDTH]
    assert made.parity.max_error < 1e-4


def test_a_layer_that_may_not_saturate_has_integers_of_its_own(tmp_path):
    # Its grid is coarser than the embedding's, which is never summed in int8.
    _, proto = lowered(
        Tied(True),
        tokens(),
        tmp_path / "model.onnx",
        rule("int8", "dynamic"),
        avoid_saturation=True,
    )
    one, other = sorted((numpy_helper.to_array(t) for t in large(proto)), key=lambda a: a.shape)
    assert one.shape == other.T.shape
    assert np.abs(one.T - other).max() > 0


def test_matrices_that_are_not_tied_are_left_alone(tmp_path):
    module = Tied(True)
    module.head.weight = nn.Parameter(module.embed.weight.detach() + 1e-3)
    made, proto = lowered(module, tokens(), tmp_path / "model.onnx")
    assert len(large(proto)) == 2
    assert "Transpose" not in made.census.operators


@pytest.mark.parametrize("kind", ["INT8", "FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_a_matrix_of_any_type_is_transposed_where_operators_take_it(kind, tmp_path):
    """float8 is known to Cast alone, so that the transpose stands behind it."""
    numbers = np.random.default_rng(0).integers(-8, 8, (64, 48)).astype(np.float32)
    matrix = numbers.astype(ir.DataType[kind].numpy())
    both = [ir.tensor(array, name=name) for array, name in ((matrix, "a"), (matrix.T.copy(), "b"))]
    constants = [ir.Value(name=t.name, const_value=t, type=ir.TensorType(t.dtype)) for t in both]
    x = ir.Value(name="x", shape=ir.Shape([2, 64]), type=ir.TensorType(ir.DataType.FLOAT))
    casts = [ir.node("Cast", [c], {"to": ir.DataType.FLOAT}) for c in constants]
    there = ir.node("MatMul", [x, casts[0].outputs[0]])
    back = ir.node("MatMul", [there.outputs[0], casts[1].outputs[0]])
    back.outputs[0].name = "y"
    back.outputs[0].type, back.outputs[0].shape = x.type, ir.Shape([2, 64])
    nodes = [*casts, there, back]
    graph = ir.Graph([x], back.outputs, nodes=nodes, initializers=constants, opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    finish(model)
    assert len(model.graph.initializers) == 1
    (turn,) = (node for node in model.graph if node.op_type == "Transpose")
    assert is_storage_type(ir.DataType[kind]) == (turn.inputs[0].producer() is not None)
    ir.save(model, tmp_path / "model.onnx")
    given = np.ones((2, 64), np.float32)
    (y,) = run(open_session(tmp_path / "model.onnx"), None, {"x": given})
    assert np.allclose(y, given @ numbers @ numbers.T)
