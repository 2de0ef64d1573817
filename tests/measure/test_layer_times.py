"""Times of layers by the profile: whose product a fused operator is, and what is won in pairs."""

import base64
import json
import zlib

import onnx
import pytest
from onnx import TensorProto, helper

from compress.errors import MeasurementError
from compress.measure.profile import layer_times as layer_times_module
from compress.measure.profile.graph import Graph, GraphNode
from compress.measure.profile.layer_times import layer_times
from compress.measure.profile.product_layers import layers_of_products

LAYERS = ["conv1", "conv2", "shortcut"]


def node(operator, made, *read, name=None):
    return GraphNode(name or made, operator, tuple(read), (made,))


SOURCE = Graph(
    (
        node("Conv", "a", "x"),
        node("Relu", "b", "a"),
        node("Conv", "c", "b"),
        node("Conv", "d", "x"),
        node("Add", "e", "c", "d"),
        node("Relu", "f", "e"),
        node("MatMul", "g", "f", "f"),
    ),
    {},
)
MODULES = ["conv1", "", "conv2", "shortcut", "", "", "attention"]


@pytest.mark.parametrize("prefix", ["", "InsertedPrecisionFreeCast_"])
def test_a_product_is_that_of_the_layer_before_what_it_is_fused_with(prefix):
    running = Graph(
        (
            node("Conv", "x1", "x", name=f"{prefix}b_nchwc"),
            node("Conv", "x2", "x", name=f"{prefix}d_nchwc"),
            # The second convolution, the sum and the activation in one.
            node("Conv", "x3", "x1", "x2", name=f"{prefix}f_nchwc"),
            node("MatMul", "g", "x3", "x3"),
            node("ReorderOutput", "h", "x3"),
        ),
        {},
    )
    found = layers_of_products(running, SOURCE, MODULES, LAYERS)
    assert found == {0: "conv1", 1: "shortcut", 2: "conv2"}


def test_of_two_sums_of_unknown_products_none_is_named():
    running = Graph((node("Conv", "f", "x"), node("Conv", "f2", "x", name="e")), {})
    assert layers_of_products(running, SOURCE, MODULES, LAYERS) == {}


class Profiled:
    """A target that answers with times of two layers; of half of them in the second file."""

    name = "told"

    def __init__(self, names=("layers.0", "layers.1")):
        self.names, self.asked = names, []

    def environment(self):
        return {}

    def work(self, kind, model, settings):
        self.asked.append((kind, model.name, settings["graph"]))
        half = 2 if model.name == "b.onnx" else 1
        drift = 1 + 0.1 * len(self.asked)
        operators = [
            {
                "name": f"/{name}/MatMul",
                "operator": "MatMul",
                "ns": 1e6 * (number + 1) * drift / half,
                "calls": 1,
                "inputs": [["float", [1, 4]], ["float", [4, 4]]],
                "outputs": [["float", [1, 4]]],
            }
            for number, name in enumerate(self.names)
        ]
        graph = base64.b64encode(zlib.compress(model.read_bytes())).decode()
        return {"operators": operators, "run_ns": 1e7, "graph": graph}


@pytest.fixture
def files(tmp_path):
    paths = []
    for name in ("a.onnx", "b.onnx"):
        value = helper.make_tensor_value_info
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["y"], name="/layers.0/MatMul"),
            helper.make_node("MatMul", ["y", "w"], ["z"], name="/layers.1/MatMul"),
        ]
        weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [0.0] * 16)
        graph = helper.make_graph(
            nodes,
            "g",
            [value("x", TensorProto.FLOAT, [1, 4])],
            [value("z", TensorProto.FLOAT, [1, 4])],
            [weight],
        )
        paths.append(tmp_path / name)
        onnx.save(helper.make_model(graph), paths[-1])
        modules = {"/layers.0/MatMul": "layers.0", "/layers.1/MatMul": "layers.1"}
        (tmp_path / f"{name}.modules.json").write_text(json.dumps({"modules": modules}))
    return paths


def test_each_layer_wins_what_it_takes_less_in_the_same_round(files, monkeypatch):
    monkeypatch.setattr(layer_times_module, "PROCESSES", {"quick": 3})
    target = Profiled()
    first, second = layer_times(files, ["layers.0", "layers.1"], target, "quick")
    assert len(target.asked) == 6
    assert first.won["layers.0"].seconds == 0
    won = second.won
    assert won["layers.1"].seconds == pytest.approx(2 * won["layers.0"].seconds, rel=1e-6)
    assert won["layers.0"].seconds > 0
    assert won["layers.0"].ci95[0] < won["layers.0"].seconds < won["layers.0"].ci95[1]
    assert second.whole == pytest.approx(0.01)


def test_what_cannot_be_timed_is_a_sentence(files):
    with pytest.raises(MeasurementError, match="nothing in the files names the layers"):
        layer_times(files, ["other"], Profiled(), "quick")
    from compress import ReplayTarget

    with pytest.raises(MeasurementError, match="cannot be profiled from here"):
        layer_times(files, ["layers.0"], ReplayTarget(), "quick")
