"""Losses of one's own that are classes below ``LossBlock``: what built-in ones can, they can."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from pydantic import Field

from compress import Candidate, DistillStage, Recipe, ReplayTarget
from compress.config.references import CodeReferences
from compress.distillation.loss_function import LossFunction
from compress.distillation.losses import CustomLoss
from compress.distillation.losses.base import LossBlock, Paths, loss_on_outputs
from compress.errors import CompressError, StageError
from compress.tasks import without_labels
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.data import head
from compress.zoo import build

CASE = NETS["resnet"]


class Energy(LossBlock):
    """Match the mean square of features."""

    implied_kind: ClassVar = "class-scores"
    student: Paths
    teacher: Paths
    power: int = Field(default=2, ge=1)

    def loss_function(self, context):
        pairs = context.pairs(self.kind, self.student, self.teacher)

        def function(student, teacher, _):
            found = [
                (student.features[ours].abs() ** self.power).mean()
                - (teacher.features[theirs].abs() ** self.power).mean()
                for ours, theirs in pairs
            ]
            return torch.stack(found).square().mean()

        ours, theirs = (tuple(names) for names in zip(*pairs, strict=True))
        return context.dry_run(self.kind, LossFunction(function, ours, theirs))


class Quiet(LossBlock):
    """The student's outputs alone."""

    needs_teacher: ClassVar[bool] = False

    def loss_function(self, context):
        return replace(loss_on_outputs(lambda s, _: s.square().mean()), reads_teacher_outputs=False)


class OnlyValues(LossBlock):
    """Means something for values alone, and has a kind of its own."""

    output_kinds: ClassVar = frozenset({"values"})
    kind: str = "only-values"

    def loss_function(self, context):
        return loss_on_outputs(lambda s, t: (s - t).abs().mean())


class Bare(LossBlock):
    """Returns what its loss function should have been made of."""

    def loss_function(self, context):
        return lambda student, teacher, labels: student.outputs.mean()


def scaled(student, teacher, labels, scale: float = 1.0):
    """A function."""
    return scale * (student - teacher).square().mean()


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    module = types.ModuleType("loss_parts")
    vars(module).update(Energy=Energy, Quiet=Quiet, OnlyValues=OnlyValues, Bare=Bare, scaled=scaled)
    monkeypatch.setitem(sys.modules, "loss_parts", module)
    for one in (Energy, Quiet, OnlyValues, Bare, scaled):
        monkeypatch.setattr(one, "__module__", "loss_parts")


def trained(losses, folder, **keys):
    """A student after a few steps, and the events of its training."""
    torch.manual_seed(0)
    task = CASE.make_task()
    start = Candidate.of(
        build("resnet", {"width": 16, "blocks": 1, "classes": 4}), head(task.train, 2).inputs
    )
    events = []
    context = replace(
        bench_context(start, folder),
        task=task,
        references=CodeReferences.of("loss_parts"),
        report=events.append,
    )
    stage = DistillStage(
        epochs=1, student={"arch": "dscnn", "width": 8, "classes": 4}, losses=losses, **keys
    )
    stage.rehearse(start, context)
    return stage.run(start, context), [one for one in events if one["event"] == "epoch"]


def test_it_looks_at_features_and_takes_its_keys(tmp_path):
    block = {"kind": "loss_parts:Energy", "student": "blocks.1", "teacher": ["blocks.2"]}
    results = [
        trained([{**block, "power": n}, {"kind": "label"}], tmp_path / str(n)) for n in (1, 2)
    ]
    values = [events[0]["losses"]["loss_parts:Energy"] for _, events in results]
    assert values[0] != values[1]
    assert len({done.fingerprint for done, _ in results}) == 2


def test_a_layer_that_is_not_there_is_said_as_of_a_built_in(tmp_path):
    block = {"kind": "loss_parts:Energy", "student": "nowhere", "teacher": "blocks.2"}
    with pytest.raises(CompressError, match="the loss 'loss_parts:Energy': 'nowhere' matches no"):
        trained([block], tmp_path)


def test_outputs_that_it_is_not_for_are_refused(tmp_path):
    with pytest.raises(
        StageError, match="the loss 'loss_parts:OnlyValues' is for outputs that are"
    ):
        trained([{"kind": "loss_parts:OnlyValues"}], tmp_path)


def test_a_loss_block_that_makes_no_loss_function_is_named(tmp_path):
    said = "the loss 'loss_parts:Bare': its loss_function must return a LossFunction; got function."
    with pytest.raises(StageError, match=said):
        trained([{"kind": "loss_parts:Bare"}], tmp_path)


def test_its_weight_moves_as_of_a_built_in(tmp_path):
    block = {"kind": "loss_parts:scaled", "scale": 0.5, "weight": {"from": 1, "to": 2}}
    [loss] = DistillStage(losses=[block]).losses
    assert loss.description == "1 to 2 x loss_parts:scaled (scale: 0.5)"
    own = CustomLoss.model_validate({"kind": "loss_parts:Quiet", "weight": {"from": 1, "to": 2}})
    made = own.resolved(CodeReferences.of("loss_parts"))
    assert isinstance(made, Quiet)
    assert (made.kind, made.weight_at(1, 2)) == ("loss_parts:Quiet", 2)


def test_a_key_of_a_function_changes_what_is_learned(tmp_path):
    block = {"kind": "loss_parts:scaled"}
    one, two, again = (
        trained([{**block, "scale": scale}, {"kind": "label"}], tmp_path / name)
        for name, scale in (("one", 1.0), ("two", 3.0), ("again", 1.0))
    )
    assert one[0].fingerprint == again[0].fingerprint != two[0].fingerprint


def load(*losses):
    text = f"name: own\nstages: [{{kind: distill, epochs: 1, losses: [{', '.join(losses)}]}}]"
    return Recipe.loads(text, imports=["loss_parts"])


def test_losses_of_which_none_needs_the_teacher_are_refused():
    with pytest.raises(CompressError, match="no loss needs the teacher; add one such as response"):
        load("{kind: 'loss_parts:Quiet'}")
    assert load("{kind: 'loss_parts:Quiet'}", "{kind: response}").stages


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("{kind: 'loss_parts:Energy', teacher: a}", "needs the key 'student'"),
        ("{kind: 'loss_parts:Energy', student: a, teacher: a, power: 0}", "power: should be great"),
        ("{kind: 'loss_parts:Energy', student: [], teacher: a}", "student: .* at least 1 item"),
        ("{kind: 'loss_parts:Energy', student: a, teacher: a, pwer: 1}", "did you mean 'power'"),
        ("{kind: 'loss_parts:Quiet', weight: 0}", "weight: .*should be greater than 0"),
        ("{kind: 'loss_parts:Quiet', margin: 0}", "loss_parts:Quiet does not take 'margin'; it ta"),
    ],
)
def test_wrong_keys_of_it_are_one_sentence(loss, message):
    with pytest.raises(CompressError, match=rf"stages\[0\]\.losses\[0\].*{message}") as caught:
        load(loss)
    assert "\n" not in str(caught.value)


def test_what_it_implies_is_what_outputs_are(tmp_path):
    task = replace(CASE.make_task(), outputs=None, metric=None)
    labels_of_none = without_labels(task)
    block = "{kind: 'loss_parts:Energy', student: 'blocks.0', teacher: 'blocks.0'}"
    recipe = load(block)
    net = build("resnet", {"width": 8, "blocks": 1, "classes": 4})
    candidate = Candidate.of(net, head(task.train, 2).inputs)
    record = recipe.run(
        candidate,
        labels_of_none,
        workdir=tmp_path / "run",
        targets=[ReplayTarget()],
        mode="quick",
        cache="none",
        report=False,
    )
    assert record.task.metric == "agreement"
