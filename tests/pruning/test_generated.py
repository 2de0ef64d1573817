"""Random nets of operators that move channels: a cut of each is right, or there is none."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.pruning.channels import ChannelPruning
from compress.pruning.search import Search
from compress.testing.cuts import agrees, distinct, swaps


class Lambda(nn.Module):
    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def conv(before, after, **settings):
    return nn.Conv2d(before, after, 3, padding=1, **settings)


def last(x, layer):
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def halves(x):
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b)


def maxout(x):
    n, c, h, w = x.shape
    return x.view(n, c // 2, 2, h, w).amax(2)


def shuffled(x):
    n, c, h, w = x.shape
    return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def interleaved(x):
    return torch.cat([x[:, ::2], x[:, 1::2]], 1)


def gated(x, reduce, restore):
    return x * torch.sigmoid(restore(F.relu(reduce(x.mean((2, 3), keepdim=True)))))


def windows(x):
    n, c, h, w = x.shape
    cells = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return cells.reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)


def mixed(x, layer):
    return torch.einsum("nchw,oc->nohw", x, layer.weight)


def branches(x, one, two):
    both = torch.stack([one(x), two(x)], 1)
    weights = torch.softmax(both.mean((3, 4), keepdim=True), 1)
    return (weights * both).sum(1)


def unfolded(x, layer):
    n, _, h, w = x.shape
    patches = F.unfold(x, 3, padding=1).transpose(1, 2)
    return layer(patches).transpose(1, 2).reshape(n, -1, h, w)


def random_step(draw, c):
    """A step from ``c`` channels, and to how many."""
    steps = {
        "conv": lambda: (conv(c, 24), 24),
        "grouped": lambda: (conv(c, c, groups=4), c),
        "depthwise": lambda: (conv(c, 2 * c, groups=c), 2 * c),
        "transposed": lambda: (nn.ConvTranspose2d(c, 16, 1), 16),
        "grouped transposed": lambda: (nn.ConvTranspose2d(c, 16, 1, groups=4), 16),
        "batch norm": lambda: (nn.BatchNorm2d(c), c),
        "group norm": lambda: (nn.GroupNorm(4, c), c),
        "instance norm": lambda: (nn.InstanceNorm2d(c, affine=True), c),
        "layer norm": lambda: (Lambda(last, nn.LayerNorm(c)), c),
        "linear": lambda: (Lambda(last, nn.Linear(c, 20)), 20),
        "prelu": lambda: (nn.PReLU(c), c),
        "relu": lambda: (nn.ReLU(inplace=True), c),
        "sigmoid": lambda: (nn.Sigmoid(), c),
        "shuffle": lambda: (nn.ChannelShuffle(4), c),
        "shuffle by view": lambda: (Lambda(shuffled), c),
        "flip": lambda: (Lambda(lambda x: x.flip(1)), c),
        "roll": lambda: (Lambda(lambda x: x.roll(3, 1)), c),
        "pad": lambda: (Lambda(lambda x: F.pad(x, (0, 0, 0, 0, 2, 2))), c + 4),
        "halves": lambda: (Lambda(halves), c // 2),
        "maxout": lambda: (Lambda(maxout), c // 2),
        "glu": lambda: (nn.GLU(1), c // 2),
        "interleaved": lambda: (Lambda(interleaved), c),
        "some": lambda: (Lambda(lambda x: x[:, : x.shape[1] // 2]), c // 2),
        "residual": lambda: (Lambda(lambda x, f: x + f(x), conv(c, c)), c),
        "concatenated": lambda: (Lambda(lambda x, f: torch.cat([x, f(x)], 1), conv(c, 8)), c + 8),
        "gate": lambda: (Lambda(gated, nn.Conv2d(c, 8, 1), nn.Conv2d(8, c, 1)), c),
        "windows": lambda: (nn.Sequential(Lambda(windows), nn.Upsample(scale_factor=2)), 4 * c),
        "unshuffle": lambda: (nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)), c),
        "einsum": lambda: (Lambda(mixed, nn.Linear(c, 12, bias=False)), 12),
        "branches": lambda: (Lambda(branches, conv(c, 16), conv(c, 16)), 16),
        "unfold": lambda: (Lambda(unfolded, nn.Linear(9 * c, 12)), 12),
        "in place": lambda: (Lambda(lambda x: x.clone().add_(1).mul_(2)), c),
        "spatial gate": lambda: (Lambda(lambda x, f: x * f(x), nn.Conv2d(c, 1, 1)), c),
    }
    name = draw.choice(sorted(steps))
    if c % 8 and name not in ("conv", "linear", "relu", "batch norm", "residual", "gate"):
        name = "conv"
    return steps[name]()


def random_net(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    layers, c = [conv(3, 16)], 16
    for _ in range(draw.randint(3, 6)):
        layer, c = random_step(draw, c)
        layers.append(layer)
        if c > 64:
            layers.append(conv(c, 16))
            c = 16
    head = draw.choice(["pooled", "flat", "channels last"])
    if head == "pooled":
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 4)]
    elif head == "flat":
        layers += [nn.Flatten(), nn.Linear(16 * c, 4)]
    else:
        layers += [Lambda(lambda x: x.permute(0, 2, 3, 1).flatten(1)), nn.Linear(16 * c, 4)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("seed", range(120))
def test_a_random_net_is_cut_rightly(seed):
    net = distinct(random_net(seed))
    inputs = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    ratio = random.Random(seed).choice([0.2, 0.4, 0.6])
    search = Search(net, inputs, ChannelPruning(ratio=ratio), net)
    found = search.run()
    for width in found.widths:
        # Nothing is removed beyond what one step of rounding explains, whatever the structure.
        assert width.before - width.after <= max(ratio * width.before + 16, 0)
    if not found.removed:
        return
    cut = copy.deepcopy(net)
    found.apply(cut)
    assert agrees(net, cut, inputs)
    axis, tamper = sorted(swaps(found).items(), key=str)[seed % len(swaps(found))]
    assert search.disproof(found, tamper) is not None, axis


def test_nearly_all_random_nets_are_cut():
    nets = [distinct(random_net(seed)) for seed in range(0, 120, 3)]
    inputs = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    asked = ChannelPruning(ratio=0.5)
    found = [Search(net, inputs, asked, net).run() for net in nets]
    assert sum(bool(each.removed) for each in found) >= 0.8 * len(nets)
