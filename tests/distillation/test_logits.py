"""Nets that answer with probabilities, where a loss takes logits."""

import sys
import types
from dataclasses import replace

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from compress import Candidate, DistillStage
from compress.config.references import CodeReferences
from compress.distillation.teachers import build_teacher, frozen_teacher, identity_of
from compress.errors import RecipeError, StageError
from compress.models.build import build_module
from compress.testing.nets import NETS

CASE = NETS["mlp"]
KINDS = ["response", "dkd", "dist", "topk-kl"]


class Sure(nn.Module):
    """A net with a softmax at its end."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.net = CASE.build(seed=seed)

    def forward(self, x):
        return self.net(x).softmax(1)


PARTS = {
    "Sure": Sure,
    "logits": lambda x: 3 * x[:, :4],
    "probabilities": lambda x: (3 * x[:, :4]).softmax(1),
    "labels": lambda x: nn.functional.one_hot(x[:, :4].argmax(1), 4).float(),
    "several": lambda x: x[:, :4].sigmoid(),
    "logarithms": lambda x: x[:, :4].log_softmax(1),
}


@pytest.fixture
def context(context, monkeypatch):
    module = types.ModuleType("sure_parts")
    vars(module).update(PARTS)
    monkeypatch.setitem(sys.modules, "sure_parts", module)
    references = CodeReferences(frozenset({"sure_parts"}))

    def build(architecture):
        return build_module(architecture, references)

    return replace(context, references=references, build=build)


def named(name, **keys):
    return {"callable": f"sure_parts:{name}", **keys}


def softmax_file(path, *, rounded=False):
    weight = numpy_helper.from_array(torch.eye(24, 4).numpy(), "w")
    nodes = [("MatMul", ["x", "w"], ["z"], {}), ("Softmax", ["z"], ["p"], {"axis": -1})]
    scale = numpy_helper.from_array(torch.tensor(1.02 / 256).numpy(), "s")
    zero = numpy_helper.from_array(torch.tensor(0, dtype=torch.uint8).numpy(), "o")
    if rounded:
        nodes += [("QuantizeLinear", ["p", "s", "o"], ["q"], {})]
        nodes += [("DequantizeLinear", ["q", "t", "o"], ["y"], {})]
    coarse = numpy_helper.from_array(torch.tensor(1.05 / 256).numpy(), "t")
    graph = helper.make_graph(
        [helper.make_node(kind, of, to, **options) for kind, of, to, options in nodes],
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info("y" if rounded else "p", TensorProto.FLOAT, ["n", 4])],
        [weight, scale, zero, coarse],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("attempt", ["run", "rehearse"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_of_probabilities_is_refused(kind, attempt, start, context):
    stage = DistillStage(teacher=named("probabilities"), losses=[{"kind": kind}])
    message = (
        rf"^the loss '{kind}' takes logits, and the teacher sure_parts:probabilities returns "
        r"probabilities; add `from_probabilities: true` to its block, to learn from their "
        r"logarithm, or leave its softmax out\.$"
    )
    with pytest.raises(RecipeError, match=message):
        getattr(stage, attempt)(start, context)


@pytest.mark.parametrize("rounded", [False, True])
def test_of_a_file_the_softmax_is_named(rounded, start, context, tmp_path):
    stage = DistillStage(teacher={"onnx": softmax_file(tmp_path / "t.onnx", rounded=rounded)})
    message = r"t\.onnx returns probabilities \(its output '[py]' is made by a Softmax\); add"
    with pytest.raises(RecipeError, match=message):
        stage.run(start, context)


def test_where_the_logits_are_an_output_they_are_named(start, context, tmp_path):
    path = softmax_file(tmp_path / "t.onnx")
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4]))
    onnx.save(model, path)
    stage = DistillStage(teacher={"onnx": path, "output": "p"})
    with pytest.raises(RecipeError, match=r"\(its output 'p' is the softmax of its output 'z'\)"):
        stage.run(start, context)


def test_one_of_several_is_named_by_its_place(start, context):
    stage = DistillStage(teacher=[named("logits"), named("probabilities")])
    with pytest.raises(RecipeError, match=r"and teacher\[1\] sure_parts:probabilities returns"):
        stage.run(start, context)


def test_a_checkpoint_with_a_softmax_is_refused(start, context, tmp_path):
    save_file(Sure().state_dict(), tmp_path / "t.safetensors")
    block = {"arch": "sure_parts:Sure", "weights": tmp_path / "t.safetensors"}
    with pytest.raises(RecipeError, match=r"and the teacher returns probabilities; add `from"):
        DistillStage(teacher=block).run(start, context)


def test_the_default_teacher_has_no_block_to_add_to(start, context):
    sure = replace(context, teacher=frozen_teacher(Sure()))
    with pytest.raises(RecipeError, match=r"; leave the softmax at the end of the model out\.$"):
        DistillStage().run(start, sure)


@pytest.mark.parametrize("name", ["logits", "several", "logarithms"])
def test_other_teachers_are_taken(name, start, context):
    trained = DistillStage(teacher=named(name)).run(start, context)
    assert trained.fingerprint != start.fingerprint


def test_labels_as_ones_and_zeros_are_probabilities(start, context):
    with pytest.raises(RecipeError, match="sure_parts:labels returns probabilities"):
        DistillStage(teacher=named("labels")).run(start, context)
    DistillStage(teacher=named("labels", from_probabilities=True)).run(start, context)


@pytest.mark.parametrize("kind", ["logits-mse", "hard", "l1", "rkd-distance"])
def test_losses_that_take_no_softmax_take_any_outputs(kind, start, context):
    DistillStage(teacher=named("probabilities"), losses=[{"kind": kind}]).run(start, context)


# -- from_probabilities -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_their_logarithm_teaches_what_the_logits_would(kind, start, context):
    def loss(teacher):
        events = []
        stage = DistillStage(teacher=teacher, losses=[{"kind": kind}])
        stage.run(start, replace(context, report=events.append))
        return next(event["loss"] for event in events if event["event"] == "epoch")

    of_logits = loss(named("logits"))
    assert loss(named("probabilities", from_probabilities=True)) == pytest.approx(
        of_logits, rel=1e-4
    )


def test_teachers_of_every_kind_take_the_key(start, context, tmp_path):
    inputs = CASE.example(5)
    save_file(Sure(seed=7).state_dict(), tmp_path / "t.safetensors")
    blocks = [
        {"arch": "sure_parts:Sure", "weights": tmp_path / "t.safetensors"},
        {"onnx": softmax_file(tmp_path / "t.onnx")},
        named("probabilities"),
    ]
    wanted = [CASE.build(seed=7)(inputs), inputs[:, :4], 3 * inputs[:, :4]]
    for block, logits in zip(blocks, wanted, strict=True):
        answers = [
            build_teacher(DistillStage(teacher={**block, **key}).teacher, context)
            for key in ({}, {"from_probabilities": True})
        ]
        assert torch.allclose(answers[1](inputs), logits.log_softmax(1), atol=1e-5)
        assert identity_of(answers[0]) != identity_of(answers[1])


def test_losses_still_look_inside_such_a_teacher(start, context, tmp_path):
    save_file(Sure().state_dict(), tmp_path / "t.safetensors")
    block = {"arch": "sure_parts:Sure", "weights": tmp_path / "t.safetensors"}
    hint = {"kind": "hint", "student": "layers.0", "teacher": "net.layers.0"}
    stage = DistillStage(
        teacher={**block, "from_probabilities": True}, losses=[hint, {"kind": "response"}]
    )
    stage.run(start, context)


def test_what_gives_none_does_not_take_the_key(start, context):
    stage = DistillStage(teacher=named("logits", from_probabilities=True))
    message = (
        r"^teacher\.from_probabilities: the teacher sure_parts:logits gives none: .*; the smallest "
        r"is -\d.*; leave the key out\.$"
    )
    with pytest.raises(RecipeError, match=message):
        stage.run(start, context)


def test_values_that_are_not_finite_are_named_as_such(start, context):
    vars(sys.modules["sure_parts"])["nan"] = lambda x: x[:, :4] * float("nan")
    with pytest.raises(StageError, match=r"values that are not finite \(outputs\)"):
        DistillStage(teacher=named("nan", from_probabilities=True)).run(start, context)


# -- students -----------------------------------------------------------------------------------


def test_a_student_of_probabilities_does_not_learn_logits(context):
    start = Candidate.of(Sure(), CASE.example())
    with pytest.raises(RecipeError, match=r"takes logits, as the teacher returns, and the student"):
        DistillStage(teacher=named("logits")).run(start, context)


def test_where_both_give_probabilities_the_row_says_so(context):
    events = []
    start = Candidate.of(Sure(), CASE.example())
    sure = replace(context, teacher=frozen_teacher(Sure(seed=2)), report=events.append)
    DistillStage(epochs=1, losses=[{"kind": "response"}]).run(start, sure)
    [said] = [event["text"] for event in events if event["event"] == "warning"]
    assert said == (
        "the loss 'response' takes logits, and student and teacher both return probabilities, "
        "from which the student learns slowly; leave the softmax at their ends out"
    )
