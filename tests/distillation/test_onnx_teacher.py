"""ONNX files as teachers: what they are asked, which output teaches, and what cannot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from compress import DistillStage, Recipe
from compress.distillation.teacher_settings import TeacherSettings
from compress.distillation.teachers import build_teacher
from compress.errors import DataError, RecipeError, SettingsError
from compress.testing.nets import NETS

CASE = NETS["mlp"]
WEIGHT = np.eye(24, 4, dtype=np.float32)

X = ("x", T.FLOAT, ["n", 24])
LOGITS = ("logits", T.FLOAT, ["n", 4])
PROBS = ("probs", T.FLOAT, ["n", 4])
PRODUCT = ("MatMul", ["x", "w"], ["logits"], {})
SOFTMAX = ("Softmax", ["logits"], ["probs"], {"axis": -1})
CLASSES = ("ArgMax", ["logits"], ["label"], {"axis": 1, "keepdims": 0})
LABEL = ("label", T.INT64, ["n"])


def write(path, nodes=(PRODUCT,), inputs=(X,), outputs=(LOGITS,), weight=WEIGHT):
    """An ONNX file of a few nodes; ``w`` is a weight of 24 by 4."""
    graph = helper.make_graph(
        [helper.make_node(kind, of, to, **options) for kind, of, to, options in nodes],
        "teacher",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [
            port if isinstance(port, onnx.ValueInfoProto) else helper.make_tensor_value_info(*port)
            for port in outputs
        ],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.onnx"


def teacher(context, path, **keys):
    return build_teacher(TeacherSettings(onnx=path, **keys), context)


@pytest.mark.parametrize("batch", ["n", 1, 7, 16])
def test_a_file_teaches_at_any_batch(batch, context, path):
    write(path, inputs=[("x", T.FLOAT, [batch, 24])], outputs=[("logits", T.FLOAT, [batch, 4])])
    inputs = CASE.example(10)
    assert torch.allclose(teacher(context, path)(inputs), inputs[:, :4], atol=1e-6)


def test_a_file_that_does_not_say_its_axes_teaches(context, path):
    write(path, inputs=[("x", T.FLOAT, None)], outputs=[("logits", T.FLOAT, None)])
    inputs = CASE.example(10)
    assert torch.allclose(teacher(context, path)(inputs), inputs[:, :4], atol=1e-6)


@pytest.mark.parametrize(("sort", "dtype"), [(T.FLOAT16, np.float16), (T.DOUBLE, np.float64)])
def test_other_floats_are_turned_into_the_tasks(sort, dtype, context, path):
    ports = {"inputs": [("x", sort, ["n", 24])], "outputs": [("logits", sort, ["n", 4])]}
    write(path, **ports, weight=WEIGHT.astype(dtype))
    inputs = CASE.example(10)
    answer = teacher(context, path)(inputs)
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, inputs[:, :4], atol=1e-2)


def tokens_file(path, sort=T.INT32):
    nodes = [("Gather", ["w", "ids"], ["rows"], {}), ("ReduceMean", ["rows"], ["y"], {"axes": [1]})]
    ports = {"inputs": [("ids", sort, ["n", 6])], "outputs": [("y", T.FLOAT, ["n", 1, 4])]}
    return write(path, nodes, **ports)


def test_whole_numbers_are_turned_into_the_files(context, path):
    ids = torch.tensor([[3] * 6, [9] * 6])
    answer = teacher(context, tokens_file(path))(ids)
    assert torch.equal(answer[:, 0], torch.from_numpy(WEIGHT)[[3, 9]])


def test_weights_in_a_file_beside_it_are_found(context, path):
    write(path)
    external = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save_model(onnx.load(path), path, **external)
    inputs = CASE.example(3)
    assert torch.allclose(teacher(context, path)(inputs), inputs[:, :4])
    (path.parent / "w.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=r"t\.onnx: its external data is cut off: .*copy it again"):
        teacher(context, path)
    (path.parent / "w.bin").unlink()
    with pytest.raises(DataError, match=r"t\.onnx: its external data file 'w\.bin' is missing"):
        teacher(context, path)


# -- files that cannot teach ---------------------------------------------------------------------


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert "ONNXRuntimeError" not in text
    return text


@pytest.mark.parametrize("content", [b"", b"nothing", "half"])
def test_a_damaged_file_is_named(content, context, path, capfd):
    whole = write(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(DataError, match=r"t\.onnx: .*the file is damaged, or no ONNX") as error:
        teacher(context, path)
    assert one_sentence(error)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "words"), [("no.onnx", "no such file"), ("", "is a folder, and a file is asked for")]
)
def test_a_file_that_is_not_there_is_named(name, words, context, path):
    with pytest.raises(RecipeError, match=rf"^teacher\.onnx: .*: th\w+ {words}|{words}\.$"):
        teacher(context, path.parent / name)


STATE = {
    "nodes": [PRODUCT, ("Add", ["logits", "h0"], ["y"], {})],
    "inputs": [X, ("h0", T.FLOAT, ["n", 4])],
    "outputs": [("y", T.FLOAT, ["n", 4])],
}
SEQUENCE = helper.make_tensor_sequence_value_info("y", T.FLOAT, ["n", 4])

CANNOT = {
    "no inputs": (
        {
            "nodes": [("Identity", ["w"], ["y"], {})],
            "inputs": [],
            "outputs": [("y", T.FLOAT, [24, 4])],
        },
        r"takes no inputs, so that its output is the same for all samples",
    ),
    "no outputs": ({"outputs": []}, r"the file has no output; export it with its scores"),
    "no samples": (
        {"inputs": [("x", T.FLOAT, [0, 24])]},
        r"takes x float32 \(0, 24\), which is a batch of no samples; export it with a batch of 1",
    ),
    "a state": (
        STATE,
        r"takes the inputs \['h0', 'x'\] and the task gives one tensor, .* no state",
    ),
    "other shape": (
        {"inputs": [("x", T.FLOAT, ["n", 8])], "weight": WEIGHT[:8]},
        r"its input 'x' is float32 \(n, 8\) and the task gives float32 \(n, 24\); export it for",
    ),
    "other rank": (
        {"inputs": [("x", T.FLOAT, ["n", None, 24])], "outputs": [("logits", T.FLOAT, None)]},
        r"its input 'x' is float32 \(n, \?, 24\) and the task gives float32 \(n, 24\)",
    ),
    "whole numbers": (
        {
            "nodes": [("Cast", ["ids"], ["x"], {"to": 1}), PRODUCT],
            "inputs": [("ids", T.INT64, ["n", 24])],
        },
        r"its input 'ids' is int64 \(n, 24\) and the task gives float32 \(n, 24\)",
    ),
    "texts": (
        {
            "nodes": [("Cast", ["text"], ["x"], {"to": 1}), PRODUCT],
            "inputs": [("text", T.STRING, ["n", 24])],
        },
        r"its input 'text' is tensor\(string\) \(n, 24\) and the task gives float32",
    ),
    "other shape inside": (
        {
            "inputs": [("x", T.FLOAT, ["n", "d"])],
            "weight": WEIGHT[:8],
        },
        r"the file takes x float32 \(n, d\); its operator MatMul.* fails on these inputs",
    ),
    "a mean": (
        {
            "nodes": [PRODUCT, ("ReduceMean", ["logits"], ["y"], {"axes": [0], "keepdims": 1})],
            "outputs": [("y", T.FLOAT, [1, 4])],
        },
        r"its output 'y' is \(1, 4\) for a batch of 3, and a teacher gives a row for each sample",
    ),
    "classes": (
        {"nodes": [PRODUCT, CLASSES], "outputs": [LABEL]},
        r"the output 'label' is int64 \(n\), and a teacher returns float32, .*; wrap it in a",
    ),
    "a sequence": (
        {"nodes": [PRODUCT, ("SequenceConstruct", ["logits"], ["y"], {})], "outputs": [SEQUENCE]},
        r"the output 'y' is seq\(tensor\(float\)\), and a teacher returns float32",
    ),
}


@pytest.mark.parametrize(("parts", "message"), CANNOT.values(), ids=CANNOT)
def test_a_file_that_cannot_teach_says_why(parts, message, context, path, capfd):
    write(path, **parts)
    with pytest.raises((DataError, RecipeError), match=message) as error:
        teacher(context, path)(CASE.example(3))
    assert one_sentence(error).startswith(f"teacher.onnx: {path}: ")
    assert capfd.readouterr().err == ""


def test_rows_that_are_too_many_are_not_cut_to_fit(context, path):
    nodes = [PRODUCT, ("Concat", ["logits", "logits"], ["y"], {"axis": 0})]
    write(path, nodes, outputs=[("y", T.FLOAT, ["m", 4])])
    with pytest.raises(DataError, match=r"its output 'y' is \(6, 4\) for a batch of 3"):
        teacher(context, path)(CASE.example(3))


def test_tokens_that_the_file_cannot_hold_are_not_cut_to_fit(context, path):
    nodes = [("Cast", ["ids"], ["x"], {"to": 1}), PRODUCT]
    write(path, nodes, inputs=[("ids", T.INT8, ["n", 24])])
    teach = teacher(context, path)
    assert teach(torch.full((2, 24), 127)).shape == (2, 4)
    with pytest.raises(DataError, match=r"'ids' is int8 \(n, 24\) and the task gives int64"):
        teach(torch.full((2, 24), 300))


def test_a_token_that_no_table_has_is_explained(context, path):
    with pytest.raises(DataError, match=r"reads row 99 of a table of 24: give ids that are in"):
        teacher(context, tokens_file(path))(torch.full((2, 6), 99))


def test_inputs_of_other_names_are_explained(context, path):
    named = {"a": torch.ones(2, 24), "b": torch.ones(2, 24)}
    with pytest.raises(
        DataError, match=r"takes the inputs \['x'\] and the task gives \['a', 'b'\], .*export it"
    ):
        teacher(context, write(path))(named)


def test_inputs_go_by_their_names(context, path):
    write(path, **STATE)
    x, state = torch.randn(3, 24), torch.randn(3, 4)
    answer = teacher(context, path)({"h0": state, "x": x})
    assert torch.allclose(answer, x[:, :4] + state)


# -- several outputs ----------------------------------------------------------------------------


SEVERAL = {"nodes": [PRODUCT, SOFTMAX, CLASSES], "outputs": [LABEL, PROBS, LOGITS]}


def test_a_file_of_several_outputs_gives_all_that_are_floats(context, path):
    write(path, **SEVERAL)
    inputs = CASE.example(5)
    given = teacher(context, path)(inputs)
    assert list(given) == ["probs", "logits"]
    assert torch.allclose(given["logits"], inputs[:, :4], atol=1e-6)
    assert torch.allclose(given["probs"], inputs[:, :4].softmax(1), atol=1e-6)


def test_outputs_are_mapped_and_the_others_are_not_computed(context, path):
    write(path, **SEVERAL)
    inputs = CASE.example(5)
    mapped = teacher(context, path, outputs={"scores": "probs"}, from_probabilities=["probs"])
    assert mapped.compute.outputs == ("probs",)
    given = mapped(inputs)
    assert list(given) == ["scores"]
    assert torch.allclose(given["scores"], inputs[:, :4].log_softmax(1), atol=1e-5)
    plain = teacher(context, path, output="probs")
    assert mapped.identity != plain.identity


def test_an_output_and_a_mapping_are_not_both_given(path):
    message = r"output takes one output of the file and outputs maps several; give one of the two"
    with pytest.raises(SettingsError, match=message):
        DistillStage(teacher={"onnx": path, "output": "a", "outputs": {"x": "a"}})


@pytest.mark.parametrize("name", ["logits", "probs"])
def test_the_output_that_is_named_teaches(name, context, path):
    write(path, **SEVERAL)
    inputs = CASE.example(5)
    logits = inputs[:, :4]
    answer = teacher(context, path, output=name)(inputs)
    assert torch.allclose(answer, logits if name == "logits" else logits.softmax(1), atol=1e-6)


def test_outputs_of_one_file_are_different_teachers(context, path):
    write(path, **SEVERAL)
    names = {teacher(context, path, output=name).identity for name in ("logits", "probs")}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("logit", r"^teacher\.output: .*t\.onnx: there is no 'logit'; the file has label int64"),
        ("label", r"the output 'label' is int64 \(n\), and .*float64; set `output: probs`\.$"),
    ],
)
def test_an_output_that_cannot_teach_is_refused(name, message, context, path):
    write(path, **SEVERAL)
    with pytest.raises(RecipeError, match=message):
        teacher(context, path, output=name)


def test_a_path_is_relative_to_the_recipe_and_goes_with_its_output(tmp_path, context, start):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write(folder / "t.onnx", **SEVERAL)
    text = "stages: [{kind: distill, teacher: {onnx: t.onnx, output: logits}}]\nname: r\n"
    (folder / "r.yaml").write_text(text)
    recipe = Recipe.load(folder / "r.yaml")
    assert recipe.stages[0].teacher.onnx == folder / "t.onnx"
    assert Recipe.loads(recipe.dumps()).stages == recipe.stages
    assert recipe.stages[0].run(start, context).fingerprint != start.fingerprint


def test_a_file_of_an_installed_package_teaches(context, tmp_path, monkeypatch):
    package = tmp_path / "some_models"
    package.mkdir()
    (package / "__init__.py").touch()
    write(package / "t.onnx")
    monkeypatch.syspath_prepend(tmp_path)
    inputs = CASE.example(3)
    answer = teacher(context, Path("package:some_models/t.onnx"))(inputs)
    assert torch.allclose(answer, inputs[:, :4])


@pytest.mark.parametrize("attempt", ["run", "rehearse"])
def test_plan_and_run_give_the_teacher_the_same(attempt, context, start, path):
    write(path, **SEVERAL)
    stage = DistillStage(teacher={"onnx": path})
    message = (
        r"^the loss 'dist' is about the student's only output, and the teacher gives probs, "
        r"logits; say in the teacher's block which one teaches it: outputs: \{output: probs\}\.$"
    )
    with pytest.raises(DataError, match=message):
        getattr(stage, attempt)(start, replace(context))
