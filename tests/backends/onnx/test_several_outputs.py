"""Nets that return more than a tensor, from candidate to file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.backends.onnx.export import OpenShapes
from compress.backends.onnx.open_file import lower_open
from compress.backends.onnx.parity import Bound, check_parity, compare, is_right, least_r_squared
from compress.candidate import Candidate
from compress.errors import LoweringError, ParityError
from compress.modules.inputs import forward
from compress.modules.outputs import by_name
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.testing.several_outputs import SEVERAL, Heads
from tests.covering import covering, kept_of

FORMATS = {
    "float32": LayerFormat(),
    "static": LayerFormat(weights="int8", activations="int8"),
    "dynamic": LayerFormat(weights="int8", activations="dynamic"),
    "weights": LayerFormat(weights="int8"),
    "float16": LayerFormat(weights="float16", activations="float16"),
}
GUARDED = Lowering(avoid_saturation=True)


def candidate(name, format="float32", *, outputs=()):
    case = SEVERAL[name]
    torch.manual_seed(0)
    rules = (QuantRule(format=FORMATS[format]),)
    made = Candidate.of(case.build(), case.inputs(4))
    return replace(made, numerics=Numerics(rules), outputs=outputs)


def lowered(name, made, path):
    inputs = SEVERAL[name].inputs
    return lower(made, GUARDED, calibration=[inputs(128)], check=inputs(40), path=path)


def ran(path, inputs):
    """What the file gives for each sample, in the file's order, and the names it has for them."""
    session = ort.InferenceSession(path)
    arrays = {"x": inputs["x"]} if isinstance(inputs, dict) else {"": inputs}
    names = [port.name for port in session.get_inputs()]
    feeds = dict(zip(names, arrays.values(), strict=True))
    samples = len(next(iter(arrays.values())))
    rows = [
        session.run(None, {k: v[i : i + 1].numpy() for k, v in feeds.items()})
        for i in range(samples)
    ]
    outputs = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return outputs, [port.name for port in session.get_outputs()]


@pytest.mark.parametrize(("name", "format"), covering(SEVERAL, FORMATS, each=2))
def test_the_file_has_the_outputs_of_the_model_under_their_names(name, format, tmp_path):
    case, made = SEVERAL[name], candidate(name, format)
    artifact = lowered(name, made, tmp_path / "m.onnx")
    assert artifact.outputs == case.names
    assert artifact.to_json().get("outputs", list(case.names)) == list(case.names)
    several = len(case.names) > 1
    assert tuple(artifact.parity.outputs) == (case.names if several else ())
    assert artifact.parity.r_squared > 0.999
    inputs = case.inputs(24)
    outputs, names = ran(artifact.path, inputs)
    assert tuple(names) == case.file_names
    with torch.no_grad():
        expected = by_name(forward(made.module, inputs))
    for output, wanted in zip(outputs, expected.values(), strict=True):
        assert (output.shape, output.dtype) == (tuple(wanted.shape), wanted.numpy().dtype)
        if wanted.is_floating_point():
            assert compare(wanted.numpy(), output).r_squared > (
                0.9999 if format == "float32" else 0.98
            )


@pytest.mark.parametrize("ships", [("scores",), ("boxes",), ("scores", "boxes")])
def test_only_what_ships_is_in_the_file(ships, tmp_path):
    artifact = lowered("dict", candidate("dict", "weights", outputs=ships), tmp_path / "m.onnx")
    wanted = [name for name in ("boxes", "scores") if name in ships]
    assert [output.name for output in onnx.load(artifact.path).graph.output] == wanted
    assert list(artifact.outputs) == wanted
    assert artifact.warnings == ()
    whole = lowered("dict", candidate("dict", "weights"), tmp_path / "whole.onnx")
    assert (artifact.bytes < whole.bytes) == (len(wanted) == 1)


def test_a_candidate_that_was_saved_gives_the_same_file(tmp_path):
    made = candidate("data class", "static", outputs=("parts.0", "scores"))
    made.save(tmp_path / "kept")
    inputs = SEVERAL["data class"].inputs(4)
    loaded = Candidate.load(tmp_path / "kept", inputs, lambda _: SEVERAL["data class"].build())
    assert loaded.fingerprint == made.fingerprint
    files = [lowered("data class", c, tmp_path / f"{n}.onnx") for n, c in enumerate([made, loaded])]
    assert files[0].sha256 == files[1].sha256
    assert files[0].outputs == ("scores", "parts.0")


@pytest.mark.parametrize(
    "name",
    kept_of(
        ("data class", "detector", "extra in training", "segmentation"), ("data class", "detector")
    ),
)
def test_cut_and_quantized_in_either_order_it_is_one_file(name, tmp_path):
    case = SEVERAL[name]
    request = ChannelPruning(ratio=0.5)
    cut = candidate(name).fork()
    prune_channels(cut.module, cut.example, request)
    first = replace(cut, numerics=candidate(name, "static").numerics)
    second = candidate(name, "static").fork()
    prune_channels(second.module, second.example, request)
    files = [lowered(name, c, tmp_path / f"{n}.onnx") for n, c in enumerate((first, second))]
    assert files[0].sha256 == files[1].sha256
    assert files[0].outputs == case.names
    whole = lowered(name, candidate(name, "static"), tmp_path / "whole.onnx")
    assert files[0].bytes < whole.bytes


def test_a_branch_in_float_is_held_to_float_beside_one_in_int8(tmp_path):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine, self.coarse = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x):
            return {"fine": self.fine(x), "coarse": self.coarse(x)}

    rule = QuantRule(select=("coarse",), format=FORMATS["static"])
    made = replace(Candidate.of(Branches(), torch.randn(4, 6)), numerics=Numerics((rule,)))
    artifact = lowered("tuple", made, tmp_path / "m.onnx")
    fine, coarse = artifact.parity.outputs.values()
    assert fine.max_error < 1e-6 < coarse.max_error
    assert artifact.parity.max_error == coarse.max_error


def test_features_that_int8_layers_read_are_given_as_they_were_made(tmp_path):
    names = ("first", "second")
    made = candidate("before and after", "static")
    floats = QuantRule(exclude=names, format=FORMATS["static"])
    made = replace(made, numerics=Numerics((floats,)))
    artifact = lowered("before and after", made, tmp_path / "m.onnx")
    assert artifact.parity.outputs["features"].max_error < 1e-5


def test_the_same_output_is_found_wrong_that_is_wrong(tmp_path):
    artifact = lowered("dict", candidate("dict"), tmp_path / "m.onnx")
    inputs = SEVERAL["dict"].inputs(20)
    given = dict(zip(("boxes", "scores"), ran(artifact.path, inputs)[0], strict=True))
    bounds = dict.fromkeys(given, Bound(0.9999, is_float=True))
    assert check_parity(artifact.path, inputs, given, bounds).r_squared > 0.9999
    wrong = given | {"scores": given["scores"][::-1]}
    with pytest.raises(ParityError, match=r"what its module computes of 'scores': largest error"):
        check_parity(artifact.path, inputs, wrong, bounds)
    short = given | {"boxes": given["boxes"][:, :3]}
    with pytest.raises(
        ParityError, match=r"outputs of 'boxes' of shape \(20, 4\) where its module"
    ):
        check_parity(artifact.path, inputs, short, bounds)
    with pytest.raises(ParityError, match=r"gives 2 outputs where its module gives 1 \(boxes\)"):
        check_parity(artifact.path, inputs, {"boxes": given["boxes"]}, bounds)


def test_with_open_sizes_too(tmp_path):
    case = SEVERAL["detector"]
    made = lower_open(
        candidate("detector", outputs=("scores",)),
        OpenShapes({"image": {0: "batch"}}),
        [case.inputs(2), case.inputs(5)],
        tmp_path / "m.onnx",
    )
    assert [output.name for output in onnx.load(made.path).graph.output] == ["scores"]
    both = lower_open(
        candidate("detector", "weights"),
        OpenShapes({"image": {0: "batch"}}),
        [case.inputs(2), case.inputs(5)],
        tmp_path / "both.onnx",
    )
    assert [list(parity.outputs) for parity in both.parities] == [["boxes", "scores"]] * 2
    given = ort.InferenceSession(both.path).run(None, {"image": case.inputs(3).numpy()})
    assert [len(array) for array in given] == [3, 3]


RNG = np.random.default_rng(0)


def test_classes_are_equal_or_not():
    ids = RNG.integers(0, 5, (200, 16))
    few = ids.copy()
    few[:6, :8] = (few[:6, :8] + 1) % 5
    share = 1 - 48 / 3200
    assert compare(ids, few).agreement == pytest.approx(share)
    floats, static = [FORMATS["float32"]], [FORMATS["static"]]
    least = least_r_squared(floats, ids, ids)
    assert is_right(compare(ids, ids), ids, least=least, is_float=True)
    assert not is_right(compare(ids, few), ids, least=least, is_float=True)
    least = least_r_squared(static, ids, few)
    assert is_right(compare(ids, few), ids, least=least, is_float=False)
    for other in (np.full_like(ids, 2), RNG.permuted(ids, axis=0), ids[::-1]):
        assert not is_right(compare(ids, other), ids, least=least, is_float=False)


@pytest.mark.parametrize("order", ["sorted", "by turns"])
def test_the_order_of_samples_does_not_make_classes_alike(order):
    ids = np.arange(60) % 3 if order == "by turns" else np.arange(60) // 20
    one = ids.copy()
    one[0] = (one[0] + 1) % 3
    assert compare(ids, one).r_squared > 0.9


def test_a_mask_that_is_always_the_same_is_held_to_it():
    mask = np.zeros((10, 6), dtype=bool)
    mask[:, 2:] = True
    other = mask.copy()
    other[0, 0] = True
    least = least_r_squared([FORMATS["static"]], mask, mask)
    assert is_right(compare(mask, mask), mask, least=least, is_float=False)
    assert not is_right(compare(mask, other), mask, least=least, is_float=False)
    assert compare(mask[:1], mask[:1]).r_squared == 1


@pytest.mark.parametrize(
    ("give", "outputs", "message"),
    [
        (lambda m: {"a": m.scores}, ("b",), r"cannot lower: the model has no output 'b'; .* are a"),
        (lambda m: {"a": m.scores, "b": m.prior}, (), r"an output 'b' of shape \(4,\) for a batch"),
        (lambda m: {"a": m.scores, "b": m.scores.sum()}, (), r"an output 'b' of shape \(\) for a"),
        (lambda m: {"a": m.scores, "b": 3}, (), r"cannot lower: the model returns an int \(b\)"),
        (lambda m: (m.scores, "b"), (), r"cannot lower: the model returns a str \(1\)"),
    ],
)
def test_what_cannot_be_an_output_is_refused(give, outputs, message, tmp_path):
    made = replace(Candidate.of(Heads(give), torch.randn(3, 6)), outputs=outputs)
    with pytest.raises(LoweringError, match=message):
        lowered("tuple", made, tmp_path / "m.onnx")


def test_an_output_without_samples_may_stay_behind(tmp_path):
    net = Heads(lambda m: {"scores": m.scores, "prior": m.prior})
    made = replace(Candidate.of(net, torch.randn(4, 6)), outputs=("scores",))
    artifact = lowered("tuple", made, tmp_path / "m.onnx")
    assert artifact.outputs == ("scores",)


def test_an_output_that_is_not_finite_is_named(tmp_path):
    net = Heads(lambda m: {"scores": m.scores, "far": m.boxes / 0})
    with pytest.raises(LoweringError, match=r"the module's outputs of 'far' on the check inputs"):
        lowered("tuple", Candidate.of(net, torch.randn(4, 6)), tmp_path / "m.onnx")


def test_one_that_is_random_is_refused(tmp_path):
    net = Heads(lambda m: {"scores": m.scores, "noise": torch.rand_like(m.boxes)})
    with pytest.raises(ParityError, match="other outputs each time"):
        lowered("tuple", Candidate.of(net, torch.randn(4, 6)), tmp_path / "m.onnx")
