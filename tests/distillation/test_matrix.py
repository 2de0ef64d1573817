"""Every kind of outputs with every type of labels: right against plain torch, or one sentence.

Nothing is broadcast, no label wraps around, and no loss that means nothing for the outputs is
taken.
"""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score
from torch import nn
from torch.nn import functional as F

from compress import Candidate, DistillStage, Task
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import ModelOutputs
from compress.distillation.losses import BUILT_IN
from compress.errors import CompressError
from compress.measure.ondevice.dataset_metrics import DATASET_METRICS, DatasetScore
from compress.measure.score import UndefinedMetric, score
from compress.outputs import OUTPUT_KINDS
from compress.task import METRICS
from compress.tasks.arrays import ArrayDataset
from compress.testing.stage_contract import bench_context
from compress.training.supervision import Supervision

from .loss_cases import CASES

pytestmark = pytest.mark.fast

N, FEATURES = 8, 6
# What the outputs of a model are, and the shape of one.
OUTPUTS = {
    "classes": ("class-scores", (4,)),
    "dense": ("class-scores", (3, 4, 4)),
    "values": ("values", (3,)),
    "one-value": ("values", (1,)),
    "yes-or-no": ("independent-logits", (3,)),
    "one-logit": ("independent-logits", (1,)),
    "image": ("image", (3, 12, 12)),
    "tokens": ("tokens", (5, 6)),
}
TYPES = {
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "float32": torch.float32,
    "float64": torch.float64,
}


class Net(nn.Module):
    """A linear map to outputs of any shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.map = shape, nn.Linear(FEATURES, int(np.prod(shape)))

    def forward(self, x):
        return self.map(x).view(len(x), *self.shape)


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def places(shape):
    """The shape of labels that are classes."""
    return shape[1:]


def natural(name, dtype):
    """Labels as one would have them for such outputs, in a type."""
    kind, shape = OUTPUTS[name]
    if kind in ("class-scores", "tokens"):
        return torch.randint(shape[0], (N, *places(shape)), generator=drawn()).to(dtype)
    if kind == "independent-logits":
        return torch.randint(2, (N, *shape), generator=drawn()).to(dtype)
    values = torch.randn(N, *shape, generator=drawn()) * 10
    return values.to(dtype) if dtype.is_floating_point else values.abs().to(dtype)


def flat(name, dtype):
    """The same without axes of one, or with one more."""
    labels = natural(name, dtype)
    return labels.squeeze(1) if labels.dim() > 1 and labels.shape[1] == 1 else labels.unsqueeze(1)


LABELS = {
    **{kind: (natural, dtype) for kind, dtype in TYPES.items()},
    "other-axes": (flat, torch.int64),
    "other-axes-float": (flat, torch.float32),
}


def task_of(name, labels, **said):
    data = ArrayDataset(torch.randn(N, FEATURES, generator=drawn(1)), labels)
    return Task(name, data, data, data, **said)


def plain(kind, outputs, labels):
    """The loss on labels in a line of torch."""
    if kind in ("class-scores", "tokens"):
        return F.cross_entropy(outputs, labels.reshape(N, *outputs.shape[2:]).long())
    wanted = labels.reshape(outputs.shape).float()
    if kind == "independent-logits":
        return F.binary_cross_entropy_with_logits(outputs, wanted)
    return F.mse_loss(outputs, wanted)


def plain_score(metric, outputs, labels):
    if metric in DATASET_METRICS:
        return plain_over_all(metric, outputs, labels)
    if metric == "accuracy":
        right = outputs.argmax(1) == labels.reshape(N, *outputs.shape[2:])
        return right.reshape(N, -1).mean(1)
    values, wanted = outputs.reshape(N, -1), labels.reshape(N, -1).astype(float)
    if metric == "binary-accuracy":
        return ((values > 0) == (wanted > 0.5)).mean(1)
    if metric == "psnr":
        noise = ((values.clip(0, 1) - wanted) ** 2).mean(1)
        return 10 * np.log10(1 / noise.clip(1e-6))
    if metric == "ssim":
        return [
            plain_ssim(*pair) for pair in zip(outputs, labels.reshape(outputs.shape), strict=True)
        ]
    errors = ((values - wanted) ** 2).mean(1)
    return errors if metric == "mse" else 1 - errors / wanted.var(0).mean()


def plain_ssim(image, wanted):
    """Window by window, of each channel (Wang et al. 2004)."""
    image, wanted, found = image.clip(0, 1).astype(float), wanted.astype(float), []
    sides = [min(11, size - 1 + size % 2) for size in image.shape[1:]]
    down, across = (np.exp(-(((np.arange(s) - s // 2) / 1.5) ** 2) / 2) for s in sides)
    weights = np.outer(down, across) / np.outer(down, across).sum()
    for channel in zip(image, wanted, strict=True):
        a, b = (np.lib.stride_tricks.sliding_window_view(each, sides) for each in channel)
        for x, y in zip(a.reshape(-1, *sides), b.reshape(-1, *sides), strict=True):
            mean, other = (weights * x).sum(), (weights * y).sum()
            spread = (weights * (x - mean) ** 2).sum() + (weights * (y - other) ** 2).sum()
            both = (weights * (x - mean) * (y - other)).sum()
            alike = (2 * mean * other + 1e-4) / (mean**2 + other**2 + 1e-4)
            found.append(alike * (2 * both + 9e-4) / (spread + 9e-4))
    return np.mean(found)


def plain_over_all(metric, outputs, labels):
    """By the libraries that everyone uses, one class or output after the other."""
    columns = np.moveaxis(outputs, 1, -1).reshape(-1, outputs.shape[1])
    if metric == "spearman":
        wanted = np.moveaxis(labels.reshape(outputs.shape), 1, -1).reshape(columns.shape)
        return np.mean([spearmanr(columns[:, k], wanted[:, k])[0] for k in range(columns.shape[1])])
    if labels.size == columns.size:  # a yes or no for each output
        wanted = np.moveaxis(labels.reshape(outputs.shape), 1, -1).reshape(columns.shape) > 0.5
        scores, predicted = columns, columns > 0
    else:
        classes = np.arange(columns.shape[1])
        wanted, predicted = labels.reshape(-1, 1) == classes, columns.argmax(1)[:, None] == classes
        scores = softmax(columns.astype(float), axis=1)
    values = []
    for said, true, score_ in zip(predicted.T, wanted.T, scores.T, strict=True):
        if metric == "auroc" and 0 < true.sum() < len(true):
            values.append(roc_auc_score(true, score_))
        if metric != "auroc" and (said | true).any():
            values.append({"f1": f1_score, "mean-iou": jaccard_score}[metric](true, said))
    return np.mean(values)


def error_of(work):
    """The deliberate error that work ends in, if it does; any other is raised."""
    try:
        work()
    except CompressError as error:
        return error
    return None


def is_one_sentence(error):
    text = str(error)
    return "\n" not in text and text.endswith(".") and len(text) < 900


def takes(kind, labels):
    """Whether such labels can be right for such outputs."""
    if kind in ("class-scores", "tokens"):
        return not labels.is_floating_point()
    return not (kind == "image" and labels.dtype == torch.uint8)


@pytest.mark.parametrize("type_", LABELS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_the_loss_on_labels_is_that_of_plain_torch_or_refused(name, type_):
    kind, shape = OUTPUTS[name]
    make, dtype = LABELS[type_]
    labels, outputs = make(name, dtype), torch.randn(N, *shape, generator=drawn(2))
    supervision = Supervision.of(task_of(name, labels, outputs=kind), outputs)
    if not takes(kind, labels):
        with pytest.raises(CompressError) as caught:
            supervision.loss(outputs, labels)
        assert is_one_sentence(caught.value)
        return
    torch.testing.assert_close(supervision.loss(outputs, labels), plain(kind, outputs, labels))


CLASSES = {"class-scores", "tokens"}
FITS = {"accuracy": CLASSES, "binary-accuracy": {"independent-logits"}}
FITS |= {metric: {"image"} for metric in ("psnr", "ssim")}
FITS |= dict.fromkeys(("f1", "mean-iou", "auroc"), CLASSES | {"independent-logits"})


@pytest.mark.parametrize("type_", LABELS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_every_metric_is_that_of_plain_numpy_or_refused(name, metric, type_):
    kind, shape = OUTPUTS[name]
    make, dtype = LABELS[type_]
    labels, outputs = make(name, dtype), torch.randn(N, *shape, generator=drawn(2))
    found = []

    def work():
        # A task that says both refuses what does not go together.
        task_of(name, labels, outputs=kind, metric=metric)
        with suppress(UndefinedMetric):  # some resamples of so few samples have no value
            found.append(score(outputs.numpy(), labels.numpy(), metric, kind))

    if (told := error_of(work)) is not None:
        assert is_one_sentence(told)
        assert kind not in FITS.get(metric, {"values", "image"}) or not takes(kind, labels)
        return
    if not found:
        assert metric in DATASET_METRICS
        return
    (scores,) = found
    value = scores.value if isinstance(scores, DatasetScore) else scores
    assert value == pytest.approx(plain_score(metric, outputs.numpy(), labels.numpy()))


@pytest.mark.parametrize("type_", LABELS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_what_outputs_are_is_derived_rightly_or_asked_for(name, type_):
    kind, shape = OUTPUTS[name]
    make, dtype = LABELS[type_]
    labels, outputs = make(name, dtype), torch.randn(N, *shape, generator=drawn(2))
    supervision = Supervision.of(task_of(name, labels), outputs)
    if supervision.on(None).kind is None:
        with pytest.raises(CompressError, match=r"say it in the task: outputs: ") as caught:
            supervision.loss(outputs, labels)
        assert is_one_sentence(caught.value)
        return
    same = {"tokens": "class-scores", "image": "values"}
    assert supervision.on(None).kind == same.get(kind, kind)


def test_classes_on_the_last_axis_are_named(tmp_path):
    labels, outputs = torch.randint(7, (N, 10), generator=drawn()), torch.randn(N, 10, 7)
    supervision = Supervision.of(task_of("text", labels), outputs)
    with pytest.raises(CompressError, match=r"seem to lie last: return outputs\.movedim\(-1, 1\)"):
        supervision.loss(outputs, labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_255_is_no_label_where_that_is_said(dtype):
    outputs = torch.randn(N, 3, 4, 4, generator=drawn(2))
    labels = torch.randint(3, (N, 4, 4), generator=drawn())
    gone = labels.clone()
    gone[:, 0] = 255
    task = task_of("masks", gone.to(dtype), ignore_index=255)
    value = Supervision.of(task, outputs).loss(outputs, gone.to(dtype))
    torch.testing.assert_close(value, F.cross_entropy(outputs[:, :, 1:], labels[:, 1:]))
    found = score(outputs.numpy(), gone.to(dtype).numpy(), "accuracy", "class-scores", 255)
    right = outputs[:, :, 1:].argmax(1) == labels[:, 1:]
    assert found == pytest.approx(right.flatten(1).double().mean(1).numpy())


def reference(kind, student, teacher, labels):
    """A loss of outputs by default settings, in numpy (see ``loss_cases``)."""
    case, arrays = CASES[kind], [x.detach().double().numpy() for x in (student, teacher)]
    if case.on_rows:
        arrays = [np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]) for x in arrays]
    fields = BUILT_IN[kind].model_fields.items()
    own = {name: field.default for name, field in fields if name in case.parameters}
    if case.reads_labels:
        own["target"] = labels.reshape(-1).numpy()
    return case.reference(*arrays, **own)


def block(kind):
    """The loss on the one layer of the nets here, where it needs layers."""
    fields = BUILT_IN[kind].model_fields
    layers = [name for name in ("student", "teacher", "layers") if name in fields]
    return {"kind": kind, **{name: "map" for name in layers if fields[name].is_required()}}


@pytest.mark.parametrize("kind", [*BUILT_IN, "default"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_every_loss_is_right_or_refused_for_every_kind_of_outputs(name, kind, tmp_path):
    of, shape = OUTPUTS[name]
    torch.manual_seed(0)
    student, teacher = Net(shape).eval(), Net(shape).eval()
    losses = None if kind == "default" else [block(kind)]
    if kind == "label":
        losses.append({"kind": "logits-mse"})
    labels = natural(name, torch.float32 if of in ("values", "image") else torch.int64)
    task = task_of(name, labels, outputs=of)
    start = Candidate.of(student, task.train.inputs[:2])
    context = replace(bench_context(start, tmp_path), task=task, teacher=lambda x: teacher(x))
    stage = DistillStage(batch_size=4, losses=losses)
    if (told := error_of(lambda: stage.rehearse(start, context))) is not None:
        assert is_one_sentence(told)
        return
    assert kind == "default" or of in BUILT_IN[kind].output_kinds
    if kind != "label" and (losses is None or not CASES[kind].on_outputs):
        return
    distillation = DistillationContext(student, context.teacher, context)
    loss = stage.losses[0].loss_function(distillation)
    inputs = task.train.inputs
    ours, theirs = student(inputs), teacher(inputs).detach()
    value = loss.compute(ModelOutputs(ours), ModelOutputs(theirs), labels)
    if kind == "label":
        torch.testing.assert_close(value, plain(of, ours, labels))
    else:
        expected = reference(kind, ours, theirs, labels)
        assert float(value.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_default_moves_the_student_to_the_teacher(name, tmp_path):
    of, shape = OUTPUTS[name]
    torch.manual_seed(0)
    student, teacher = Net(shape).eval(), Net(shape).eval()
    task = replace(task_of(name, None), outputs=of)
    start = Candidate.of(student, task.train.inputs[:2])
    context = replace(bench_context(start, tmp_path), task=task, teacher=lambda x: teacher(x))
    after = DistillStage(batch_size=8, epochs=40, learning_rate=1e-2).run(start, context).module
    with torch.no_grad():
        before, left = (
            float((net(task.train.inputs) - teacher(task.train.inputs)).abs().mean())
            for net in (student, after)
        )
    # A softmax forgives a shift, which the raw outputs still have.
    assert left < (0.9 if of in ("class-scores", "tokens") else 0.6) * before


def test_every_kind_of_outputs_is_here():
    assert {kind for kind, _ in OUTPUTS.values()} == set(OUTPUT_KINDS)
