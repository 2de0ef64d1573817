"""One table of losses: for each kind the settings and nets to try it with, and its value in numpy.

A new kind needs one entry in ``CASES``; the tests of values, gradients, recipes and outputs run
over all of them.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from compress import Candidate, Task
from compress.distillation.losses import adversarial, contrastive, feature, image, logits, relation
from compress.distillation.losses import response as responses
from compress.distillation.losses import sequence as sequences
from compress.tasks.arrays import ArrayDataset
from compress.testing.nets import NETS
from compress.training.data import head
from compress.training.supervision import Supervision
from compress.zoo import build

SAMPLES = 64


def drawn(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


SCORES = (drawn(0, 5, 4), drawn(1, 5, 4))
PICTURES = (drawn(2, 2, 3, 13, 12), drawn(3, 2, 3, 13, 12))
MAPS = (drawn(4, 3, 2, 4, 4), drawn(5, 3, 2, 4, 4))
STATES = (drawn(6, 3, 5, 4), drawn(7, 3, 5, 4))
ATTENTION = (drawn(8, 2, 2, 5, 5), drawn(9, 2, 2, 5, 5))
TARGET = torch.tensor([0, 3, 1, 1, 2])


# Every loss in numpy, from the formulas of its paper.


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def response(s, t, temperature=4.0):
    p, q = softmax(t / temperature), softmax(s / temperature)
    return np.mean([kl(a, b) for a, b in zip(p, q, strict=True)]) * temperature**2


def binary_kl(s, t, temperature=1.0):
    p, q = (1 / (1 + np.exp(-x / temperature)) for x in (t, s))
    pairs = zip(p.ravel(), q.ravel(), strict=True)
    each = [kl(np.array([a, 1 - a]), np.array([b, 1 - b])) for a, b in pairs]
    return np.mean(each) * temperature**2


def hard(s, t):
    return np.mean([-np.log(q[row.argmax()]) for q, row in zip(softmax(s), t, strict=True)])


def dkd(s, t, target=None, *, alpha=1.0, beta=8.0, temperature=4.0):
    total = 0.0
    for p, q, c in zip(
        softmax(t / temperature),
        softmax(s / temperature),
        t.argmax(1) if target is None else target,
        strict=True,
    ):
        others = np.arange(len(p)) != c
        binary = kl(np.array([p[c], 1 - p[c]]), np.array([q[c], 1 - q[c]]))
        among = kl(p[others] / (1 - p[c]), q[others] / (1 - q[c]))
        total += alpha * binary + beta * among
    return total / len(s) * temperature**2


def dist(s, t, beta=1.0, gamma=1.0, temperature=1.0):
    p, q = softmax(t / temperature), softmax(s / temperature)
    within = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    across = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
    return (beta * np.mean(within) + gamma * np.mean(across)) * temperature**2


def topk_kl(s, t, k=2, temperature=1.0):
    total = 0.0
    for p, q in zip(softmax(t / temperature), softmax(s / temperature), strict=True):
        top = np.argsort(p)[::-1][: min(k, len(p) - 1)]
        lumped = [np.append(x[top], 1 - x[top].sum()) for x in (p, q)]
        total += kl(*lumped)
    return total / len(s) * temperature**2


def ssim(s, t, data_range=1.0):
    # Of 11 pixels, or of the largest odd number that fits.
    rows, columns = (min(11, size - 1 + size % 2) for size in s.shape[2:])
    y, x = np.arange(rows)[:, None] - rows // 2, np.arange(columns) - columns // 2
    window = np.exp(-(y**2 + x**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for a, b in zip(s.reshape(-1, *s.shape[2:]), t.reshape(-1, *t.shape[2:]), strict=True):
        for top in range(a.shape[0] - rows + 1):
            for left in range(a.shape[1] - columns + 1):
                u, v = (m[top : top + rows, left : left + columns] for m in (a, b))
                mu, mv = (window * u).sum(), (window * v).sum()
                vu, vv = ((window * (m - n) ** 2).sum() for m, n in ((u, mu), (v, mv)))
                cov = (window * (u - mu) * (v - mv)).sum()
                upper = (2 * mu * mv + c1) * (2 * cov + c2)
                values.append(upper / ((mu**2 + mv**2 + c1) * (vu + vv + c2)))
    return 1 - np.mean(values)


def attention_transfer(s, t):
    total = 0.0
    for a, b in zip(s, t, strict=True):
        maps = [(m**2).sum(0).ravel() for m in (a, b)]
        maps = [m / np.sqrt((m**2).sum()) for m in maps]
        total += ((maps[0] - maps[1]) ** 2).sum()
    return total / len(s)


def huber(difference):
    size = abs(difference)
    return 0.5 * size**2 if size < 1 else size - 0.5


def vectors(s, t):
    return s.reshape(len(s), -1), t.reshape(len(t), -1)


def rkd_distance(s, t):
    s, t = vectors(s, t)
    pairs = [(i, j) for i in range(len(s)) for j in range(i)]
    lengths = [np.array([np.linalg.norm(x[i] - x[j]) for i, j in pairs]) for x in (s, t)]
    a, b = (d / d.mean() for d in lengths)
    return np.mean([huber(d) for d in a - b])


def rkd_angle(s, t):
    def cosine(x, i, j, k):
        u, v = x[i] - x[j], x[k] - x[j]
        return u @ v / (np.linalg.norm(u) * np.linalg.norm(v))

    s, t = vectors(s, t)
    n = range(len(s))
    triples = [(i, j, k) for i in n for j in n for k in n if len({i, j, k}) == 3]
    return np.mean([huber(cosine(s, *x) - cosine(t, *x)) for x in triples])


def similarity(s, t):
    grams = [x @ x.T for x in vectors(s, t)]
    a, b = (g / np.sqrt((g**2).sum(1, keepdims=True)) for g in grams)
    return ((a - b) ** 2).sum() / len(s) ** 2


def pkt(s, t):
    s, t = vectors(s, t)
    total = 0.0
    for i in range(len(s)):
        choices = []
        for x in (t, s):
            others = [j for j in range(len(x)) if j != i]
            cosines = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in others]
            affinity = np.maximum((np.array(cosines) + 1) / 2, 1e-7)  # opposites never choose
            choices.append(affinity / affinity.sum())
        total += kl(*choices)
    return total / len(s)


def crd(s, t, temperature=0.07):
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t))
    scores = u @ v.T / temperature
    found = [-np.log(softmax(m)[i, i]) for m in (scores, scores.T) for i in range(len(m))]
    return np.mean(found)


def gkd(s, t, beta=0.5):
    p, q = softmax(t), softmax(s)
    m = beta * p + (1 - beta) * q
    each = [beta * kl(a, c) + (1 - beta) * kl(b, c) for a, b, c in zip(p, q, m, strict=True)]
    return np.mean(each)


def cross_entropy(s, tokens):
    return np.mean([-np.log(q[token]) for q, token in zip(softmax(s), tokens, strict=True)])


def mean_square(s, t):
    return ((s - t) ** 2).mean()


def label(outputs, labels):
    """The loss on labels of a task of classes."""
    data = ArrayDataset(outputs.detach(), labels)
    return Supervision.of(Task("labels", data, data, data), outputs).loss(outputs, labels)


def hinge_generator(student, _):
    return adversarial.hinge_generator(student)


def hinge_discriminator(student, teacher):
    return adversarial.hinge_discriminator(teacher, student)


def perceptual(student, teacher):
    return image.perceptual([student], [teacher])


# Nets and data.


@dataclass(frozen=True)
class Pair:
    """A teacher, a student of another architecture, and a task for both."""

    teacher: dict
    student: dict
    task: Task

    def start(self):
        torch.manual_seed(0)
        options = {k: v for k, v in self.teacher.items() if k != "arch"}
        return Candidate.of(build(self.teacher["arch"], options), head(self.task.train, 2).inputs)


def small(task):
    data = ArrayDataset(task.train.inputs[:SAMPLES], task.train.labels[:SAMPLES])
    return replace(task, train=data, validation=data)


def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(SAMPLES, 1, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=generator)
    data = ArrayDataset(noisy, smooth)
    return Task("denoise", train=data, validation=data, test=data, metric="mse")


def yes_or_no(task):
    data = ArrayDataset(task.train.inputs, nn.functional.one_hot(task.train.labels, 4))
    return replace(task, train=data, validation=data, test=data, outputs="independent-logits")


CLASSES = Pair(
    {"arch": "resnet", "width": 16, "blocks": 1, "classes": 4},
    {"arch": "dscnn", "width": 8, "classes": 4},
    small(NETS["resnet"].make_task()),
)
TOKENS = Pair(
    {"arch": "attention", "width": 32, "depth": 2, "heads": 4, "image_size": 12, "classes": 4},
    {"arch": "attention", "width": 16, "depth": 1, "heads": 2, "image_size": 12, "classes": 4},
    small(NETS["attention"].make_task()),
)
TEXTS = Pair(
    {"arch": "causal-lm", "width": 32, "depth": 2, "heads": 4, "context": 10, "classes": 6},
    {"arch": "causal-lm", "width": 16, "depth": 1, "heads": 2, "context": 12, "classes": 6},
    small(NETS["causal-lm"].make_task()),
)
# A net of images that is no U-Net; `parts` is a module of the tests.
IMAGES = Pair({"arch": "unet", "classes": 1}, {"arch": "parts:Stack"}, images())
BINARY = Pair(CLASSES.teacher, CLASSES.student, yes_or_no(CLASSES.task))


@dataclass(frozen=True)
class Case:
    """One kind of loss.

    Args:
        pair: nets and data that it can be used on.
        settings: the smallest useful ones, beside ``kind``.
        function: of the package, from the tensors of student and teacher to a scalar.
        reference: the same in numpy.
        tensors: of student and teacher, at which the function is smooth.
        arguments: of ``function`` and ``reference``, beside the tensors.
        on_outputs: whether with ``arguments`` as its settings, and no layers, it compares outputs.
        on_rows: whether ``reference`` takes rows of scores.
        zero_between_equals: whether it is 0 where student and teacher are equal.
        teaches_alone: whether a student's loss falls when it is trained with nothing else.
        reads_labels: whether labels matter.
        in_float32: whether it is computed in float32 whatever it is given.
    """

    pair: Pair
    settings: dict[str, Any]
    function: Callable
    reference: Callable
    tensors: tuple[torch.Tensor, torch.Tensor] = SCORES
    arguments: dict[str, Any] = field(default_factory=dict)
    on_outputs: bool = False
    on_rows: bool = False
    zero_between_equals: bool = True
    teaches_alone: bool = True
    reads_labels: bool = False
    in_float32: bool = False

    def value(self, student, teacher):
        return self.function(student, teacher, **self.arguments)

    @property
    def parameters(self):
        """Names of what the reference takes beside the tensors."""
        return list(inspect.signature(self.reference).parameters)[2:]


def on_rows(function, reference, settings, **options):
    """A loss on scores of classes."""
    return Case(CLASSES, settings, function, reference, on_outputs=True, on_rows=True, **options)


def on_relations(function, reference):
    """A loss on how the samples of a batch relate to each other."""
    blocks = {"student": "blocks", "teacher": "blocks"}
    return Case(CLASSES, blocks, function, reference, on_outputs=True)


def on_layers(pair, student, teacher, function, reference, tensors):
    """A loss on layers of both nets."""
    return Case(pair, {"student": student, "teacher": teacher}, function, reference, tensors)


ADVERSARIAL = Case(
    IMAGES,
    {"width": 8},
    hinge_generator,
    lambda student, _: -student.mean(),
    zero_between_equals=False,
    teaches_alone=False,
)
CASES = {
    "adversarial": ADVERSARIAL,
    "attention-maps": on_layers(
        TOKENS,
        "blocks.*.attention",
        "blocks.*.attention",
        feature.attention_maps,
        mean_square,
        ATTENTION,
    ),
    "attention-transfer": on_layers(
        CLASSES,
        ["blocks.0", "blocks.2"],
        ["blocks.0", "blocks.1"],
        feature.attention_transfer,
        attention_transfer,
        MAPS,
    ),
    "binary-kl": Case(
        BINARY,
        {},
        logits.binary_kl,
        binary_kl,
        arguments={"temperature": 2.0},
        on_outputs=True,
    ),
    "crd": Case(
        CLASSES,
        {"student": "blocks", "teacher": "blocks", "width": 16},
        contrastive.crd,
        crd,
        zero_between_equals=False,
    ),
    "dist": on_rows(responses.dist, dist, {}),
    "dkd": on_rows(responses.dkd, dkd, {}, reads_labels=True),
    "gkd": Case(TEXTS, {"prompt": 4}, sequences.gkd, gkd),
    "hard": on_rows(responses.hard, hard, {}, zero_between_equals=False),
    "hidden": on_layers(TOKENS, ["norm"], ["norm"], feature.hidden, mean_square, STATES),
    "hint": on_layers(CLASSES, "blocks.1", "blocks.2", feature.hint, mean_square, MAPS),
    "l1": Case(IMAGES, {}, image.l1, lambda s, t: abs(s - t).mean(), PICTURES, on_outputs=True),
    "label": Case(
        CLASSES,
        {},
        label,
        cross_entropy,
        (SCORES[0], TARGET),
        zero_between_equals=False,
        reads_labels=True,
        in_float32=True,
    ),
    "logits-mse": Case(CLASSES, {}, logits.logits_mse, mean_square, on_outputs=True),
    "perceptual": Case(
        IMAGES,
        {"layers": ["down1", "down2.norm?"]},
        perceptual,
        mean_square,
        MAPS,
    ),
    "pkt": on_relations(relation.pkt, pkt),
    "response": on_rows(
        responses.response, response, {"temperature": 2.0}, arguments={"temperature": 4.0}
    ),
    "rkd-angle": on_relations(relation.rkd_angle, rkd_angle),
    "rkd-distance": on_relations(relation.rkd_distance, rkd_distance),
    "sequence": Case(
        TEXTS,
        {"prompt": 3, "tokens": 6, "beams": 2},
        sequences.sequence,
        cross_entropy,
        (SCORES[0], TARGET),
        zero_between_equals=False,
    ),
    "similarity": on_relations(relation.similarity, similarity),
    "ssim": Case(IMAGES, {}, image.ssim, ssim, PICTURES, on_outputs=True),
    "topk-kl": on_rows(responses.topk_kl, topk_kl, {"k": 2}, arguments={"k": 2}),
}
#: The one function that stands for no kind: the discriminator's side of ``adversarial``.
FUNCTIONS = {
    **CASES,
    "adversarial, its discriminator": replace(
        ADVERSARIAL,
        function=hinge_discriminator,
        reference=lambda s, t: np.maximum(0, 1 - t).mean() + np.maximum(0, 1 + s).mean(),
    ),
}
