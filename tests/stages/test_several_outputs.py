"""Stages that train models of several outputs: own losses, mixtures, cuts, texts, precision."""

import sys
import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from compress import Candidate, DistillStage, PruneStage, QuantizeStage, TrainStage
from compress.config.references import CodeReferences
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError, StageError, TrainingDiverged
from compress.stages.fit import supervision_of, validation_loss
from compress.task import Task
from compress.testing.stage_contract import bench_context
from compress.training.data import SeededEpochs, head
from compress.training.mixup import Mix
from tests.distillation.two_heads import (
    by_name,
    losses_of,
    net,
    placed,
    samples,
    task_of,
)

CALLS = []


def own(student, teacher, labels, scale=1.0):
    CALLS.append((student, teacher, labels))
    if isinstance(student, dict):
        return scale * F.mse_loss(student["boxes"], teacher["boxes"])
    return scale * F.mse_loss(student, teacher)


@pytest.fixture
def place(tmp_path, monkeypatch):
    module = types.ModuleType("own_parts")
    module.own = own
    monkeypatch.setitem(sys.modules, "own_parts", module)
    CALLS.clear()
    start, context, events = placed(net(), tmp_path / "stage", task_of(), net(seed=1))
    return start, replace(context, references=CodeReferences(frozenset({"own_parts"}))), events


def test_a_loss_of_ones_own_gets_all_outputs_by_name(place):
    start, context, events = place
    DistillStage(epochs=1, batch_size=48, losses=[{"kind": "own_parts:own"}]).run(start, context)
    student, teacher, labels = CALLS[0]
    for given in (student, teacher, labels):
        assert list(given) == ["boxes", "scores"]
    assert torch.is_floating_point(labels["boxes"])
    assert labels["scores"].dtype == torch.int64
    assert list(losses_of(events)[0]) == ["own_parts:own"]


def test_a_loss_of_ones_own_on_an_output_gets_its_tensors(place):
    start, context, events = place
    block = {"kind": "own_parts:own", "on": "scores", "scale": 2.0}
    stage = DistillStage(epochs=1, batch_size=48, losses=[block])
    assert stage.losses[0].description == "1 x own_parts:own (scale: 2.0) on scores"
    stage.rehearse(start, context)
    stage.run(start, context)
    student, teacher, labels = CALLS[-1]
    assert student.shape == teacher.shape == (48, 3)
    assert labels.shape == (48,)
    assert list(losses_of(events)[0]) == ["own_parts:own(scores)"]


def test_null_options_of_an_own_loss_are_kept_beside_on():
    loss = DistillStage(losses=[{"kind": "own_parts:own", "scale": None}]).losses[0]
    assert loss.model_dump(exclude_none=True)["scale"] is None
    assert "on" not in loss.model_dump()


# Mixtures.


def mixed(kind, labels, inputs=(3, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    rows = [(torch.rand(*inputs, generator=generator), labels(i)) for i in range(8)]
    task = Task("mixed", rows, rows, rows)
    return next(SeededEpochs(task.train, 8, 0, mix=Mix(kind, 1.0)).batches(0))


def test_mixup_mixes_every_label_with_that_of_the_same_sample():
    batch = mixed("mixup", lambda i: {"a": torch.tensor(i), "b": torch.full((2, 2), float(i))})
    assert torch.equal(batch.labels["a"].float(), batch.labels["b"][:, 0, 0])
    assert torch.equal(batch.mixed_targets["a"].float(), batch.mixed_targets["b"][:, 0, 0])
    assert not torch.equal(batch.labels["a"], batch.mixed_targets["a"])


def test_cutmix_cuts_all_labels_with_positions():
    batch = mixed(
        "cutmix", lambda i: {"a": torch.full((8, 8), i), "b": torch.full((2, 8, 8), float(i))}
    )
    assert batch.mixed_targets is None
    assert torch.equal(batch.labels["a"].float(), batch.labels["b"][:, 0])


def test_cutmix_mixes_labels_without_positions():
    batch = mixed("cutmix", lambda i: {"a": i, "b": torch.full((2,), float(i))})
    assert set(batch.mixed_targets) == {"a", "b"}


def test_cutmix_does_not_do_both():
    message = (
        r"^cutmix cuts labels of positions \(mask\) and mixes others \(kind\), and cannot do both "
        r"in one batch: use mixup\.$"
    )
    with pytest.raises(DataError, match=message):
        mixed("cutmix", lambda i: {"kind": i, "mask": torch.full((8, 8), i)})


@pytest.mark.parametrize("losses", [[], [{"kind": "label", "on": "scores"}]])
def test_mixed_samples_have_the_loss_of_both_labels(losses, tmp_path):
    start, context, events = placed(net(), tmp_path, task_of())
    settings = {"epochs": 1, "batch_size": 48, "mix": {"kind": "mixup"}}
    TrainStage(losses=losses, **settings).run(start, context)
    batch = next(SeededEpochs(context.task.train, 48, 7, mix=Mix("mixup", 1.0)).batches(0))
    given = start.module.train()(batch.inputs)
    names = ["scores"] if losses else ["boxes", "scores"]
    parts = {"boxes": F.mse_loss, "scores": F.cross_entropy}
    expected = sum(
        batch.lam * parts[name](given[name], batch.labels[name])
        + (1 - batch.lam) * parts[name](given[name], batch.mixed_targets[name])
        for name in names
    )
    [value] = losses_of(events)[0].values()
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)


# Validation, precision, averages.


def test_the_validation_loss_is_the_mean_over_batches_of_the_sum_over_outputs(tmp_path):
    start, context, _ = placed(net(), tmp_path, task_of())
    with torch.no_grad():
        given = start.module(samples()[0])
    _, boxes, scores = samples()
    expected = F.mse_loss(given["boxes"], boxes) + F.cross_entropy(given["scores"], scores)
    assert validation_loss(start.module, context) == pytest.approx(float(expected), rel=1e-5)
    assert list(supervision_of(start, context).by_output) == ["boxes", "scores"]


def test_patience_and_averages_work_with_several_outputs(tmp_path):
    start, context, events = placed(net(), tmp_path, task_of())
    stage = TrainStage(epochs=3, batch_size=16, patience=1, ema=0.9, learning_rate=1e-2)
    done = stage.run(start, context)
    done.validate()
    assert all(e["validation_loss"] > 0 for e in events if e["event"] == "epoch")


def test_half_precision_comes_back_in_float32_by_output(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    seen = []

    def loss(outputs, labels):
        seen.extend(one.dtype for one in outputs.values())
        return outputs["boxes"].mean() + outputs["scores"].mean()

    start, context, _ = placed(net(), tmp_path, task_of(loss=loss))
    TrainStage(epochs=1, batch_size=48).run(start, context)
    assert set(seen) == {torch.float32}


def test_training_after_quantize_simulates_formats_of_all_outputs(tmp_path):
    start, context, events = placed(net(), tmp_path, task_of(), net(seed=1))
    quantized = QuantizeStage().run(start, context)
    DistillStage(epochs=1, batch_size=16).run(quantized, context).validate()
    assert losses_of(events)


# Cuts.


@pytest.mark.parametrize("labels", [by_name, None], ids=["labels", "teacher"])
def test_a_cut_by_gradients_looks_at_all_outputs(labels, tmp_path):
    task = task_of(labels, outputs={"boxes": "values", "scores": "class-scores"})
    start, context, _ = placed(net(), tmp_path, task, net(seed=1))
    done = PruneStage(ratio=0.5, importance="taylor").run(start, context)
    assert done.module.boxes.in_features == done.module.scores.in_features == 4


def test_a_cut_by_gradients_needs_outputs_in_common(tmp_path):
    task = task_of(None, outputs={"boxes": "values", "scores": "class-scores"})
    start, context, _ = placed(net(), tmp_path, task, net(names=("a", "b")))
    message = (
        r"^prune: the model gives boxes, scores and the teacher a, b, and there are no labels; "
        r"importance by gradients needs labels, or a teacher with outputs of the same names\.$"
    )
    with pytest.raises(StageError, match=message):
        PruneStage(ratio=0.5, importance="taylor").run(start, context)


@pytest.mark.parametrize(
    ("labels", "names"),
    [(by_name, ["label"]), (None, ["logits-mse(boxes)", "response(scores)"])],
    ids=["labels", "teacher"],
)
def test_training_after_a_cut_has_losses_by_default(labels, names, tmp_path):
    task = task_of(labels, outputs={"boxes": "values", "scores": "class-scores"})
    start, context, events = placed(net(), tmp_path, task, net(seed=1))
    finetune = {"epochs": 1, "batch_size": 16}
    PruneStage(granularity="weights", finetune=finetune).run(start, context)
    assert list(losses_of(events)[0]) == names


# Texts of several lengths.


class Reader(nn.Module):
    """Two outputs of texts; ``by_length`` says whether the second depends on the padding."""

    def __init__(self, padding_shows=False):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.tags, self.score = nn.Linear(4, 3), nn.Linear(4, 2)
        self.padding_shows = padding_shows

    def forward(self, input_ids, attention_mask):
        hidden = self.embedding(input_ids)
        mask = attention_mask[..., None].float()
        count = hidden.shape[1] if self.padding_shows else mask.sum(1)
        score = self.score((hidden * mask).sum(1) / count)
        return {"tags": self.tags(hidden).movedim(-1, 1), "score": score}


class Texts:
    """Texts of lengths 2 to 7, padded to 8, with a tag for each token and a class for each text."""

    lengths = torch.arange(48) % 6 + 2

    def __len__(self):
        return 48

    def __getitem__(self, index):
        length = int(self.lengths[index])
        ids = torch.zeros(8, dtype=torch.long)
        ids[:length] = (torch.arange(length) + index) % 9 + 1
        tags = torch.where(ids > 0, ids % 3, -1)
        inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        return inputs, {"tags": tags, "score": index % 2}


def reading(tmp_path, **options):
    data = Texts()
    module, teacher = net(Reader, **options), net(Reader, seed=1, **options)
    start, events = Candidate.of(module, head(data, 2).inputs), []
    task = Task("texts", data, data, data, outputs={"tags": "tokens", "score": "class-scores"})
    context = replace(bench_context(start, tmp_path), task=task, report=events.append)
    return start, replace(context, teacher=frozen_teacher(teacher)), events


@pytest.mark.parametrize("views", [None, 1])
def test_batches_of_similar_lengths_cut_labels_and_outputs(views, tmp_path):
    start, context, events = reading(tmp_path)
    losses = [{"kind": "response", "on": "tags"}, {"kind": "label"}]
    stage = DistillStage(epochs=2, batch_size=8, by_length=True, views=views, losses=losses)
    stage.rehearse(start, context)
    done = stage.run(start, context)
    assert any("batches are cut to their longest text" in note for note in done.notes)
    assert list(losses_of(events)[0]) == ["response(tags)", "label"]
    without = DistillStage(epochs=2, batch_size=8, by_length=True, losses=losses)
    assert without.run(start, context).fingerprint == done.fingerprint or views == 1


def test_an_output_that_depends_on_padding_keeps_it(tmp_path):
    start, context, _ = reading(tmp_path, padding_shows=True)
    message = r"by_length: .*: the outputs of the student and the teacher depend on it\.$"
    with pytest.raises(StageError, match=message):
        DistillStage(epochs=1, by_length=True).rehearse(start, context)


# One output, in forms that several have.


class Single(nn.Module):
    """One output, as a tensor or in a dictionary."""

    def __init__(self, named=False):
        super().__init__()
        self.head, self.named = nn.Linear(6, 3), named

    def forward(self, x):
        return {"logits": self.head(x)} if self.named else self.head(x)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "labels", [lambda b, s: s, lambda b, s: {"kind": s}], ids=["a tensor", "by name"]
)
def test_one_output_learns_from_the_only_label_whatever_its_name(labels, named, tmp_path):
    start, context, events = placed(net(Single, named=named), tmp_path, task_of(labels))
    name = "logits" if named else "output"
    for losses in ([], [{"kind": "label", "on": name}]):
        TrainStage(epochs=1, batch_size=48, losses=losses).run(start, context)
    inputs, _, scores = samples()
    expected = float(F.cross_entropy(start.module.head(inputs), scores).detach())
    values = [value for one in losses_of(events) for value in one.values()]
    assert values == pytest.approx([expected, expected], rel=1e-5)


def test_the_tasks_own_loss_gets_labels_by_name_of_one_output_too(tmp_path):
    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels["scores"]) + 0.0 * labels["boxes"].mean()

    start, context, events = placed(net(Single), tmp_path, task_of(loss=loss))
    TrainStage(epochs=1, batch_size=48).run(start, context)
    inputs, _, scores = samples()
    expected = float(F.cross_entropy(start.module.head(inputs), scores).detach())
    assert losses_of(events)[0]["label"] == pytest.approx(expected, rel=1e-5)


def test_decoupled_distillation_takes_the_labels_of_its_output_where_there_are_some(tmp_path):
    def some(boxes, scores):
        return {"scores": None if scores == 0 else scores}

    found = []
    for labels in (some, lambda b, s: {"boxes": b}, None):
        task = task_of(labels, outputs={"boxes": "values", "scores": "class-scores"})
        start, context, events = placed(net(), tmp_path, task, net(seed=1))
        losses = [{"kind": "dkd", "on": "scores"}]
        DistillStage(epochs=1, batch_size=48, losses=losses).run(start, context)
        found.append(losses_of(events)[0]["dkd(scores)"])
    assert found[0] != found[2]
    assert found[1] == found[2]  # labels of another output are none of this one


def test_a_batch_that_diverges_is_saved_with_its_labels_by_name(tmp_path):
    def labels(boxes, scores):
        return {"boxes": boxes * float("inf"), "scores": scores}

    task = task_of(labels, outputs={"boxes": "values", "scores": "class-scores"})
    start, context, _ = placed(net(), tmp_path, task)
    with pytest.raises(TrainingDiverged, match=r"the training loss became (inf|nan) in epoch 1"):
        TrainStage(epochs=1, batch_size=16).run(start, context)
    saved = load_file(context.workdir / "diverged-batch.safetensors")
    assert set(saved) == {"inputs", "labels.boxes", "labels.scores"}
