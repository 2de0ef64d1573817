"""Every order of stages, on every kind of net, ends in an int8 file that computes what it must."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compress.candidate import Candidate, count_parameters
from compress.errors import NoEffect
from compress.measure.local import LocalTarget
from compress.quantization.fakequant import layers_with_formats, quantizable_layers
from compress.running.encoding import encode
from compress.stages import DistillStage, PruneStage, QuantizeStage
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from tests.covering import covering

# Six orders of the three, one with repeats, and one that recovers between two cuts.
ORDERS = ["".join(order) for order in permutations("dqp")] + ["qpqp", "pdpq"]

STAGES = {
    "d": DistillStage(epochs=1, batch_size=64, learning_rate=1e-3),
    "q": QuantizeStage(),
    "p": PruneStage(ratio=0.25, round_to=4, finetune={"epochs": 1, "batch_size": 64}),
}

# Artifacts are held to the simulated module: the share of equal answers over validation samples.
LEAST_AGREEMENT = 0.9


def run_order(order: str, case, folder: Path, quantize: QuantizeStage = STAGES["q"]) -> Candidate:
    task = case.make_task()
    start = Candidate.of(case.build(), case.example())
    current = start
    for number, letter in enumerate(order):
        context = replace(bench_context(start, folder / str(number)), task=task)
        try:
            current = {**STAGES, "q": quantize}[letter].run(current, context)
        except NoEffect:
            assert letter == "q"  # a second declaration of the same formats
        current.validate()
    return current


@pytest.mark.parametrize(("name", "order"), covering(NETS, ORDERS, each=1))
def test_every_order_ends_in_an_int8_artifact_that_agrees_with_its_module(name, order, tmp_path):
    case = NETS[name]
    final = run_order(order, case, tmp_path)
    start_parameters = count_parameters(case.build())[0]
    assert count_parameters(final.module)[0] < start_parameters

    path = tmp_path / "model.onnx"
    artifact = encode(final, case.make_task(), LocalTarget(), path)

    session = onnxruntime.InferenceSession(path)
    inputs = case.example(1).numpy()
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs})
    assert np.isfinite(output).all()

    assert artifact.parity.agreement >= LEAST_AGREEMENT
    formats = final.numerics.resolve(quantizable_layers(final.module))
    assert all(format.needs_range for format in formats.values())
    assert artifact.census.int8_mac_fraction > 0.5
    assert int8_weight_count(path) == sum(
        final.module.get_submodule(layer).weight.numel()
        for layer in (*formats, *embeddings_in_the_file(final))
    )


@pytest.mark.parametrize(
    ("name", "order"), covering(["resnet", "attention"], ["dqp", "pqd", "qpd"], each=2)
)
@pytest.mark.parametrize("format", [{"activations": "int16"}, {"weights": "float8"}], ids=str)
def test_every_format_may_stand_anywhere_in_an_order(format, name, order, tmp_path):
    case = NETS[name]
    final = run_order(order, case, tmp_path, QuantizeStage(**format))
    artifact = encode(final, case.make_task(), LocalTarget(), tmp_path / "model.onnx")
    assert artifact.parity.agreement == 1
    assert artifact.parity.sqnr_db > 60
    assert count_parameters(final.module)[0] < count_parameters(case.build())[0]


def embeddings_in_the_file(final: Candidate) -> list[str]:
    """Those that are looked up by what the net is given; positions are constants of the graph."""
    embeddings = set(layers_with_formats(final.module)) - set(quantizable_layers(final.module))
    return sorted(embeddings - {"positions"})


def int8_weight_count(path: Path) -> int:
    """Elements of int8 initializers of two and more dimensions: weights, not zero points."""
    tensors = onnx.load(path).graph.initializer
    return sum(
        int(np.prod(t.dims))
        for t in tensors
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    )


def channels_of(candidate: Candidate) -> dict[str, int]:
    module = candidate.module
    return {name: module.get_submodule(name).weight.shape[0] for name in quantizable_layers(module)}


def kept_filters(start: Candidate, cut: Candidate) -> dict[str, list[int]]:
    """Which output channels of the first convolution survived, found by their weights."""
    name = next(iter(quantizable_layers(start.module)))
    before = start.module.get_submodule(name).weight.detach().flatten(1)
    after = cut.module.get_submodule(name).weight.detach().flatten(1)
    return [int((before == row).all(1).nonzero()[0, 0]) for row in after]


@pytest.mark.parametrize(("weights", "differs"), [("int2", True), ("int8", None)])
def test_a_prune_after_a_quantize_ranks_on_the_quantized_weights(weights, differs, tmp_path):
    case = NETS["resnet"]
    start = Candidate.of(case.build(), case.example())
    prune = PruneStage(ratio=0.5, importance="l1")
    context = bench_context(start, tmp_path)
    quantized = QuantizeStage(weights=weights).run(start, context)
    before, after = prune.run(start, context), prune.run(quantized, context)
    assert channels_of(before) == channels_of(after)
    if differs:
        assert kept_filters(start, before) != kept_filters(start, after)
    # Either way it was the float weights that were cut: every kept filter is an original one.
    assert len(kept_filters(start, after)) == channels_of(after)["stem"]


def test_an_int8_net_is_still_int8_and_smaller_after_a_prune(tmp_path):
    case = NETS["resnet"]
    task = case.make_task()
    start = Candidate.of(case.build(), case.example())
    context = replace(bench_context(start, tmp_path), task=task)
    quantized = QuantizeStage().run(start, context)
    pruned = PruneStage(ratio=0.5).run(quantized, context)
    whole = encode(quantized, task, LocalTarget(), tmp_path / "whole.onnx")
    cut = encode(pruned, task, LocalTarget(), tmp_path / "cut.onnx")
    assert cut.bytes < 0.7 * whole.bytes
    assert cut.census.int8_mac_fraction == pytest.approx(whole.census.int8_mac_fraction, abs=0.05)


def test_a_later_quantize_wins_where_selectors_overlap(tmp_path):
    case = NETS["mlp"]
    task = case.make_task()
    start = Candidate.of(case.build(), case.example())
    context = replace(bench_context(start, tmp_path), task=task)
    mixed = QuantizeStage().run(start, context)
    mixed = QuantizeStage(select=("head",), activations="dynamic").run(mixed, context)
    artifact = encode(mixed, task, LocalTarget(), tmp_path / "mixed.onnx")
    assert artifact.census.operators["DynamicQuantizeLinear"] == 1
    assert artifact.census.operators["QuantizeLinear"] >= 1


def test_a_new_student_keeps_formats_where_its_layers_match_and_says_what_ended(tmp_path):
    case = NETS["dscnn"]
    start = Candidate.of(NETS["resnet"].build(), case.example())
    context = replace(bench_context(start, tmp_path), task=case.make_task())
    declared = QuantizeStage(exclude=("stem",)).run(start, context)
    declared = QuantizeStage(select=("blocks.0.conv1",), activations="dynamic").run(
        declared, context
    )
    declared = PruneStage(ratio=0.3, granularity="weights").run(declared, context)
    student = DistillStage(epochs=1, student={"arch": "dscnn", "width": 8, "classes": 4}).run(
        declared, context
    )
    assert len(student.numerics.rules) == 1
    assert student.invariants == ()
    assert any("'blocks.0.conv1' end here" in note for note in student.notes)
    assert any("kept zeros end here" in note for note in student.notes)


def test_zeros_survive_into_the_artifact(tmp_path):
    case = NETS["mlp"]
    task = case.make_task()
    start = Candidate.of(case.build(), case.example())
    context = replace(bench_context(start, tmp_path), task=task)
    sparse = PruneStage(
        ratio=0.6, granularity="weights", finetune={"epochs": 1, "batch_size": 64}
    ).run(start, context)
    for number, candidate in enumerate((sparse, QuantizeStage().run(sparse, context))):
        path = tmp_path / f"{number}.onnx"
        artifact = encode(candidate, task, LocalTarget(), path)
        weights = sum(
            candidate.module.get_submodule(n).weight.numel()
            for n in quantizable_layers(candidate.module)
        )
        assert artifact.census.nonzero_weights < 0.55 * weights
