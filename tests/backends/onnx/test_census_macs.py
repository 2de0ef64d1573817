"""Multiply-accumulates against counts by hand, written out as arithmetic."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.backends.onnx.census import take_census

MICROSOFT = "com.microsoft"
RANDOM = np.random.default_rng(0)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weights(**shapes):
    return [
        numpy_helper.from_array(RANDOM.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def constant(name, numbers, kind=np.int64):
    return numpy_helper.from_array(np.array(numbers, kind), name)


def graph(nodes, inputs, outputs, stored=(), name="test"):
    return helper.make_graph(nodes, name, inputs, outputs, stored)


def model(body, functions=(), opset=21):
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    opsets += [helper.make_opsetid("own", 1)] if functions else []
    return helper.make_model(body, opset_imports=opsets, functions=functions, ir_version=10)


def census_of(made, folder, **more):
    path = folder / "model.onnx"
    onnx.save(made, path)
    return take_census(path, **more)


# -- recurrent --------------------------------------------------------------------------------

STEPS, BATCH, READ, STATE = 7, 3, 5, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(kind, directions=1, lengths=(), gates=None):
    rows = GATES[kind] * STATE
    inputs = ["x", "w", "r"]
    stored = weights(w=(directions, rows, READ), r=(directions, rows, STATE))
    if lengths:
        inputs += ["", "lengths"]
        stored.append(constant("lengths", lengths, np.int32))
    direction = "bidirectional" if directions == 2 else "forward"
    node = helper.make_node(kind, inputs, ["y"], hidden_size=STATE, direction=direction)
    made = graph([node], [value("x", [STEPS, BATCH, READ])], [value("y", None)], stored)
    return model(made)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_operators_multiply_inputs_and_states_at_every_step(kind, directions, tmp_path):
    census = census_of(recurrent(kind, directions), tmp_path)
    assert census.macs == STEPS * directions * GATES[kind] * STATE * (READ + STATE)
    assert census.float_macs == census.macs_by_operator == {kind: census.macs}
    assert census.int8_macs == 0


def test_no_step_is_taken_after_the_longest_sequence(tmp_path):
    census = census_of(recurrent("GRU", lengths=(2, 5, 1)), tmp_path)
    assert census.macs == 5 * 3 * STATE * (READ + STATE)


def test_lstm_of_onnxruntimes_dynamic_quantization_runs_in_int8(tmp_path):
    def small(name, shape, kind=np.int8):
        return numpy_helper.from_array(RANDOM.integers(-9, 9, shape).astype(kind), name)

    stored = [small("w", (1, READ, 4 * STATE)), small("r", (1, STATE, 4 * STATE))]
    stored += [constant("s", [0.1], np.float32), constant("z", [0], np.int8)]
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        ["x", "w", "r", "", "", "", "", "", "s", "z", "s", "z"],
        ["y"],
        domain=MICROSOFT,
        hidden_size=STATE,
    )
    made = graph([node], [value("x", [STEPS, BATCH, READ])], [value("y", None)], stored)
    census = census_of(model(made), tmp_path)
    assert census.macs == census.int8_macs == STEPS * 4 * STATE * (READ + STATE)
    assert census.weights == 4 * STATE * (READ + STATE)
    assert census.nonzero_weights == sum(
        np.count_nonzero(numpy_helper.to_array(tensor)) for tensor in stored[:2]
    )


# -- Einsum -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bti,io->bo", [(2, 5, 3), (3, 4)], 2 * 5 * 3 * 4),
        ("bqd,bkd", [(2, 5, 3), (2, 4, 3)], 2 * 5 * 4 * 3),
        ("...ij,...jk->...ik", [(2, 3, 4, 5), (1, 3, 5, 6)], 2 * 3 * 4 * 5 * 6),
        ("...i,io->...o", [(2, 3, 4), (4, 5)], 2 * 3 * 4 * 5),
        ("ij->ji", [(2, 3)], 0),  # moved, not multiplied
        ("ij->i", [(2, 3)], 0),  # summed, not multiplied
        # The first two, then what they made with the third: l is summed at once.
        ("bl,ld,de->be", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5),
        ("i,j,k->ijk", [(2,), (3,), (4,)], 2 * 3 + 2 * 3 * 4),
    ],
)
def test_einsum_multiplies_what_its_equation_says(equation, shapes, expected, tmp_path):
    names = [f"x{place}" for place in range(len(shapes))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    inputs = [value(name, shape) for name, shape in zip(names, shapes, strict=True)]
    census = census_of(model(graph([node], inputs, [value("y", None)])), tmp_path, batch=1)
    assert census.macs == expected


# -- attention --------------------------------------------------------------------------------

LENGTH, HEADS, SIZE, PAST = 6, 2, 4, 3
WIDTH = HEADS * SIZE
SCORES = LENGTH * LENGTH * WIDTH


@pytest.mark.filterwarnings("ignore")  # torch's own, while it exports
def test_attention_that_is_written_out(tmp_path):
    """Projections, scores and what they weigh, before and after onnxruntime's optimizer."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x):
            return self.inner(x, x, x, need_weights=False)[0]

    path = tmp_path / "model.onnx"
    program = torch.onnx.export(
        Attention().eval(), (torch.randn(2, LENGTH, WIDTH),), dynamo=True, verbose=False
    )
    program.save(str(path))
    census = take_census(path)
    assert census.macs == 4 * LENGTH * WIDTH * WIDTH + 2 * SCORES
    assert sum(census.float_macs.values()) == census.macs


def fused(operator, names, shapes, outputs=("y",), stored=(), domain=MICROSOFT, **attributes):
    node = helper.make_node(operator, names, outputs, domain=domain, **attributes)
    inputs = [value(name, shape) for name, shape in shapes.items()]
    return graph([node], inputs, [value(name, None) for name in outputs if name], stored)


ROWS = {"q": [1, LENGTH, WIDTH], "k": [1, LENGTH, WIDTH], "v": [1, LENGTH, WIDTH]}
KEPT = {"pk": [1, HEADS, PAST, SIZE], "pv": [1, HEADS, PAST, SIZE]}
ATTENTIONS = {
    "projected": (
        fused(
            "Attention", ["q", "w", "b"], {"q": ROWS["q"]}, num_heads=HEADS,
            stored=weights(w=(WIDTH, 3 * WIDTH), b=(3 * WIDTH,)),
        ),
        LENGTH * WIDTH * 3 * WIDTH + 2 * SCORES,
    ),
    "multi-head": (
        fused("MultiHeadAttention", ["q", "k", "v"], ROWS, num_heads=HEADS), 2 * SCORES
    ),
    "multi-head with a past": (
        fused(
            "MultiHeadAttention", ["q", "k", "v", "", "", "", "pk", "pv"], ROWS | KEPT,
            ("y", "nk", "nv"), num_heads=HEADS,
        ),
        2 * LENGTH * (LENGTH + PAST) * WIDTH,
    ),
    "of ONNX, rows": (
        fused(
            "Attention", ["q", "k", "v"], ROWS, domain="", q_num_heads=HEADS, kv_num_heads=HEADS
        ),
        2 * SCORES,
    ),
    "of ONNX, heads and a past": (
        fused(
            "Attention", ["q", "k", "v", "", "pk", "pv"],
            {name: [1, HEADS, LENGTH, SIZE] for name in "qkv"} | KEPT, ("y", "nk", "nv"), domain="",
        ),
        2 * LENGTH * (LENGTH + PAST) * WIDTH,
    ),
    "fewer keys than queries": (
        fused(
            "Attention", ["q", "k", "v"],
            {"q": [1, 4, LENGTH, SIZE], "k": [1, 2, 9, SIZE], "v": [1, 2, 9, 5]}, domain="",
        ),
        4 * LENGTH * 9 * (SIZE + 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTIONS)
def test_fused_attention_multiplies_queries_with_keys_and_scores_with_values(name, tmp_path):
    made, expected = ATTENTIONS[name]
    census = census_of(model(made, opset=23), tmp_path)
    assert (census.macs, census.int8_macs) == (expected, 0)
    assert census.notes == ()


def test_quantized_attention_has_its_projection_alone_in_int8(tmp_path):
    stored = [
        numpy_helper.from_array(RANDOM.integers(-9, 9, (WIDTH, 3 * WIDTH)).astype(np.int8), "w"),
        *weights(b=(3 * WIDTH,)),
        constant("s", 0.1, np.float32),
        constant("zx", 128, np.uint8),
        constant("zw", 0, np.int8),
    ]
    node = helper.make_node(
        "QAttention", ["q", "w", "b", "s", "s", "", "zx", "zw"], ["y"],
        domain=MICROSOFT, num_heads=HEADS,
    )  # fmt: skip
    inputs = [value("q", ROWS["q"], TensorProto.UINT8)]
    census = census_of(model(graph([node], inputs, [value("y", None)], stored)), tmp_path)
    assert census.int8_macs == LENGTH * WIDTH * 3 * WIDTH
    assert census.macs == census.int8_macs + 2 * SCORES


def test_grouped_attention_whose_inputs_say_how_much_is_kept(tmp_path):
    names = ["q", "k", "v", "pk", "pv", "lengths", "total"]
    node = helper.make_node(
        "GroupQueryAttention", names, ["y", "nk", "nv"],
        domain=MICROSOFT, num_heads=4, kv_num_heads=2,
    )  # fmt: skip
    shapes = {"q": [1, 1, 32], "k": [1, 1, 16], "v": [1, 1, 16]}
    shapes |= {"pk": [1, 2, PAST, 8], "pv": [1, 2, PAST, 8]}
    stored = [constant("lengths", [PAST], np.int32), constant("total", [PAST + 1], np.int32)]
    inputs = [value(name, shape) for name, shape in shapes.items()]
    outputs = [value(name, None) for name in ("y", "nk", "nv")]
    census = census_of(model(graph([node], inputs, outputs, stored)), tmp_path)
    assert census.macs == 2 * (PAST + 1) * 4 * 8


# -- few bits ---------------------------------------------------------------------------------

DEPTH, MADE, BLOCK = 64, 24, 32


def four_bits(level):
    packed = RANDOM.integers(0, 256, (MADE, DEPTH // BLOCK, BLOCK // 2)).astype(np.uint8)
    stored = [numpy_helper.from_array(packed, "w"), *weights(s=(MADE * DEPTH // BLOCK,))]
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain=MICROSOFT,
        K=DEPTH, N=MADE, bits=4, block_size=BLOCK, accuracy_level=level,
    )  # fmt: skip
    codes = np.stack([packed & 15, packed >> 4])
    return node, stored, int(np.count_nonzero(codes != 8))


@pytest.mark.parametrize(("level", "in_int8"), [(0, False), (1, False), (4, True)])
def test_weights_of_four_bits_in_bytes(level, in_int8, tmp_path):
    node, stored, left = four_bits(level)
    made = model(graph([node], [value("x", [5, DEPTH])], [value("y", None)], stored))
    census = census_of(made, tmp_path, batch=1)
    assert census.macs == 5 * DEPTH * MADE
    assert census.int8_macs == in_int8 * census.macs
    assert (census.weights, census.nonzero_weights) == (DEPTH * MADE, left)


def test_blocks_of_int4_become_a_product_that_rounds_its_input_to_int8(tmp_path):
    numbers = RANDOM.integers(-8, 8, (DEPTH, MADE))
    stored = [
        helper.make_tensor("w", TensorProto.INT4, numbers.shape, numbers.ravel().tolist()),
        *weights(s=(DEPTH // BLOCK, MADE)),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    made = model(graph(nodes, [value("x", [5, DEPTH])], [value("y", None)], stored))
    census = census_of(made, tmp_path, batch=1)
    assert census.macs == census.int8_macs == 5 * DEPTH * MADE
    assert census.nonzero_weights == np.count_nonzero(numbers)
    assert census.graph_bytes > 0


# -- bodies and functions ---------------------------------------------------------------------


def flag(name):
    return value(name, [], TensorProto.BOOL)


def loop(body_input="h", limit="passes"):
    """Six passes over a state of (2, 8)."""
    nodes = [
        helper.make_node("MatMul", ["h", "w"], ["next"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    states = [value("i", [], TensorProto.INT64), flag("go"), value("h", None)]
    body = graph(nodes, states, [flag("on"), value("next", None)], weights(w=(8, 8)), "body")
    return helper.make_node("Loop", [limit, "", "x"], ["y"], body=body)


def test_a_loop_multiplies_in_every_pass(tmp_path):
    stored = [constant("passes", 6)]
    made = graph([loop()], [value("x", [2, 8])], [value("y", None)], stored)
    census = census_of(model(made), tmp_path)
    assert census.macs == 6 * 8 * 8
    assert census.operators == {"Identity": 1, "Loop": 1, "MatMul": 1}
    assert (census.weights, census.notes) == (8 * 8, ())


def test_a_loop_whose_passes_the_inputs_decide_counts_once_and_says_so(tmp_path):
    inputs = [value("x", [2, 8]), value("passes", [], TensorProto.INT64)]
    census = census_of(model(graph([loop()], inputs, [value("y", None)])), tmp_path)
    assert census.macs == 8 * 8
    assert census.notes == ("the inputs decide how often a loop runs: those on zeros are counted.",)


def test_a_loop_that_does_not_run_on_zeros_counts_once_and_says_so(tmp_path):
    nodes = [helper.make_node("ReduceMax", ["n"], ["passes"], keepdims=0), loop()]
    inputs = [value("x", [2, 8]), value("n", [3], TensorProto.INT64)]
    census = census_of(model(graph(nodes, inputs, [value("y", None)])), tmp_path)
    assert census.macs == 8 * 8
    assert census.notes == ("the inputs decide how often a loop runs: one pass is counted.",)


def test_a_scan_multiplies_at_every_slice(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Add", ["m", "slice"], ["next"]),
        helper.make_node("Identity", ["next"], ["made"]),
    ]
    body = graph(
        nodes, [value("h", [2, 8]), value("slice", [2, 8])],
        [value("next", [2, 8]), value("made", [2, 8])], weights(w=(8, 8)), "body",
    )  # fmt: skip
    node = helper.make_node("Scan", ["h0", "x"], ["last", "all"], body=body, num_scan_inputs=1)
    made = graph(
        [node], [value("h0", [2, 8]), value("x", [5, 2, 8])],
        [value("last", None), value("all", None)],
    )  # fmt: skip
    census = census_of(model(made), tmp_path, batch=2)
    assert census.macs == 5 * 8 * 8


def branches(condition, stored=(), inputs=()):
    wide = graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("MatMul", ["a", "v"], ["b"]),
        ],
        [], [value("b", None)], weights(w=(8, 16), v=(16, 8)), "wide",
    )  # fmt: skip
    narrow = graph(
        [helper.make_node("MatMul", ["x", "u"], ["c"])],
        [], [value("c", None)], weights(u=(8, 8)), "narrow",
    )  # fmt: skip
    node = helper.make_node("If", [condition], ["y"], then_branch=wide, else_branch=narrow)
    return graph([node], [value("x", [2, 8]), *inputs], [value("y", None)], stored)


@pytest.mark.parametrize(("taken", "expected"), [(True, 2 * 8 * 16), (False, 8 * 8)])
def test_the_branch_that_is_taken_counts(taken, expected, tmp_path):
    stored = [constant("taken", taken, bool)]
    census = census_of(model(branches("taken", stored)), tmp_path)
    assert (census.macs, census.notes) == (expected, ())
    assert census.weights == 2 * 8 * 16 + 8 * 8


def test_the_larger_branch_counts_where_the_inputs_decide(tmp_path):
    census = census_of(model(branches("taken", inputs=[flag("taken")])), tmp_path)
    assert census.macs == 2 * 8 * 16
    assert census.notes == (
        "the inputs decide between branches: the one with more products counts.",
    )


def test_a_local_function_counts_at_every_call_and_its_weights_once(tmp_path):
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32))
    function = helper.make_function(
        "own", "Twice", ["a"], ["c"],
        [
            helper.make_node("Constant", [], ["k"], value=weight),
            helper.make_node("MatMul", ["a", "k"], ["b"]),
            helper.make_node("MatMul", ["b", "k"], ["c"]),
        ],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Twice", ["x"], ["y"], domain="own"),
        helper.make_node("Twice", ["y"], ["z"], domain="own"),
    ]
    made = graph(nodes, [value("x", [3, 8])], [value("z", None)])
    census = census_of(model(made, [function]), tmp_path)
    assert census.macs == 2 * 2 * 8 * 8
    assert census.weights == census.nonzero_weights == 8 * 8
    assert census.weight_bytes == {"float32": 4 * 8 * 8}
    assert census.operators == {"Constant": 1, "MatMul": 2, "Twice": 2}


# -- convolutions and matrices ----------------------------------------------------------------

CONVOLUTIONS = {
    "plain": ("Conv", (6, 4, 3, 3), {}, 6 * 8 * 8 * 4 * 9),
    "grouped": ("Conv", (6, 2, 3, 3), {"group": 2}, 6 * 8 * 8 * 2 * 9),
    "depthwise": ("Conv", (4, 1, 3, 3), {"group": 4}, 4 * 8 * 8 * 9),
    "transposed": ("ConvTranspose", (4, 6, 3, 3), {"strides": [2, 2]}, 4 * 10 * 10 * 6 * 9),
    "grouped transposed": ("ConvTranspose", (4, 3, 3, 3), {"group": 2}, 4 * 10 * 10 * 3 * 9),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_multiply_each_weight_of_a_group_at_each_place(name, tmp_path):
    kind, shape, attributes, expected = CONVOLUTIONS[name]
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    made = graph([node], [value("x", [2, 4, 10, 10])], [value("y", None)], weights(w=shape))
    assert census_of(model(made), tmp_path).macs == expected


def test_deformed_convolutions_multiply_as_others_do(tmp_path):
    node = helper.make_node("DeformConv", ["x", "w", "o"], ["y"], kernel_shape=[3, 3])
    inputs = [value("x", [2, 4, 10, 10]), value("o", [2, 18, 8, 8])]
    made = graph([node], inputs, [value("y", None)], weights(w=(6, 4, 3, 3)))
    assert census_of(model(made), tmp_path).macs == 6 * 8 * 8 * 4 * 9


def test_dynamic_quantization_runs_in_int8(tmp_path):
    stored = [
        numpy_helper.from_array(RANDOM.integers(-9, 9, (8, 5)).astype(np.int8), "w"),
        constant("s", 0.1, np.float32),
    ]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "xs", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "s"], ["scale"]),
        helper.make_node("Mul", ["f", "scale"], ["y"]),
    ]
    made = graph(nodes, [value("x", [3, 8])], [value("y", None)], stored)
    census = census_of(model(made), tmp_path)
    assert census.macs == census.int8_macs == 8 * 5


def test_what_is_the_same_in_every_run_or_never_read_is_not_counted(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["w", "v"], ["wv"]),  # worked out when the file is loaded
        helper.make_node("MatMul", ["x", "wv"], ["y"]),
        helper.make_node("MatMul", ["x", "w"], ["unread"]),
    ]
    stored = weights(w=(8, 6), v=(6, 5))
    made = graph(nodes, [value("x", [3, 8])], [value("y", None)], stored)
    assert census_of(model(made), tmp_path).macs == 8 * 5


def test_experts_multiply_the_rows_that_are_sent_to_them(tmp_path):
    stored = weights(one=(4, 32, 16), two=(4, 16, 32))
    node = helper.make_node("MoE", ["x", "p", "one", "", "two"], ["y"], domain=MICROSOFT, k=2)
    inputs = [value("x", [6, 16]), value("p", [6, 4])]
    census = census_of(model(graph([node], inputs, [value("y", None)], stored)), tmp_path, batch=1)
    assert census.macs == 6 * 2 * (32 * 16 + 16 * 32)


# -- batches ----------------------------------------------------------------------------------


def stateful(batch, first):
    """A net with a batch of rows and a state of two layers, given in either order."""
    stored = [*weights(w=(1, 24, 16), r=(1, 24, 8)), constant("a", [0]), constant("b", [1])]
    nodes = [
        helper.make_node("Slice", ["state", "a", "b"], ["h"]),
        helper.make_node("Unsqueeze", ["frame", "a"], ["seq"]),
        helper.make_node("GRU", ["seq", "w", "r", "", "", "h"], ["", "last"], hidden_size=8),
        helper.make_node("Concat", ["last", "h"], ["next"], axis=0),
    ]
    inputs = {"frame": value("frame", [batch, 16]), "state": value("state", [2, batch, 8])}
    ordered = [inputs.pop(first), *inputs.values()]
    return graph(nodes, ordered, [value("next", [2, batch, 8])], stored)


@pytest.mark.parametrize("batch", [1, 4, "free"])
@pytest.mark.parametrize("first", ["frame", "state"])
def test_a_state_with_its_layers_first_is_no_batch(batch, first, tmp_path):
    assert census_of(model(stateful(batch, first)), tmp_path).macs == 3 * 8 * (16 + 8)


def test_an_input_without_a_batch_is_one_sample(tmp_path):
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], axis=0),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "to"], ["y"]),
    ]
    stored = [*weights(w=(3 * 4 * 4, 10)), constant("to", [10])]
    made = graph(nodes, [value("x", [3, 4, 4])], [value("y", [10])], stored)
    assert census_of(model(made), tmp_path).macs == 3 * 4 * 4 * 10


def test_whoever_knows_the_batch_says_so(tmp_path):
    made = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", [6, 4, 8])],
        [value("y", None)],
        weights(w=(8, 5)),
    )
    assert census_of(model(made), tmp_path).macs == 4 * 8 * 5
    assert census_of(model(made), tmp_path, batch=4).macs == 6 * 8 * 5
