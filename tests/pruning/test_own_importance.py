"""Criteria of one's own: what they are shown, and what they must give."""

from __future__ import annotations

import math
import sys
import types
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage, Recipe
from compress.config.references import CodeReferences
from compress.errors import CompressError, StageError
from compress.pruning.importance import CRITERIA
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.zoo import build

CASE = NETS["resnet"]


class Net(nn.Module):
    """Two layers with a norm between them, and a flattened end: four values of each channel."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Linear(6 * 4, 3)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))).flatten(1))


@pytest.fixture
def parts(monkeypatch):
    module = types.ModuleType("criteria")
    monkeypatch.setitem(sys.modules, "criteria", module)
    return module


def cut(module, example, folder, **keys):
    candidate = Candidate.of(module, example)
    context = replace(bench_context(candidate, folder), references=CodeReferences.of("criteria"))
    return PruneStage(**keys).run(candidate, context)


def test_it_is_shown_all_that_goes_with_each_channel(parts, tmp_path):
    seen = []

    def criterion(group):
        seen.append(group)
        return range(group.channels)

    parts.criterion = criterion
    torch.manual_seed(0)
    net = Net()
    done = cut(net, torch.zeros(2, 1, 4, 4), tmp_path, importance="criteria:criterion", ratio=0.5)
    [group] = (
        {id(one): one for one in seen if one.channels == 6}.values()
        if len(seen) == 1
        else [seen[0]]
    )
    by_name = {(one.parameter, one.axis): one for one in group.slices}
    assert group.channels == 6
    assert set(by_name) == {
        ("first.weight", 0),
        ("first.bias", 0),
        ("norm.weight", 0),
        ("norm.bias", 0),
        ("last.weight", 1),
    }
    assert group.weights.shape == (6, 9 + 1 + 1 + 1 + 3 * 4)
    first = by_name["first.weight", 0]
    assert first.is_output
    assert torch.equal(first.weights, net.first.weight.detach().flatten(1))
    last = by_name["last.weight", 1]
    assert not last.is_output
    rows = net.last.weight.detach().T.reshape(6, 4, 3).flatten(1)
    assert torch.equal(last.weights, rows)
    assert first.gradients is None
    assert torch.equal(group.gradients, torch.zeros_like(group.weights))
    # The channels of the lowest scores are those that go.
    assert torch.equal(done.module.first.weight, net.first.weight[3:])


def test_gradients_are_there_where_it_asks_for_them(parts, tmp_path):
    seen = []

    def criterion(group):
        seen.append(group.gradients)
        return (group.weights * group.gradients).sum(1).abs()

    criterion.needs_gradients = True
    parts.criterion = criterion
    task = CASE.make_task()
    torch.manual_seed(0)
    module = build("resnet", {"width": 8, "blocks": 1, "classes": 4})
    candidate = Candidate.of(module, task.train.inputs[:2])
    context = replace(
        bench_context(candidate, tmp_path), task=task, references=CodeReferences.of("criteria")
    )
    stage = PruneStage(importance="criteria:criterion", ratio=0.25)
    stage.rehearse(candidate, context)
    assert not seen
    stage.run(candidate, context)
    assert all(float(one.abs().sum()) > 0 for one in seen)


def test_the_same_formula_ranks_as_the_built_in_does(parts, tmp_path):
    def norm(group, order: int = 2):
        return next(one.weights for one in group.slices if one.is_output).norm(p=order, dim=1)

    parts.norm = norm
    task = CASE.make_task()
    torch.manual_seed(0)
    module = build("resnet", {"width": 8, "blocks": 1, "classes": 4})
    for order, name in ((1, "l1"), (2, "l2")):
        own = {"kind": "criteria:norm", "order": order}
        results = [
            cut(module, task.train.inputs[:2], tmp_path / name, importance=importance, ratio=0.5)
            for importance in (own, name)
        ]
        assert results[0].fingerprint == results[1].fingerprint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda group: 3.0, r"of 6 channels; got 3.0"),
        (lambda group: None, r"of 6 channels; got None"),
        (lambda group: group.weights, r"got numbers of shape \(6, 24\)"),
        (lambda group: [1.0] * 5, r"got numbers of shape \(5,\)"),
        (lambda group: [math.nan] * 6, "got one that is not"),
        (lambda group: ["a"] * 6, "got \\['a'"),
    ],
)  # fmt: skip
def test_what_are_no_scores_is_one_sentence(given, message, parts, tmp_path):
    parts.criterion = given
    with pytest.raises(StageError, match=f"^prune: importance criteria:criterion must .*{message}"):
        cut(Net(), torch.zeros(2, 1, 4, 4), tmp_path, importance="criteria:criterion")


def load(importance, **more):
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    text = f"name: own\nstages: [{{kind: prune, importance: {importance}{keys}}}]"
    return Recipe.loads(text, imports=["criteria"])


def test_it_is_written_as_it_was(parts):
    parts.norm = lambda group, order=2: group.weights.norm(p=order, dim=1)
    for written in ("criteria:norm", {"kind": "criteria:norm", "order": 1}, "l1"):
        recipe = load(written if isinstance(written, str) else "{kind: 'criteria:norm', order: 1}")
        assert recipe.resolved()["stages"][0]["importance"] == written
        assert Recipe.loads(recipe.dumps(), imports=["criteria"]) == recipe


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ("l3", f"importance: should be {', '.join(CRITERIA)}, or module:name; got 'l3'"),
        ("3", "importance: should be l1, .*; got 3"),
        ("{kind: l1}", "importance: a block is for an importance of your own, with kind: module:n"),
        ("{order: 1}", "importance: should be l1, .* or module:name; got {'order': 1}"),
        ("[l1]", r"importance: should be l1, .*; got \['l1'\]"),
        ("'other:norm'", "refers to code in 'other', which is only imported when you name it"),
    ],
)
def test_an_importance_that_is_none_is_one_sentence(importance, message, parts):
    with pytest.raises(CompressError, match=message) as caught:
        load(importance)
    assert "\n" not in str(caught.value)


def test_it_is_for_channels(parts):
    parts.norm = lambda group: group.weights.norm(dim=1)
    with pytest.raises(CompressError, match="importance criteria:norm is for channels; weights go"):
        load("'criteria:norm'", granularity="weights")
