"""Teachers of several outputs: modules, files, functions and several of them, cached and mapped."""

import re
import sys
import types
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from compress import DistillStage, Recipe
from compress.config.references import CodeReferences
from compress.distillation.taught import Reading
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError, RecipeError, SettingsError, StageError
from compress.models.build import build_module
from compress.stages import fit as fitting
from compress.training.checkpoint import Checkpoint

from .two_heads import INPUTS, Plain, losses_of, net, placed, task_of

LOSSES = [{"kind": "l1", "on": "boxes"}, {"kind": "response", "on": "scores"}]
MAPPED = {"boxes": "b", "scores": "s"}
SAME, OTHER = net(Plain, seed=1), net(Plain, seed=1, names=("b", "s"))


@torch.no_grad()
def named(inputs):
    return OTHER(inputs)


@torch.no_grad()
def places(inputs):
    return tuple(SAME(inputs).values())


@torch.no_grad()
def soft(inputs):
    return {"boxes": SAME(inputs)["boxes"], "scores": SAME(inputs)["scores"].softmax(1)}


@torch.no_grad()
def alone(inputs):
    return SAME(inputs)["scores"]


def short(inputs):
    return {"boxes": torch.zeros(1, 4), "scores": torch.zeros(len(inputs), 3)}


def nothing(inputs):
    return {"boxes": "none"}


def large(inputs):
    return {"boxes": torch.full((len(inputs), 4), 1e5), "scores": torch.zeros(len(inputs), 3)}


def changing(inputs):
    given = {"boxes": torch.zeros(len(inputs), 4), "scores": torch.zeros(len(inputs), 3)}
    return given if len(inputs) < 4 else {**given, "scores": torch.zeros(len(inputs), 2)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    module = types.ModuleType("named_parts")
    for part in (named, places, soft, alone, short, nothing, large, changing, Plain):
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, "named_parts", module)
    references = CodeReferences(frozenset({"named_parts"}))
    start, context, events = placed(net(Plain), tmp_path / "stage", task_of(), SAME)
    build = partial(build_module, references=references)
    return start, replace(context, references=references, build=build), events


def linear(path, names):
    """An ONNX file that computes what ``SAME`` does."""
    nodes, weights, outputs = [], [], []
    for name, layer in zip(names, (SAME.boxes, SAME.scores), strict=True):
        array = {"w": layer.weight.detach().numpy(), "c": layer.bias.detach().numpy()}
        weights += [numpy_helper.from_array(one, f"{key}-{name}") for key, one in array.items()]
        nodes.append(helper.make_node("Gemm", ["x", f"w-{name}", f"c-{name}"], [name], transB=1))
        shape = ["n", len(layer.bias)]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", INPUTS])
    graph = helper.make_graph(nodes, "linear", [taken], outputs, weights)
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def block_of(kind, folder):
    """A teacher that gives what ``SAME`` does, by other names, of one kind or another."""
    if kind == "module":
        save_file(SAME.state_dict(), folder / "t.safetensors")
        arch = {"arch": "named_parts:Plain", "names": ["b", "s"]}
        return {**arch, "weights": folder / "t.safetensors", "outputs": MAPPED}
    if kind == "onnx":
        return {"onnx": linear(folder / "t.onnx", ("b", "s")), "outputs": MAPPED}
    if kind == "places":
        return {"callable": "named_parts:places", "outputs": {"boxes": "0", "scores": "1"}}
    if kind == "several":
        return [block_of("onnx", folder), {**block_of("places", folder), "weight": 3.0}]
    return {"callable": "named_parts:named", "outputs": MAPPED}


def trained(place, losses=LOSSES, **settings):
    start, context, _ = place
    settings = {"epochs": 2, "batch_size": 16, "losses": losses, **settings}
    stage = DistillStage(**settings)
    stage.rehearse(start, context)
    return stage.run(start, context).module.state_dict()


KINDS = ["module", "onnx", "named", "places", "several"]


@pytest.mark.parametrize("views", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_of_other_names_teaches_as_one_of_the_same(kind, views, place, tmp_path):
    wanted = trained(place, views=views)
    found = trained(place, views=views, teacher=block_of(kind, tmp_path))
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_by_default_are_on_mapped_outputs(kind, place, tmp_path):
    start, context, _ = place
    stage = DistillStage(epochs=1, batch_size=16, teacher=block_of(kind, tmp_path))
    assert "logits-mse on boxes" in stage.run(start, context).notes[0]


def test_a_recipe_with_named_outputs_is_read_and_written(place, tmp_path):
    linear(tmp_path / "t.onnx", ("b", "s"))
    text = """
name: heads
stages:
- kind: train
  epochs: 1
  batch_size: 16
  losses:
  - {kind: label, on: boxes}
  - {kind: label, on: scores, weight: 0.5}
- kind: distill
  epochs: 1
  batch_size: 16
  teacher: {onnx: t.onnx, outputs: {boxes: b, scores: s}}
  losses: [{kind: l1, on: boxes}, {kind: response, on: scores}]
"""
    (tmp_path / "r.yaml").write_text(text)
    recipe = Recipe.load(tmp_path / "r.yaml")
    assert Recipe.loads(recipe.dumps()).stages == recipe.stages
    start, context, events = place
    for stage in recipe.stages:
        stage.rehearse(start, context)
        start = stage.run(start, context)
    means = [list(one) for one in losses_of(events)]
    assert means == [["label(boxes)", "label(scores)"], ["l1(boxes)", "response(scores)"]]


def test_the_word_on_is_a_key_in_quotes_and_without():
    blocks = ["on: boxes", "'on': boxes", '"on": boxes']
    texts = [f"name: a\nstages: [{{kind: train, losses: [{{kind: label, {x}}}]}}]" for x in blocks]
    stages = [Recipe.loads(text).stages for text in texts]
    assert stages[0] == stages[1] == stages[2]
    assert stages[0][0].losses[0].on == "boxes"


def test_the_only_output_of_a_teacher_is_for_the_one_that_a_loss_names(place):
    losses = [{"kind": "response", "on": "scores"}]
    wanted = trained(place, losses)
    found = trained(place, losses, teacher={"callable": "named_parts:alone"})
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_from_probabilities_is_of_the_outputs_that_are(place):
    block = {"callable": "named_parts:soft", "from_probabilities": ["scores"]}
    wanted, found = trained(place), trained(place, teacher=block)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


WRONG = {
    "a name that the teacher lacks": (
        {"callable": "named_parts:named", "outputs": {"boxes": "box"}},
        RecipeError,
        (
            "teacher.outputs: the teacher named_parts:named has no output 'box', from which "
            "'boxes' of the student is to learn; its outputs are b, s."
        ),
    ),
    "a name that the student lacks": (
        {"callable": "named_parts:named", "outputs": {"box": "b", "scores": "s"}},
        RecipeError,
        (
            "teacher.outputs: the student has no output 'box', which is to learn from the "
            "teacher's 'b'; the student's outputs are boxes, scores."
        ),
    ),
    "other names": (
        {"callable": "named_parts:named"},
        DataError,
        (
            "the loss 'response' is about the student's output 'scores', and the teacher gives b, "
            "s; say in the teacher's block which one teaches it: outputs: {scores: b}."
        ),
    ),
    "probabilities": (
        {"callable": "named_parts:soft"},
        RecipeError,
        (
            "the loss 'response' takes logits, and the teacher named_parts:soft returns "
            "probabilities; add `from_probabilities: [scores]` to its block, to learn from their "
            "logarithm, or leave its softmax out."
        ),
    ),
    "no probabilities": (
        {"callable": "named_parts:soft", "from_probabilities": ["boxes", "scores"]},
        RecipeError,
        (
            "teacher.from_probabilities: the teacher named_parts:soft gives none in 'boxes': "
            "probabilities, (n, classes, ...), are at least 0 and sum to 1 over two classes or "
            "more;"
        ),
    ),
    "probabilities of an output that is not there": (
        {"callable": "named_parts:soft", "from_probabilities": ["score"]},
        RecipeError,
        (
            "teacher.from_probabilities: the teacher named_parts:soft has no output 'score'; its "
            "outputs are boxes, scores."
        ),
    ),
    "too few rows": (
        {"callable": "named_parts:short"},
        StageError,
        (
            "the teacher named_parts:short must return one tensor with 2 rows, one for each "
            "sample, or several by name; got (1, 4) for 'boxes'."
        ),
    ),
    "no tensors": (
        {"callable": "named_parts:nothing"},
        StageError,
        (
            "the teacher named_parts:nothing must return one tensor with 2 rows, one for each "
            "sample, or several by name; got dict."
        ),
    ),
    "an ensemble of other names": (
        [{"callable": "named_parts:named"}, {"callable": "named_parts:soft"}],
        DataError,
        (
            "teacher[0] gives b, s and teacher[1] gives boxes, scores; teachers that are averaged "
            "must have outputs of the same names: map them in their blocks, with outputs: "
            "{STUDENT'S: TEACHER'S}."
        ),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_names_are_one_sentence_with_those_of_both(case, place):
    block, error, message = WRONG[case]
    start, context, _ = place
    losses = LOSSES[:1] if isinstance(block, list) else LOSSES
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        DistillStage(teacher=block, losses=losses).rehearse(start, context)


def test_an_empty_mapping_is_refused():
    with pytest.raises(SettingsError, match="at least 1 item"):
        DistillStage(teacher={"callable": "a:b", "outputs": {}})


def test_a_teacher_without_a_mapping_is_written_as_before():
    written = DistillStage(teacher={"callable": "a:b", "from_probabilities": True}).model_dump()
    assert "outputs" not in written["teacher"]
    assert Reading(from_probabilities=True).suffix == " as logits"


# The cache.


def arrays(context):
    return sorted(path.name for path in (context.workdir / "answers").rglob("*.npy"))


def counted(module):
    calls = []
    module.register_forward_pre_hook(
        lambda _, args: calls.append(len(args[0])) if len(args[0]) > 4 else None
    )
    return frozen_teacher(module), calls


CACHED = {"epochs": 4, "batch_size": 16, "views": 2}


def test_each_output_is_cached_and_trains_as_without(place):
    start, context, _ = place
    teacher, calls = counted(net(Plain, seed=1))
    context = replace(context, teacher=teacher)
    stage = DistillStage(losses=LOSSES, **CACHED)
    found = stage.run(start, context).fingerprint
    assert arrays(context) == ["output-0.npy", "output-1.npy"] * 2 or len(arrays(context)) == 4
    assert sum(calls) == 2 * 48
    assert stage.run(start, context).fingerprint == found
    assert sum(calls) == 2 * 48
    with pytest.MonkeyPatch.context() as patch:
        cached = fitting.cached_teacher
        patch.setattr(fitting, "cached_teacher", lambda c, ls, d, _, s: cached(c, ls, d, None, s))
        assert stage.run(start, context).fingerprint == found


def test_only_the_outputs_that_losses_need_are_cached(place):
    start, context, _ = place
    DistillStage(losses=LOSSES[:1], **CACHED).run(start, context)
    assert set(arrays(context)) == {"outputs.npy"}
    [shape] = {np.load(one).shape for one in (context.workdir / "answers").rglob("*.npy")}
    assert shape == (48, 4)


def test_the_cache_of_one_output_is_not_that_of_another(place):
    start, context, _ = place
    teacher, calls = counted(net(Plain, seed=1))
    context = replace(context, teacher=teacher)
    for losses in (LOSSES[:1], LOSSES[1:], LOSSES):
        before = sum(calls)
        DistillStage(losses=losses, **CACHED).run(start, context)
        assert sum(calls) - before == 2 * 48


@pytest.mark.parametrize("damage", ["cut", "bytes", "missing", "unfinished"])
def test_damaged_outputs_are_computed_again(damage, place):
    start, context, events = place
    teacher, calls = counted(net(Plain, seed=1))
    context = replace(context, teacher=teacher)
    stage = DistillStage(losses=LOSSES, **CACHED)
    found = stage.run(start, context).fingerprint
    path = sorted((context.workdir / "answers").rglob("output-1.npy"))[0]
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-7])
    elif damage == "bytes":
        path.write_bytes(content[:-4] + b"\0\0\0\0")
    elif damage == "missing":
        path.unlink()
    else:
        (path.parent / "epoch.json").unlink()  # as if killed before the last write
    assert stage.run(start, context).fingerprint == found
    assert sum(calls) == 3 * 48
    texts = [event["text"] for event in events if event["event"] == "warning"]
    assert any("computed again" in text for text in texts) == (damage != "unfinished")


def test_float16_ends_by_output(place):
    start, context, _ = place
    losses = [{"kind": "l1", "on": "boxes"}, {"kind": "logits-mse", "on": "scores"}]
    stage = DistillStage(
        losses=losses,
        teacher={"callable": "named_parts:large"},
        cache={"dtype": "float16"},
        **CACHED,
    )
    message = "the teacher's outputs 'boxes' reach 1e+05, and float16 ends at 65504; set cache: "
    with pytest.raises(StageError, match=f"^{re.escape(message)}"):
        stage.run(start, context)


def test_outputs_of_changing_shape_are_named(place):
    start, context, _ = place
    losses = [{"kind": "l1", "on": "boxes"}, {"kind": "rkd-distance", "on": "scores"}]
    stage = DistillStage(losses=losses, teacher={"callable": "named_parts:changing"}, **CACHED)
    message = "the teacher's outputs 'scores' are (3,) for one sample and (2,) for another, which "
    with pytest.raises(StageError, match=f"^{re.escape(message)}"):
        stage.run(start, context)


@pytest.mark.parametrize("views", [None, 1])
def test_an_interrupted_training_resumes_with_several_outputs(views, place, tmp_path):
    start, context, events = place
    stage = DistillStage(
        epochs=3,
        batch_size=16,
        views=views,
        ema=0.9,
        losses=[*LOSSES, {"kind": "label"}, {"kind": "crd", "on": "boxes", "width": 8}],
    )
    whole = stage.run(start, replace(context, checkpoint=Checkpoint(tmp_path / "a", "key")))

    class Stopped(Exception):
        pass

    def stop(event):
        events.append(event)
        if event["event"] == "epoch" and event["epoch"] == 2:
            raise Stopped

    second = replace(context, checkpoint=Checkpoint(tmp_path / "b", "key"))
    with pytest.raises(Stopped):
        stage.run(start, replace(second, report=stop))
    resumed = []
    again = stage.run(start, replace(second, report=resumed.append))
    assert [event["event"] for event in resumed if event["event"] == "resumed"]
    assert again.fingerprint == whole.fingerprint
