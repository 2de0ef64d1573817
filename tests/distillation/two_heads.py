"""Nets with several outputs, for tests: any net with another output beside its own, and a small one
with heads for boxes and scores."""

from dataclasses import replace

import torch
from torch import nn

from compress import Candidate, Task
from compress.distillation.teachers import frozen_teacher
from compress.testing.stage_contract import bench_context

INPUTS, SAMPLES = 6, 48


def with_another(net, own="main", other="other"):
    """The net, in place, with its output by name and a second one that no loss reaches it by."""
    plain = type(net)

    class TwoOutputs(plain):
        def forward(self, *args, **kwargs):
            given = super().forward(*args, **kwargs)
            return {other: given.detach().flatten(1)[:, :3] + 1, own: given}

    net.__class__ = TwoOutputs
    return net


class Heads(nn.Module):
    """Boxes ``(n, 4)`` and scores ``(n, 3)``; in training mode also ``aux`` where asked for."""

    def __init__(self, width=8, names=("boxes", "scores"), aux=False):
        super().__init__()
        self.names = names
        self.body = nn.Sequential(nn.Linear(INPUTS, width), nn.BatchNorm1d(width), nn.ReLU())
        self.boxes, self.scores = nn.Linear(width, 4), nn.Linear(width, 3)
        self.aux = nn.Linear(width, 3) if aux else None

    def forward(self, x):
        hidden = self.body(x)
        given = dict(zip(self.names, (self.boxes(hidden), self.scores(hidden)), strict=True))
        if self.aux is not None and self.training:
            given["aux"] = self.aux(hidden)
        return given


class Plain(nn.Module):
    """Boxes and scores of two linear layers, which are the same in both modes."""

    def __init__(self, names=("boxes", "scores")):
        super().__init__()
        self.names = names
        self.boxes, self.scores = nn.Linear(INPUTS, 4), nn.Linear(INPUTS, 3)

    def forward(self, x):
        return dict(zip(self.names, (self.boxes(x), self.scores(x)), strict=True))


class Aux(nn.Module):
    """Scores, and in training mode those of an auxiliary head beside them.

    ``form`` says how it returns them: ``dict`` in both modes, or a tensor in eval mode and a tuple
    or a dictionary in training mode.
    """

    def __init__(self, form="dict", width=8):
        super().__init__()
        self.form = form
        self.body = nn.Sequential(nn.Linear(INPUTS, width), nn.BatchNorm1d(width), nn.ReLU())
        self.head, self.aux = nn.Linear(width, 3), nn.Linear(width, 3)

    def forward(self, x):
        hidden = self.body(x)
        out = self.head(hidden)
        if not self.training:
            return {"out": out} if self.form == "dict" else out
        if self.form == "tuple":
            return out, self.aux(hidden)
        return {"out": out, "aux": self.aux(hidden)}


def net(kind=Heads, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(**options).eval()


def samples(seed=0, count=SAMPLES):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, INPUTS, generator=generator)
    boxes = inputs[:, :4] * 2 + 1
    scores = inputs[:, :3].argmax(1)
    return inputs, boxes, scores


def rows(labels, count=SAMPLES):
    """A data set of ``(x, labels(boxes, scores))``, or of inputs alone."""
    inputs, boxes, scores = samples(count=count)
    if labels is None:
        return [(one,) for one in inputs]
    return [(inputs[i], labels(boxes[i], scores[i])) for i in range(count)]


def by_name(boxes, scores):
    return {"boxes": boxes, "scores": scores}


def task_of(labels=by_name, **changes):
    data = rows(labels)
    return Task("heads", data, data, data, **changes)


def placed(module, folder, task, teacher=None, **changes):
    """A candidate of the module, what a stage is given with it, and the events that it reports."""
    start = Candidate.of(module, samples(1, 2)[0])
    events = []
    context = replace(bench_context(start, folder), task=task, report=events.append, **changes)
    if teacher is not None:
        context = replace(context, teacher=frozen_teacher(teacher))
    return start, context, events


def losses_of(events):
    return [event["losses"] for event in events if event["event"] == "epoch"]
