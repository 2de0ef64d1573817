"""Several teachers as one."""

import sys
import types
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress import Candidate, DistillStage, PruneStage, Recipe
from compress.config.references import CodeReferences
from compress.distillation.losses.response import response
from compress.distillation.teachers import Ensemble, build_teacher, frozen_teacher
from compress.errors import DataError, RecipeError, SettingsError, StageError
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context

CASE = NETS["mlp"]
TASK = CASE.make_task()
OPTIONS = {**CASE.options, "classes": CASE.classes}

PARTS = {
    "low": lambda x: x[:, :4],
    "high": lambda x: 3 * x[:, 4:8],
    "narrow": lambda x: x[:, :3],
    "broken": lambda x: x[:1, :4],
}


@pytest.fixture
def start():
    return Candidate.of(CASE.build(), CASE.example())


@pytest.fixture
def context(start, tmp_path, monkeypatch):
    module = types.ModuleType("many_parts")
    vars(module).update(PARTS)
    monkeypatch.setitem(sys.modules, "many_parts", module)
    references = CodeReferences(frozenset({"many_parts"}))
    return replace(bench_context(start, tmp_path), task=TASK, references=references)


def several(*names, weights=None):
    weights = weights or [1] * len(names)
    return [
        {"callable": f"many_parts:{name}", "weight": weight}
        for name, weight in zip(names, weights, strict=True)
    ]


def outputs_of(block, context, inputs):
    return build_teacher(DistillStage(teacher=block).teacher, context)(inputs)


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.2, 0.6)])
def test_several_teachers_give_the_weighted_mean_of_their_outputs(weights, context):
    inputs = CASE.example(5)
    got = outputs_of(several("low", "high", weights=weights), context, inputs)
    first, second = (weight / sum(weights) for weight in weights)
    assert torch.allclose(got, first * PARTS["low"](inputs) + second * PARTS["high"](inputs))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_geometric_mean_of_distributions_at_every_temperature(temperature, context):
    inputs = CASE.example(5)
    got = (outputs_of(several("low", "high"), context, inputs) / temperature).softmax(1)
    parts = [(PARTS[n](inputs) / temperature).softmax(1) for n in ("low", "high")]
    mean = (parts[0] * parts[1]).sqrt()
    assert torch.allclose(got, mean / mean.sum(1, keepdim=True), atol=1e-6)


def test_a_list_of_one_is_that_one(context):
    inputs = CASE.example(5)
    assert torch.equal(outputs_of(several("low"), context, inputs), PARTS["low"](inputs))


def test_teachers_of_every_kind_go_together(start, context, tmp_path):
    path = tmp_path / "t.safetensors"
    save_file(CASE.build(seed=9).state_dict(), path)
    block = [*several("low"), {"arch": "mlp", "weights": path, **OPTIONS, "weight": 2}]
    inputs = CASE.example(5)
    with torch.no_grad():
        expected = (PARTS["low"](inputs) + 2 * CASE.build(seed=9)(inputs)) / 3
    assert torch.allclose(outputs_of(block, context, inputs), expected)
    stage = DistillStage(teacher=block, epochs=2, views=1)
    assert stage.run(start, context).fingerprint != start.fingerprint


@pytest.mark.parametrize("attempt", ["run", "rehearse"])
@pytest.mark.parametrize("kind", ["distill", "prune"])
def test_other_shapes_are_explained(kind, attempt, start, context):
    block = {"teacher": several("low", "high", "narrow")}
    stage = (
        DistillStage(**block)
        if kind == "distill"
        else PruneStage(finetune={**block, "losses": [{"kind": "response"}]})
    )
    message = r"outputs of teacher\[0\] are \(\d+, 4\) and those of teacher\[2\] are \(\d+, 3\)"
    with pytest.raises(DataError, match=message):
        getattr(stage, attempt)(start, context)


def test_one_with_wrong_outputs_is_named(start, context):
    with pytest.raises(StageError, match=r"many_parts:broken must return one tensor with \d+ rows"):
        DistillStage(teacher=several("low", "broken")).run(start, context)


def test_losses_of_features_say_that_they_need_one_module(start, context):
    hint = {"kind": "hint", "student": "layers.0", "teacher": "layers.0"}
    stage = DistillStage(teacher=several("low", "high"), losses=[hint])
    with pytest.raises(StageError, match=r"or several teachers only the outputs are known"):
        stage.run(start, context)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ([], r"at least 1 item"),
        ([{"onnx": "a.onnx", "weight": 0}], r"weight: should be greater than 0; got 0"),
        ([{"onnx": "a.onnx"}, {}], r"a teacher is one of onnx, callable, hf, or arch .*none of"),
        ([{"onnx": "a.onnx", "width": 3}], r"width goes with arch"),
        ({"onnx": "a.onnx", "weight": 2}, r"weight goes with arch"),
    ],
)
def test_wrong_lists_are_explained(block, message):
    recipe = {"name": "r", "stages": [{"kind": "distill", "teacher": block}]}
    import yaml

    with pytest.raises(RecipeError, match=message):
        Recipe.loads(yaml.safe_dump(recipe))
    with pytest.raises(SettingsError):
        DistillStage(teacher=block)


def test_lists_go_through_a_file_and_back(tmp_path):
    stage = DistillStage(teacher=[{"onnx": "a.onnx", "weight": 2.0}, {"callable": "m:f"}])
    recipe = Recipe(name="r", stages=(stage,))
    assert Recipe.loads(recipe.dumps(), imports=["m"]).stages == recipe.stages


def test_a_response_to_several_trains_toward_all(start, context):
    stage = DistillStage(
        teacher=several("low", "high"),
        losses=[{"kind": "response"}],
        epochs=12,
        batch_size=32,
        learning_rate=1e-2,
    )
    student = stage.run(start, context)
    inputs = TASK.test.inputs
    wanted = Ensemble((PARTS["low"], PARTS["high"]), (1, 1))(inputs)
    with torch.no_grad():
        before, after = (float(response(one.module(inputs), wanted)) for one in (start, student))
    assert after < 0.5 * before


@pytest.mark.parametrize(("width", "last"), [(8, True), (6, False)])
def test_a_teacher_lies_in_memory_as_what_is_trained_does(width, last):
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(2, 3, 5, 5)
    expected = net(x)
    answer = frozen_teacher(net, x)(x.contiguous(memory_format=torch.channels_last))
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last) == last
    torch.testing.assert_close(answer, expected)


class Viewing(nn.Module):
    """A net that takes its maps for a row of channels, as many published ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(72, 2)

    def forward(self, x):
        return self.head(self.conv(x).view(len(x), -1))


def test_a_teacher_that_views_its_maps_takes_any_memory_format():
    net, x = Viewing(), torch.randn(2, 3, 5, 5)
    expected = net(x)
    answer = frozen_teacher(net, x)(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(answer, expected)


def test_a_callable_may_change_its_batch(start, context):
    def change(inputs):
        return inputs.mul_(0)[:, :4]

    vars(sys.modules["many_parts"])["change"] = change
    inputs = CASE.example(3)
    before = inputs.clone()
    outputs_of({"callable": "many_parts:change"}, context, inputs)
    assert torch.equal(inputs, before)
