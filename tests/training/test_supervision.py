"""Samples without a label, and labels of mixtures."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress import Candidate, DistillStage, PruneStage, Task, TrainStage
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import ModelOutputs
from compress.distillation.objective import WeightedSum, weighted_losses
from compress.errors import DataError
from compress.stages.fit import validation_loss
from compress.tasks.arrays import ArrayDataset
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.data import Batch, head, is_labeled, read
from compress.training.labels import labeled_samples
from compress.training.supervision import Supervision

CASE = NETS["mlp"]
TASK = CASE.make_task()
NAN = float("nan")


class Pairs:
    """Single samples, each with a label or with ``None``."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.labels[index]


def partly(every=4):
    """The task with one in ``every`` labels; the others are no class."""
    labels = TASK.train.labels.clone()
    labels[torch.arange(len(labels)) % every != 0] = -1
    return replace(TASK, train=ArrayDataset(TASK.train.inputs, labels))


def task_loss(task):
    """The task's loss on labels, for any outputs."""
    return lambda outputs, labels: Supervision.of(task, outputs).loss(outputs, labels)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 3, -1, -100], True, [1, 1, 0, 0]),
        ([0, 3, -1, -100], False, [1, 1, 1, 1]),
        ([0.5, NAN, -2.0], True, [1, 0, 1]),
        ([0.5, NAN, -2.0], False, [1, 0, 1]),
        ([[1, -1], [-1, -1]], True, [1, 0]),
        ([[1.0, NAN], [NAN, NAN]], False, [1, 0]),
        ([], True, []),
    ],
)
def test_no_class_and_no_number_are_no_label(labels, classes, expected):
    kind = "class-scores" if classes else "values"
    assert labeled_samples(torch.tensor(labels), kind).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, None, 2, 1], [0, -1, 2, 1]),
        ([None, None, 2, None], [-1, -1, 2, -1]),
        ([0.5, None], [0.5, NAN]),
        ([None, None], [NAN, NAN]),
        ([torch.tensor([1.0, 2.0]), None], [[1.0, 2.0], [NAN, NAN]]),
        ([torch.tensor(3), None], [3, -1]),
    ],
)
def test_none_is_no_label(labels, expected):
    data = Pairs(torch.ones(len(labels), 2), labels)
    batch = head(data, len(labels))
    assert torch.equal(batch.labels.isnan(), torch.tensor(expected).isnan())
    assert torch.equal(batch.labels.nan_to_num(), torch.tensor(expected).nan_to_num())
    assert is_labeled(data)


@pytest.mark.parametrize("known", [[0, 1, 2, 3], [1, 3], [2], []])
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_the_loss_of_labels_is_that_of_the_labeled_samples(known, metric):
    outputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 2, 1, 1]) if metric == "accuracy" else torch.ones(4, 3)
    gone = labels.clone()
    gone[[i for i in range(4) if i not in known]] = -1 if metric == "accuracy" else NAN
    own = F.cross_entropy if metric == "accuracy" else F.mse_loss
    value = task_loss(replace(TASK, metric=metric))(outputs, gone)
    expected = own(outputs[known], labels[known]) if known else torch.tensor(0.0)
    assert torch.allclose(value, expected)
    (gradient,) = torch.autograd.grad(value, outputs)
    assert bool((gradient[[i for i in range(4) if i not in known]] == 0).all())
    assert bool((gradient[known] != 0).any()) == bool(known)


def test_positions_of_no_class_are_left_out():
    outputs, labels = torch.randn(2, 3, 4), torch.tensor([[0, 1, -1, 2], [-1, -1, -1, -1]])
    value = task_loss(replace(TASK, outputs="class-scores"))(outputs, labels)
    assert torch.allclose(value, F.cross_entropy(outputs[:1, :, [0, 1, 3]], labels[:1, [0, 1, 3]]))


def test_a_loss_of_your_own_gets_the_labeled_samples_only():
    seen = []

    def own(outputs, labels):
        seen.append(labels.tolist())
        return outputs.sum()

    task_loss(replace(TASK, loss=own))(torch.ones(3, 4), torch.tensor([1, -1, 2]))
    assert seen == [[1, 2]]


def test_negative_labels_of_a_metric_of_your_own_are_labels():
    def signs(outputs, labels):
        return outputs

    task = replace(
        TASK,
        metric=signs,
        higher_is_better=True,
        outputs="values",
        loss=lambda outputs, labels: (outputs * labels).sum(),
    )
    assert float(task_loss(task)(torch.ones(2), torch.tensor([-1, -1]))) == -2


def test_unlabeled_samples_take_part_in_the_teachers_losses_only(start, context):
    events = []
    losses = [{"kind": "response", "temperature": 4.0}, {"kind": "label"}]
    stage = DistillStage(epochs=1, batch_size=len(TASK.train), learning_rate=1e-9, losses=losses)
    changed = replace(context, task=partly(), report=events.append, teacher=CASE.build(seed=3))
    stage.run(start, changed)
    data = changed.task.train
    with torch.no_grad():
        ours = start.module.train()(data.inputs)
        theirs = changed.teacher(data.inputs)
    known = data.labels >= 0
    (said,) = [event["losses"] for event in events if event["event"] == "epoch"]
    expected = F.cross_entropy(ours[known], data.labels[known])
    assert said["label"] == pytest.approx(float(expected), rel=1e-4)
    soft = F.kl_div((ours / 4).log_softmax(1), (theirs / 4).softmax(1), reduction="batchmean")
    assert said["response"] == pytest.approx(16 * float(soft), rel=1e-3)


@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize(
    "stage",
    [
        TrainStage(epochs=3, learning_rate=1e-2),
        DistillStage(epochs=3, learning_rate=1e-2, losses=[{"kind": "dkd"}, {"kind": "label"}]),
        PruneStage(importance="taylor", finetune={"epochs": 3, "learning_rate": 1e-2}),
    ],
    ids=lambda stage: stage.kind,
)
def test_every_stage_that_trains_takes_partly_labeled_data(stage, batch_size, start, context):
    changed = replace(context, task=partly(2), teacher=CASE.build(seed=3))
    settings = stage.finetune if stage.kind == "prune" else stage
    settings = settings.model_copy(update={"batch_size": batch_size})
    stage = stage.model_copy(update={"finetune": settings}) if stage.kind == "prune" else settings
    before = validation_loss(start.module, context)
    after = validation_loss(stage.run(start, changed).module, context)
    assert after < before


@pytest.mark.parametrize("labels", [None, -1])
def test_data_where_no_sample_has_a_label_are_refused(labels, start, context):
    data = Pairs(TASK.train.inputs, [labels] * len(TASK.train))
    with pytest.raises(DataError, match=r"the loss `label` needs labels and the training data"):
        TrainStage().run(start, replace(context, task=replace(TASK, train=data)))


def test_validation_counts_the_labeled_samples(start, context):
    labels = TASK.validation.labels.clone()
    labels[::3] = -1
    known = labels >= 0
    partial = ArrayDataset(TASK.validation.inputs, labels)
    whole = ArrayDataset(TASK.validation.inputs[known], labels[known])
    values = [
        validation_loss(start.module, replace(context, task=replace(TASK, validation=data)))
        for data in (partial, whole)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    none = ArrayDataset(TASK.validation.inputs, torch.full_like(labels, -1))
    unknown = replace(context, task=replace(TASK, validation=none))
    assert validation_loss(start.module, unknown) is None


def value_of(kind, batch, context, start):
    distillation = DistillationContext(start.module, lambda x: x[:, :4], context)
    settings = DistillStage(losses=[{"kind": "response"}, {"kind": kind}]).losses[1:]
    summed = WeightedSum(
        start.module,
        weighted_losses(settings, distillation, 1),
        lambda batch: ModelOutputs(distillation.teacher(batch.inputs)),
    )
    summed.start_epoch(0)
    return float(summed(start.module, batch).detach())


@pytest.mark.parametrize("kind", ["label", "dkd", "response", "hard"])
def test_losses_of_labels_are_mixed_as_the_inputs_are(kind, start, context):
    given = head(TASK.train, 8)
    mixed_targets = given.labels.roll(1)
    mixed = value_of(kind, replace(given, mixed_targets=mixed_targets, lam=0.7), context, start)
    one = value_of(kind, given, context, start)
    other = value_of(kind, replace(given, labels=mixed_targets), context, start)
    assert mixed == pytest.approx(0.7 * one + 0.3 * other, rel=1e-5)
    assert (one == other) == (kind in ("response", "hard"))


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("labels", [True, False], ids=["labeled", "unlabeled"])
@pytest.mark.parametrize(
    ("net", "kind"), [("mlp", "mixup"), ("dscnn", "mixup"), ("dscnn", "cutmix")]
)
def test_teacher_and_student_see_the_same_mixture(net, kind, labels, views, tmp_path):
    case = NETS[net]
    task = case.make_task()
    if not labels:
        task = replace(task, train=task.train.without_labels())
    start, seen = Candidate.of(case.build(), case.example()), {"teacher": set(), "student": set()}

    def record(who, batch):
        if len(batch) > 4:
            seen[who] |= {round(float(value), 3) for value in batch.double().flatten(1).sum(1)}

    class Watched(type(start.module)):
        def forward(self, x):
            if self.training:
                record("student", x)
            return super().forward(x)

    start.module.__class__ = Watched
    teacher = case.build(seed=1)

    def teach(inputs):
        record("teacher", inputs)
        return teacher(inputs)

    losses = [{"kind": "response"}, *([{"kind": "label"}] if labels else [])]
    stage = DistillStage(epochs=3, batch_size=64, views=views, mix={"kind": kind}, losses=losses)
    context = replace(bench_context(start, tmp_path), task=task, teacher=teach)
    after = stage.run(start, context)
    assert seen["teacher"] == seen["student"]
    assert len(seen["student"]) > 0.9 * (views or 3) * len(task.train)
    raw = {round(float(v), 3) for b in read(task.train, 64) for v in inputs_of(b)}
    assert len(raw & seen["student"]) < 0.5 * len(raw)
    assert after.fingerprint != start.fingerprint


def inputs_of(batch: Batch):
    return batch.inputs.double().flatten(1).sum(1)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixtures_of_dense_labels_train(kind, tmp_path):
    case = NETS["unet"]
    start = Candidate.of(case.build(), case.example())
    context = replace(bench_context(start, tmp_path), task=case.make_task())
    stage = TrainStage(epochs=2, batch_size=64, learning_rate=1e-2, mix={"kind": kind})
    before = validation_loss(start.module, context)
    assert validation_loss(stage.run(start, context).module, context) < before


def test_a_task_of_values_may_be_mixed(tmp_path):
    inputs = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
    data = ArrayDataset(inputs, inputs[:, :4] * 2)
    task = Task("values", train=data, validation=data, test=data, metric="mse")
    start = Candidate.of(nn.Linear(24, 4), inputs[:2])
    context = replace(bench_context(start, tmp_path), task=task)
    stage = TrainStage(epochs=10, batch_size=16, learning_rate=3e-2, mix={"kind": "mixup"})
    before = validation_loss(start.module, context)
    assert validation_loss(stage.run(start, context).module, context) < 0.5 * before
