"""The proof does not trust the ids: what they get wrong is found, and stays whole."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.pruning import flow, moves
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.pruning.search import Search
from compress.testing.cuts import agrees, distinct


def shuffled_net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ChannelShuffle(4)]
    layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16, 4)).eval()


def found_of(net, ratio=0.5, **settings):
    inputs = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    search = Search(net, inputs, ChannelPruning(ratio=ratio, **settings), net)
    return search, search.run(), inputs


def test_a_rule_that_takes_a_shuffle_for_nothing_is_found_out(monkeypatch):
    def unmoved(walk, node):
        walk.give(node, walk.layout(node.refs[0]))

    net = distinct(shuffled_net())
    monkeypatch.setitem(flow.HANDLERS, "channel_shuffle", unmoved)
    _, found, _ = found_of(net)
    first = {width.layer: width for width in found.widths}["0"]
    assert (first.before, first.after) == (16, 16)
    assert "could not be proved" in first.reason
    cut = copy.deepcopy(net)
    found.apply(cut)
    assert agrees(net, cut, torch.randn(3, 3, 4, 4, dtype=torch.float64))


def test_a_rule_that_forgets_to_join_two_branches_is_found_out(monkeypatch):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Linear(8, 4)

        def forward(self, x):
            return self.head((self.a(x) + self.b(x)).mean((2, 3)))

    def of_the_first(self, node):
        self.give(node, self.layout(node.refs[0]))

    torch.manual_seed(0)
    net = distinct(Residual().eval())
    monkeypatch.setattr(flow.Walk, "pointwise", of_the_first)
    _, found, inputs = found_of(net)
    cut = copy.deepcopy(net)
    found.apply(cut)
    assert agrees(net, cut, inputs)


def test_parts_of_an_axis_that_are_cut_unequally_are_found_out(monkeypatch):
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(4, 16), nn.Linear(8, 4)

        def forward(self, x):
            a, b = self.first(x).chunk(2, 1)
            return self.head(a * torch.sigmoid(b))

    torch.manual_seed(0)
    net = distinct(Halves().eval())
    monkeypatch.setattr(moves, "align", lambda walk, parts: None)
    inputs = torch.randn(3, 4, dtype=torch.float64)
    found = Search(net, inputs, ChannelPruning(ratio=0.5), net).run()
    cut = copy.deepcopy(net)
    found.apply(cut)
    assert agrees(net, cut, inputs)


def _norm(net, change):
    with torch.no_grad():
        change(net[1])


WRONG = {
    "a norm that was forgotten": lambda net: _norm(net, lambda norm: norm.weight.copy_(norm.bias)),
    "statistics of other channels": lambda net: _norm(
        net, lambda norm: norm.running_var.copy_(norm.running_var.flip(0))
    ),
    "a bias of another order": lambda net: net[0].bias.data.copy_(net[0].bias.flip(0)),
    "inputs of another order": lambda net: net[3].weight.data.copy_(net[3].weight.flip(1)),
    "one input twice": lambda net: net[3].weight.data[:, 0].copy_(net[3].weight[:, 1]),
    "a head of another order": lambda net: net[7].weight.data.copy_(net[7].weight.flip(1)),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_cut_net_that_was_changed_is_disproved(change):
    search, found, _ = found_of(distinct(shuffled_net()))
    assert found.removed
    assert search.disproof(found, lambda _: None) is None
    assert search.disproof(found, change) is not None


class Scaled(nn.Module):
    """Attention whose scale follows from the width that its heads have left."""

    def __init__(self, form):
        super().__init__()
        self.form, self.heads = form, 2
        self.qkv, self.out, self.head = nn.Linear(6, 48), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        width = q.shape[-1]
        if self.form == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif self.form == "scores":
            mixed = (q @ k.transpose(-2, -1) / width**0.5).softmax(-1) @ v
        else:
            mixed = ((q * width**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(self.out(mixed.transpose(1, 2).flatten(2)).mean(1))


@pytest.mark.parametrize("form", ["fused", "scores", "queries"])
def test_a_scale_that_follows_from_a_width_is_what_it_was(form):
    torch.manual_seed(0)
    net = distinct(Scaled(form).eval())
    inputs = torch.randn(3, 5, 6, dtype=torch.float64)
    search = Search(net, inputs, ChannelPruning(ratio=0.5), net)
    found = search.run()
    assert {w.layer: w.after for w in found.widths}["qkv"] == 24
    assert len(found.settings.rescalings) == 1
    cut = copy.deepcopy(net)
    found.apply(cut)
    assert agrees(net, cut, inputs)


def test_a_mean_over_channels_keeps_them_unless_a_norm_takes_it():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 16, 1), nn.Conv2d(1, 1, 3, padding=1)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            x = self.conv(x)
            return self.head((x * self.gate(x.mean(1, keepdim=True))).mean((2, 3)))

    net = Mean().eval()
    found = Search(net, torch.randn(2, 3, 4, 4), ChannelPruning(ratio=0.5), net).run()
    assert not found.removed
    assert "a mean over them, whose scale would change" in found.widths[0].reason


def test_whole_groups_go_where_members_would_be_too_many():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.GroupNorm(32, 64), nn.Conv2d(64, 64, 3, padding=1, groups=32)
    )
    net = nn.Sequential(*net, nn.Conv2d(64, 16, 1), nn.Flatten(), nn.Linear(16 * 16, 4)).eval()
    prune_channels(net, torch.randn(2, 3, 4, 4), ChannelPruning(ratio=0.1))
    assert (net[0].out_channels, net[1].num_groups, net[2].groups) == (58, 29, 29)


def test_code_that_does_more_once_it_is_cut_is_left_whole():
    class Longer(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x):
            hidden = torch.relu(self.hidden(x))
            outputs = self.head(hidden)
            return outputs if hidden.shape[1] == 16 else outputs * 1.5

    net = Longer().eval()
    found = Search(net, torch.randn(2, 4), ChannelPruning(ratio=0.5), net).run()
    assert not found.removed
    assert "the code goes another way" in found.widths[0].reason
