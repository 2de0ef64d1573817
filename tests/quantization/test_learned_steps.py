"""Steps that are learned with the weights: the paper's gradients, and the steps of the file."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress import Candidate, QuantizeStage, Recipe, TrainStage
from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.errors import SettingsError
from compress.quantization.clips import clip_weight
from compress.quantization.fakequant import fake_quantized_copy, learned_clips
from compress.quantization.formats.learned_steps import LearnedSteps
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.stage import formats_of
from compress.testing.nets import NETS
from compress.training.data import head

pytestmark = pytest.mark.fast

CASE = NETS["mlp"]
INTEGERS = ["int8", "int4", "int2"]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer_of(name):
    return LayerFormat(weights=name, learn_steps=True).weight_quantizer


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", INTEGERS)
def test_values_are_those_that_the_clip_gives_in_a_file(name, axis):
    weight, clip = numbers(5, 5, 3), (0.3, 0.5, 0.7, 0.9, 1.0)
    quantizer = quantizer_of(name)
    learned = quantizer.fake_quantize_learned(weight, torch.tensor(clip), axis=axis)
    fixed = LayerFormat(weights=name).weight_quantizer
    expected = fixed.fake_quantize(clip_weight(weight, clip, axis), axis=axis)
    assert torch.equal(learned, expected)


@pytest.mark.parametrize("name", INTEGERS)
def test_gradients_are_those_of_the_paper(name):
    """Equations 3 and 5 of the paper and its section 2.2, in numpy, for the logarithm of a step."""
    quantizer = quantizer_of(name)
    weight = numbers(2, 40).requires_grad_()
    logarithm = torch.tensor([0.4, 0.8]).log().requires_grad_()
    incoming = numbers(2, 40, seed=1)
    rounded = quantizer.fake_quantize_learned(weight, logarithm.exp(), axis=0)
    (rounded * incoming).sum().backward()

    w, levels = weight.detach().numpy().astype(np.float64), quantizer.levels
    step = np.array([[0.4], [0.8]]) * np.abs(w).max(1, keepdims=True) / levels
    scaled = w / step
    inside = np.abs(scaled) < levels
    of_step = np.where(inside, np.rint(scaled) - scaled, np.sign(scaled) * levels)
    g = 1 / np.sqrt(40 * levels)
    relative = g * (of_step * incoming.numpy()).sum(1) / step[:, 0]
    np.testing.assert_allclose(logarithm.grad.numpy(), relative, rtol=1e-3)
    np.testing.assert_array_equal(weight.grad.numpy(), np.where(inside, incoming.numpy(), 0))


def test_learning_begins_at_the_papers_step_or_at_the_largest_weight():
    weight = numbers(3, 50)
    weight[2] = 0
    fewest = quantizer_of("int2").initial_clip(weight, axis=0)
    rows = weight[:2].abs()
    torch.testing.assert_close(fewest[:2], 2 * rows.mean(1) / rows.amax(1))
    assert fewest[2] == 1
    assert quantizer_of("int8").initial_clip(weight, axis=0).tolist() == [1, 1, 1]


def test_a_channel_of_zeros_has_finite_gradients():
    weight, clip = torch.zeros(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    quantizer_of("int4").fake_quantize_learned(weight, clip, axis=0).sum().backward()
    assert torch.equal(weight.grad, torch.ones(2, 3))
    assert not clip.grad.any()


def test_only_integer_weights_have_a_step():
    for weights in ("float32", "float16", "float8"):
        with pytest.raises(SettingsError, match=rf"learn_steps is for integer .*: {weights}"):
            QuantizeStage(weights=weights, learn_steps=True)
    assert isinstance(quantizer_of("int4"), LearnedSteps)
    assert not LayerFormat(weights="int4").learns_clip


def test_stages_and_formats_that_do_not_learn_are_written_as_before():
    assert "learn_steps" not in QuantizeStage().model_dump()
    assert "learn_steps" not in LayerFormat().model_dump()
    stage = QuantizeStage(weights="int4", learn_steps=True)
    assert QuantizeStage.model_validate(stage.model_dump()) == stage
    assert LayerFormat.model_validate(stage.format.model_dump()) == stage.format
    assert stage.explain().startswith("declare * as weights int4 with learned steps, activations i")
    [read] = Recipe.loads("stages: [{kind: quantize, weights: int4, learn_steps: true}]").stages
    assert read == stage


def test_recurrent_layers_keep_the_step_of_their_largest_weight(context):
    start = Candidate.of(Recurrent(), numbers(2, 5, 6))
    after = QuantizeStage(weights="int8", learn_steps=True).run(start, context)
    assert after.notes == ("steps of 'lstm' are not learned: recurrent layers",)
    clips = learned_clips(after.module, formats_of(after))
    assert list(clips.values()) == ["head"]


@pytest.mark.parametrize(
    ("activations", "safe"),
    [("float32", False), ("int8", False), ("int8", True), ("dynamic", True), ("int16", False)],
)
def test_the_file_has_the_learned_steps(activations, safe, start, context, tmp_path):
    stage = QuantizeStage(weights="int4", activations=activations, learn_steps=True)
    trained = TrainStage(epochs=3, batch_size=32, learning_rate=2e-2).run(
        stage.run(start, context), context
    )
    data = [batch.inputs for batch in [head(context.task.train, 64)]]
    made = lower(
        trained,
        Lowering(avoid_saturation=safe),
        calibration=data,
        check=data[0],
        path=tmp_path / "m.onnx",
    )  # it compares the file with the simulation
    assert made.parity.r_squared > 0.99
    clips = [format.clip for format in formats_of(trained).values()]
    assert all(clips)
    assert min(min(clip) for clip in clips) < 0.99
    if activations == "float32":
        stored = [
            numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer
        ]
        for name, format in formats_of(trained).items():
            weight = trained.module.get_submodule(name).weight.detach().numpy()
            steps = np.array(format.clip) * np.abs(weight).max(1) / 7
            same = [a for a in stored if a.size == steps.size and np.allclose(a.ravel(), steps)]
            assert same, name


def test_learned_steps_train_a_ternary_net_at_least_as_well(start, context):
    def loss_of(candidate):
        batch = head(context.task.test, len(context.task.test))
        module = fake_quantized_copy(candidate.module, formats_of(candidate))
        with torch.no_grad():
            return float(nn.functional.cross_entropy(module(batch.inputs), batch.labels))

    train = TrainStage(epochs=6, batch_size=32, learning_rate=5e-3)
    trained, losses = train.run(start, context), {}
    for learn in (False, True):
        stage = QuantizeStage(weights="int2", activations="float32", learn_steps=learn)
        losses[learn] = loss_of(train.run(stage.run(trained, context), context))
    assert losses[True] < 1.1 * losses[False]


def test_the_clips_of_an_average_are_those_that_were_validated(start, context):
    stage = QuantizeStage(weights="int2", activations="float32", learn_steps=True)
    train, events = TrainStage(epochs=3, batch_size=32, learning_rate=2e-2, ema=0.9), []
    after = train.run(stage.run(start, context), replace(context, report=events.append))
    batch = head(context.task.validation, len(context.task.validation))
    module = fake_quantized_copy(after.module, formats_of(after))
    with torch.no_grad():
        left = float(nn.functional.cross_entropy(module(batch.inputs), batch.labels))
    assert left == pytest.approx(events[-1]["validation_loss"], rel=1e-4)


def test_a_later_quantize_stage_starts_over(start, context):
    learning = QuantizeStage(weights="int4", activations="float32", learn_steps=True)
    trained = TrainStage(epochs=1).run(learning.run(start, context), context)
    again = learning.run(trained, context)
    assert not any(format.clip for format in formats_of(again).values())


def test_rules_of_learned_formats_are_resolved_as_any():
    layers = {"a": "Linear", "b": "Linear"}
    learning = LayerFormat(weights="int4", learn_steps=True)
    numerics = Numerics((QuantRule(format=learning),)).with_clips({"a": (0.5,)}, layers)
    assert numerics.resolve(layers) == {"a": learning.with_clip((0.5,)), "b": learning}
    assert learning.weights_only.learn_steps
