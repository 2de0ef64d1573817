"""Which axis of what each module gives has channels: derived from the operators that made it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.pruning.axes import channel_axes
from compress.pruning.trace import TraceFailed

pytestmark = pytest.mark.fast


class Net(nn.Module):
    """Layers by name and a function of them."""

    def __init__(self, forward, parameters=(), buffers=(), **layers):
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            setattr(self, name, layer)
        for name, tensor in dict(parameters).items():
            setattr(self, name, nn.Parameter(tensor))
        for name, tensor in dict(buffers).items():
            self.register_buffer(name, tensor)

    def forward(self, x):
        return self._forward(self, x)


class NormOfMaps(nn.LayerNorm):
    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias)
        return x.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Heads, a learned bias of their scores, and a window of 16 tokens."""

    def __init__(self, width):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.scores, self.joined = nn.Identity(), nn.Identity(), nn.Identity()
        self.bias = nn.Parameter(torch.randn(2, 16, 16))

    def forward(self, x):
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        q, k, v = self.query(qkv[0]), qkv[1], qkv[2]
        maps = self.scores((q @ k.transpose(-2, -1) + self.bias).softmax(-1))
        return self.proj(self.joined((maps @ v).transpose(1, 2).reshape(n, tokens, width)))


class Windows(nn.Module):
    """A block of a Swin transformer, channels last."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width)

    def forward(self, x):
        n, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-2, -2), (1, 2)).view(n, h // 4, 4, w // 4, 4, c)
        y = self.attention(y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c))
        y = y.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return x + torch.roll(y, (2, 2), (1, 2))


def recurrent():
    def forward(net, x):
        x = net.drop(net.lstm(x)[0])
        return net.head(net.act(net.gru(x)[0])[:, -1])

    lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True, proj_size=5)
    gru = nn.GRU(10, 7, batch_first=True)
    return Net(forward, lstm=lstm, drop=nn.Dropout(), gru=gru, act=nn.GELU(), head=nn.Linear(7, 3))


def vision_transformer():
    def forward(net, x):
        x = net.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([net.token.expand(len(x), -1, -1), x], 1)
        return net.head(net.act(net.block(net.drop(net.places + x)))[:, 0])

    block = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, norm_first=True)
    learned = {"token": torch.randn(1, 1, 12), "places": torch.randn(1, 17, 12)}
    patch, head = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 5)
    return Net(
        forward, learned, patch=patch, drop=nn.Dropout(), block=block, act=nn.Identity(), head=head
    )


def convnext():
    def forward(net, x):
        x = net.norm(net.stem(x))
        y = net.act(net.wide(net.last(net.depthwise(x).permute(0, 2, 3, 1))))
        x = x + (net.scale * net.narrow(y)).permute(0, 3, 1, 2)
        return net.head(net.relu(x).mean((2, 3)))

    return Net(
        forward,
        {"scale": torch.ones(8)},
        stem=nn.Conv2d(3, 8, 4, 4),
        norm=NormOfMaps(8),
        depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        last=nn.LayerNorm(8),
        wide=nn.Linear(8, 32),
        act=nn.GELU(),
        narrow=nn.Linear(32, 8),
        relu=nn.ReLU(),
        head=nn.Linear(8, 5),
    )


def swin():
    def forward(net, x):
        x = net.block(net.patch(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return net.head(net.act(net.merge(x)).mean((1, 2)))

    patch, merge = nn.Conv2d(3, 8, 2, 2), nn.Linear(32, 16)
    return Net(
        forward, patch=patch, block=Windows(8), merge=merge, act=nn.ReLU(), head=nn.Linear(16, 5)
    )


def mixer():
    def forward(net, x):
        x = net.norm(net.patch(x).flatten(2).transpose(1, 2))
        x = net.mixed(x + net.tokens(x.transpose(1, 2)).transpose(1, 2))
        return net.head(net.width(x).mean(1))

    return Net(
        forward,
        patch=nn.Conv2d(3, 12, 4, 4),
        norm=nn.LayerNorm(12),
        tokens=nn.Linear(16, 16),
        mixed=nn.Identity(),
        width=nn.Linear(12, 8),
        head=nn.Linear(8, 5),
    )


def sequence():
    def forward(net, x):
        x = net.time(net.first(net.conv(x)))
        return net.head(net.second(net.linear(x.transpose(1, 2))).mean(1))

    return Net(
        forward,
        conv=nn.Conv1d(4, 8, 3, padding=1),
        first=nn.ReLU(),
        time=nn.LayerNorm(9),
        linear=nn.Linear(8, 6),
        second=nn.ReLU(),
        head=nn.Linear(6, 3),
    )


def unet():
    def forward(net, x):
        fine = net.act(net.down(x))
        coarse = net.mid(net.pool(fine))
        joined = net.joined(torch.cat([fine, net.up(coarse)], 1))
        return net.out(net.shuffled(net.shuffle(net.fuse(joined))))

    return Net(
        forward,
        down=nn.Conv2d(1, 8, 3, padding=1),
        act=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        mid=nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
        up=nn.ConvTranspose2d(16, 8, 2, 2),
        joined=nn.Identity(),
        fuse=nn.Conv2d(16, 12, 3, padding=1),
        shuffle=nn.PixelShuffle(2),
        shuffled=nn.ReLU(),
        out=nn.Conv2d(3, 1, 2, 2),
    )


def electrodes():
    def forward(net, x):
        x = net.pool(net.act(net.across(net.along(x[:, None]))))
        return net.head(net.rnn(net.steps(x.squeeze(2)).transpose(1, 2))[0].mean(1))

    return Net(
        forward,
        along=nn.Conv2d(1, 4, (1, 9), padding=(0, 4)),
        across=nn.Conv2d(4, 8, (6, 1), groups=4),
        act=nn.ELU(),
        pool=nn.AvgPool2d((1, 4)),
        steps=nn.Identity(),
        rnn=nn.LSTM(8, 5, batch_first=True),
        head=nn.Linear(5, 3),
    )


def graph():
    """A fixed matrix mixes nodes: it is no layer."""

    def forward(net, x):
        return net.head(net.act(net.neighbors @ net.linear(x)).mean(1))

    near = {"neighbors": torch.rand(7, 7)}
    return Net(forward, buffers=near, linear=nn.Linear(4, 6), act=nn.ReLU(), head=nn.Linear(6, 3))


def spectrum():
    """Fixed filters, and then layers."""

    def forward(net, x):
        x = net.bands(torch.einsum("ft,nst->nfs", net.filters, x.unfold(1, 32, 16)))
        return net.head(net.act(net.conv(x)).mean(2))

    filters, conv = {"filters": torch.randn(16, 32)}, nn.Conv1d(16, 8, 3)
    return Net(
        forward,
        buffers=filters,
        bands=nn.Identity(),
        conv=conv,
        act=nn.ReLU(),
        head=nn.Linear(8, 3),
    )


def latents():
    """Learned queries look at tokens."""

    def forward(net, x):
        x, queries = net.read(x), net.latents.expand(len(x), -1, -1)
        return net.head(net.drop(queries + net.attention(queries, x, x)[0]).mean(1))

    return Net(
        forward,
        {"latents": torch.randn(1, 5, 8)},
        read=nn.Linear(4, 8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        drop=nn.Dropout(),
        head=nn.Linear(8, 3),
    )


def generator():
    def forward(net, x):
        return net.after(net.conv(net.before(net.linear(x).unflatten(1, (8, 3, 3))))).mean((2, 3))

    linear, conv = nn.Linear(4, 72), nn.Conv2d(8, 6, 3)
    return Net(forward, linear=linear, before=nn.ReLU(), conv=conv, after=nn.ReLU())


IMAGE = torch.randn(2, 3, 16, 16)
CASES = {
    recurrent: (torch.randn(2, 9, 6), {"lstm": (2,), "drop": (2,), "gru": (2,), "act": (2,)}),
    vision_transformer: (IMAGE, {"patch": (1,), "drop": (2,), "block": (2,), "act": (2,)}),
    convnext: (IMAGE, {"norm": (1,), "last": (3,), "act": (3,), "relu": (1,)}),
    swin: (
        IMAGE,
        {
            "block.norm": (3,),
            "block.attention.query": (1, 2, 3),
            "block.attention.scores": (1, 2, 3),
            "block.attention.joined": (1, 2),  # a third of what the reshape split
            "block": (3,),
            "act": (3,),
        },
    ),
    mixer: (IMAGE, {"norm": (2,), "mixed": (1, 2), "width": (1, 2), "head": (1,)}),
    sequence: (torch.randn(2, 4, 9), {"first": (1,), "time": (1,), "second": (2,)}),
    unet: (torch.randn(2, 1, 8, 8), {"act": (1,), "pool": (1,), "joined": (1,), "shuffled": (1,)}),
    electrodes: (torch.randn(2, 6, 32), {"act": (1,), "steps": (1,), "rnn": (2,)}),
    graph: (torch.randn(2, 7, 4), {"act": (2,)}),
    spectrum: (torch.randn(2, 128), {"bands": (), "act": (1,)}),
    latents: (torch.randn(2, 6, 4), {"attention": (2,), "drop": (2,)}),
    generator: (torch.randn(2, 4), {"before": (1, 2, 3), "after": (1,)}),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_channels_are_followed_from_the_layers_that_make_them(make):
    example, expected = CASES[make]
    net = make().train()
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = channel_axes(net, example)
    assert {name: found[name] for name in expected} == expected
    assert net.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_net_in_half_precision_is_followed_as_well():
    net = convnext().half()
    assert channel_axes(net, IMAGE.half())["relu"] == (1,)


def test_a_net_that_does_not_run_in_double_precision_says_so():
    net = Net(lambda net, x: net.linear(x.numpy()), linear=nn.Linear(2, 2))
    with pytest.raises(TraceFailed):
        channel_axes(net, torch.randn(2, 2))
