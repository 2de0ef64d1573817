"""ONNX files of strangers as teachers: opened whole at once, or one sentence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.distillation.onnx_teacher import open_teacher
from compress.errors import DataError, RecipeError

pytestmark = pytest.mark.fast

FLOAT = TensorProto.FLOAT


def built(nodes, inputs, outputs, weights=(), opset=20):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in dict(weights).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def negation(shape=("n", 4), kind=FLOAT, operator="Neg", opset=20):
    node = helper.make_node(operator, ["x"], ["y"])
    return built([node], {"x": (kind, shape)}, {"y": (kind, shape)}, opset=opset)


def product(location=None, offset=None, length=None):
    """A model whose weights lie in another file."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weight = {"w": np.eye(4, dtype=np.float32)}
    model = built([node], {"x": (FLOAT, ("n", 4))}, {"y": (FLOAT, ("n", 4))}, weight)
    if location is not None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        found = {"location": location, "offset": offset, "length": length}
        for key, value in found.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))
    return model


def optional():
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, (1, 4)))
    made = helper.make_graph(
        [helper.make_node("OptionalGetElement", ["x"], ["y"])],
        "g",
        [helper.make_value_info("x", kind)],
        [helper.make_tensor_value_info("y", FLOAT, (1, 4))],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


MODELS = [
    (product("gone.bin"), "its external data file 'gone.bin' is missing"),
    (product("../secret.bin"), "its external data '../secret.bin' lies outside of its folder"),
    (product("../../../../etc/passwd"), "lies outside of its folder, and is not read"),
    (product("/etc/passwd"), "its external data has an absolute path, which is not followed"),
    (product("link.bin"), "its external data 'link.bin' lies outside of its folder"),
    (product("folder"), "its external data 'folder' is no regular file"),
    (product(""), "External data location cannot be empty"),
    (product("data.bin", 2**62, 64), "t.onnx: "),
    (product("data.bin", -64, 64), "t.onnx: "),
    (product("data.bin", 0, 2**60), "t.onnx: "),
    (product("data.bin", "x", "y"), "t.onnx: "),
    (product("short.bin"), "its external data is cut off"),
    (negation(opset=999), "it needs opset 999, and this onnxruntime knows up to"),
    (negation(operator="Frobnicate"), "its operator Frobnicate does not exist in opset 20"),
    (negation((2**62, 4)), "takes a batch of 4,611,686,018,427,387,904, and 16,384 is the largest"),
    (negation((0, 4)), "which is a batch of no samples"),
    (built([], {}, {}), "its graph is empty"),
    (negation(operator="\x1b[31m\n"), r"\\x1b"),
    (
        built(
            [helper.make_node("Identity", ["b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])],
            {"x": (FLOAT, (1, 4))},
            {"b": (FLOAT, (1, 4))},
        ),
        "the graph is not acyclic",
    ),
]


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (folder / "data.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    (folder / "short.bin").write_bytes(bytes(10))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    return folder


@pytest.mark.parametrize(("model", "words"), MODELS, ids=range(len(MODELS)))
def test_a_teacher_that_cannot_be_opened_is_one_sentence(model, words, place, refused, capfd):
    (place / "t.onnx").write_bytes(model.SerializeToString())
    refused(lambda: open_teacher(place / "t.onnx", None), DataError, words)
    assert "EP Error" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is damaged, or no ONNX"),
        (b"not a model", "the file is damaged, or no ONNX"),
        (negation().SerializeToString()[:-9], "the file is damaged, or no ONNX"),
        (b"\x08\x0a\x3a\xff\xff\xff\xff\x07" + bytes(99), "the file is damaged, or no ONNX"),
        (b"\x2a\x02" * 5000, "the file is damaged, or no ONNX"),
        (negation().SerializeToString().replace(b"Neg", b"\xff" * 3), "the file is damaged, or no"),
    ],
    ids=range(6),
)
def test_a_file_that_is_no_onnx_is_one_sentence(content, words, place, refused, capfd):
    (place / "t.onnx").write_bytes(content)
    refused(lambda: open_teacher(place / "t.onnx", None), DataError, words)
    assert not capfd.readouterr().out


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        (optional(), DataError, r"its input 'x' is optional\(tensor\(float\)\)"),
        (negation((1, 2**62)), DataError, r"its input 'x' is float32 \(1, 4611686018427387904\)"),
        (negation((1, 5)), DataError, r"its input 'x' is float32 \(1, 5\) and the task gives"),
    ],
    ids=range(3),
)
def test_a_teacher_of_other_inputs_is_one_sentence(model, kind, words, place, refused):
    (place / "t.onnx").write_bytes(model.SerializeToString())
    teacher = open_teacher(place / "t.onnx", None)
    refused(lambda: teacher(torch.ones(3, 4)), kind, words)


def test_texts_cannot_teach(place, refused):
    model = negation((1, 4), TensorProto.STRING, "Identity")
    (place / "t.onnx").write_bytes(model.SerializeToString())
    words = r"the output 'y' is tensor\(string\)"
    refused(lambda: open_teacher(place / "t.onnx", None), RecipeError, words)


def test_external_data_of_any_name_is_part_of_the_teacher(place):
    path = place / "t.onnx"
    path.write_bytes(product("data.bin").SerializeToString())
    teacher = open_teacher(path, None)
    batch = torch.arange(8.0).reshape(2, 4)
    before = teacher.identity
    assert torch.equal(teacher(batch), batch)
    (place / "data.bin").write_bytes(2 * np.eye(4, dtype=np.float32))
    again = open_teacher(path, None)
    assert torch.equal(again(batch), 2 * batch)
    assert again.identity != before
    (place / "data.bin").unlink()
    with pytest.raises(DataError, match=r"'data\.bin' is missing"):
        open_teacher(path, None)


def test_a_teacher_in_one_file_is_known_as_before(place):
    onnx.save(negation(), place / "t.onnx")
    assert len(open_teacher(place / "t.onnx", None).identity.split()) == 2
