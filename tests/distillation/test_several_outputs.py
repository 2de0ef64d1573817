"""Losses on one of several outputs, or on all of them, of student and teacher."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from compress import DistillStage, TrainStage
from compress.distillation.losses import BUILT_IN
from compress.errors import DataError, StageError
from compress.testing.stage_contract import bench_context
from compress.zoo import build

from .loss_cases import CASES
from .test_losses import Stack
from .two_heads import (
    Heads,
    Plain,
    by_name,
    losses_of,
    net,
    placed,
    samples,
    task_of,
    with_another,
)

ON_OUTPUTS = [kind for kind in CASES if "student" not in CASES[kind].settings]


def trained(pair, loss, folder, wrap):
    """The weights of a student that learns by one loss, and the events of its training."""
    start, events = pair.start(), []

    def build_wrapped(architecture):
        own = architecture.arch == "parts:Stack"
        return wrap(Stack() if own else build(architecture.arch, architecture.options))

    wrap(start.module)
    context = replace(bench_context(start, folder), task=pair.task, build=build_wrapped)
    context = replace(context, report=events.append)
    settings = {"epochs": 2, "batch_size": 32, "learning_rate": 5e-3, "losses": [loss]}
    if not BUILT_IN[loss["kind"]].needs_teacher:
        stage = TrainStage(**settings)
    else:
        stage = DistillStage(student=pair.student, **settings)
    stage.rehearse(start, context)
    return stage.run(start, context).module.state_dict(), losses_of(events)


@pytest.mark.parametrize("kind", CASES)
def test_a_loss_on_one_of_two_outputs_is_that_of_a_net_with_this_one(kind, tmp_path):
    case = CASES[kind]
    block = {"kind": kind, **case.settings}
    on = {"on": "main"} if kind in ON_OUTPUTS else {}
    alone, curve = trained(case.pair, block, tmp_path / "one", lambda module: module)
    both, named = trained(case.pair, {**block, **on}, tmp_path / "two", with_another)
    assert alone.keys() == both.keys()
    assert all(torch.equal(alone[name], both[name]) for name in alone)
    name = f"{kind}(main)" if on else kind
    assert [list(one) for one in named] == [[name]] * 2
    assert [one[name] for one in named] == [one[kind] for one in curve]


@pytest.mark.parametrize("kind", [kind for kind in ON_OUTPUTS if kind != "label"])
def test_a_loss_on_outputs_asks_which_of_two_it_is_about(kind, tmp_path):
    case = CASES[kind]
    block = {"kind": kind, **case.settings}
    message = rf"^the loss '{kind}' is about one output, and the student gives other, main; say "
    with pytest.raises(StageError, match=message + "which: on: other.$"):
        trained(case.pair, block, tmp_path, with_another)


class Tuple(Plain):
    """Its outputs have places for names."""

    def forward(self, x):
        return tuple(super().forward(x).values())


def test_places_are_written_in_quotes(tmp_path):
    start, context, _ = placed(net(Tuple), tmp_path, task_of(lambda b, s: (b, s)), net(seed=1))
    TrainStage(epochs=1, batch_size=16).run(start, context)
    with pytest.raises(StageError, match=r"the student gives 0, 1; say which: on: '0'\.$"):
        DistillStage(losses=[{"kind": "l1"}]).rehearse(start, context)
    message = r"the teacher boxes, scores, .* as in outputs: \{'0': boxes\}, .* with on: '0'\.$"
    with pytest.raises(StageError, match=message):
        DistillStage().rehearse(start, context)


@pytest.mark.parametrize("kind", ["response", "hint", "label"])
def test_an_output_that_is_not_there_lists_those_that_are(kind, tmp_path):
    case = CASES[kind]
    block = {"kind": kind, **case.settings, "on": "mian"}
    message = (
        rf"^the loss '{kind}' is on 'mian', and the student has no such output; its outputs are "
        r"other, main\.$"
    )
    with pytest.raises(DataError, match=message):
        trained(case.pair, block, tmp_path, with_another)


def test_a_loss_is_for_outputs_of_its_kind_by_output(tmp_path):
    start, context, _ = placed(net(), tmp_path, task_of())
    stage = DistillStage(losses=[{"kind": "response", "on": "boxes"}])
    message = (
        r"^the loss 'response' is for outputs that are class-scores or tokens, and the output "
        r"'boxes' of task 'heads', \(2, 4\), is values: use logits-mse, or say what it is in the "
        r"task \(outputs: \.\.\.\)\.$"
    )
    with pytest.raises(StageError, match=message):
        stage.rehearse(start, context)


def test_losses_on_two_outputs_are_added(tmp_path):
    start, context, events = placed(net(), tmp_path, task_of(), net(seed=1))
    stage = DistillStage(
        epochs=1,
        batch_size=48,
        losses=[
            {"kind": "l1", "on": "boxes", "weight": 2.0},
            {"kind": "response", "on": "scores"},
            {"kind": "label", "on": "scores", "weight": 0.5},
            {"kind": "label", "on": "boxes"},
        ],
    )
    stage.run(start, context)
    [means] = losses_of(events)
    assert list(means) == ["l1(boxes)", "response(scores)", "label(scores)", "label(boxes)"]
    inputs, boxes, scores = samples()
    ours, theirs = start.module.train()(inputs), net(seed=1)(inputs)
    expected = {
        "l1(boxes)": F.l1_loss(ours["boxes"], theirs["boxes"]),
        "response(scores)": F.kl_div(
            ours["scores"].log_softmax(1),
            theirs["scores"].log_softmax(1),
            reduction="batchmean",
            log_target=True,
        ),
        "label(scores)": F.cross_entropy(ours["scores"], scores),
        "label(boxes)": F.mse_loss(ours["boxes"], boxes),
    }
    for name, value in expected.items():
        assert means[name] == pytest.approx(float(value.detach()), rel=1e-5)
    [event] = [event for event in events if event["event"] == "epoch"]
    total = 2 * means["l1(boxes)"] + means["response(scores)"]
    total += 0.5 * means["label(scores)"] + means["label(boxes)"]
    assert event["loss"] == pytest.approx(total, rel=1e-5)


def test_the_loss_label_of_all_outputs_is_the_sum_of_theirs(tmp_path):
    start, context, events = placed(net(), tmp_path, task_of())
    TrainStage(epochs=1, batch_size=48).run(start, context)
    [means] = losses_of(events)
    inputs, boxes, scores = samples()
    ours = start.module.train()(inputs)
    expected = F.mse_loss(ours["boxes"], boxes) + F.cross_entropy(ours["scores"], scores)
    assert means["label"] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_samples_with_some_labels_take_part_in_these(tmp_path):
    def some(boxes, scores):
        return {"boxes": boxes if scores == 0 else None, "scores": scores if scores != 1 else None}

    start, context, events = placed(net(), tmp_path, task_of(some))
    TrainStage(epochs=1, batch_size=48).run(start, context)
    inputs, boxes, scores = samples()
    ours = start.module.train()(inputs)
    with_boxes, with_scores = scores == 0, scores != 1
    expected = F.mse_loss(ours["boxes"][with_boxes], boxes[with_boxes])
    expected = expected + F.cross_entropy(ours["scores"][with_scores], scores[with_scores])
    assert losses_of(events)[0]["label"] == pytest.approx(float(expected.detach()), rel=1e-5)
    [event] = [event for event in events if event["event"] == "epoch"]
    assert event["validation_loss"] is not None


def test_labels_may_be_for_one_of_the_outputs(tmp_path):
    start, context, events = placed(net(), tmp_path, task_of(lambda b, s: {"scores": s}))
    TrainStage(epochs=1, batch_size=48).run(start, context)
    inputs, _, scores = samples()
    expected = F.cross_entropy(start.module.train()(inputs)["scores"], scores)
    assert losses_of(events)[0]["label"] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_labels_of_one_tensor_are_for_the_output_that_a_loss_names(tmp_path):
    start, context, events = placed(net(), tmp_path, task_of(lambda b, s: s))
    TrainStage(epochs=2, batch_size=48, losses=[{"kind": "label", "on": "scores"}]).run(
        start, context
    )
    first, last = losses_of(events)
    assert last["label(scores)"] < first["label(scores)"]
    assert all(e["validation_loss"] is not None for e in events if e["event"] == "epoch")


def test_the_tasks_own_loss_gets_all_outputs_and_labels_as_they_are(tmp_path):
    seen = []

    def loss(outputs, labels):
        seen.append((list(outputs), labels.shape))
        return outputs["boxes"].square().mean() + F.cross_entropy(outputs["scores"], labels)

    start, context, _ = placed(net(), tmp_path, task_of(lambda b, s: s, loss=loss))
    TrainStage(epochs=1, batch_size=48).run(start, context)
    assert {tuple(names) for names, _ in seen} == {("boxes", "scores")}
    assert (torch.Size([48])) in {shape for _, shape in seen}


WRONG_LABELS = {
    "one tensor": (
        lambda boxes, scores: scores,
        (
            r"its labels are one tensor and the model's outputs are boxes, scores; say which they "
            r"are for, as in losses: \[\{kind: label, on: boxes\}\], give them names, as in "
            r"fields: \{label: \{boxes: KEY\}\}, or give the task a loss of its own\.$"
        ),
    ),
    "other names": (
        lambda boxes, scores: {"box": boxes, "score": scores},
        (
            r"its labels box, score are for no output of the model, which gives boxes, scores; "
            r"give labels the names of outputs, as in fields: \{label: \{boxes: KEY\}\}\.$"
        ),
    ),
    "one other name": (
        lambda boxes, scores: {"box": boxes, "scores": scores},
        r"its labels box are for no output of the model, which gives boxes, scores",
    ),
    "places": (
        lambda boxes, scores: (boxes, scores),
        r"its labels 0, 1 are for no output of the model, which gives boxes, scores",
    ),
    "another shape": (
        lambda boxes, scores: {"boxes": boxes[:3], "scores": scores},
        (
            r"what kind the model's output 'boxes', \(n, 4\), is of is not known, and labels \(n, "
            r"3\) of floating-point numbers .* say it in the task: outputs: \{boxes: KIND\}, where "
            r"KIND is"
        ),
    ),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
@pytest.mark.parametrize("attempt", ["rehearse", "run"])
def test_labels_that_fit_no_output_are_one_sentence(case, attempt, tmp_path):
    labels, said = WRONG_LABELS[case]
    start, context, _ = placed(net(), tmp_path, task_of(labels))
    with pytest.raises(DataError, match=rf"^task 'heads': {said}"):
        getattr(TrainStage(epochs=1, batch_size=16), attempt)(start, context)


def test_a_label_loss_on_an_output_without_labels_is_one_sentence(tmp_path):
    start, context, _ = placed(net(), tmp_path, task_of(lambda b, s: {"scores": s}))
    message = r"^the loss `label` needs labels for 'boxes' and the training data of task 'heads'"
    with pytest.raises(DataError, match=message):
        TrainStage(losses=[{"kind": "label", "on": "boxes"}]).rehearse(start, context)


DEFAULTS = {
    "labels by name": (
        by_name,
        (
            r"for boxes \(values\), scores \(class-scores\): 1 x logits-mse on boxes and 1 x label "
            r"on boxes and 0\.3 x dist on scores and 1 x label on scores$"
        ),
    ),
    "labels for one": (
        lambda boxes, scores: {"scores": scores},
        r": 1 x logits-mse on boxes and 0\.3 x dist on scores and 1 x label on scores$",
    ),
    "no labels": (
        None,
        r": 1 x logits-mse on boxes and 0\.3 x dist on scores and 1 x response on scores$",
    ),
}


@pytest.mark.parametrize("case", DEFAULTS)
def test_by_default_every_output_has_its_losses(case, tmp_path):
    labels, said = DEFAULTS[case]
    task = task_of(labels, outputs={"boxes": "values", "scores": "class-scores"})
    start, context, _ = placed(net(), tmp_path, task, net(seed=1))
    done = DistillStage(epochs=1, batch_size=16).run(start, context)
    [note] = [note for note in done.notes if note.startswith("losses by default")]
    assert re.search(said, note)


def test_by_default_a_loss_of_the_tasks_own_stands_for_all_on_labels(tmp_path):
    def loss(outputs, labels):
        return F.cross_entropy(outputs["scores"], labels["scores"])

    task = task_of(loss=loss)
    start, context, _ = placed(net(), tmp_path, task, net(seed=1))
    done = DistillStage(epochs=1, batch_size=16).run(start, context)
    assert done.notes[0].endswith(
        ": 1 x logits-mse on boxes and 0.3 x dist on scores and 1 x label"
    )


def test_by_default_a_teacher_of_other_names_is_asked_about(tmp_path):
    start, context, _ = placed(net(), tmp_path, task_of(), net(names=("a", "b")))
    message = (
        r"^the student gives boxes, scores and the teacher a, b, which have no name in common; say "
        r"in the teacher's block which teaches which, as in outputs: \{boxes: a\}, or name losses "
        r"with on: boxes\.$"
    )
    with pytest.raises(StageError, match=message):
        DistillStage(epochs=1).rehearse(start, context)


def test_a_task_that_names_outputs_ships_these(tmp_path):
    task = task_of(lambda b, s: s, outputs={"scores": "class-scores"})
    start, context, events = placed(net(), tmp_path, task, net(seed=1))
    DistillStage(epochs=1, batch_size=16, losses=[{"kind": "response"}, {"kind": "label"}]).run(
        start, context
    )
    assert list(losses_of(events)[0]) == ["response", "label"]


def test_a_task_that_names_another_output_is_one_sentence(tmp_path):
    task = task_of(outputs={"score": "class-scores"})
    start, context, _ = placed(net(), tmp_path, task)
    message = (
        r"^task 'heads': the model has no output 'score', which the task names in outputs; its "
        r"outputs are boxes, scores\.$"
    )
    with pytest.raises(DataError, match=message):
        TrainStage(epochs=1).rehearse(start, context)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "task 'heads': outputs has no name in it; give each output that ships with its kind"),
        ({"boxes": "box"}, "outputs.boxes is one of class-scores, .*, tokens; got 'box'"),
        ({"boxes": None}, "outputs.boxes is one of class-scores, .*, tokens; got None"),
    ],
)
def test_outputs_of_a_task_are_kinds_by_name(outputs, message):
    with pytest.raises(DataError, match=message):
        task_of(outputs=outputs)


def test_probabilities_are_found_by_output(tmp_path):
    class Soft(Heads):
        def forward(self, x):
            given = super().forward(x)
            return {**given, "scores": given["scores"].softmax(1)}

    start, context, _ = placed(net(), tmp_path, task_of(), net(Soft, seed=1))
    losses = [{"kind": "logits-mse", "on": "boxes"}, {"kind": "response", "on": "scores"}]
    with pytest.raises(Exception, match=r"the loss 'response' takes logits, and the teacher ret"):
        DistillStage(losses=losses).rehearse(start, context)
    DistillStage(losses=losses[:1]).rehearse(start, context)


@pytest.mark.parametrize("differing", [None, "boxes", "scores"])
def test_a_student_that_equals_its_teacher_where_they_are_compared_is_said_to(differing, tmp_path):
    teacher = net(Plain)
    if differing is not None:
        getattr(teacher, differing).bias.data += 1
    start, context, events = placed(net(Plain), tmp_path, task_of(), teacher)
    stage = DistillStage(epochs=1, batch_size=48, losses=[{"kind": "l1", "on": "boxes"}])
    stage.run(start, context)
    texts = [event["text"] for event in events if event["event"] == "warning"]
    equal = any("the student's outputs equal the teacher's" in one for one in texts)
    assert equal == (differing != "boxes")
