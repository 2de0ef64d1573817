"""Auxiliary heads: outputs that a net has in training mode only, which losses may be on."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress import DistillStage, PruneStage, TrainStage
from compress.errors import DataError
from compress.modules.inputs import forward
from compress.training.supervision import Supervision

from .two_heads import Aux, Heads, losses_of, net, placed, samples, task_of

FORMS = {"dict": ("out", "aux"), "mixed": ("out", "aux"), "tuple": ("0", "1")}


def only_scores(boxes, scores):
    return scores


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("labels", [only_scores, lambda b, s: {"out": s}], ids=["one", "named"])
def test_an_auxiliary_head_learns_from_the_labels_of_the_output(form, labels, tmp_path):
    out, aux = FORMS[form]
    start, context, events = placed(net(Aux, form=form), tmp_path, task_of(labels))
    losses = [{"kind": "label", "on": out}, {"kind": "label", "on": aux, "weight": 0.4}]
    stage = TrainStage(epochs=1, batch_size=48, losses=losses)
    assert stage.rehearse(start, context) is start
    done = stage.run(start, context)
    inputs, _, scores = samples()
    ours = list(start.module.train()(inputs).values()) if form != "tuple" else None
    ours = ours or list(start.module.train()(inputs))
    start.module.eval()
    [means] = losses_of(events)
    assert list(means) == [f"label({out})", f"label({aux})"]
    for value, given in zip(means.values(), ours, strict=True):
        assert value == pytest.approx(float(F.cross_entropy(given, scores).detach()), rel=1e-5)
    [event] = [event for event in events if event["event"] == "epoch"]
    assert event["validation_loss"] is not None
    changed = [
        name
        for name, tensor in done.module.state_dict().items()
        if not torch.equal(tensor, start.module.state_dict()[name])
    ]
    assert {"head.weight", "aux.weight"} <= set(changed)


@pytest.mark.parametrize("form", FORMS)
def test_without_on_a_loss_is_about_the_output_that_ships(form, tmp_path):
    start, context, events = placed(net(Aux, form=form), tmp_path, task_of(only_scores))
    TrainStage(epochs=1, batch_size=48).run(start, context)
    inputs, _, scores = samples()
    given = start.module.train()(inputs)
    out = given[0] if form == "tuple" else given["out"]
    expected = float(F.cross_entropy(out, scores).detach())
    assert losses_of(events)[0]["label"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_tasks_own_loss_of_one_output_is_that_of_an_auxiliary_head_too(form, tmp_path):
    out, aux = FORMS[form]
    calls = []

    def loss(outputs, labels):
        calls.append(outputs.shape)
        return F.cross_entropy(outputs, labels, label_smoothing=0.1)

    task = task_of(only_scores, loss=loss, outputs="class-scores")
    start, context, _ = placed(net(Aux, form=form), tmp_path, task)
    losses = [{"kind": "label", "on": out}, {"kind": "label", "on": aux}]
    TrainStage(epochs=1, batch_size=48, losses=losses).run(start, context)
    assert calls.count(torch.Size([48, 3])) == 3  # both outputs in training, one in validation


@pytest.mark.parametrize("form", FORMS)
def test_an_auxiliary_head_learns_from_the_only_output_of_a_teacher(form, tmp_path):
    _, aux = FORMS[form]
    teacher = net(Aux, seed=1, form=form)
    start, context, events = placed(net(Aux, form=form), tmp_path, task_of(only_scores), teacher)
    losses = [{"kind": "response"}, {"kind": "response", "on": aux}]
    stage = DistillStage(epochs=1, batch_size=48, losses=losses)
    stage.rehearse(start, context)
    stage.run(start, context)
    [means] = losses_of(events)
    given = start.module.train()(samples()[0])
    parts = list(given.values()) if isinstance(given, dict) else list(given)
    taught = forward(teacher.eval(), samples()[0])
    taught = taught["out"] if isinstance(taught, dict) else taught
    for value, one in zip(means.values(), parts, strict=True):
        soft = (one.log_softmax(1), taught.log_softmax(1))
        expected = F.kl_div(*soft, reduction="batchmean", log_target=True)
        assert value == pytest.approx(float(expected.detach()), rel=1e-4)


def test_several_outputs_and_an_auxiliary_head_with_labels_of_its_own(tmp_path):
    def labels(boxes, scores):
        return {"boxes": boxes, "scores": scores, "aux": scores}

    start, context, events = placed(net(aux=True), tmp_path, task_of(labels))
    losses = [{"kind": "label"}, {"kind": "label", "on": "aux", "weight": 0.4}]
    stage = TrainStage(epochs=1, batch_size=48, losses=losses)
    stage.rehearse(start, context)
    stage.run(start, context)
    inputs, boxes, scores = samples()
    given = start.module.train()(inputs)
    expected = F.mse_loss(given["boxes"], boxes) + F.cross_entropy(given["scores"], scores)
    [means] = losses_of(events)
    assert means["label"] == pytest.approx(float(expected.detach()), rel=1e-5)
    aux = float(F.cross_entropy(given["aux"], scores).detach())
    assert means["label(aux)"] == pytest.approx(aux, rel=1e-5)


def test_looking_at_training_mode_changes_nothing_of_the_student(tmp_path):
    module = net(Aux)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    start, context, _ = placed(module, tmp_path, task_of(only_scores))
    state = torch.get_rng_state()
    TrainStage(losses=[{"kind": "label", "on": "aux"}]).rehearse(start, context)
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_an_output_in_neither_mode_lists_those_of_both(tmp_path):
    start, context, _ = placed(net(Aux), tmp_path, task_of(only_scores))
    message = (
        "the loss 'label' is on 'auxx', and the student has no such output; its outputs are out, "
        "and in training mode also aux."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        TrainStage(losses=[{"kind": "label", "on": "auxx"}]).rehearse(start, context)


def test_a_net_that_loses_an_output_in_training_is_one_sentence(tmp_path):
    class Less(Heads):
        def forward(self, x):
            given = super().forward(x)
            return {"boxes": given["boxes"]} if self.training else given

    start, context, _ = placed(net(Less), tmp_path, task_of())
    message = (
        "task 'heads': the model gives boxes in training mode and lacks scores, which it gives in "
        "eval mode; return the same names."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        TrainStage(epochs=1, batch_size=48).run(start, context)


def test_train_takes_no_loss_on_a_teacher():
    with pytest.raises(ValueError, match=r"the loss response needs a teacher; use distill"):
        TrainStage(losses=[{"kind": "label"}, {"kind": "response"}])


def test_train_without_losses_is_written_as_before():
    assert "losses" not in TrainStage().model_dump()
    losses = [{"kind": "label", "on": "out"}]
    assert TrainStage(losses=losses).explain().endswith("with 1 x label on out")
    assert "on" not in TrainStage(losses=[{"kind": "label"}]).model_dump()["losses"][0]


def test_only_what_ships_is_pruned_by_and_the_head_is_there_after(tmp_path):
    start, context, _ = placed(net(Aux, form="mixed"), tmp_path, task_of(only_scores))
    losses = [{"kind": "label", "on": "out"}, {"kind": "label", "on": "aux", "weight": 0.4}]
    trained = TrainStage(epochs=1, batch_size=16, losses=losses).run(start, context)
    supervision = Supervision.of(context.task, trained.module.eval()(samples()[0]))
    assert list(supervision.by_output) == ["output"]


@pytest.mark.parametrize("name", ["logits", "aux_logits1"])
def test_the_named_tuple_of_torchvision(name, tmp_path):
    from collections import namedtuple

    given = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])

    class Inception(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(6, 3) for _ in range(3))

        def forward(self, x):
            outputs = [head(x) for head in self.heads]
            return given(*outputs) if self.training else outputs[0]

    start, context, events = placed(net(Inception), tmp_path, task_of(only_scores))
    losses = [{"kind": "label"}, {"kind": "label", "on": name, "weight": 0.3}]
    TrainStage(epochs=1, batch_size=48, losses=losses).run(start, context)
    [means] = losses_of(events)
    place = given._fields.index(name)
    inputs, _, scores = samples()
    expected = F.cross_entropy(start.module.heads[place](inputs), scores)
    assert means[f"label({name})"] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_finetuning_after_a_cut_has_losses_on_auxiliary_heads(tmp_path):
    start, context, events = placed(
        net(Aux, form="mixed", width=16), tmp_path, task_of(only_scores)
    )
    finetune = {
        "epochs": 1,
        "batch_size": 16,
        "losses": [{"kind": "label", "on": "out"}, {"kind": "label", "on": "aux"}],
    }
    stage = PruneStage(granularity="weights", importance="l1", finetune=finetune)
    stage.rehearse(start, context)
    stage.run(start, context)
    assert list(losses_of(events)[0]) == ["label(out)", "label(aux)"]
