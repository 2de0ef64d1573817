"""What a training says of itself: a loss that cannot move, too few steps, which losses were "
"taken."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress import Candidate, DistillStage, PruneStage, Task, TrainStage
from compress.config.references import CodeReferences
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError, StageError
from compress.models.sizes import sizes_of
from compress.modules.inputs import forward
from compress.tasks import without_labels
from compress.tasks.arrays import ArrayDataset
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.data import SeededEpochs

CASE = NETS["mlp"]
TASK = CASE.make_task()
OWN = """
def flat(student, teacher, labels):
    return 3.0 + 0.0 * student.sum()

def blind(student, teacher, labels):
    return teacher.square().mean()

def several(student, teacher, labels):
    return student.square().mean(1)
"""


@pytest.fixture
def heard(start, context, tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    events = []
    changed = replace(
        context,
        teacher=frozen_teacher(CASE.build(seed=3)),
        report=events.append,
        references=CodeReferences(frozenset({"own_losses"})),
    )
    return changed, events


def warnings(events):
    return [event["text"] for event in events if event["event"] == "warning"]


def distill(*losses, **settings):
    return DistillStage(**{"epochs": 2, "losses": losses or None, **settings})


def test_a_loss_that_does_not_move_is_an_error_after_the_first_epoch(start, heard):
    with pytest.raises(StageError, match=r"'own_losses:flat' was 3 in every step of the first ep"):
        distill({"kind": "own_losses:flat"}).run(start, heard[0])
    assert not [event for event in heard[1] if event["event"] == "epoch"]


def test_a_loss_of_the_tasks_own_that_does_not_move_is_an_error_too(start, context):
    task = replace(TASK, loss=lambda outputs, labels: 0 * outputs.sum())
    with pytest.raises(StageError, match=r"'label' was 0 in every step .* nothing is learned"):
        TrainStage(epochs=2).run(start, replace(context, task=task))


def test_beside_others_it_is_a_warning(start, heard):
    distill({"kind": "own_losses:flat"}, {"kind": "response"}).run(start, heard[0])
    assert warnings(heard[1]) == [
        "the loss 'own_losses:flat' was 3 in every step of the first epoch, and taught nothing"
    ]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(start, context):
    events = []
    changed = replace(context, teacher=frozen_teacher(CASE.build()), report=events.append)
    distill({"kind": "logits-mse"}, weight_decay=0.0).run(start, changed)
    (said,) = warnings(events)
    assert said.endswith(
        "the student's outputs equal the teacher's, and there was nothing to learn"
    )


def test_a_loss_of_the_teacher_alone_is_refused_by_plan(start, heard):
    with pytest.raises(
        StageError, match=r"'own_losses:blind' does not depend on the student's out"
    ):
        distill({"kind": "own_losses:blind"}).rehearse(start, heard[0])


def test_a_loss_of_the_tasks_own_gives_one_number(start, context):
    task = replace(
        TASK, loss=lambda outputs, labels: F.cross_entropy(outputs, labels, reduction="none")
    )
    with pytest.raises(
        DataError, match=r"its loss must give a tensor of one number, .* got \(2,\)"
    ):
        TrainStage().rehearse(start, replace(context, task=task))


@pytest.mark.parametrize(("samples", "said"), [(256, 1), (6400, 0)])
def test_too_few_steps_are_said_by_plan_and_noted_by_a_run(samples, said, start, heard):
    inputs = TASK.train.inputs.repeat(samples // 256, 1)
    labels = TASK.train.labels.repeat(samples // 256)
    task = replace(TASK, train=ArrayDataset(inputs, labels))
    TrainStage(epochs=1).rehearse(start, replace(heard[0], task=task))
    notes = TrainStage(epochs=1).run(start, replace(heard[0], task=task)).notes
    assert [note for note in notes if "too few" in note] == warnings(heard[1])
    assert len(warnings(heard[1])) == said
    if said:
        assert warnings(heard[1])[0].startswith(
            "2 steps of training are too few to learn from: set"
        )


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (TASK, "losses by default, for outputs that are class-scores: 0.3 x dist and 1 x label"),
        (
            replace(TASK, train=TASK.train.without_labels()),
            "losses by default, for outputs that are class-scores: 0.3 x dist and 1 x response",
        ),
        (
            replace(without_labels(TASK), outputs="values"),
            "losses by default, for outputs that are values: 1 x logits-mse",
        ),
        (
            replace(without_labels(TASK), outputs="independent-logits"),
            "losses by default, for outputs that are independent-logits: 1 x binary-kl",
        ),
    ],
)
def test_the_row_says_which_losses_were_taken(given, note, start, heard):
    context = replace(heard[0], task=given)
    few = "2 steps of training are too few to learn from: set more epochs or a smaller batch_size"
    assert distill(epochs=1).run(start, context).notes == (note, f"{few}, for 50 steps at least")
    assert distill(epochs=1).rehearse(start, context).notes == (note,)


def test_two_classes_have_no_correlation_and_get_a_divergence(tmp_path):
    net = nn.Linear(24, 2).eval()
    data = ArrayDataset(TASK.train.inputs, TASK.train.labels % 2)
    start = Candidate.of(net, data.inputs[:2])
    context = replace(bench_context(start, tmp_path), task=Task("two", data, data, data))
    context = replace(context, teacher=frozen_teacher(nn.Linear(24, 2)))
    assert "1 x response and 1 x label" in distill(epochs=1).run(start, context).notes[0]


@pytest.mark.parametrize("count", [65, 129, 257])
@pytest.mark.parametrize("stage", ["train", "distill", "prune"])
def test_one_sample_too_many_is_spread_over_the_batches(stage, count, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()
    data = ArrayDataset(torch.randn(count, 8), torch.arange(count) % 3)
    start = Candidate.of(net, data.inputs[:4])
    context = replace(bench_context(start, tmp_path), task=Task("bn", data, data, data))
    settings = {"epochs": 1, "batch_size": 64}
    stages = {
        "train": TrainStage(**settings),
        "distill": DistillStage(**settings),
        "prune": PruneStage(ratio=0.25, finetune=settings),
    }
    after = stages[stage].run(start, context)
    assert all(bool(t.isfinite().all()) for t in after.module.state_dict().values())
    rows = SeededEpochs(data, 64, 0).batch_sizes()
    assert sum(rows) == count
    assert max(rows) - min(rows) <= 1
    assert max(rows) <= 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_teacher_in_half_precision_is_computed_with_in_float32(dtype, start, context):
    teacher = CASE.build(seed=3)
    rounded = {k: v.to(dtype).float() for k, v in teacher.state_dict().items()}
    half, whole = CASE.build(seed=3).to(dtype), CASE.build(seed=3)
    whole.load_state_dict(rounded)
    prints = {
        distill(epochs=1).run(start, replace(context, teacher=frozen_teacher(net))).fingerprint
        for net in (half, whole)
    }
    assert len(prints) == 1

    def answers(inputs):
        return whole(inputs).to(dtype)

    after = distill({"kind": "response"}).run(start, replace(context, teacher=answers))
    assert after.fingerprint != start.fingerprint


class Writes(nn.Module):
    """A net that writes into its batch."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.sub_(1.0).div_(2.0))


class Reads(Writes):
    def forward(self, x):
        return self.net((x - 1.0) / 2.0)


@pytest.mark.parametrize("views", [None, 1])
def test_what_a_teacher_does_to_its_batch_is_its_own(views, start, context):
    prints = set()
    for wrap in (Writes, Reads):
        teacher = frozen_teacher(wrap(CASE.build(seed=3)), CASE.example())
        stage = distill({"kind": "response"}, views=views)
        prints.add(stage.run(start, replace(context, teacher=teacher)).fingerprint)
    assert len(prints) == 1


TAKES_OTHERS = (
    r"holds 'labels', and the model \(Takes\) takes ids, mask; leave it out by naming the inputs: "
    r"fields: \{inputs: \[ids\]\} \(in Python, compress\.Fields\)\.$"
)


def test_a_batch_of_other_names_is_explained():
    class Takes(nn.Module):
        def forward(self, ids, mask=None):
            return ids.float()

    ids = torch.zeros(2, 3)
    assert forward(Takes(), {"ids": ids}).shape == (2, 3)
    with pytest.raises(DataError, match=TAKES_OTHERS):
        forward(Takes(), {"ids": ids, "labels": ids})
    with pytest.raises(DataError, match=r"the batch lacks 'ids', and the model"):
        forward(Takes(), {"mask": ids})


def sized(inputs, labels=None, **said):
    data = ArrayDataset(inputs, labels)
    return sizes_of(Task("t", data, data, data, **said))


def test_sizes_follow_from_inputs_and_labels():
    images, tokens = torch.zeros(4, 3, 8, 8), torch.zeros(4, 9, dtype=torch.int64)
    yes = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert sized(images, torch.tensor([0, 1, 4, 1])) == {
        "in_channels": 3,
        "in_features": 192,
        "image_size": 8,
        "classes": 5,
    }
    assert sized(images, classes=("a", "b")) == sized(images) | {"classes": 2}
    assert sized(tokens) == {"context": 9}
    assert sized(torch.zeros(4, 2, 5)) == {"in_channels": 2, "in_features": 10}
    assert sized(torch.zeros(4, 6), yes)["classes"] == 3
    assert sized(torch.zeros(4, 6), torch.rand(4, 2))["classes"] == 2
    assert sized(torch.zeros(4, 6), torch.rand(4))["classes"] == 1
    assert "classes" not in sized(torch.zeros(4, 6), torch.full((4,), -1))
