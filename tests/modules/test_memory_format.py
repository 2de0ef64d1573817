"""Which layout a net is trained in: channels last, where its backward pass is right in it."""

import pytest
import torch
from torch import nn

from compress.modules.memory_format import arrange, laid_out, layout_of
from compress.zoo.resnet import ResNet

pytestmark = pytest.mark.fast

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Takes its map with a stride that no module tells."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3)
        self.weight = nn.Parameter(torch.ones(8, channels, 1, 1))

    def forward(self, x):
        return nn.functional.conv2d(self.stem(x), self.weight, stride=2)


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.stem(x).view(2, -1)


def pair(channels, kernel=1, stride=2, **options):
    layers = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 16, kernel, stride, **options)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("module", "is_last"),
    [
        (ResNet(in_channels=3, width=16), True),
        (ResNet(in_channels=3, width=8), False),  # oneDNN's issue 6035, by its shortcuts
        (pair(8), False),
        (pair(8, stride=(1, 2)), False),
        (pair(32, groups=4), False),
        (pair(16), True),
        (pair(8, stride=1), True),
        (pair(8, kernel=3), True),
        (Functional(8), False),
        (Functional(16), True),
        (pair(12, stride=1), False),  # fills no vector of eight
        (Viewing(), False),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 8)), False),
    ],
)
def test_a_net_is_in_channels_last_where_its_gradients_are_right(module, is_last):
    layout = layout_of(module, IMAGES)
    assert (layout is torch.channels_last) == is_last
    for parameter in module.parameters():
        assert parameter.is_contiguous()


@pytest.mark.parametrize("width", [8, 16])
def test_gradients_are_those_without_a_layout(width):
    module = ResNet(in_channels=3, width=width, blocks=1)
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def gradients(layout):
        arrange(module, layout)
        module.zero_grad()
        module(laid_out(images, layout)).square().mean().backward()
        return [parameter.grad.clone() for parameter in module.parameters()]

    expected = gradients(torch.contiguous_format)
    for wanted, found in zip(expected, gradients(layout_of(module, IMAGES)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
