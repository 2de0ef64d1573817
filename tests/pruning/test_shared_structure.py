"""What is shared stays shared: ties, layers called twice, heads that training alone uses."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.pruning.channels import ChannelPruning, prune_channels


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(20, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        y = self.embed(x)
        return self.head((y + F.gelu(self.inner(y))).mean(1))


def test_a_cut_leaves_tied_parameters_tied():
    torch.manual_seed(0)
    net = Tied().eval()
    prune_channels(net, torch.randint(20, (4, 6)), ChannelPruning(ratio=0.5))
    assert net.head.weight is net.embed.weight
    assert net.embed.weight.shape == (20, 8)
    assert (net.embed.embedding_dim, net.head.in_features) == (8, 8)


class Twice(nn.Module):
    """One layer with two users: its inputs go only where both agree."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 16), nn.Linear(4, 16)
        self.shared, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(F.relu(self.shared(self.a(x))) + F.relu(self.shared(self.b(x))))


def test_both_calls_of_a_shared_layer_lose_the_same_channels():
    torch.manual_seed(0)
    net = Twice().eval()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    prune_channels(net, torch.randn(3, 4), ChannelPruning(ratio=0.5))
    rows = [
        [int((before[f"{n}.bias"] == value).nonzero()) for value in net.get_parameter(f"{n}.bias")]
        for n in ("a", "b")
    ]
    assert rows[0] == rows[1]
    assert net.shared.in_features == 8


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.last = nn.Linear(6, 16), nn.Linear(16, 16)
        self.head, self.auxiliary = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.body(x))
        y = self.head(torch.relu(self.last(x)))
        return y + 0.1 * self.auxiliary(F.dropout(x, 0.1, self.training)) if self.training else y


def test_a_head_that_training_alone_uses_follows_the_cut():
    torch.manual_seed(0)
    net = Auxiliary().eval()
    before = net.auxiliary.weight.detach().clone()
    kept_of = net.body.bias.detach().clone()
    prune_channels(net, torch.randn(4, 6), ChannelPruning(ratio=0.5))
    kept = [int((kept_of == value).nonzero()) for value in net.body.bias]
    assert torch.equal(net.auxiliary.weight, before[:, kept])
    net.train()(torch.randn(4, 6)).sum().backward()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("both_ways", [False, True])
def test_recurrent_layers_lose_inputs_and_hidden_units(kind, layers, both_ways):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp = nn.Linear(5, 16)
            self.rows = kind(16, 12, layers, batch_first=True, bidirectional=both_ways)
            self.head = nn.Linear(24 if both_ways else 12, 3)

        def forward(self, x):
            return self.head(self.rows(torch.relu(self.inp(x)))[0].mean(1))

    torch.manual_seed(0)
    net = Net().eval()
    prune_channels(net, torch.randn(3, 4, 5), ChannelPruning(ratio=0.5))
    assert (net.inp.out_features, net.rows.input_size, net.rows.hidden_size) == (8, 8, 6)
    net.train()(torch.randn(3, 4, 5)).sum().backward()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
def test_a_projection_of_a_fixed_size_keeps_a_layer_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.head = nn.Linear(5, 16), nn.Linear(6, 3)
            self.rows = nn.LSTM(16, 12, batch_first=True, proj_size=6)

        def forward(self, x):
            return self.head(self.rows(self.inp(x))[0].mean(1))

    torch.manual_seed(0)
    net = Net().eval()
    pruned = prune_channels(net, torch.randn(3, 4, 5), ChannelPruning(ratio=0.5))
    assert (net.inp.out_features, net.rows.hidden_size) == (8, 12)
    assert any("has projections" in width.reason for width in pruned.widths)


@pytest.mark.parametrize(("ratio", "width"), [(0.5, 16), (0.3, 24), (0.25, 24)])
def test_attention_of_torch_loses_the_same_channels_of_every_head(ratio, width):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.head = nn.Linear(6, 32), nn.Linear(32, 4)
            self.att = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x):
            x = self.inp(x)
            return self.head((x + self.att(x, x, x, need_weights=False)[0]).mean(1))

    torch.manual_seed(0)
    net = Net().eval()
    nn.init.normal_(net.att.in_proj_bias)
    before = net.att.in_proj_bias.detach().clone()
    prune_channels(net, torch.randn(4, 5, 6), ChannelPruning(ratio=ratio))
    assert (net.att.embed_dim, net.att.head_dim, net.att.num_heads) == (width, width // 4, 4)
    queries = net.att.in_proj_bias[:width].view(4, -1)
    kept = [[int((before[:32] == v).nonzero()) for v in head] for head in queries]
    assert all([place - 8 * h for place in places] == kept[0] for h, places in enumerate(kept))
    net.train()(torch.randn(4, 5, 6)).sum().backward()


class Biased(nn.Module):
    """Fused attention with a bias of its own for each head."""

    def __init__(self):
        super().__init__()
        self.inp, self.bias = nn.Linear(6, 32), nn.Parameter(torch.randn(4, 5, 5))
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.inp(x)
        q, k, v = (f(x).unflatten(-1, (-1, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        return self.head(self.out(y.transpose(1, 2).flatten(2)).mean(1))


def test_what_is_added_to_the_scores_of_a_head_goes_with_it():
    torch.manual_seed(0)
    net = Biased().eval()
    before = net.bias.detach().clone()
    with torch.no_grad():
        for layer in (net.q, net.k, net.v):
            layer.weight[8:16] = 0
    prune_channels(net, torch.randn(3, 5, 6), ChannelPruning(ratio=0.25, unit="heads"))
    assert net.q.out_features == 24
    assert torch.equal(net.bias, before[[0, 2, 3]])
