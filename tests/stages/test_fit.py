"""Training as the model computes, teachers of every kind, and what is remembered of them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from compress import DistillStage, PruneStage, QuantizeStage, TrainStage
from compress.config.references import CodeReferences
from compress.distillation.teacher_settings import TeacherSettings
from compress.distillation.teachers import build_teacher, frozen_teacher
from compress.errors import CheckpointError, CodeReferenceError, DataError, StageError
from compress.quantization.fakequant import fake_quantized_copy, quantizable_layers
from compress.stage import formats_of
from compress.testing.nets import NETS
from compress.training.data import head

pytestmark = pytest.mark.fast

CASE = NETS["mlp"]
TASK = CASE.make_task()


def loss_of(candidate):
    """Cross-entropy of the model as it computes."""
    batch = head(TASK.test, len(TASK.test))
    module = fake_quantized_copy(candidate.module, formats_of(candidate))
    with torch.no_grad():
        return float(nn.functional.cross_entropy(module(batch.inputs), batch.labels))


def test_training_after_a_2_bit_quantize_adapts_the_weights_to_the_grid(start, context):
    train = TrainStage(epochs=6, batch_size=32, learning_rate=5e-3)
    trained = train.run(start, context)
    ternary = QuantizeStage(weights="int2", activations="float32")
    afterwards = ternary.run(trained, context)
    aware = train.run(afterwards, context)
    assert loss_of(aware) < 0.5 * loss_of(afterwards)


def test_zeros_stay_zero_through_every_kind_of_training(start, context):
    sparse = PruneStage(ratio=0.5, granularity="weights").run(start, context)
    zeros = {n: p == 0 for n, p in sparse.module.named_parameters() if n.endswith("weight")}
    for stage in (TrainStage(epochs=1), DistillStage(epochs=1)):
        after = stage.run(sparse, context)
        for name, zero in zeros.items():
            assert bool((after.module.get_parameter(name)[zero] == 0).all())
            assert bool((after.module.get_parameter(name)[~zero] != 0).any())


def counting(teacher):
    calls = []

    def teach(inputs):
        calls.append(len(inputs))
        return teacher(inputs)

    return teach, calls


@pytest.mark.parametrize(("views", "answers"), [(None, 4), (2, 2), (4, 4), (9, 4)])
def test_a_teacher_runs_once_on_each_batch_of_a_view(views, answers, start, context):
    teach, calls = counting(context.teacher)
    stage = DistillStage(epochs=4, batch_size=64, views=views)
    stage.run(start, replace(context, teacher=teach))
    # Besides the views there is an example of two samples.
    assert sum(n for n in calls if n > 2) == answers * len(TASK.train)


def test_every_epoch_is_reported(start, context):
    events = []
    TrainStage(epochs=3).run(start, replace(context, report=events.append))
    assert [e["epoch"] for e in events] == [1, 2, 3]
    assert all(e["samples_per_s"] > 0 and e["validation_loss"] > 0 for e in events)


def test_a_task_may_bring_its_own_loss(start, context):
    def trained(loss):
        task = replace(TASK, loss=loss)
        return TrainStage(epochs=1).run(start, replace(context, task=task)).fingerprint

    own = trained(lambda outputs, labels: F.cross_entropy(outputs, labels))
    assert own == trained(None)
    assert own != trained(lambda outputs, labels: F.cross_entropy(-outputs, labels))


def test_a_checkpoint_teaches(context, tmp_path):
    net = CASE.build(seed=9)
    path = tmp_path / "t.safetensors"
    save_file(net.state_dict(), path)
    options = {**CASE.options, "classes": CASE.classes}
    teach = build_teacher(TeacherSettings(arch="mlp", weights=path, **options), context)
    inputs = CASE.example(3)
    answer = teach(inputs)
    assert torch.allclose(answer, net(inputs))
    assert not answer.requires_grad


def test_the_default_teacher_is_the_contexts(context):
    assert build_teacher(None, context) is context.teacher


def test_swapping_the_teacher_leaves_the_student_block_as_it_is():
    student = {"arch": "mlp", "in_features": 24, "width": 8}
    one = DistillStage(student=student)
    other = DistillStage(student=student, teacher={"callable": "m:f"})
    assert one.student == other.student


TEACHERS = {
    "short": lambda x: x[:1, :4],
    "text": lambda x: "hello",
    "scalar": lambda x: x.mean(),
    "nan": lambda x: x[:, :4] * float("nan"),
    "classes": lambda x: x[:, :3],
}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("short", StageError, r"must return one tensor with \d+ rows, .* got \(1, 4\)"),
        ("scalar", StageError, r"must return one tensor with \d+ rows, .* got \(\)"),
        ("text", StageError, r"must return one tensor with \d+ rows, .* got str"),
        (
            "nan",
            StageError,
            r"values that are not finite \(outputs\) for (batch \d+ of view 1|the first samples)",
        ),
        ("classes", DataError, r"student's outputs are \(64, 4\) and the teacher's are \(64, 3\)"),
    ],
)
def test_a_callable_with_wrong_outputs_is_explained(
    name, error, message, start, context, tmp_path, monkeypatch
):
    import sys
    import types

    module = types.ModuleType("teacher_parts")
    module.teach = TEACHERS[name]
    monkeypatch.setitem(sys.modules, "teacher_parts", module)
    allowed = replace(context, references=CodeReferences(frozenset({"teacher_parts"})))
    stage = DistillStage(batch_size=64, teacher={"callable": "teacher_parts:teach"})
    with pytest.raises(error, match=message):
        stage.run(start, allowed)


def test_a_callable_that_was_not_named_is_not_followed(start, context):
    with pytest.raises(CodeReferenceError, match="add `--import os`"):
        DistillStage(teacher={"callable": "os:getcwd"}).run(start, context)


def test_a_checkpoint_of_another_width_does_not_fit(context, tmp_path):
    path = tmp_path / "t.safetensors"
    save_file(CASE.build().state_dict(), path)
    with pytest.raises(CheckpointError, match="the weights do not fit the model"):
        build_teacher(TeacherSettings(arch="mlp", weights=path, width=7), context)


def test_a_frozen_teacher_keeps_no_graph():
    answer = frozen_teacher(CASE.build())(CASE.example())
    assert not answer.requires_grad


def test_taylor_ranks_on_the_teacher_where_there_are_no_labels(start, context):
    class Bare:
        def __len__(self):
            return len(TASK.train)

        def __getitem__(self, index):
            return TASK.train[index][0]

    bare = replace(context, task=replace(TASK, train=Bare()))
    cut = PruneStage(ratio=0.5, importance="taylor").run(
        start, replace(bare, teacher=lambda x: x[:, :4])
    )
    assert len(quantizable_layers(cut.module)) == len(quantizable_layers(start.module))
