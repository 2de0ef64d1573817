"""The student of image-to-image tasks: near to its input at first, in range, and in int8 alone."""

from __future__ import annotations

from dataclasses import replace

import onnxruntime
import pytest
import torch

from compress.artifact import Lowering
from compress.backends import ONNX
from compress.candidate import Candidate
from compress.errors import DataError, RecipeError
from compress.quantization.numerics import LayerFormat, QuantRule
from compress.stages import PruneStage
from compress.task import Task
from compress.testing.stage_contract import bench_context
from compress.zoo import build

SMALL = {"width": 8, "depth": 3, "blocks": 1}


def net(**options):
    torch.manual_seed(0)
    return build("mobile-unet", {**SMALL, **options}).eval()


def test_a_filter_begins_near_to_its_input():
    images = torch.rand(2, 3, 32, 48)
    made = net()(images).detach()
    assert made.shape == images.shape
    assert float((made - images).abs().max()) < 0.1


def test_pixels_are_cut_off_at_their_range_but_in_training():
    model = net()
    torch.nn.init.constant_(model.head.bias, 5.0)
    images = torch.rand(2, 3, 16, 16)
    assert float(model(images).detach().max()) == 1.0
    assert float(model.train()(images).detach().max()) > 1.0


def test_other_channels_are_outputs_of_any_kind():
    made = net(in_channels=1, classes=5)(torch.rand(2, 1, 16, 16))
    assert made.shape == (2, 5, 16, 16)
    assert float(made.detach().min()) < 0


def test_sizes_that_cannot_be_halved_are_named():
    with pytest.raises(DataError, match=r"3 halvings.* multiples of 8; got 32 by 20"):
        net()(torch.rand(1, 3, 32, 20))


def test_controls_are_named():
    model, images = net(controls={"strength": 1, "tint": 3}), torch.rand(2, 3, 16, 16)
    strength, tint = torch.rand(2, 1), torch.rand(2, 3)
    assert model(images, tint=tint, strength=strength).shape == images.shape
    with pytest.raises(DataError, match="its controls are strength, tint; it was given none"):
        model(images)
    with pytest.raises(DataError, match="its controls are none; it was given strength"):
        net()(images, strength=strength)


def samples_of(inputs):
    each = [{name: tensor[i] for name, tensor in inputs.items()} for i in (0, 1)]
    samples = [{**one, "label": one["image"]} for one in each]
    return Task("same", samples, samples, samples, outputs="image", metric="mse")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"depth": 7}, "depth must be from 2 to 6; got 7"),
        ({"controls": {"image": 1}}, "'image' cannot name a control"),
        ({"controls": {"a b": 1}}, "'a b' cannot name a control"),
        ({"controls": {"strength": 0}}, "controls.strength must be a whole number"),
    ],
)
def test_options_are_checked(options, problem):
    with pytest.raises(RecipeError, match=problem):
        net(**options)


def test_with_controls_it_is_cut_and_computes_in_int8_alone(tmp_path):
    model = net(controls={"strength": 1})
    inputs = {"image": torch.rand(2, 3, 32, 32), "strength": torch.tensor([[0.0], [1.0]])}
    start = Candidate.of(model, inputs)
    int8 = QuantRule(format=LayerFormat(weights="int8", activations="int8"))
    declared = replace(start, numerics=start.numerics.with_rule(int8))
    context = replace(bench_context(start, tmp_path), task=samples_of(inputs))
    cut = PruneStage(ratio=0.5, round_to=1).run(declared, context)
    assert cut.module.stem[0].weight.shape[0] < model.stem[0].weight.shape[0]
    path = tmp_path / "model.onnx"
    found = ONNX.lower(cut, Lowering(), calibration=[inputs], check=inputs, path=path)
    assert found.census.int8_mac_fraction == 1.0
    assert not found.census.float_islands
    session = onnxruntime.InferenceSession(path)
    assert [one.name for one in session.get_inputs()] == ["image", "strength"]
