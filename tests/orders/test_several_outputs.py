"""A detector, a segmentation net, one that names several digits at once, and one with two outputs.

Each is trained, distilled, quantized and pruned as a recipe says it, in one of two orders.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torchmetrics.classification import MultilabelAUROC

from compress import Recipe, ReplayTarget, Task
from compress.candidate import Candidate
from compress.modules.inputs import forward
from compress.modules.outputs import by_name
from compress.running.encoding import encode
from compress.training.data import head
from compress.zoo import build

KINDS = {
    "boxes": (
        "{arch: detector, width: 8}",
        "{arch: detector, width: 8, depth: 1}",
        "[{kind: binary-kl, on: scores, weight: 100}, {kind: logits-mse, on: boxes, weight: 20}]",
    ),
    "mask": (
        "{arch: segmenter, width: 8}",
        "{arch: segmenter, width: 8, depth: 1}",
        "[{kind: response, temperature: 2.0}, {kind: label}]",
    ),
    "digits": (
        "{arch: dscnn, width: 16}",
        "{arch: dscnn, width: 8}",
        "[{kind: binary-kl}, {kind: label}]",
    ),
    "pose": (
        "{arch: multi-head, width: 8, outputs: {position: 2, angle: 1}}",
        "{arch: multi-head, width: 8, depth: 2, outputs: {position: 2, angle: 1}}",
        "[{kind: logits-mse, on: position}, {kind: l1, on: angle}, {kind: label}]",
    ),
}
OUTPUTS = {
    "boxes": ("boxes", "scores"),
    "mask": ("output",),
    "digits": ("output",),
    "pose": ("position", "angle"),
}
METRICS = {
    "boxes": ("map", "map-50"),
    "mask": ("mean-iou",),
    "digits": ("f1", "auroc", "MultilabelAUROC"),
    "pose": ("r2(position)", "r2(angle)"),
}
ORDERS = ("train distill quantize prune", "train prune distill quantize")

RECIPE = """
name: small
task: {{name: digit-scenes, label: {label}, size: 32, samples: 160}}
model: {model}
stages:
{stages}
"""


def recipe_of(label: str, order: str) -> Recipe:
    model, student, losses = KINDS[label]
    training = "epochs: 2, batch_size: 16"
    stages = {
        "train": f"{{kind: train, {training}}}",
        "distill": f"{{kind: distill, student: {student}, losses: {losses}, {training}}}",
        "quantize": "{kind: quantize}",
        "prune": f"{{kind: prune, ratio: 0.25, round_to: 2, finetune: {{{training}}}}}",
    }
    listed = "\n".join(f"  - {stages[kind]}" for kind in order.split())
    return Recipe.loads(RECIPE.format(label=label, model=model, stages=listed))


def with_torchmetrics(task: Task) -> Task:
    """The task, of several yes or no with a metric of torchmetrics beside its own."""
    if task.outputs != "independent-logits":
        return task
    areas = MultilabelAUROC(10, average="micro")
    return replace(task, further_metrics=(*task.further_metrics, areas))


def in_onnxruntime(path: Path, inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    each = [session.run(None, {name: one.unsqueeze(0).numpy()}) for one in inputs]
    return [np.concatenate(rows) for rows in zip(*each, strict=True)]


# Boxes have the most outputs; tests/backends/onnx tries all kinds without training.
QUICK = ("boxes", ORDERS[0])


@pytest.mark.parametrize(
    ("label", "order"),
    [
        pytest.param(*pair, marks=[] if pair == QUICK else [pytest.mark.exhaustive])
        for pair in itertools.product(KINDS, ORDERS)
    ],
)
def test_every_row_is_reloaded_and_in_parity_by_output(label, order, tmp_path):
    recipe = recipe_of(label, order)
    task = with_torchmetrics(recipe.make_task())
    start = recipe.make_candidate(task)
    record = recipe.run(start, task, workdir=tmp_path, targets=[ReplayTarget()], report=False)
    assert record.status == "done"
    assert [row.kind for row in record.rows] == ["input", *order.split()]
    inputs = head(task.test, 8).inputs
    for row in record.rows:
        [measured] = row.measurements
        path = tmp_path / measured.artifact.path
        folder = path.parent / "candidate"
        assert_scored(label, record, measured)
        found = in_onnxruntime(path, inputs)
        candidate = Candidate.load(folder, start.example, lambda a: build(a.arch, a.options))
        assert tuple(by_name(forward(candidate.module, inputs))) == OUTPUTS[label]
        assert_in_parity(label, measured.parity)
        if not candidate.numerics.rules:
            assert_is_what_the_module_gives(candidate, inputs, found)
            continue
        again = encode(candidate, task, ReplayTarget(), tmp_path / "again.onnx")
        assert_in_parity(label, again.parity)
        assert again.census.int8_mac_fraction > 0.95
        for one, other in zip(found, in_onnxruntime(tmp_path / "again.onnx", inputs), strict=True):
            assert np.array_equal(one, other)
    by_kind = {row.kind: row.parameters for row in record.rows}
    if order.endswith("prune"):
        assert by_kind["prune"] < by_kind["distill"]
    else:
        assert by_kind["prune"] < by_kind["train"]


def assert_scored(label, record, measured):
    assert record.task.metric == METRICS[label][0]
    assert 0 <= measured.accuracy.value <= 1 or label == "pose"
    assert tuple(measured.metrics) == METRICS[label][1:]
    # Bootstrap intervals of a few samples; those of what is no mean are paired with row 0's.
    assert measured.accuracy.ci95[0] <= measured.accuracy.value <= measured.accuracy.ci95[1]


def assert_in_parity(label, parity):
    names = OUTPUTS[label]
    by_output = parity.outputs or {"output": parity}
    assert tuple(by_output) == names
    assert all(one.r_squared is None or one.r_squared > 0.8 for one in by_output.values())


def assert_is_what_the_module_gives(candidate, inputs, found):
    with torch.no_grad():
        expected = by_name(forward(candidate.module, inputs))
    for one, other in zip(expected.values(), found, strict=True):
        assert np.abs(one.numpy() - other).max() <= 1e-3 * np.abs(other).max()
