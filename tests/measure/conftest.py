"""Tiny ONNX models, built by hand, that cover the shapes of inputs that models have."""

import itertools
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.measure.modes import PLANS


@pytest.fixture(autouse=True, scope="module")
def short_sessions():
    """None: sessions are what is tested here."""


@pytest.fixture(autouse=True, scope="module")
def scored_here():
    """Nothing is: processes are what is tested here."""


def write(path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def linear(path, batch, width=4):
    """x (batch, width) @ w -> y (batch, 3)."""
    w = np.arange(3 * width, dtype=np.float32).reshape(width, 3) / width
    return write(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, [batch, width])},
        {"y": (TensorProto.FLOAT, [batch, 3])},
        {"w": w},
    )


def tokens(path):
    """Embedded ids (n, length), masked and averaged: two inputs, open sizes, integers."""
    table = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    return write(
        path,
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["rows", "wide"], ["kept"]),
            helper.make_node("ReduceMean", ["kept", "middle"], ["y"], keepdims=0),
        ],
        {
            "ids": (TensorProto.INT64, ["n", "length"]),
            "mask": (TensorProto.FLOAT, ["n", "length"]),
        },
        {"y": (TensorProto.FLOAT, ["n", 5])},
        {"table": table, "last": np.array([2]), "middle": np.array([1])},
    )


def elementwise(path, op, shape, elem_type=TensorProto.FLOAT):
    """y = op(x), of the given shape."""
    return write(
        path,
        [helper.make_node(op, ["x"], ["y"])],
        {"x": (elem_type, shape)},
        {"y": (elem_type, shape)},
        {},
    )


def overflowing(path):
    """A u8s8 product whose pairs exceed 16 bits: positive activations, large weights."""
    return write(
        path,
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["y"], to=TensorProto.FLOAT),
        ],
        {"x": (TensorProto.FLOAT, [1, 64])},
        {"y": (TensorProto.FLOAT, [1, 16])},
        {"w": np.full((64, 16), 127, np.int8)},
    )


def summed(path):
    """One number for the whole batch (n, 4)."""
    return write(
        path,
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        {"x": (TensorProto.FLOAT, ["n", 4])},
        {"y": (TensorProto.FLOAT, [])},
        {},
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def one(folder):
    """A linear model at batch 1."""
    return linear(folder / "one.onnx", 1)


@pytest.fixture(scope="session")
def four(folder):
    """A linear model fixed at batch 4."""
    return linear(folder / "four.onnx", 4)


@pytest.fixture(scope="session")
def any_batch(folder):
    """A linear model that leaves the batch open."""
    return linear(folder / "any.onnx", "n")


@pytest.fixture(scope="session")
def two_inputs(folder):
    return tokens(folder / "tokens.onnx")


@pytest.fixture(scope="session")
def saturating(folder):
    return overflowing(folder / "overflowing.onnx")


@pytest.fixture(scope="session")
def total(folder):
    return summed(folder / "total.onnx")


@pytest.fixture(scope="session")
def truncated(folder, one):
    path = folder / "truncated.onnx"
    path.write_bytes(one.read_bytes()[:60])
    return path


@pytest.fixture(scope="session")
def build(folder):
    """Other models: ``build("Neg", [3])`` is the element-wise function on that shape."""

    def make(op, shape, elem_type=TensorProto.FLOAT):
        name = f"{op}-{'x'.join(map(str, shape))}-{elem_type}.onnx"
        return elementwise(folder / name, op, shape, elem_type)

    return make


@pytest.fixture(scope="session")
def summing(folder):
    """Models of many inputs: ``summing(x=[2, "n"], sr=[])`` adds all of them up to one number."""
    numbers = itertools.count()

    def make(elem_type=TensorProto.FLOAT, **shapes):
        nodes, last = [], ""
        for name in shapes:
            nodes.append(helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0))
            if last:
                nodes.append(helper.make_node("Add", [last, f"{name}_sum"], [f"to_{name}"]))
            last = f"to_{name}" if last else f"{name}_sum"
        nodes.append(helper.make_node("Identity", [last], ["y"]))
        inputs = {name: (elem_type, shape) for name, shape in shapes.items()}
        path = folder / f"summing-{next(numbers)}.onnx"
        return write(path, nodes, inputs, {"y": (elem_type, [])}, {})

    return make


@pytest.fixture(scope="session")
def product(folder):
    """Models that take a fixed size without saying so: ``product([1, "n"], 48)`` wants 1 x 48."""
    numbers = itertools.count()

    def make(shape, width):
        return write(
            folder / f"product-{next(numbers)}.onnx",
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="head")],
            {"x": (TensorProto.FLOAT, shape)},
            {"y": (TensorProto.FLOAT, [*shape[:-1], 3])},
            {"w": np.ones((width, 3), np.float32)},
        )

    return make


@pytest.fixture(scope="session")
def recurrent(folder):
    """A net of two layers whose state has them first: (2, batch, 8), beside frames (batch, 16)."""

    def make(batch):
        weights = np.random.default_rng(0).standard_normal((1, 24, 24)).astype(np.float32) / 8
        return write(
            folder / f"recurrent-{batch}.onnx",
            [
                helper.make_node("Slice", ["state", "zero", "one"], ["first"]),
                helper.make_node("Slice", ["state", "one", "two"], ["second"]),
                helper.make_node("Unsqueeze", ["frame", "zero"], ["frames"]),
                helper.make_node(
                    "GRU", ["frames", "w", "r", "", "", "first"], ["", "after"], hidden_size=8
                ),
                helper.make_node("Concat", ["after", "second"], ["next"], axis=0),
            ],
            {
                "frame": (TensorProto.FLOAT, [batch, 16]),
                "state": (TensorProto.FLOAT, [2, batch, 8]),
            },
            {"next": (TensorProto.FLOAT, [2, batch, 8])},
            {
                "w": weights[:, :, :16],
                "r": weights[:, :, 16:],
                **{name: np.array([place]) for place, name in enumerate(("zero", "one", "two"))},
            },
        )

    return make


@pytest.fixture(scope="session")
def wide(folder):
    """A linear model of more work than ``one``."""
    return linear(folder / "wide.onnx", 1, width=4096)


@pytest.fixture
def hasty(monkeypatch):
    """Real sessions of three rounds, however busy the machine that tests them is."""
    quick = replace(PLANS["quick"], max_rounds=3)
    monkeypatch.setattr("compress.measure.rounds.PLANS", {"quick": quick})
