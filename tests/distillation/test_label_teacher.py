"""Labels as what a student learns from, by the losses on a teacher's outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compress.candidate import Candidate
from compress.distillation.context import DistillationContext
from compress.distillation.losses.image import L1Loss
from compress.distillation.teacher_settings import TeacherSettings
from compress.distillation.teachers import LabelTeacher, build_teacher, identity_of
from compress.errors import DataError, StageError
from compress.stages import DistillStage, PruneStage
from compress.task import Task
from compress.tasks.arrays import ArrayDataset
from compress.testing.stage_contract import bench_context
from compress.zoo import build

LABELS = TeacherSettings(labels=True)


@pytest.fixture
def start():
    torch.manual_seed(0)
    net = build("mobile-unet", {"width": 8, "depth": 2, "blocks": 1}).eval()
    return Candidate.of(net, torch.rand(2, 3, 16, 16))


@pytest.fixture
def context(start, tmp_path):
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    split = ArrayDataset(images, images.flip(1))
    task = Task("colors", split, split, split, outputs="image")
    return replace(bench_context(start, tmp_path), task=task)


def test_a_student_learns_from_labels_by_any_loss_on_outputs(start, context):
    stage = DistillStage(
        teacher={"labels": True},
        losses=[{"kind": "l1"}, {"kind": "ssim", "weight": 0.1}, {"kind": "adversarial"}],
        epochs=8,
        batch_size=8,
        learning_rate=0.01,
        views=2,
    )
    context = replace(context, report=(events := []).append)
    learned = stage.run(start, context)
    curve = [event["losses"]["l1"] for event in events if event["event"] == "epoch"]
    assert curve[-1] < 0.9 * curve[0]
    assert learned.module is not start.module
    assert not (context.workdir / "answers").exists()  # they come with each batch


def test_a_loss_sees_the_labels_of_the_batch(start, context):
    teacher = build_teacher(LABELS, context)
    assert isinstance(teacher, LabelTeacher)
    assert identity_of(teacher) == "labels"
    made = DistillationContext(start.module, teacher, context)
    assert torch.equal(made.taught_outputs, made.example.labels)
    loss = L1Loss().loss_function(made)
    assert made.dry_run("l1", loss) is loss


def test_it_makes_the_baseline_as_a_first_stage(start):
    assert DistillStage(teacher={"labels": True}, epochs=1).makes_baseline()
    assert not DistillStage(epochs=1).makes_baseline()
    assert not PruneStage(ratio=0.5).makes_baseline()


def test_labels_that_are_no_outputs_are_refused():
    teacher = LabelTeacher()
    with pytest.raises(DataError, match="a batch came without labels"):
        teacher.for_labels(None)
    with pytest.raises(DataError, match=r"these are torch\.int64"):
        teacher.for_labels(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(StageError, match="cannot be asked for by inputs alone"):
        teacher(torch.zeros(3, 2))


def test_settings_of_other_teachers_are_written_as_they_were():
    assert "labels" not in TeacherSettings(callable="mine:teacher").model_dump()
    assert LABELS.model_dump()["labels"] is True
    with pytest.raises(ValueError, match=r"a teacher is one of .* got onnx and labels"):
        TeacherSettings(onnx="net.onnx", labels=True)
