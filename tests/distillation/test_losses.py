"""Every loss in recipes: between different architectures, in every place of a chain."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from compress import Candidate, DistillStage, PruneStage, QuantizeStage, Recipe, TrainStage
from compress.config.references import CodeReferences
from compress.distillation.losses import BUILT_IN, WeightSchedule
from compress.distillation.losses.adversarial import Adversary
from compress.distillation.losses.contrastive import Embedding
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError, RecipeError, SelectorError, StageError
from compress.modules.features import Adapter
from compress.tasks.arrays import ArrayDataset
from compress.testing.stage_contract import bench_context
from compress.zoo import build
from tests.covering import kept_of

from .loss_cases import CASES, CLASSES, IMAGES, SAMPLES


class Stack(nn.Module):
    """An image-to-image net that is no U-Net."""

    def __init__(self, width=8):
        super().__init__()
        self.inner = nn.Conv2d(1, width, 3, padding=1)
        self.outer = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x):
        return self.outer(torch.relu(self.inner(x)))


#: A stage that distills needs one of these.
KINDS = [kind for kind in CASES if BUILT_IN[kind].needs_teacher]
RELATIONS = ["crd", "pkt", "rkd-angle", "rkd-distance", "similarity"]


def block(kind):
    return {"kind": kind, **CASES[kind].settings}


def prepared(pair, folder, **changes):
    """What a stage is given; ``parts`` is the module with the student of images."""
    start = pair.start()

    def build_any(architecture):
        own = architecture.arch == "parts:Stack"
        return Stack() if own else build(architecture.arch, architecture.options)

    context = replace(bench_context(start, folder), task=pair.task, build=build_any)
    return start, replace(context, **changes)


def listen(context):
    events = []
    return replace(context, report=events.append), events


def distill(pair, *losses, epochs=1, student=True, **settings):
    return DistillStage(
        student=pair.student if student else "self",
        losses=losses,
        epochs=epochs,
        batch_size=32,
        learning_rate=5e-3,
        **settings,
    )


def shapes_of(candidate):
    return {name: t.shape for name, t in candidate.module.state_dict().items()}


# Of the relations between samples one stands for the others here.
@pytest.mark.parametrize("kind", kept_of(KINDS, {*KINDS} - {*RELATIONS} | {"rkd-distance"}))
def test_a_loss_in_yaml_teaches_before_and_after_a_quantize_and_a_prune(kind, tmp_path):
    pair = CASES[kind].pair
    fast = {"epochs": 1, "batch_size": 32, "losses": [block(kind)]}
    stages = [
        {"kind": "distill", "student": pair.student, **fast},
        {"kind": "quantize"},
        {"kind": "prune", "ratio": 0.5, "round_to": 4, "finetune": fast},
        {"kind": "distill", **fast},
    ]
    recipe = Recipe.loads(yaml.safe_dump({"name": "chain", "stages": stages}), imports=["parts"])
    again = Recipe.loads(recipe.dumps(), imports=["parts"])
    assert again.stages == recipe.stages
    current, context = prepared(pair, tmp_path)
    context, events = listen(context)
    for stage in recipe.stages:
        rehearsed = stage.rehearse(current, context)
        current = stage.run(current, context)
        current.validate()
        assert shapes_of(rehearsed) == shapes_of(current)
    events = [event for event in events if event["event"] in ("pace", "epoch")]
    assert [event["event"] for event in events] == ["pace", "epoch"] * 3
    epochs = events[1::2]
    assert [list(event["losses"]) for event in epochs] == [[kind]] * 3
    assert all(np.isfinite(event["losses"][kind]) for event in epochs)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if CASES[kind].teaches_alone])
def test_a_student_learns_from_every_loss_alone(kind, tmp_path):
    pair = CASES[kind].pair
    start, context = prepared(pair, tmp_path)
    context, events = listen(context)
    distill(pair, block(kind), epochs=5).run(start, context)
    curve = [event["losses"][kind] for event in events if event["event"] == "epoch"]
    assert curve[-1] < 0.95 * curve[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not CASES[kind].reads_labels])
def test_no_loss_but_label_looks_at_labels(kind, tmp_path):
    # Decoupled distillation does where there are labels, as its paper; its unit tests say how.
    pair = CASES[kind].pair
    start, context = prepared(pair, tmp_path)
    bare = ArrayDataset(pair.task.train.inputs)
    unlabeled = replace(context, task=replace(pair.task, train=bare, validation=bare))
    stage = distill(pair, block(kind))
    with_labels = stage.run(start, context).fingerprint
    assert stage.run(start, unlabeled).fingerprint == with_labels


def test_decoupled_distillation_works_without_labels(tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    bare = ArrayDataset(CLASSES.task.train.inputs)
    unlabeled = replace(context, task=replace(CLASSES.task, train=bare, validation=bare))
    stage = distill(CLASSES, block("dkd"))
    assert stage.run(start, unlabeled).fingerprint != stage.run(start, context).fingerprint


@pytest.mark.parametrize("kind", RELATIONS)
def test_a_relation_of_outputs_needs_no_module_and_no_equal_classes(kind, tmp_path):
    start, context = prepared(CLASSES, tmp_path, teacher=lambda x: x.flatten(1)[:, :7])
    distill(CLASSES, {"kind": kind}).run(start, context).validate()


def test_families_combine_and_each_reports_its_own_curve(tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    context, events = listen(context)
    rising = {"from": 0, "to": 3, "schedule": "cosine"}
    losses = [
        {"kind": "response", "weight": {"from": 1.0, "to": 0.2}},
        {"kind": "response", "temperature": 1.0, "weight": rising},
        {**block("hint"), "weight": 0.5},
        {"kind": "label", "weight": 2},
    ]
    stage = distill(CLASSES, *losses, epochs=3)
    assert "1 to 0.2 x response, 0 to 3 x response, 0.5 x hint, 2 x label" in stage.explain()
    stage.run(start, context)
    weights = [(1.0, 0.0, 0.5, 2.0), (0.6, 1.5, 0.5, 2.0), (0.2, 3.0, 0.5, 2.0)]
    for event, expected in zip(events, weights, strict=True):
        assert list(event["losses"]) == ["response", "response-2", "hint", "label"]
        total = np.dot(expected, list(event["losses"].values()))
        assert event["loss"] == pytest.approx(total, rel=1e-5)


def test_training_on_labels_reports_its_loss_too(tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    context, events = listen(context)
    TrainStage(epochs=1).run(start, context)
    assert events[0]["losses"] == {"label": pytest.approx(events[0]["loss"])}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.9, 0.7, 0.5, 0.3, 0.1]),
        ("cosine", [0.9, 0.9 - 0.8 * (1 - 2**-0.5) / 2, 0.5, 0.1 + 0.8 * (1 - 2**-0.5) / 2, 0.1]),
    ],
)
def test_a_weight_goes_from_the_first_epoch_to_the_last(schedule, expected):
    weight = WeightSchedule.model_validate({"from": 0.9, "to": 0.1, "schedule": schedule})
    assert [weight.at(epoch, 5) for epoch in range(5)] == pytest.approx(expected)
    assert weight.at(0, 1) == 0.9


@pytest.mark.parametrize(
    ("kind", "made"), [("hint", Adapter), ("hidden", Adapter), ("crd", Embedding)]
)
def test_what_is_trained_beside_the_student_learns_and_is_thrown_away(
    kind, made, tmp_path, monkeypatch
):
    trained = []
    whole = made.__init__

    def remember(self, *arguments):
        whole(self, *arguments)
        trained.append((self, {k: v.clone() for k, v in self.state_dict().items()}))

    monkeypatch.setattr(made, "__init__", remember)
    pair = CASES[kind].pair
    start, context = prepared(pair, tmp_path)
    student = distill(pair, block(kind)).run(start, context)
    ((companion, before),) = trained
    assert all(not torch.equal(v, before[k]) for k, v in companion.state_dict().items())
    options = {k: v for k, v in pair.student.items() if k != "arch"}
    assert list(student.module.state_dict()) == list(
        build(pair.student["arch"], options).state_dict()
    )


def test_equal_widths_need_no_adapter(tmp_path, monkeypatch):
    monkeypatch.setattr(Adapter, "__init__", None)  # to make one would fail
    start, context = prepared(CLASSES, tmp_path)
    same = {"kind": "hint", "student": "blocks.*", "teacher": "blocks.*"}
    distill(CLASSES, same, student=False).run(start, context)


def test_a_discriminator_learns_beside_the_student(tmp_path, monkeypatch):
    made = []
    whole = Adversary.__init__

    def remember(self, *arguments):
        whole(self, *arguments)
        made.append((self, {k: v.clone() for k, v in self.discriminator.state_dict().items()}))

    monkeypatch.setattr(Adversary, "__init__", remember)
    start, context = prepared(IMAGES, tmp_path)
    distill(IMAGES, block("adversarial")).run(start, context)
    ((adversary, before),) = made
    after = adversary.discriminator.state_dict()
    assert all(not torch.equal(after[k], before[k]) for k in after if k.endswith("original"))


def counting(module):
    calls = []

    class Counted(type(module)):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    module.__class__ = Counted
    return frozen_teacher(module), calls


@pytest.mark.parametrize("kind", ["hint", "attention-transfer", "crd"])
def test_features_are_cached_with_the_outputs(kind, tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    teacher, calls = counting(CLASSES.start().module)
    counted = replace(context, teacher=teacher)
    settings = {"epochs": 4, "student": True}
    kept = distill(CLASSES, block(kind), views=2, **settings).run(start, counted)
    # Besides the two views there are examples of two and four samples.
    assert sum(n for n in calls if n > 4) == 2 * SAMPLES
    # There is no augmentation here, so that new views differ from repeated ones in order only.
    asked = distill(CLASSES, block(kind), views=4, **settings)
    assert sum(n for n in calls if n > 4) == 2 * SAMPLES
    asked.run(start, counted)
    assert sum(n for n in calls if n > 4) == 6 * SAMPLES
    kept.validate()


def test_a_network_of_its_own_may_judge(tmp_path):
    start, context = prepared(IMAGES, tmp_path)
    path = tmp_path / "judge.safetensors"
    save_file(build("resnet", {"width": 8, "classes": 3}).state_dict(), path)
    network = {"arch": "resnet", "width": 8, "classes": 3, "weights": str(path)}
    loss = {"kind": "perceptual", "layers": "blocks.*", "network": network}
    distill(IMAGES, loss).run(start, context).validate()


def test_a_function_of_your_own_still_works(tmp_path, monkeypatch):
    module = types.ModuleType("loss_parts")
    module.third = lambda student, teacher, labels: ((student - teacher) ** 2).mean() / 3
    monkeypatch.setitem(sys.modules, "loss_parts", module)
    start, context = prepared(
        CLASSES, tmp_path, references=CodeReferences(frozenset({"loss_parts"}))
    )
    context, events = listen(context)
    distill(CLASSES, {"kind": "loss_parts:third"}).run(start, context)
    assert list(events[0]["losses"]) == ["loss_parts:third"]


BOTH = r"the student has stem \(8, 6, 6\), norm .*; the teacher has stem \(16, 12, 12\), norm .*"


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            {"kind": "hint", "student": "block.1", "teacher": "blocks.1"},
            rf"the loss 'hint': 'block.1' matches no layer of the student; {BOTH}",
        ),
        (
            {"kind": "hint", "student": "blocks.1", "teacher": "blocks.9"},
            rf"'blocks.9' matches no layer of the teacher; {BOTH}",
        ),
        (
            {"kind": "hint", "student": "blocks.*", "teacher": "blocks.*"},
            rf"4 layers of the student have only 3 of the teacher's; {BOTH}",
        ),
        (
            {"kind": "attention-transfer", "student": "head", "teacher": "blocks.1"},
            rf"'attention-transfer': attention-transfer compares maps, .* no positions.*; {BOTH}",
        ),
        (
            {"kind": "hidden", "student": "stem", "teacher": "stem"},
            rf"the student's states are \(2, .*\) and the teacher's .* same tokens.*; {BOTH}",
        ),
        (
            {"kind": "attention-maps", "student": "blocks.1", "teacher": "blocks.1"},
            rf"'blocks.1' of the student gives no attention map, and holds .* num_heads.*; {BOTH}",
        ),
        (
            {"kind": "pkt", "student": "blocks.?", "teacher": "blocks.0"},
            rf"4 layers of the student have only 1 of the teacher's; {BOTH}",
        ),
        (
            {"kind": "crd", "student": "blocks.[01]", "teacher": "blocks.*"},
            rf"takes one layer of each net, and 'blocks.\[01\]' matches 2; {BOTH}",
        ),
    ],
)
def test_layers_that_do_not_fit_are_explained_with_all_that_there_are(loss, message, tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    stage = distill(CLASSES, loss)
    for attempt in (stage.run, stage.rehearse):
        with pytest.raises(SelectorError, match=message):
            attempt(start, context)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.relu(self.relu(self.conv(x))).mean((2, 3)))


def test_a_layer_that_runs_twice_has_no_one_output(tmp_path):
    _, context = prepared(CLASSES, tmp_path)
    start = Candidate.of(Twice(), CLASSES.start().example)
    loss = {"kind": "hint", "student": "relu", "teacher": "stem"}
    with pytest.raises(SelectorError, match="'relu' of the student runs 2 times in one pass"):
        distill(CLASSES, loss, student=False).run(start, context)


LOOK_INSIDE = [k for k in KINDS if {"student", "layers"} & set(CASES[k].settings)]


@pytest.mark.parametrize("kind", LOOK_INSIDE)
def test_only_a_module_can_be_looked_into(kind, tmp_path):
    pair = CASES[kind].pair
    start, context = prepared(pair, tmp_path)
    teacher = context.teacher
    opaque = replace(context, teacher=lambda inputs: teacher(inputs))
    stage = distill(pair, block(kind))
    for attempt in (stage.run, stage.rehearse):
        with pytest.raises(StageError, match=rf"'{kind}' looks inside .*, which is no module: of"):
            attempt(start, opaque)


def broken(teacher, at):
    calls = []

    def teach(inputs):
        calls.extend([len(inputs)] * (len(inputs) > 2))  # and not of a probe
        outputs = teacher(inputs)
        return outputs * float("nan") if len(calls) == at else outputs

    return teach


def test_a_teacher_that_is_not_finite_is_reported_with_the_batch(tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    context = replace(context, teacher=broken(context.teacher, at=3))
    message = r"not finite \(outputs\) for batch [12] of view 2; look at its weights"
    with pytest.raises(StageError, match=message):
        distill(CLASSES, block("response"), epochs=2).run(start, context)


class Repaired(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        return torch.nan_to_num(self.conv(x), 0.0, 1.0, -1.0).mean((2, 3))


def test_features_that_are_not_finite_are_reported_with_the_layer(tmp_path):
    teacher = Repaired()
    with torch.no_grad():
        teacher.conv.weight[0] = float("inf")
    start, context = prepared(CLASSES, tmp_path, teacher=frozen_teacher(teacher))
    loss = {"kind": "hint", "student": "blocks.0", "teacher": "conv"}
    with pytest.raises(StageError, match=r"not finite \(conv\) for the first samples; look"):
        distill(CLASSES, loss).run(start, context)


@pytest.mark.parametrize(("rows", "given"), [((1, 4), "1"), ((), "no separate")], ids=str)
@pytest.mark.parametrize("attempt", ["run", "rehearse"])
def test_outputs_for_another_batch_are_explained(attempt, rows, given, tmp_path):
    start, context = prepared(CLASSES, tmp_path, teacher=lambda x: torch.zeros(rows))
    with pytest.raises(StageError, match=rf"gives {given} outputs for a batch of \d+ samples"):
        getattr(distill(CLASSES, block("response")), attempt)(start, context)


@pytest.mark.parametrize("kind", ["response", "dkd", "dist", "hard", "topk-kl", "logits-mse"])
@pytest.mark.parametrize("attempt", ["run", "rehearse"])
def test_other_classes_are_explained(kind, attempt, tmp_path):
    start, context = prepared(CLASSES, tmp_path, teacher=lambda x: x.flatten(1)[:, :5])
    with pytest.raises(DataError, match=r"outputs are \(\d+, 4\) and the teacher's are \(\d+, 5\)"):
        getattr(distill(CLASSES, {"kind": kind}), attempt)(start, context)


def test_outputs_without_a_width_cannot_be_embedded(tmp_path):
    start, context = prepared(CLASSES, tmp_path, teacher=lambda x: x.flatten(1).sum(1))
    with pytest.raises(DataError, match=r"crd embeds vectors.* are \(2, 4\) and \(2,\): name a"):
        distill(CLASSES, {"kind": "crd"}).run(start, context)


def test_a_judge_that_cannot_take_the_outputs_is_explained(tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    with pytest.raises(DataError, match=r"cannot take outputs of \(2, 4\) as its inputs"):
        distill(CLASSES, {"kind": "perceptual", "layers": "stem"}).run(start, context)


def test_a_judge_without_that_layer_is_explained(tmp_path):
    start, context = prepared(IMAGES, tmp_path)
    with pytest.raises(SelectorError, match=r"'up9' matches no layer of the network that"):
        distill(IMAGES, {"kind": "perceptual", "layers": "up9"}).run(start, context)


def test_a_finetune_block_may_look_inside_the_teacher_too(tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    loss = {"kind": "hint", "student": "blocks.7", "teacher": "blocks.0"}
    stage = PruneStage(ratio=0.5, finetune={"losses": [loss]})
    for attempt in (stage.run, stage.rehearse):
        with pytest.raises(SelectorError, match=r"'blocks\.7' matches no layer of the student"):
            attempt(start, context)


def test_fake_quantization_is_on_while_features_are_matched(tmp_path):
    start, context = prepared(CLASSES, tmp_path)
    context, events = listen(context)
    same = {"kind": "hint", "student": "blocks.*", "teacher": "blocks.*"}
    stage = distill(CLASSES, same, student=False)
    ternary = QuantizeStage(weights="int2", activations="float32").run(start, context)
    stage.run(start, context)
    stage.run(ternary, context)
    exact, coarse = (event["losses"]["hint"] for event in events)
    assert coarse > 1.02 * exact  # with the same seed and weights they would be equal


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"kind": "kl"}, r"unknown loss 'kl'; known are .*" + ", ".join(BUILT_IN)),
        ({"kind": "hint", "student": "a"}, r"'teacher' is missing|teacher"),
        ({"kind": "hint", "student": [], "teacher": "b"}, r"at least 1 item"),
        ({"kind": "pkt", "student": "a"}, r"only the student's layer is given; name a layer"),
        ({"kind": "response", "weight": 0}, r"should be greater than 0; got 0"),
        ({"kind": "response", "weight": {"from": 1}}, r"missing"),
        ({"kind": "response", "weight": {"from": 0, "to": 0}}, r"from 0 to 0 does nothing; leave"),
        ({"kind": "response", "weight": {"from": 1, "to": 0, "schedule": "step"}}, r"got 'step'"),
        ({"kind": "ssim", "temperature": 2}, r"unknown key"),
        ({"kind": "topk-kl", "k": 0}, r"greater than or equal to 1; got 0"),
        (
            {"kind": "perceptual", "layers": "a", "network": {"arch": "resnet"}},
            r"a network that judges needs weights",
        ),
    ],
)  # fmt: skip
def test_wrong_settings_are_explained(loss, message):
    text = yaml.safe_dump({"name": "r", "stages": [{"kind": "distill", "losses": [loss]}]})
    with pytest.raises(RecipeError, match=rf"stages\[0\].losses.*({message})"):
        Recipe.loads(text)
