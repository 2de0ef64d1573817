"""Losses on layers: where channels are, in nets of every kind, and layers that run at times."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress import Candidate, DistillStage, Task
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import (
    ModelOutputs,
    RequiredOutputs,
    student_forward,
    teacher_forward,
)
from compress.distillation.losses.contrastive import CrdLoss
from compress.distillation.losses.feature import (
    AttentionMapsLoss,
    AttentionTransferLoss,
    HiddenLoss,
    HintLoss,
)
from compress.distillation.losses.relation import RkdAngleLoss
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError, SelectorError, SettingsError, StageError
from compress.tasks.arrays import ArrayDataset
from compress.testing.stage_contract import bench_context

SAMPLES = 16


class Steps(nn.Module):
    """A recurrent layer, an activation, and a linear layer on each step."""

    def __init__(self, width, kind=nn.LSTM, **settings):
        super().__init__()
        self.rnn, self.act = kind(6, width, batch_first=True, **settings), nn.GELU()
        self.head = nn.LazyLinear(3)

    def forward(self, x):
        return self.head(self.act(self.rnn(x)[0]).mean(1))


class Last(nn.Module):
    """Convolutions, then a block that has its channels last, as in ConvNeXt."""

    def __init__(self, width):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, width, 4, 4), nn.Linear(width, 2 * width)
        self.act, self.head = nn.GELU(), nn.Linear(2 * width, 3)

    def forward(self, x):
        return self.head(self.act(self.wide(self.stem(x).permute(0, 2, 3, 1))).mean((1, 2)))


class First(nn.Module):
    """Convolutions alone."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, width, 8, 8), nn.ReLU()
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).mean((2, 3)))


class Tokens(nn.Module):
    """A class token and places, as in a ViT; its tokens are mixed by weights on demand."""

    def __init__(self, width, mixes=False):
        super().__init__()
        self.patch, self.mix = nn.Conv2d(3, width, 4, 4), nn.Linear(17, 17) if mixes else None
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        self.act, self.head = nn.GELU(), nn.Linear(width, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.places + torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        if self.mix is not None:
            x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.act(x)[:, 0])


class Turned(nn.Module):
    """A convolution over time, then linear layers on each step."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.first = nn.Conv1d(10, width, 3, padding=1), nn.ReLU()
        self.linear, self.second = nn.Linear(width, 5), nn.ReLU()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.second(self.linear(self.first(self.conv(x)).transpose(1, 2)))
        return self.head(x.mean(1))


IMAGES, SERIES = torch.randn(SAMPLES, 3, 16, 16), torch.randn(SAMPLES, 10, 6)


def context_of(student, teacher, inputs, folder):
    task = Task("features", *[ArrayDataset(inputs, torch.arange(len(inputs)) % 3)] * 3)
    student(inputs[:2]), teacher(inputs[:2])  # lazy layers
    start = Candidate.of(teacher, inputs[:2])
    stage = bench_context(start, folder)
    stage = replace(stage, task=task, teacher=frozen_teacher(start.module, inputs[:2]))
    return DistillationContext(student.eval(), stage.teacher, stage)


def value(settings, context):
    """The value of a loss for the example, and its auxiliary module."""
    loss, example = settings.loss_function(context), context.example
    student = student_forward(context.student, context.student, example, loss.student_layers)
    teacher = teacher_forward(context.teacher, example, RequiredOutputs.of([loss]))
    return loss.compute(student, teacher, None), loss.auxiliary


def features(net, layer, inputs):
    with torch.no_grad():
        caught = []
        handle = net.get_submodule(layer).register_forward_hook(lambda *a: caught.append(a[-1]))
        net(inputs)
        handle.remove()
    return caught[0][0] if isinstance(caught[0], tuple) else caught[0]


def is_adapted(found, adapter, student, teacher):
    """Whether a hint is what a few lines of torch make of features with their channels last."""
    with torch.no_grad():
        expected = F.mse_loss(
            F.linear(student, adapter.linear.weight, adapter.linear.bias), teacher
        )
    return torch.allclose(found, expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("layer", ["rnn", "act"])
@pytest.mark.parametrize(
    ("kind", "settings", "channels"),
    [
        (nn.LSTM, {}, 8),
        (nn.GRU, {}, 8),
        (nn.RNN, {}, 8),
        (nn.LSTM, {"bidirectional": True}, 16),
        (nn.LSTM, {"bidirectional": True, "proj_size": 5}, 10),
        (nn.GRU, {"num_layers": 2, "bidirectional": True}, 16),
    ],
)
def test_a_hint_on_steps_takes_units_for_channels(layer, kind, settings, channels, tmp_path):
    context = context_of(Steps(8, kind, **settings), Steps(32, kind), SERIES, tmp_path)
    loss = HintLoss(student=layer, teacher=layer)
    found, auxiliary = value(loss, context)
    assert auxiliary[0].linear.in_features == channels
    assert auxiliary[0].linear.out_features == 32
    ours, theirs = (
        features(net, layer, SERIES[:2]) for net in (context.student, context.teacher.module)
    )
    assert is_adapted(found, auxiliary[0], ours, theirs)


def test_a_hint_between_channels_last_and_first_is_that_of_the_turned_maps(tmp_path):
    context = context_of(Last(4), First(32), IMAGES, tmp_path)
    found, auxiliary = value(HintLoss(student="act", teacher="act"), context)
    ours, theirs = (
        features(net, "act", IMAGES[:2]) for net in (context.student, context.teacher.module)
    )
    ours = F.avg_pool2d(ours.permute(0, 3, 1, 2), 2)  # 4 x 4 places to 2 x 2
    assert auxiliary[0].linear.in_features == 8
    with torch.no_grad():
        expected = F.mse_loss(auxiliary[0](ours), theirs)
    assert torch.allclose(found, expected, rtol=1e-5)


def test_where_attention_goes_in_a_channels_last_net_is_summed_over_its_channels(tmp_path):
    context = context_of(Last(4), Last(16), IMAGES, tmp_path)
    found, _ = value(AttentionTransferLoss(student="act", teacher="act"), context)
    maps = [
        F.normalize(features(net, "act", IMAGES[:2]).square().mean(3).flatten(1))
        for net in (context.student, context.teacher.module)
    ]
    assert torch.allclose(found, (maps[0] - maps[1]).square().sum(1).mean(), rtol=1e-5)


def test_a_class_token_and_learned_places_hide_no_channels(tmp_path):
    context = context_of(Tokens(8), Tokens(12), IMAGES, tmp_path)
    for loss in (HintLoss, HiddenLoss):
        found, auxiliary = value(loss(student="act", teacher="act"), context)
        nets = (context.student, context.teacher.module)
        ours, theirs = (features(net, "act", IMAGES[:2]) for net in nets)
        assert is_adapted(found, auxiliary[0], ours, theirs)


def test_axes_before_and_after_a_transpose_are_derived(tmp_path):
    context = context_of(Turned(8), Turned(12), SERIES, tmp_path)
    layers = context.student_layers
    assert [layers.channel_axis(name) for name in ("first", "second")] == [1, 2]
    found, auxiliary = value(HintLoss(student="first", teacher="first"), context)
    nets = (context.student, context.teacher.module)
    ours, theirs = (features(net, "first", SERIES[:2]).transpose(1, 2) for net in nets)
    assert is_adapted(found, auxiliary[0], ours, theirs)
    # By definition hidden states have their width last, but this layer's net says otherwise.
    found, auxiliary = value(HiddenLoss(student="first", teacher="first"), context)
    assert is_adapted(found, auxiliary[0], ours, theirs)


def test_crd_averages_over_steps_and_embeds_units(tmp_path):
    context = context_of(Steps(8), Steps(32), SERIES, tmp_path)
    found, embedding = value(CrdLoss(student="act", teacher="act", width=4), context)
    nets = (context.student, context.teacher.module)
    ours, theirs = (features(net, "act", SERIES[:2]).mean(1) for net in nets)
    assert embedding.student.in_features == 8
    scores = F.normalize(embedding.student(ours)) @ F.normalize(embedding.teacher(theirs)).T / 0.07
    own = torch.arange(2)
    expected = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    assert torch.allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [HintLoss, AttentionTransferLoss, CrdLoss])
def test_an_axis_that_cannot_be_told_is_asked_for(kind, tmp_path):
    context = context_of(Tokens(8, mixes=True), Tokens(12), IMAGES, tmp_path)
    loss = kind(student="act", teacher="act")
    with pytest.raises(SelectorError) as caught:
        loss.loss_function(context)
    assert str(caught.value) == (
        f"the loss {loss.kind!r}: which axis of 'act' of the student, (n, 17, 8), has its channels "
        "cannot be told; add axis: {student: 1} or {student: 2}."
    )
    found = []
    for axis in (2, {"student": 2}):  # the teacher's is told from its net
        torch.manual_seed(0)
        found.append(value(kind(student="act", teacher="act", axis=axis), context)[0])
    assert torch.equal(*found)


def test_what_is_asked_for_names_the_net_and_all_its_axes(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.view, self.head = nn.Identity(), nn.Linear(3, 3)

        def forward(self, x):
            return self.head(self.view(x.square()).mean((2, 3)))

    context = context_of(First(4), Fixed(), IMAGES, tmp_path)
    with pytest.raises(SelectorError) as caught:
        HintLoss(student="act", teacher="view").loss_function(context)
    assert str(caught.value) == (
        "the loss 'hint': which axis of 'view' of the teacher, (n, 3, 16, 16), has its channels "
        "cannot be told; add axis: {teacher: 1}, {teacher: 2} or {teacher: 3}."
    )
    _, auxiliary = value(HintLoss(student="act", teacher="view", axis={"teacher": 1}), context)
    assert auxiliary[0].linear.out_features == 3


def test_relations_of_samples_need_no_axis(tmp_path):
    context = context_of(Tokens(8, mixes=True), Tokens(12, mixes=True), IMAGES, tmp_path)
    value(RkdAngleLoss(student="act", teacher="act"), context)


@pytest.mark.parametrize("axis", [-1, 2, {"student": -1, "teacher": 2}])
def test_an_axis_may_be_counted_from_the_end(axis, tmp_path):
    context = context_of(Steps(8), Steps(8), SERIES, tmp_path)
    pair = HintLoss(student="act", teacher="act", axis=axis).layer_pairs(context)[0]
    assert [(one.axis, one.channels) for one in pair] == [(2, 8), (2, 8)]


@pytest.mark.parametrize("axis", [3, -3, -7])
def test_an_axis_that_a_layer_has_not_is_refused(axis, tmp_path):
    context = context_of(Steps(8), Steps(8), SERIES, tmp_path)
    with pytest.raises(SelectorError) as caught:
        HintLoss(student="rnn", teacher="rnn", axis=axis).loss_function(context)
    assert str(caught.value) == (
        f"the loss 'hint': axis {axis} is none of 'rnn' of the student, (n, 10, 8), that could "
        "have channels; give one from 1 to 2."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axis": 0}, "axis 0 is that of the samples; channels are on axis 1, 2, ... or -1"),
        ({"axis": {"teacher": 0}}, "axis 0 is that of the samples"),
        ({"axis": {}}, "axis says nothing; give student or teacher an axis, or leave it out"),
        ({"axis": "last"}, "axis: should be a valid integer; got 'last'"),
        ({"axis": True}, "axis: should be a valid integer; got True"),
        ({"axis": {"pupil": 1}}, "axis.pupil: unknown key; known are student, teacher"),
    ],
)
def test_an_axis_that_means_nothing_is_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        HintLoss(student="act", teacher="act", **settings)


def test_an_axis_of_outputs_is_refused():
    with pytest.raises(ValueError, match="axis is that of layers; name a layer of student and"):
        CrdLoss(axis=1)


@pytest.mark.parametrize("steps", [2, 10])
def test_layers_that_have_steps_before_samples_are_refused(steps, tmp_path):
    class StepsFirst(Steps):
        def __init__(self):
            super().__init__(8)
            self.rnn.batch_first = False

        def forward(self, x):
            return self.head(self.act(self.rnn(x.transpose(0, 1))[0]).mean(0))

    context = context_of(StepsFirst(), Steps(8), SERIES[:, :steps], tmp_path)
    message = (
        "the loss 'hint': '(rnn|act)' of the student gives no tensor with samples on axis 0 in "
        "a forward pass; recurrent layers and transformers do with batch_first=True; "
    )
    for layer in ("rnn", "act"):
        with pytest.raises(SelectorError, match=message.replace("(rnn|act)", layer)):
            HintLoss(student=layer, teacher="rnn").loss_function(context)


class Skipping(nn.Module):
    """Stochastic depth: training leaves layers out at random, or as often as is wished."""

    def __init__(self, width=8, share=0.5):
        super().__init__()
        self.first, self.inner = nn.Linear(8, width), nn.Linear(width, width)
        self.norm, self.head, self.share = nn.LayerNorm(width), nn.Linear(width, 3), share

    def forward(self, x):
        x = self.first(x)
        if not self.training or float(torch.rand(())) >= self.share:
            x = self.norm(x + self.inner(x))
        return self.head(x)


ROWS = torch.randn(SAMPLES, 8)
BOTH = {"student": ["first", "inner"], "teacher": ["first", "inner"]}
ONE = {"student": "inner", "teacher": "inner"}


@pytest.mark.parametrize(
    "loss",
    [HintLoss(**BOTH), HintLoss(**ONE), RkdAngleLoss(**ONE), CrdLoss(**ONE)],
    ids=["two-hints", "one-hint", "relation", "crd"],
)
def test_a_layer_that_training_leaves_out_teaches_nothing_then(loss, tmp_path):
    context = context_of(Skipping(4), Skipping(), ROWS, tmp_path)
    stage = DistillStage(epochs=2, batch_size=4, losses=(loss,), student="self")
    start = Candidate.of(context.student, ROWS[:2])
    stage.rehearse(start, context.stage)
    stage.run(start, context.stage).validate()


def test_a_layer_that_training_always_leaves_out_is_an_error(tmp_path):
    context = context_of(Skipping(4, 1.0), Skipping(), ROWS, tmp_path)
    stage = DistillStage(epochs=2, batch_size=4, losses=(HintLoss(**ONE),), student="self")
    with pytest.raises(StageError, match="the loss 'hint' was 0 in every step of the first epoch"):
        stage.run(Candidate.of(context.student, ROWS[:2]), context.stage)


def test_the_mean_is_over_the_pairs_that_ran_and_is_0_with_gradients_where_none_did(tmp_path):
    context = context_of(Skipping(4), Skipping(), ROWS, tmp_path)
    loss = HintLoss(**BOTH).loss_function(context)
    answers = {
        name: net(ROWS[:2])
        for name, net in (
            ("first", context.student.first),
            ("teacher", context.teacher.module.first),
        )
    }
    outputs = torch.full((2, 3), 1e38, requires_grad=True)
    teacher = ModelOutputs(
        outputs.detach(), {"first": answers["teacher"], "inner": answers["teacher"]}
    )
    alone = loss.compute(ModelOutputs(outputs, {"first": answers["first"]}), teacher, None)
    expected = F.mse_loss(loss.auxiliary[0](answers["first"]), answers["teacher"])
    assert torch.allclose(alone, expected)
    alone.backward()
    assert not loss.auxiliary[1].linear.weight.grad.any()
    for student, other in (
        (ModelOutputs(outputs), teacher),
        (ModelOutputs(outputs, {"first": answers["first"]}), ModelOutputs(outputs.detach())),
    ):
        none = loss.compute(student, other, None)
        assert float(none.detach()) == 0
        none.backward()
        assert not outputs.grad.any()


def test_attention_that_did_not_run_teaches_nothing(tmp_path):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.num_heads = nn.Linear(6, 4), nn.Linear(6, 4), 2

        def forward(self, x):
            return (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1) @ x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = Block(), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.block(x).mean(1))

    context = context_of(Net(), Net(), SERIES, tmp_path)
    loss = AttentionMapsLoss(student="block", teacher="block")
    found, _ = value(loss, context)
    assert found > 0
    loss, outputs = loss.loss_function(context), torch.ones(2, 3, requires_grad=True)
    teacher = teacher_forward(context.teacher, context.example, RequiredOutputs.of([loss]))
    assert float(loss.compute(ModelOutputs(outputs), teacher, None).detach()) == 0


def test_a_layer_that_training_alone_runs_twice_is_an_error_that_names_it(tmp_path):
    class Twice(Skipping):
        def forward(self, x):
            x = self.inner(self.first(x))
            return self.head(self.inner(x) if self.training else x)

    context = context_of(Twice(), Twice(), ROWS, tmp_path)
    stage = DistillStage(epochs=1, losses=(HintLoss(**ONE),), student="self")
    with pytest.raises(DataError, match="'inner' runs several times in one pass in training"):
        stage.rehearse(Candidate.of(context.student, ROWS[:2]), context.stage)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "loss",
    [
        HintLoss(student="act", teacher="act"),
        AttentionTransferLoss(student="act", teacher="act"),
        HiddenLoss(student="act", teacher="act"),
        CrdLoss(student="act", teacher="act"),
        RkdAngleLoss(student="act", teacher="act"),
    ],
    ids=lambda loss: loss.kind,
)
def test_features_of_half_precision_are_compared_in_float32(loss, dtype, tmp_path):
    context = context_of(Steps(8), Steps(32), SERIES, tmp_path)
    loss, example = loss.loss_function(context), context.example
    student = student_forward(context.student, context.student, example, loss.student_layers)
    teacher = teacher_forward(context.teacher, example, RequiredOutputs.of([loss]))
    half = ModelOutputs(
        teacher.outputs.to(dtype), {k: v.to(dtype) for k, v in teacher.features.items()}
    )
    wide = ModelOutputs(half.outputs.float(), {k: v.float() for k, v in half.features.items()})
    found = loss.compute(student, half, None)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss.compute(student, wide, None))
