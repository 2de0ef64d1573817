"""Nets that change the order of channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["SHUFFLING"]


class _ShuffleV1Unit(nn.Module):
    def __init__(self, channels: int, middle: int, groups: int) -> None:
        super().__init__()
        self.gconv1 = nn.Conv2d(channels, middle, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.shuffle = nn.ChannelShuffle(groups)
        self.depthwise = nn.Conv2d(middle, middle, 3, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.gconv2 = nn.Conv2d(middle, channels, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.gconv1(x)))
        out = self.bn2(self.depthwise(self.shuffle(out)))
        out = self.bn3(self.gconv2(out))
        return F.relu(x + out)


class ShuffleNetV1(nn.Module):
    """ShuffleNet (Zhang et al., 2018): grouped 1x1 convolutions, and a shuffle between them."""

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.unit1 = _ShuffleV1Unit(64, 32, groups)
        self.unit2 = _ShuffleV1Unit(64, 32, groups)
        self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.unit2(self.unit1(self.stem(x)))
        logits: Tensor = self.fc(x.mean([2, 3]))
        return logits


class _ShuffleV2Unit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        out = torch.cat((x1, self.branch(x2)), dim=1)
        b, c, h, w = out.size()
        out = out.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous()
        return out.view(b, c, h, w)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 (Ma et al., 2018): halves of the channels, joined and shuffled in each unit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 48, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(48)
        self.stage = nn.Sequential(*(_ShuffleV2Unit(48) for _ in range(3)))
        self.conv5 = nn.Conv2d(48, 64, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.bn5(self.conv5(x)))
        logits: Tensor = self.fc(x.mean([2, 3]))
        return logits


class ChannelsLastHead(nn.Module):
    """A shuffle, as in ShuffleNet, and a head that flattens channels last, as after TensorFlow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 32, 3, stride=2, padding=1)
        self.shuffle = nn.ChannelShuffle(4)
        self.fc1 = nn.Linear(32 * 2 * 2, 48)
        self.fc2 = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.shuffle(F.relu(self.conv2(x)))
        x = F.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        logits: Tensor = self.fc2(F.relu(self.fc1(x)))
        return logits


class Reordered(nn.Module):
    """Channels in an order of a table, turned and mirrored, as in permuted group convolutions."""

    order: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(width))
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = x[:, self.order]
        x = F.relu(self.bn2(self.conv2(x)))
        x = x + torch.roll(x, shifts=5, dims=1)
        x = x + F.relu(self.conv3(x)).flip(1)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


_IMAGE = (3, 16, 16)

#: The structures of this family.
SHUFFLING = (
    Structure("shufflenet-v1", ShuffleNetV1, _IMAGE, must_cut=True),
    Structure(
        "shufflenet-v2",
        ShuffleNetV2,
        _IMAGE,
        must_cut=False,
        reason="shuffles in a row tie the channels of the trunk to each other",
    ),
    Structure("channels-last-head", ChannelsLastHead, _IMAGE, must_cut=True),
    Structure(
        "channel-order-table",
        Reordered,
        _IMAGE,
        must_cut=False,
        reason="the order of channels is a table of all of them, and a roll by a number in Python",
    ),
)
