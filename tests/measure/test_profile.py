"""Where the time goes: from events to modules, islands with their cures, and a sentence."""

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from compress.artifact import Lowering, modules_file
from compress.backends.onnx import lower
from compress.candidate import Candidate
from compress.cli import main
from compress.errors import MeasurementError
from compress.measure.local import LocalTarget
from compress.measure.ondevice import worker
from compress.measure.ondevice.operators import operators_of, own_times, traced_runs
from compress.measure.ondevice.runtimes import open_model
from compress.measure.profile import profiler as profiling
from compress.measure.profile.facts import (
    Island,
    ModuleChange,
    OperatorGroup,
    Profile,
    Remedy,
    Time,
)
from compress.measure.profile.graph import (
    ConstantTensor,
    Graph,
    GraphNode,
    match,
    modules_of,
    modules_of_running,
    noted,
    read_graph,
)
from compress.measure.profile.islands import AnnotatedGraph, find_islands
from compress.measure.profile.parts import (
    ProfiledModel,
    Step,
    changes,
    int8_mac_fraction,
    kernel_ratio,
    kind_of,
    profiled_model,
    without_profiler,
)
from compress.measure.profile.profiler import profile
from compress.measure.profile.sentences import ProfileComparison, int8_dot_product, summary
from compress.measure.profile.table import text
from compress.measure.replay import ReplayTarget
from compress.measure.stats import Interval, Ratio
from compress.measure.target import Failure
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

QUICK = {"window_s": 0.002, "warmup_cap_s": 0.02, "sample_s": 0.01, "least": 5, "cap_s": 0.1}

# -- onnxruntime's list of events -------------------------------------------------------------


def event(name, ts, dur, **facts):
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": facts}


def run_of(*operators):
    session = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 99}
    fences = [{"cat": "Node", "name": "a_fence_before", "ts": 0, "dur": 1, "args": {}}]
    return [*fences, *operators, session]


def test_events_are_cut_into_runs_and_all_else_is_passed_over():
    loading = {"cat": "Session", "name": "model_loading_uri", "ts": 0, "dur": 500}
    events = [loading, *(e for start in (0, 10, 20) for e in run_of(event("a", start, 3)))]
    unfinished = [*events, event("a", 30, 1), {"cat": "Kernel"}]
    runs = traced_runs(unfinished, 2)
    assert [[operator["ts"] for operator in run] for run in runs] == [[10], [20]]


def test_what_ran_inside_an_operator_is_not_counted_twice():
    body, last = event("body", 12, 5), event("last", 20, 0)
    loop, after = event("loop", 10, 12), event("after", 22, 4)
    assert own_times([body, last, loop, after]) == [5.5, 0.5, 6.5, 4.5]


def test_neighbors_in_the_same_microsecond_are_not_inside_each_other():
    assert own_times([event("a", 10, 0), event("b", 10, 1), event("c", 11, 3)]) == [
        *(0.5, 1.0, 3.5),
    ]


def test_times_are_those_of_the_middle_half_of_the_runs():
    slow = [[event("a", 0, 1000, op_name="Neg")]] * 2
    rest = [[event("a", 0, dur, op_name="Neg")] for dur in (9, 1, 10, 11, 10, 2)]
    (found,) = operators_of([*slow, *rest])
    assert found["ns"] == 1000 * (np.mean([9, 10, 10, 11]) + 0.5)
    assert (found["name"], found["operator"], found["calls"]) == ("a", "Neg", 1)


def test_an_event_without_facts_is_kept():
    (found,) = operators_of([[{"name": "a_kernel_time", "ts": 0, "dur": 1}]])
    assert (found["operator"], found["inputs"], found["outputs"]) == ("", [], [])


def answer_of(path, **settings):
    job = {"kind": "profile", "model": str(path), "graph": True, **QUICK, **settings}
    return worker.answer(json.dumps(job))


def test_the_worker_returns_the_graph_that_ran_and_its_operators(two_inputs):
    found = answer_of(two_inputs, batch=3)
    graph = read_graph(zlib.decompress(base64.b64decode(found["graph"])))
    operators = [operator["operator"] for operator in found["operators"]]
    assert operators == [node.operator for node in graph.nodes]
    facts = dict(zip(operators, found["operators"], strict=True))
    assert facts["Gather"]["inputs"][1] == ("int64", [3, 16])
    assert facts["ReduceMean"]["outputs"] == [("float", [3, 5])]
    assert found["batch"] == 3
    assert found["run_ns"] > 0
    assert all(operator["ns"] > 0 for operator in found["operators"])
    assert all(operator["calls"] == pytest.approx(1) for operator in found["operators"])
    assert answer_of(two_inputs, graph=False)["graph"] is None


def test_a_model_that_does_not_run_is_an_error(build):
    assert "error" in answer_of(build("Neg", [2]), inputs={"x": "/none.npy"})


def test_the_session_can_be_opened_in_other_ways(one, monkeypatch):
    seen = []

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key, value):
            seen.append((key, value, self.enable_cpu_mem_arena))
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    open_model({"model": str(one), "session": {"session.disable_prepacking": "1"}})
    open_model({"model": str(one), "session": {"a.b": "2"}, "arena": False})
    assert seen == [("session.disable_prepacking", "1", True), ("a.b", "2", False)]


# -- whose is a node --------------------------------------------------------------------------


def chain(*nodes, constants=()):
    return Graph(nodes, {name: ConstantTensor((4, 4), "float") for name in constants})


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/conv/Conv", "conv"),
        ("model/conv2d/Conv2D", "model.conv2d"),
        ("Conv_12", None),
        ("", None),
    ],
)
def test_paths_in_node_names_are_modules(name, module):
    assert modules_of(chain(GraphNode(name, "Conv", ("x",), ("y",))), {}) == [module]


def test_modules_come_from_the_note_the_exporter_or_the_weights_in_this_order():
    nodes = [
        GraphNode("a", "Conv", ("x", "wrong.weight"), ("p",), scope="wrong"),
        GraphNode("b", "Conv", ("p", "wrong.weight"), ("q",), scope="block.conv"),
        GraphNode("c", "Conv", ("q", "onnx::Conv_3", "head.weight"), ("r",)),
    ]
    graph = chain(*nodes, constants=["wrong.weight", "onnx::Conv_3", "head.weight"])
    assert modules_of(graph, {"a": "stem"}) == ["stem", "block.conv", "head"]


def test_a_node_that_nothing_names_belongs_to_its_maker_or_else_its_reader():
    nodes = [
        GraphNode("", "DequantizeLinear", ("w",), ("dw",)),
        GraphNode("", "Conv", ("x", "dw"), ("p",), scope="conv"),
        GraphNode("", "QuantizeLinear", ("p",), ("q",)),
        GraphNode("", "Flatten", ("q",), ("r",), scope=""),
    ]
    assert modules_of(chain(*nodes, constants=["w"]), {}) == ["conv", "conv", "conv", ""]
    assert modules_of(chain(GraphNode("", "Neg", ("x",), ("y",))), {}) == [None]


def test_the_exporters_note_of_a_node_is_read(tmp_path):
    node = helper.make_node("Neg", ["x"], ["y"])
    scopes = node.metadata_props.add()
    scopes.key, scopes.value = "pkg.torch.onnx.name_scopes", "['', 'block', 'block.act', 'neg']"
    other = helper.make_node("Neg", ["y"], ["z"])
    damaged = other.metadata_props.add()
    damaged.key, damaged.value = "pkg.torch.onnx.name_scopes", "['"
    model = helper.make_model(helper.make_graph([node, other], "g", [], []))
    graph = read_graph(model.SerializeToString())
    assert [n.scope for n in graph.nodes] == ["block.act", None]


def test_rewritten_nodes_are_found_by_node_tensor_and_weight_names():
    source = chain(
        GraphNode("n1", "Conv", ("x", "w1"), ("t1",), scope="stem"),
        GraphNode("n2", "HardSwish", ("t1",), ("t2",), scope="act"),
        GraphNode("n3", "QuantizeLinear", ("t2", "s"), ("t3",)),
        GraphNode("n4", "Conv", ("t3", "w2"), ("t4",), scope="conv"),
        GraphNode("n5", "MatMul", ("t4", "w3"), ("t5",), scope="head"),
        constants=["w1", "w2", "w3", "s"],
    )
    running = chain(
        GraphNode("t1_nchwc_token_1", "Conv", ("x", "reorder"), ("r1",), "com.microsoft.nchwc"),
        GraphNode("ReorderOutput", "ReorderOutput", ("r1",), ("t1",)),
        GraphNode("", "HardSigmoid", ("t1",), ("h1",)),
        GraphNode("", "Mul", ("t1", "h1"), ("h2",)),
        GraphNode("n3", "QuantizeLinear", ("h2", "s"), ("t3",)),
        GraphNode("Transpose", "Transpose", ("t3",), ("t3t",)),
        GraphNode("n4_token_5", "QLinearConv", ("t3t", "w2"), ("n4",)),
        GraphNode("", "FusedMatMul", ("n4", "w3"), ("z",)),
        constants=["w2", "w3", "s"],
    )
    assert modules_of_running(running, source, modules_of(source, {})) == [
        *("stem", "stem", "act", "act", "act", "conv", "conv", "head"),
    ]


def test_operators_are_found_by_name_and_nameless_ones_by_their_turn():
    graph = chain(
        GraphNode("a", "Add", (), ("p",)),
        GraphNode("", "Mul", (), ("q",)),
        GraphNode("", "Mul", (), ("r",)),
    )
    ran_operators = [("Mul_7", "Mul"), ("a", "Add"), ("Mul_31", "Mul"), ("Mul_40", "Mul")]
    assert match(ran_operators, graph) == [1, 0, 2, None]


def test_a_note_beside_another_file_is_not_read(tmp_path, one):
    path = tmp_path / "model.onnx"
    path.write_bytes(one.read_bytes())
    assert noted(path) == {}
    for content in ("{", "[]", '{"sha256": 1}', '{"sha256": "00", "modules": {"a": "b"}}'):
        modules_file(path).write_text(content)
        assert noted(path) == {}


# -- times ------------------------------------------------------------------------------------


def operator(name, kind, ns, inputs=1, **more):
    tensor = ["float", [1, 4]]
    facts = {"name": name, "operator": kind, "ns": ns, "calls": 1.0}
    described = [tensor] * inputs if isinstance(inputs, int) else inputs
    return {**facts, "inputs": described, "outputs": [tensor], **more}


def test_what_the_profiler_took_is_taken_off_and_the_rest_adds_up_to_a_run():
    operators = [operator("a", "Conv", 5000, inputs=8), operator("b", "Relu", 4000)]
    found = without_profiler({"run_ns": 6000, "operators": operators})
    # An excess of 3000 by 1 + 0.9 and 1 + 0.2: for the operator, and for its tensors.
    assert found["a", "Conv"] == pytest.approx(5e-6 - 3e-6 * 1.9 / 3.1)
    assert found["b", "Relu"] == pytest.approx(4e-6 - 3e-6 * 1.2 / 3.1)
    less = without_profiler({"run_ns": 500, "operators": operators})
    assert sum(less.values()) == pytest.approx(5e-7)
    assert min(less.values()) >= 0
    quick = without_profiler({"run_ns": 9000, "operators": operators})
    assert quick == {("a", "Conv"): 5e-6, ("b", "Relu"): 4e-6}


@pytest.mark.parametrize(
    ("name", "types", "kind"),
    [
        ("QLinearConv", ["uint8"], "int8"),
        ("DynamicQuantizeMatMul", ["float"], "int8"),
        ("MaxPool", ["uint8"], "int8"),
        ("MaxPool", ["float"], "float"),
        ("Conv", ["float16"], "float"),
        ("QuantizeLinear", ["uint8"], "convert"),
        ("DynamicQuantizeLinear", ["uint8", "float", "uint8"], "convert"),
        ("Cast", ["float"], "convert"),
        ("Transpose", ["uint8"], "layout"),
        ("ReorderInput", ["float"], "layout"),
        ("Reshape", ["float"], "move"),
        ("Add", ["int64"], "move"),
    ],
)
def test_every_operator_is_of_one_kind(name, types, kind):
    assert kind_of(name, types) == kind


def int8_answer(kernel_ns, run_ns=9e6):
    floats, bytes_ = ["float", [1, 4, 4, 4]], ["uint8", [1, 4, 4, 4]]
    return {
        "run_ns": run_ns,
        "operators": [
            operator("q", "QuantizeLinear", 1e6, outputs=[bytes_]),
            # The packed weight is missing among the inputs.
            operator("c", "QLinearConv", kernel_ns, inputs=3, outputs=[bytes_]),
            operator("d", "DequantizeLinear", 1e6, outputs=[floats]),
            operator("f", "Conv", 2e6, inputs=2, outputs=[floats]),
        ],
    }


INT8_GRAPH = Graph(
    (
        GraphNode("q", "QuantizeLinear", ("x", "s", "z"), ("t1",)),
        GraphNode("c", "QLinearConv", ("t1", "s", "z", "w"), ("t2",), scope="first"),
        GraphNode("d", "DequantizeLinear", ("t2", "s", "z"), ("t3",)),
        GraphNode("f", "Conv", ("t3", "v"), ("y",), "com.microsoft.nchwc", scope="second"),
    ),
    {
        "w": ConstantTensor((4, 4, 3, 3), "int8"),
        "v": ConstantTensor((8, 4, 3, 3), "float"),
        "small": ConstantTensor((4, 4, 3, 3), "float"),
        "z": ConstantTensor((), "uint8"),
    },
)


def ran_int8(*kernel_ns):
    answers = [int8_answer(ns) for ns in kernel_ns]
    return profiled_model(answers, INT8_GRAPH, INT8_GRAPH, modules_of(INT8_GRAPH, {}))


def test_products_are_counted_without_padding_and_with_packed_weights():
    # The second weight is padded to blocks of 8: the file's own has 4 output channels.
    running = replace(
        INT8_GRAPH,
        constants={**INT8_GRAPH.constants, "v": ConstantTensor((8, 4, 3, 3), "float")},
    )
    source = replace(
        INT8_GRAPH,
        constants={
            "w": ConstantTensor((4, 4, 3, 3), "int8"),
            "v": ConstantTensor((4, 4, 3, 3), ""),
        },
    )
    answers = [int8_answer(1e6)] * 2
    model = profiled_model(answers, running, source, modules_of(source, {}))
    assert [step.macs for step in model.steps] == [0, 4 * 4 * 4 * 36, 0, 4 * 4 * 4 * 36]
    assert int8_mac_fraction(model) == 0.5
    assert int8_mac_fraction(replace(model, steps=model.steps[:1])) is None


def test_products_count_by_their_attributes_and_as_often_as_a_body_runs():
    graph = Graph(
        (
            # Its packed weights are missing among the inputs, and a bias and lengths are left out.
            GraphNode("l", "LSTM", ("x", "w", "r", "", "", "h"), ("y",)),
            GraphNode("e", "Einsum", ("y", "z"), ("t",), attributes={"equation": b"ij,jk->ik"}),
            GraphNode(
                "n", "MatMulNBits", ("t", "p", "s"), ("u",), attributes={"accuracy_level": 4}
            ),
        ),
        {"w": ConstantTensor((1, 16, 5), "float"), "r": ConstantTensor((1, 16, 4), "float")},
    )
    floats = ["float", [2, 3]]
    operators = [
        operator("l", "LSTM", 1e6, inputs=[["float", [7, 3, 5]], ["float", [1, 3, 4]]]),
        operator("e", "Einsum", 1e6, inputs=[floats, ["float", [3, 4]]]),
        operator("n", "MatMulNBits", 1e6, inputs=[floats], outputs=[["float", [2, 8]]]),
        operator("b", "MatMul", 1e6, inputs=[floats], outputs=[["float", [2, 8]]], calls=6.0),
    ]
    answers = [{"run_ns": 9e6, "operators": operators}] * 2
    model = profiled_model(answers, graph, graph, modules_of(graph, {}))
    assert [step.macs for step in model.steps] == [
        7 * 3 * 16 * (5 + 4),
        2 * 3 * 4,
        2 * 8 * 3,
        6 * 2 * 8 * 3,
    ]
    assert [step.int8_macs for step in model.steps] == [0, 0, 2 * 8 * 3, 0]


def test_modules_own_their_conversions_and_shares_have_intervals():
    model = ran_int8(1e6, 2e6, 3e6)
    assert [step.module for step in model.steps] == ["first", "first", "first", "second"]
    assert model.seconds_of("int8").tolist() == [1e-3, 2e-3, 3e-3]
    assert model.seconds_of("outside").tolist() == pytest.approx([4e-3, 3e-3, 2e-3])


def test_changes_are_paired_and_the_slowest_module_comes_first():
    before, after = ran_int8(1e6, 2e6, 3e6), ran_int8(2e6, 3e6, 4e6)
    first, second = changes(after, before)
    assert (first.module, second.module) == ("first", "second")
    assert first.seconds == pytest.approx(1e-3)
    assert first.ci95 == pytest.approx((1e-3, 1e-3))
    assert second.seconds == 0


def test_kernels_are_compared_with_those_that_they_replace():
    annotated = ran_int8(1e6, 1e6).annotated
    steps = [
        Step("QLinearConv", "int8", "first", 0, 9, np.array([2e-3, 2e-3])),
        Step("QuantizeLinear", "convert", "first", 1, 0, np.array([9.0, 9.0])),
    ]
    floats = [
        Step("Conv", "float", "first", 0, 9, np.array([1e-3, 1e-3])),
        Step("Conv", "float", "second", 1, 9, np.array([5.0, 5.0])),
    ]
    own, other = (ProfiledModel(tuple(each), np.ones(2), annotated) for each in (steps, floats))
    assert kernel_ratio(own, other).value == pytest.approx(2)
    assert kernel_ratio(other, other) is None


# -- islands ----------------------------------------------------------------------------------


def island_of(*operators, inlet="uint8", source=None, constants=(), weight=()):
    """An int8 convolution, these operators in float, and another int8 convolution."""
    names = [f"f{place}" for place in range(len(operators) + 1)]
    middle = [
        GraphNode(f"n{i}", operators[i], (names[i], *weight), (names[i + 1],))
        for i in range(len(operators))
    ]
    nodes = [
        GraphNode("c1", "QLinearConv", ("x",), ("t1",)),
        GraphNode("dq", "DequantizeLinear", ("t1", "s", "z"), (names[0],)),
        *middle,
        GraphNode("q", "QuantizeLinear", (names[-1], "s", "z"), ("t2",)),
        GraphNode("c2", "QLinearConv", ("t2",), ("y",)),
    ]
    kinds = ["int8", "convert", *("float" for _ in operators), "convert", "int8"]
    floats = [False, True, *(True for _ in operators), False, False]
    modules = ["before", "before", *(f"middle{i}" for i in range(len(operators))), "z", "after"]
    stored = {"z": ConstantTensor((), inlet), **dict(constants)}
    annotated = AnnotatedGraph(
        Graph(tuple(nodes), stored), kinds, floats, modules, source or {*operators}
    )
    return find_islands(annotated)


@pytest.mark.parametrize(
    ("name", "cause", "cure"),
    [
        ("ConvTranspose", "no int8 kernel for ConvTranspose", "from nn.Upsample and nn.Conv2d"),
        ("HardSwish", "no int8 kernel for HardSwish", "nn.ReLU or nn.SiLU"),
        ("Gelu", "no int8 kernel for Gelu", "nn.ReLU or nn.SiLU"),
        ("LayerNormalization", "its statistics in float at run time", "use a batch norm"),
        ("InstanceNormalization", "its statistics in float at run time", "use a batch norm"),
        ("BatchNormalization", "cannot be folded into one", "put it right behind one"),
        ("GRU", "no static int8 kernel for GRU", "convolutions or attention"),
        ("Resize", "only where it takes the nearest value", "mode='nearest' at [middle0]"),
        ("Softmax", "eight bits are too few", "leave it"),
        ("GlobalAveragePool", "what follows it here is not int8", "leave it"),
        ("Frobnicate", "no int8 kernel for Frobnicate on this provider", "replace it"),
        ("Conv", "Conv is declared float", "select [middle0] in a quantize stage"),
    ],
)
def test_a_float_operator_between_int8_ones_is_named_with_cause_and_cure(name, cause, cure):
    (found,) = island_of(name)
    assert (found.operators, found.modules, found.place) == ((name,), ("middle0",), "between")
    assert found.nodes == {1, 2, 3}  # the conversions on both sides are its cost
    (remedy,) = found.remedies
    assert cause in remedy.cause
    assert cure in remedy.cure
    if "exclude" in remedy.cure:
        assert "`exclude: [before]`" in remedy.cure


def test_an_operator_that_is_written_out_goes_by_its_name_in_the_file():
    (found,) = island_of("HardSigmoid", "Mul", source={"HardSwish"})
    assert found.operators == ("HardSwish", "Mul")
    (known,) = island_of("HardSigmoid", source={"HardSigmoid"})
    assert known.operators == ("HardSigmoid",)


def test_the_helper_before_a_float_product_is_not_blamed():
    (found,) = island_of("Clip", "ConvTranspose")
    assert (found.operators, found.modules) == (("ConvTranspose",), ("middle1",))
    (alone,) = island_of("Clip")
    assert alone.operators == ("Clip",)


@pytest.mark.parametrize(
    ("inlet", "cause", "cure"),
    [
        ("uint16", "activations of 16 bits have no integer kernels", "`activations: int8`"),
        ("int4", "make the file smaller, not faster", "`weights: int8`"),
    ],
)
def test_formats_without_kernels_are_the_cause(inlet, cause, cure):
    (found,) = island_of("Conv", inlet=inlet)
    assert [cause in found.remedies[0].cause, cure in found.remedies[0].cure] == [True, True]


def test_products_of_two_activations_and_unfused_weights_are_told_apart():
    nodes = [
        GraphNode("c", "QLinearConv", ("x",), ("t",)),
        GraphNode("da", "DequantizeLinear", ("t", "s", "z"), ("a",)),
        GraphNode("dw", "DequantizeLinear", ("w", "s", "z"), ("b",)),
        GraphNode("m", "MatMul", ("a", "b"), ("y",)),
    ]
    graph = Graph(
        tuple(nodes), {"w": ConstantTensor((4, 4), "int8"), "z": ConstantTensor((), "int8")}
    )
    annotated = AnnotatedGraph(
        graph, ["int8", "convert", "convert", "float"], [False, True, True, True], ["m"] * 4, set()
    )
    (found,) = find_islands(annotated)
    assert found.place == "end"
    assert "MatMul has int8 weights" in found.remedies[0].cause
    assert "(`activations: float32`)" in found.remedies[0].cure
    computed = replace(annotated, graph=Graph(tuple(nodes), {"z": ConstantTensor((), "int8")}))
    assert "a product of two activations" in find_islands(computed)[0].remedies[0].cause


def test_inserted_transpositions_are_named_with_who_asks_for_them():
    nodes = [
        GraphNode("c", "QLinearConv", ("x",), ("t1",)),
        GraphNode("", "Transpose", ("t1",), ("t2",)),
        GraphNode("", "DequantizeLinear", ("t2",), ("t3",)),
        GraphNode("", "Resize", ("t3",), ("y",)),
    ]
    kinds, floats = ["int8", "layout", "convert", "float"], [False, False, True, True]
    annotated = AnnotatedGraph(
        Graph(tuple(nodes), {}), kinds, floats, ["a", "a", "a", "b"], {"Conv", "Resize"}
    )
    resize, flips = find_islands(annotated)
    assert resize.operators == ("Resize",)
    assert flips.operators == ("Transpose",)
    assert "channels-last here, and Resize do not" in flips.remedies[0].cause
    assert "`exclude`" in flips.remedies[0].cure
    own = replace(annotated, source_operators={"Conv", "Resize", "Transpose"})
    assert len(find_islands(own)) == 1


def test_a_float_model_has_no_islands():
    nodes = (GraphNode("c", "Conv", ("x",), ("y",)), GraphNode("g", "Gelu", ("y",), ("z",)))
    annotated = AnnotatedGraph(Graph(nodes, {}), ["float"] * 2, [True] * 2, [None] * 2, set())
    assert find_islands(annotated) == []


# -- the sentence -----------------------------------------------------------------------------


def time(share, seconds=1e-3):
    return Time(seconds * share, share, (share, share))


def made(name="int8.onnx", verdict="reference", speedup=1.0, **kinds):
    shares = dict.fromkeys(("int8", "float", "convert", "layout", "move", "outside"), 0.0) | kinds
    return Profile(
        name=name,
        processes=5,
        batch=1,
        latency_s=1e-3,
        ci95_latency_s=(0.9e-3, 1.1e-3),
        speedup=speedup,
        ci95_speedup=(speedup * 0.95, speedup * 1.05),
        verdict=verdict,
        int8_mac_fraction=0.5,
        kinds={kind: time(share) for kind, share in shares.items()},
        modules=(
            OperatorGroup("stem", {"Conv": 1}, time(0.6)),
            OperatorGroup("head", {"Gemm": 2}, time(0.4)),
        ),
        operators=(OperatorGroup("Conv", {"Conv": 1}, time(0.6)),),
        islands=(),
        changes=(),
        settings=(),
        summary="",
    )


FP32 = made("fp32.onnx", float=0.9, layout=0.02)
ISLAND = Island(("Gelu",), ("act",), "between", (Remedy("no kernel", "replace it"),), time(0.2))


def said(own, ratio=None, *, integers=True, dot_product=False):
    kernels = ratio and Ratio(ratio, Interval(ratio * 0.98, ratio * 1.02), 0.02, 0.0)
    return summary(ProfileComparison(own, FP32, kernels, integers, dot_product))


def test_one_model_alone_is_described():
    alone = ProfileComparison(FP32, FP32, None, False, False)
    assert summary(alone) == (
        "fp32.onnx takes 1.00 ms, 90 % of it in float operators, 2 % of it in changes of layout; "
        "stem alone takes 60 %."
    )


def test_slower_int8_is_explained_by_its_largest_costs_first():
    own = made(verdict="slower", speedup=1 / 1.12, int8=0.3, convert=0.3, layout=0.08, float=0.2)
    assert said(replace(own, islands=(ISLAND,)), 0.7) == (
        "int8.onnx is 1.12x slower than fp32.onnx (95 % interval 1.07x to 1.18x): 38 % of its time "
        "is in Quantize/DequantizeLinear, casts and layout changes (2 % in fp32.onnx); its int8 "
        "kernels take 0.70 times as long as the float kernels in their place (95 % interval 0.69 "
        "to 0.71); 20 % stays in float operators (Gelu)."
    )


def test_slower_kernels_are_blamed_on_a_cpu_without_a_dot_product_only():
    own = made(verdict="slower", speedup=0.8, int8=0.9)
    assert "since this CPU has no dot product for bytes (VNNI)." in said(own, 1.3)
    assert "without a dot product for bytes (VNNI), int8 gains little" in said(own, 0.98)
    for has_it in (True, None):
        assert "VNNI" not in said(own, 1.3, dot_product=has_it)
    assert "VNNI" not in said(own, 0.5)


def test_faster_int8_says_how_much_and_what_is_left():
    own = made(verdict="faster", speedup=1.8, int8=0.6, outside=0.3)
    assert said(own, 0.5, dot_product=True) == (
        "int8.onnx is 1.80x faster than fp32.onnx (95 % interval 1.71x to 1.89x): its int8 kernels "
        "take 0.50 times as long as the float kernels in their place (95 % interval 0.49 to 0.51); "
        "30 % is spent outside of the operators, which no number format makes faster."
    )


def test_no_difference_and_noise_are_called_so():
    same = made(verdict="no difference shown", int8=0.9)
    assert said(same).startswith(
        "no difference is shown between int8.onnx and fp32.onnx (the 95 % interval of the speed-up "
        "is 0.95x to 1.05x)"
    )
    noisy = made(verdict="noisy", int8=0.9)
    assert said(noisy).startswith("the times are too noisy to tell int8.onnx from fp32.onnx")


def test_integers_that_are_only_stored_are_no_faster():
    own = made(verdict="no difference shown", float=0.9)
    assert said(own).endswith(
        "its weights are stored as integers and computed in float, which makes the file smaller "
        "and the arithmetic no faster."
    )
    unfused = made(verdict="slower", speedup=0.7, float=0.6, convert=0.3)
    remedied = replace(unfused, islands=(ISLAND,))
    assert ": none of it runs on int8 kernels; no kernel; 30 % of its time is in" in said(remedied)


def test_float_models_are_compared_by_module():
    shrunk = made("pruned.onnx", verdict="faster", speedup=1.5, float=0.9)
    moved = (ModuleChange("head", 1e-5, (-1e-5, 3e-5)), ModuleChange("stem", -4e-4, (-5e-4, -3e-4)))
    words = said(replace(shrunk, changes=moved), integers=False)
    assert words.endswith(": most of it in stem −400 µs.")
    same = made("same.onnx", verdict="no difference shown", float=0.9)
    assert said(same, integers=False).endswith("0.95x to 1.05x).")


@pytest.mark.parametrize(
    ("flags", "has_it"),
    [(["avx2"], False), (["avx2", "avx_vnni"], True), (["asimd", "asimddp"], True), ([], None)],
)
def test_the_processor_tells_whether_it_has_a_dot_product(flags, has_it):
    assert int8_dot_product({"isa": flags}) is has_it


# -- the whole of it --------------------------------------------------------------------------


class Islands(nn.Module):
    """Convolutions around what has no int8 kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.Hardswish()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.LayerNorm((8, 8))
        self.mix, self.up = nn.Conv2d(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.head = nn.Conv2d(8, 4, 3)

    def forward(self, x):
        x = self.norm(self.conv(self.act(self.stem(x))))
        return self.head(self.up(self.mix(x))).mean((2, 3))


@pytest.fixture
def few(monkeypatch):
    """Two processes for each model, and one for each way to open it."""
    monkeypatch.setattr(profiling, "PROCESSES", {"quick": 2})
    monkeypatch.setattr(profiling, "_SETTING_ROUNDS", 1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A net in float32 and in int8, lowered as a run lowers it."""
    folder = tmp_path_factory.mktemp("islands")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Candidate.of(Islands(), torch.randn(2, 3, 8, 8))
        data = torch.randn(8, 3, 8, 8)
    rule = QuantRule(format=LayerFormat(weights="int8", activations="int8"))
    paths = []
    for name, numerics in (("fp32", Numerics()), ("int8", Numerics((rule,)))):
        paths.append(folder / f"{name}.onnx")
        lower(
            replace(net, numerics=numerics),
            Lowering(avoid_saturation=True),
            calibration=[data],
            check=data,
            path=paths[-1],
        )
    return paths


def test_a_net_with_islands_is_profiled_from_its_files(pair, few, tmp_path, capsys):
    result = tmp_path / "profile.json"
    fp32, int8 = map(str, pair)
    assert main(["bench", "--profile", "--quick", fp32, int8, "--json", str(result)]) == 0
    printed = capsys.readouterr().out
    facts = json.loads(result.read_text())
    assert facts["schema"] == 1
    first, second = facts["models"]
    assert first["int8_mac_fraction"] == 0
    assert first["islands"] == []
    assert 0.5 < second["int8_mac_fraction"] < 1
    layers = {"stem", "conv", "norm", "mix", "up", "head"}
    for model in (first, second):
        modules = {part["name"]: part["operators"] for part in model["modules"]}
        assert layers <= set(modules)
        assert "(unnamed)" not in modules
        shares = [time["share"] for time in model["kinds"].values()]
        assert sum(shares) == pytest.approx(1, abs=0.02)
        assert [setting["name"] for setting in model["settings"]] == [
            *("as deployed", "without prepacking", "without arena"),
        ]
        assert all(setting["create_s"] > 0 for setting in model["settings"])
    named = {island["operators"][0]: island for island in second["islands"]}
    for name, module in (("HardSwish", "act"), ("LayerNormalization", "norm")):
        assert named[name]["modules"] == [module]
        assert named[name]["place"] == "between"
    assert named["ConvTranspose"]["modules"] == ["up"]
    for words in (
        "HardSwish, Mul in act, between int8 operators",
        "do: replace it by nn.ReLU or nn.SiLU, which have one, and train again, or keep",
        "before it in float too (`exclude: [stem]` in the quantize stage)",
        "LayerNormalization in norm, between int8 operators",
        "do: use a batch norm in its place",
        "ConvTranspose in up, between int8 operators",
        "do: build [up] from nn.Upsample and nn.Conv2d",
    ):
        assert words in printed
    assert printed.rstrip().endswith(second["summary"])
    assert "fp32.onnx" in second["summary"]


def test_a_file_that_fails_leaves_the_others_and_the_next_one_is_the_reference(
    few, truncated, one, two_inputs, monkeypatch
):
    monkeypatch.setattr(profiling, "_SETTINGS", {"as deployed": {}})
    failed, first, second = profile([truncated, one, two_inputs], LocalTarget(), "quick")
    assert isinstance(failed, Failure)
    assert failed.error.startswith("the file is cut off")
    assert first.verdict == "reference"
    assert second.verdict != "reference"
    assert "nothing in the file names its modules" in first.notes[0]
    shown = text([("truncated.onnx", failed), ("one.onnx", first)])
    assert shown.startswith("truncated.onnx\n  failed: the file is cut off")
    assert "note: nothing in the file" in shown


def test_a_target_that_takes_no_single_jobs_cannot_be_profiled(one):
    with pytest.raises(MeasurementError, match=r"'replay' cannot be profiled from here: copy"):
        profile([one], ReplayTarget())


def test_raw_samples_are_of_comparisons(one, capsys):
    assert main(["bench", "--profile", "--raw", "raw.jsonl", str(one)]) == 2
    assert "--raw keeps the samples of a comparison; with --profile, use --json." in (
        capsys.readouterr().err
    )


def test_a_comparison_is_written_as_json_too(one, truncated, hasty, tmp_path, capsys):
    result = tmp_path / "result.json"
    assert main(["bench", "--quick", str(one), str(truncated), "--json", str(result)]) == 1
    capsys.readouterr()
    measured, failed = json.loads(result.read_text())["models"]
    assert measured["latency"]["p50_s"] > 0
    assert measured["speedup"]["verdict"] == "baseline"
    assert failed["error"].startswith("the file is cut off")


def test_a_table_has_a_line_for_what_it_leaves_out():
    many = tuple(OperatorGroup(f"layer{i}", {"Conv": 1}, time(0.05)) for i in range(20))
    changed = (
        ModuleChange("layer0", 1e-4, (0.5e-4, 1.5e-4)),
        ModuleChange("layer1", 1e-5, (-1e-5, 3e-5)),
    )
    own = replace(made(int8=1.0), modules=many, islands=(ISLAND,) * 9, changes=changed)
    shown = text([("int8.onnx", own)])
    assert "8 more" in shown
    assert "layer12" not in shown
    assert "layer0  +100 µs  (50.0 µs to 150 µs)" in shown
    assert "layer1  +" not in shown
    assert "1 more: 20.0 % of the time" in shown
    assert "why: no kernel" in shown
    assert "do: replace it" in shown
