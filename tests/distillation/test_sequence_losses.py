"""Losses on continued texts: which net runs on what, how often, and again after a kill."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress import Candidate, DistillStage, QuantizeStage
from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.distillation.context import DistillationContext
from compress.distillation.decoding import beam_search
from compress.distillation.loss_function import RequiredOutputs, compared_outputs, teacher_forward
from compress.distillation.losses import BUILT_IN
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError
from compress.stages import fit as fitting
from compress.tasks.arrays import ArrayDataset
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.checkpoint import Checkpoint
from compress.training.data import Batch

CASE = NETS["causal-lm"]
LENGTH, SAMPLES = CASE.shape[0], 64
SEQUENCE = {"kind": "sequence", "prompt": 4}
GKD = {"kind": "gkd", "prompt": 4}
STUDENT = {"arch": "causal-lm", "width": 16, "depth": 1, "heads": 2, "context": 9, "classes": 6}


@pytest.fixture
def start():
    return Candidate.of(CASE.build(), CASE.example())


@pytest.fixture
def place(start, tmp_path):
    """What a stage is given, and how many texts its teacher ran on, without the examples."""
    calls = []
    teacher = CASE.build(seed=1)
    teacher.register_forward_pre_hook(
        lambda _, args: calls.append(len(args[0])) if len(args[0]) > 2 else None
    )
    task, context = CASE.make_task(), bench_context(start, tmp_path / "stage")
    train = ArrayDataset(task.train.inputs[:SAMPLES], task.train.labels[:SAMPLES])
    task = replace(task, train=train, validation=train)
    return replace(context, task=task, teacher=frozen_teacher(teacher)), calls


def stage(*losses, epochs=2, **settings):
    return DistillStage(student=STUDENT, losses=losses, epochs=epochs, batch_size=32, **settings)


def arrays(context):
    return sorted((context.workdir / "answers").rglob("*.npy"))


def term_of(loss, distillation):
    return BUILT_IN[loss["kind"]](**loss).loss_function(distillation)


def shown(context, samples):
    return Batch(0, 0, context.task.train.inputs[:samples], None)


def test_the_student_is_run_on_the_text_that_the_teacher_generated(start, place):
    context, _ = place
    distillation = DistillationContext(start.module, context.teacher, context)
    loss, batch = term_of(SEQUENCE, distillation), distillation.example
    answer = teacher_forward(context.teacher, batch, RequiredOutputs.of([loss]))
    assert answer.outputs.shape == (2, 0)
    student, teacher = compared_outputs(
        loss, start.module, start.module, batch, answer, lambda: None
    )
    written = beam_search(context.teacher, batch.inputs, 4, LENGTH - 4)
    text = torch.cat([batch.inputs[:, :4], written], dim=1)
    with torch.no_grad():
        scores = start.module(text)
    assert torch.equal(student.outputs, scores)
    expected = nn.functional.cross_entropy(scores[:, :, 3:-1], written)
    assert float(loss.compute(student, teacher, None).detach()) == pytest.approx(float(expected))


def test_only_the_tokens_that_are_asked_for_are_generated(start, place):
    context, calls = place
    distillation = DistillationContext(start.module, context.teacher, context)
    loss = term_of({**SEQUENCE, "tokens": 2, "beams": 3}, distillation)
    batch = shown(context, 8)
    calls.clear()
    answer = teacher_forward(context.teacher, batch, RequiredOutputs.of([loss]))
    ((name, tokens),) = answer.features.items()
    assert name == "2 tokens after 4 by 3 beams"
    assert tokens.shape == (8, 2)
    assert calls == [8, 24]
    told, _ = loss.generated_batch(start.module, batch, answer)
    assert torch.equal(told.inputs[:, 6:], batch.inputs[:, 6:])
    assert torch.equal(told.inputs[:, 4:6], tokens)


def test_with_views_each_text_is_continued_once_and_only_that_is_cached(start, place):
    context, calls = place
    kept = stage(SEQUENCE, epochs=4, views=1).run(start, context)
    assert sum(calls) == (LENGTH - 4) * SAMPLES
    (path,) = arrays(context)
    assert path.stat().st_size < 4 * (LENGTH - 4) * SAMPLES + 200
    assert stage(SEQUENCE, epochs=4, views=1).run(start, context).fingerprint == kept.fingerprint
    assert sum(calls) == (LENGTH - 4) * SAMPLES


def test_cached_continuations_are_those_that_would_be_generated_again(start, place, monkeypatch):
    context, _ = place
    kept = stage(SEQUENCE, epochs=3, views=1).run(start, context)
    cached_teacher = fitting.cached_teacher
    monkeypatch.setattr(
        fitting,
        "cached_teacher",
        lambda context, losses, data, _, cache: cached_teacher(context, losses, data, None, cache),
    )
    assert stage(SEQUENCE, epochs=3, views=1).run(start, context).fingerprint == kept.fingerprint


def test_tokens_are_not_rounded_beside_outputs_in_half_precision(start, place):
    context, _ = place
    losses = (SEQUENCE, {"kind": "response", "temperature": 1.0})
    stage(*losses, epochs=3, views=1, cache={"dtype": "float16"}).run(start, context)
    assert len(arrays(context)) == 2
    whole, halved = (
        stage(SEQUENCE, epochs=3, views=1, cache={"dtype": dtype}).run(start, context)
        for dtype in ("float32", "float16")
    )
    assert halved.fingerprint == whole.fingerprint


@pytest.mark.parametrize("on_policy", [0.0, 0.5, 1.0])
def test_a_share_of_the_batches_is_the_students_own(on_policy, start, place):
    context, _ = place
    distillation = DistillationContext(start.module, context.teacher, context)
    loss = term_of({**GKD, "on_policy": on_policy}, distillation)
    assert loss.reads_teacher_outputs == (on_policy < 1)
    batch = shown(context, 8)
    teacher_outputs = teacher_forward(context.teacher, batch, RequiredOutputs())
    torch.manual_seed(0)
    told = [loss.generated_batch(start.module, batch, teacher_outputs) for _ in range(60)]
    own = [one for one in told if one is not None]
    assert abs(len(own) - 60 * on_policy) <= (12 if on_policy == 0.5 else 0)
    for other, answer in own:
        assert torch.equal(other.inputs[:, :4], batch.inputs[:, :4])
        assert torch.equal(answer.outputs, context.teacher(other.inputs))
    if own:
        assert len({str(other.inputs.tolist()) for other, _ in own}) > len(own) / 2


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.drop = CASE.build(), nn.Dropout(0.9)

    def forward(self, tokens):
        return self.drop(self.net(tokens))


def test_a_student_speaks_without_dropout_and_trains_on_with_it(start, place):
    context, _ = place
    student = Dropping().eval()
    loss = term_of(
        {**GKD, "on_policy": 1.0}, DistillationContext(student, context.teacher, context)
    )

    def written():
        torch.manual_seed(0)
        return loss.generated_batch(student, shown(context, 32), None)[0].inputs

    quiet = written()
    student.train()
    assert torch.equal(written(), quiet)
    assert student.training
    assert student.drop.training


def test_on_and_off_policy_differ_and_each_is_the_same_again(start, place):
    context, _ = place
    prints = []
    for on_policy in (0.0, 1.0):
        loss = {**GKD, "on_policy": on_policy}
        first = stage(loss).run(start, context)
        torch.rand(3)
        assert stage(loss).run(start, context).fingerprint == first.fingerprint
        prints.append(first.fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize("views", [None, 1])
def test_on_policy_batches_alone_leave_nothing_in_the_cache(views, start, place):
    context, _ = place
    training = stage({**GKD, "on_policy": 1.0}, views=views)
    training.rehearse(start, context)
    training.run(start, context).validate()
    assert not arrays(context)


class CutOff(BaseException):
    """As a killed process is."""


class Fatal(ArrayDataset):
    """Ends the process before its n-th batch."""

    def __init__(self, dataset, batches):
        super().__init__(dataset.inputs, dataset.labels)
        self.left = batches

    def __getitems__(self, indices):
        if len(indices) == 32:
            self.left -= 1
        if self.left < 0:
            raise CutOff
        return super().__getitems__(indices)


@pytest.mark.parametrize("views", [None, 1])
@pytest.mark.parametrize("formats", [(), (QuantizeStage(),)], ids=["float", "int8"])
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(
    formats, views, start, place, tmp_path
):
    context, _ = place
    for earlier in formats:
        start = earlier.run(start, context)
    losses = [SEQUENCE, GKD, {"kind": "response", "temperature": 1.0}]
    training = DistillStage(losses=losses, epochs=4, batch_size=32, learning_rate=5e-3, views=views)
    whole = training.run(start, context)
    checkpoint = Checkpoint(tmp_path / "checkpoint", "key")
    fatal = replace(context.task, train=Fatal(context.task.train, 7))
    cut = replace(context, workdir=tmp_path / "cut", checkpoint=checkpoint, task=fatal)
    with pytest.raises(CutOff):
        training.run(start, cut)
    assert checkpoint.path.exists()
    torch.rand(5)
    events = []
    again = replace(context, workdir=tmp_path / "cut", checkpoint=checkpoint, report=events.append)
    assert training.run(start, again).fingerprint == whole.fingerprint
    assert [event["epoch"] > 0 for event in events if event["event"] == "resumed"] == [True]


class CausalConvolution(nn.Module):
    """A student of another kind: convolutions that look back."""

    def __init__(self, width=16, classes=6):
        super().__init__()
        self.tokens = nn.Embedding(classes, width)
        self.conv = nn.Conv1d(width, width, 3)
        self.head = nn.Conv1d(width, classes, 1)

    def forward(self, tokens):
        x = nn.functional.pad(self.tokens(tokens).transpose(1, 2), (2, 0))
        return self.head(torch.relu(self.conv(x)))


@pytest.mark.parametrize("loss", [SEQUENCE, {**GKD, "on_policy": 1.0}], ids=lambda x: x["kind"])
def test_student_and_teacher_may_be_of_any_kind(loss, place, tmp_path):
    context, _ = place
    torch.manual_seed(0)
    start = Candidate.of(CausalConvolution(), CASE.example())
    onnx, weights = tmp_path / "teacher.onnx", tmp_path / "teacher.safetensors"
    large = Candidate.of(CASE.build(seed=1), CASE.example())
    lower(large, Lowering(batch=1), calibration=[], check=CASE.example(4), path=onnx)
    save_file(large.module.state_dict(), weights)
    options = {**CASE.options, "classes": CASE.classes}
    settings = {"losses": [loss], "epochs": 2, "batch_size": 32}
    of_file = DistillStage(teacher={"onnx": onnx}, **settings).run(start, context)
    module = {"arch": CASE.name, "weights": weights, **options}
    of_module = DistillStage(teacher=module, **settings).run(start, context)
    pairs = zip(of_file.module.parameters(), of_module.module.parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in pairs)


class OneLength(nn.Module):
    """A net that takes texts of one length."""

    def __init__(self):
        super().__init__()
        self.net = CASE.build()
        self.places = nn.Parameter(torch.zeros(6, LENGTH))

    def forward(self, tokens):
        return self.net(tokens) + self.places


@pytest.mark.parametrize("loss", [SEQUENCE, {**GKD, "on_policy": 1.0}], ids=lambda x: x["kind"])
def test_nets_of_one_length_learn_and_teach_too(loss, start, place):
    context, _ = place
    fixed = Candidate.of(OneLength(), CASE.example())
    training = DistillStage(losses=[loss], batch_size=32)
    training.run(fixed, context).validate()
    # Untrained places add nothing, so that this teacher writes what its inner net would.
    teacher_outputs = [
        training.run(start, replace(context, teacher=frozen_teacher(net))).fingerprint
        for net in (fixed.module, fixed.fork().module.net)
    ]
    assert teacher_outputs[0] == teacher_outputs[1]


class Looking(nn.Module):
    """Not causal: every token sees the mean of all."""

    def __init__(self):
        super().__init__()
        self.tokens, self.head = nn.Embedding(6, 8), nn.Linear(8, 6)

    def forward(self, tokens):
        x = self.tokens(tokens)
        return self.head(x + x.mean(1, keepdim=True)).transpose(1, 2)


class Whole(Looking):
    """One answer for a text."""

    def forward(self, tokens):
        return super().forward(tokens).mean(2)


def refused(message, student, context, **loss):
    training = DistillStage(losses=[loss])
    for attempt in (training.run, training.rehearse):
        with pytest.raises(DataError, match=message):
            attempt(student, context)


@pytest.mark.parametrize("kind", ["sequence", "gkd"])
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_nets_that_see_what_comes_are_refused(who, kind, start, place):
    context, _ = place
    looking = Candidate.of(Looking(), CASE.example())
    student = looking if who == "student" else start
    if who == "teacher":
        context = replace(context, teacher=frozen_teacher(looking.module))
    message = rf"{kind}: the {who} is not causal: .* the first 4 tokens depend on those that"
    refused(message, student, context, kind=kind, prompt=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": 9}, r"a prompt of 9 tokens and 1 more do not fit in texts of 9; set a smaller"),
        ({"prompt": 4, "tokens": 6}, r"a prompt of 4 tokens and 6 more do not fit in texts of 9"),
    ],
)
@pytest.mark.parametrize("kind", ["sequence", "gkd"])
def test_a_prompt_that_does_not_fit_is_explained(kind, settings, message, start, place):
    refused(f"{kind}: {message}", start, place[0], kind=kind, **settings)


@pytest.mark.parametrize("kind", ["sequence", "gkd"])
def test_images_are_no_texts(kind, tmp_path):
    case = NETS["resnet"]
    start = Candidate.of(case.build(), case.example())
    message = rf"{kind} continues texts, .* are \(2, 1, 12, 12\) of torch.float32"
    refused(message, start, bench_context(start, tmp_path), kind=kind)


def test_named_inputs_are_no_texts(start, place):
    context, _ = place
    named = [{"ids": tokens, "mask": tokens} for tokens in context.task.train.inputs]
    task = replace(context.task, train=named)

    class Named(Looking):
        def forward(self, ids, mask):
            return super().forward(ids)

    student = Candidate.of(Named(), {"ids": CASE.example(), "mask": CASE.example()})
    message = r"the inputs are a dictionary of ids, mask"
    refused(message, student, replace(context, task=task), kind="sequence")


def test_one_output_for_a_whole_text_is_no_continuation(place):
    whole = Candidate.of(Whole(), CASE.example())
    message = r"at every place, \(n, classes, 9\); the outputs are \(2, 6\)"
    refused(message, whole, place[0], **SEQUENCE)


def test_a_teacher_of_another_vocabulary_is_explained(start, place):
    context, _ = place
    teacher = context.teacher
    smaller = replace(context, teacher=lambda tokens: teacher(tokens)[:, :5])
    message = r"are \(2, 6, 9\) and the teacher's are \(2, 5, 9\); both must have one shape"
    refused(message, start, smaller, **SEQUENCE)
