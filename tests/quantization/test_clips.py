"""How far weights are clipped: part of a layer's format, and learned beside the weights."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from compress import Candidate, DistillStage, PruneStage, QuantizeStage, TrainStage
from compress.errors import CheckpointError, SettingsError
from compress.quantization.clips import clip_weight, fake_quantize_weight
from compress.quantization.fakequant import as_computed, learned_clips, simulate
from compress.quantization.formats import WEIGHTS
from compress.quantization.formats.uniform import IntegerWeights
from compress.quantization.numerics import FLOAT32, LayerFormat, Numerics, QuantRule
from compress.running.stage_runner import check_effects
from compress.stage import Effect, formats_of
from compress.testing.nets import NETS

pytestmark = pytest.mark.fast

CASE = NETS["mlp"]
LAYERS = {"a.b": "Linear", "c[0]": "Conv2d"}
INT4 = LayerFormat(weights="int4")
CLIPPED = INT4.with_clip((0.5, 1.0))


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Learning(IntegerWeights):
    """Integers whose clip has the gradient of the limit at which weights are clipped."""

    learns_clip: ClassVar[bool] = True

    def initial_clip(self, weight, *, axis):
        return torch.full((weight.shape[axis],), 0.75)

    def fake_quantize_learned(self, weight, clip, *, axis):
        shape = [1] * weight.dim()
        shape[axis] = -1
        limit = clip.reshape(shape) * weight.detach().abs().max()
        return torch.minimum(torch.maximum(weight, -limit), limit)


@pytest.fixture
def learning(monkeypatch):
    """int4 is a format that brings clips of its own to a training."""
    monkeypatch.setitem(WEIGHTS, "int4", Learning(bits=4, onnx_type="INT8"))


# -- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_clipped_to_a_share_of_the_largest_of_their_channel(axis):
    weight, clip = numbers(3, 3, 4), (0.25, 0.5, 1.0)
    rows = weight.movedim(axis, 0).flatten(1).numpy()
    limit = np.array(clip, dtype=np.float32)[:, None] * np.abs(rows).max(1, keepdims=True)
    found = clip_weight(weight, clip, axis).movedim(axis, 0).flatten(1)
    np.testing.assert_array_equal(found.numpy(), np.clip(rows, -limit, limit))


def test_without_a_clip_weights_are_as_they_are():
    weight = numbers(3, 4)
    assert clip_weight(weight, (), 0) is weight
    assert clip_weight(weight, (1.0,) * 3, 0).equal(weight)


def test_what_is_clipped_gets_no_gradient_and_the_limit_itself_does():
    weight = torch.tensor([[1.0, -4.0, 2.0, 0.0]], requires_grad=True)
    clip_weight(weight, (0.5,), 0).sum().backward()
    assert weight.grad.tolist() == [[1, 0, 1, 1]]


@pytest.mark.parametrize("name", [n for n, q in WEIGHTS.items() if q.is_integer])
def test_a_clipped_channel_has_a_finer_grid_that_moves_with_its_weights(name):
    weight, format = numbers(2, 60), LayerFormat(weights=name).with_clip((0.25, 1.0))
    fine, usual = (fake_quantize_weight(weight, f, axis=0) for f in (format, format.with_clip(())))
    limit = float(weight[0].abs().max()) / 4
    assert float(fine[0].abs().max()) == pytest.approx(limit)
    inside = weight[0].abs() <= limit
    errors = [float((each[0] - weight[0])[inside].square().mean()) for each in (fine, usual)]
    assert errors[0] < 0.5 * errors[1]
    assert torch.equal(fine[1], usual[1])
    times = torch.tensor([[8.0], [0.125]])
    assert torch.equal(fake_quantize_weight(weight * times, format, axis=0), fine * times)


def test_two_clipped_weights_of_one_sign_do_not_saturate_either():
    format = LayerFormat(weights="int8", activations="int8").with_clip((0.5,))
    weight = torch.tensor([[4.0, 3.5, -3.0, 0.1]])
    rounded = fake_quantize_weight(weight, format, axis=0, avoid_saturation=True)
    quantizer, clipped = format.weight_quantizer, clip_weight(weight, format.clip, 0)
    steps = rounded / quantizer.scale(clipped, axis=0, avoid_saturation=True)
    assert float(steps[0, :2].sum()) <= 128  # times 255 it is within 16 bits


def test_a_format_without_a_clip_is_written_as_before_there_were_any():
    assert set(LayerFormat().model_dump()) == {"weights", "activations", "calibration"}
    written = json.loads(CLIPPED.model_dump_json())
    assert written["clip"] == [0.5, 1.0]
    assert LayerFormat.model_validate(written) == CLIPPED


@pytest.mark.parametrize("clip", [[0.0], [1.5], [float("nan")], ["much"], [-1]])
def test_a_clip_is_a_share(clip):
    with pytest.raises(SettingsError):
        LayerFormat(weights="int4", clip=clip)


def test_the_clip_stays_where_only_the_weights_keep_their_format():
    format = LayerFormat(weights="int4", activations="dynamic").with_clip((0.5,))
    assert format.weights_only == LayerFormat(weights="int4").with_clip((0.5,))


# -- rules ----------------------------------------------------------------------------------------


def test_a_clip_is_of_one_layer_and_takes_the_place_of_an_earlier_one():
    numerics = Numerics((QuantRule(format=INT4),))
    once = numerics.with_clips({"a.b": (0.5,), "c[0]": (0.25,)}, LAYERS)
    assert {n: f.clip for n, f in once.resolve(LAYERS).items()} == {"a.b": (0.5,), "c[0]": (0.25,)}
    again = once.with_clips({"c[0]": (0.75,)}, LAYERS)
    assert again.resolve(LAYERS)["c[0]"] == INT4.with_clip((0.75,))
    assert again.resolve(LAYERS)["a.b"] == INT4.with_clip((0.5,))
    assert len(again.rules) == 3
    assert again.without_clips(["c[0]"]).resolve(LAYERS)["c[0]"] == INT4
    assert again.without_clips() == numerics
    assert numerics.with_clips({}, LAYERS) == numerics


def test_a_later_rule_ends_a_clip_and_another_net_has_none():
    numerics = Numerics((QuantRule(format=INT4),)).with_clips({"a.b": (0.5,)}, LAYERS)
    later = numerics.with_rule(QuantRule(format=INT4))
    assert later.resolve(LAYERS) == dict.fromkeys(LAYERS, INT4)
    assert numerics.carried_to(LAYERS) == (numerics.without_clips(), ())


def test_the_clip_of_a_layer_that_is_gone_is_left_out():
    numerics = Numerics((QuantRule(format=INT4),)).with_clips({"a.b": (0.5,)}, LAYERS)
    assert numerics.resolve({"c[0]": "Conv2d"}) == {"c[0]": INT4}


@pytest.mark.parametrize(
    ("layer", "clip"),
    [
        (nn.Linear(4, 2), (0.5, 1.0)),
        (nn.Linear(4, 3), ()),
        (nn.ConvTranspose2d(3, 2, 1), (0.5, 1.0)),
        (nn.Embedding(2, 8), (0.5, 1.0)),
        (nn.LSTM(4, 2), ()),
    ],
)
def test_a_clip_is_of_a_layer_with_as_many_channels(layer, clip):
    assert as_computed(layer, CLIPPED).clip == clip


# -- learning -------------------------------------------------------------------------------------


def test_formats_that_learn_nothing_bring_no_parameters():
    module = CASE.build()
    assert len(learned_clips(module, dict.fromkeys(["layers.0"], INT4))) == 0
    with pytest.raises(NotImplementedError, match="IntegerWeights has no clip that could be le"):
        INT4.weight_quantizer.initial_clip(torch.ones(2, 2), axis=0)
    with pytest.raises(NotImplementedError, match="IntegerWeights has no clip that could be le"):
        INT4.weight_quantizer.fake_quantize_learned(torch.ones(2, 2), torch.ones(2), axis=0)


def test_what_is_simulated_follows_the_parameters_and_reaches_them(learning):
    module = nn.Sequential(nn.Linear(6, 3))
    clips = learned_clips(module, {"0": INT4})
    assert clips.values() == {"0": pytest.approx((0.75,) * 3)}
    inputs = numbers(5, 6)
    with simulate(module, {"0": INT4}, {}, clips=clips):
        before = module(inputs)
        before.square().sum().backward()
        with torch.no_grad():
            clips.logarithms[0].sub_(1)
        after = module(inputs)
    assert all(p.grad is not None and p.grad.any() for p in clips.parameters())
    assert not torch.allclose(before, after)


def test_clips_begin_where_the_format_has_them_and_stay_within_bounds(learning):
    module = nn.Sequential(nn.Linear(6, 2))
    clips = learned_clips(module, {"0": CLIPPED})
    assert clips.values() == {"0": pytest.approx((0.5, 1.0))}
    with torch.no_grad():
        clips.logarithms[0].copy_(torch.tensor([3.0, -30.0]))
    clips.keep_within_bounds()
    assert clips.values() == {"0": pytest.approx((1.0, 2.0**-10))}


@pytest.fixture
def quantized(learning, start, context):
    return QuantizeStage(weights="int4", activations="float32").run(start, context)


def clips_of(candidate):
    return {name: f.clip for name, f in formats_of(candidate).items() if f.clip}


def test_training_leaves_its_clips_in_the_numerics(quantized, context, tmp_path):
    trained = TrainStage(epochs=2, batch_size=64).run(quantized, context)
    found = clips_of(trained)
    assert set(found) == set(formats_of(trained))
    assert all(0 < one <= 1 for clip in found.values() for one in clip)
    assert all(any(one != 0.75 for one in clip) for clip in found.values())
    assert not clips_of(quantized)
    check_effects(TrainStage(), quantized, trained)
    further = TrainStage(epochs=1).run(trained, context)
    assert clips_of(further) != found
    trained.save(tmp_path)
    loaded = Candidate.load(tmp_path, trained.example, lambda _: CASE.build())
    assert loaded.fingerprint == trained.fingerprint
    assert formats_of(loaded) == formats_of(trained)
    assert replace(trained, numerics=quantized.numerics).fingerprint != trained.fingerprint


def test_a_file_with_a_clip_that_is_none_is_refused(quantized, context, tmp_path):
    TrainStage(epochs=1).run(quantized, context).save(tmp_path)
    path = tmp_path / "candidate.json"
    facts = json.loads(path.read_text())
    facts["numerics"][-1]["format"]["clip"][0] = 2.5
    path.write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=r"not a saved candidate \(numerics.3.format.clip.0"):
        Candidate.load(tmp_path, quantized.example, lambda _: CASE.build())


def test_a_stage_that_does_not_train_may_not_change_clips(quantized, context):
    trained = TrainStage(epochs=1).run(quantized, context)
    after = replace(quantized, numerics=trained.numerics)
    with pytest.raises(Exception, match="changed weights, which is not among its declared"):
        check_effects(QuantizeStage(), quantized, after)
    assert Effect.NUMERICS in QuantizeStage.effects


def test_clips_end_with_the_channels_they_are_of_and_with_a_new_student(quantized, context):
    trained = TrainStage(epochs=1).run(quantized, context)
    cut = PruneStage(ratio=0.5).run(trained, context)
    kept = clips_of(cut)
    assert set(kept) < set(clips_of(trained))
    assert kept == {name: clip for name, clip in clips_of(trained).items() if name in kept}
    (note,) = [note for note in cut.notes if "clips" in note]
    assert note.startswith("learned clips of ")
    assert note.endswith(" end here: their channels are others")
    assert len(cut.numerics.clip_rules) == len(kept)

    student = {"arch": "mlp", **CASE.options, "classes": CASE.classes, "width": 12}
    new = DistillStage(student=student, epochs=1).rehearse(trained, context)
    assert not clips_of(new)
    assert "learned clips end here: the new student has weights of its own" in new.notes
    assert formats_of(new) == dict.fromkeys(formats_of(new), replace_clip(formats_of(new)))


def replace_clip(formats):
    return next(iter(formats.values())).with_clip(())


def test_weights_are_ranked_as_they_are_computed_with_clips(quantized, context):
    """They are clipped once, not once for the ranking and again by the simulation."""
    trained = TrainStage(epochs=1).run(quantized, context)
    taylor = PruneStage(ratio=0.5, importance="taylor")
    assert taylor.run(trained, context).fingerprint == taylor.run(trained, context).fingerprint


def test_float32_has_no_clip():
    assert FLOAT32.clip == ()
    assert not FLOAT32.learns_clip
