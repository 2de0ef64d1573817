"""Nets for small devices: inverted residuals, cheap features, partial convolutions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["MOBILE"]


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.use_res_connect = stride == 1 and inputs == outputs
        layers: list[nn.Module] = []
        if expand != 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.use_res_connect else out


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., 2018): inverted residuals with linear bottlenecks."""

    def __init__(self) -> None:
        super().__init__()
        settings = [(1, 16, 1), (4, 24, 2), (4, 24, 1)]
        inputs = 16
        features: list[nn.Module] = [
            nn.Conv2d(3, inputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(inplace=True),
        ]
        for expand, outputs, stride in settings:
            features.append(_InvertedResidual(inputs, outputs, stride, expand))
            inputs = outputs
        features += [nn.Conv2d(inputs, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU6()]
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.features(x).mean([2, 3])
        logits: Tensor = self.classifier(x)
        return logits


class _HardSE(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 4, 1)
        self.fc2 = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))
        return F.hardsigmoid(self.fc2(scale)) * x


class _V3Block(nn.Module):
    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, se: bool
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False
        )
        self.bn2 = nn.BatchNorm2d(hidden)
        self.se = _HardSE(hidden) if se else nn.Identity()
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.hardswish(self.bn1(self.expand(x)))
        out = F.hardswish(self.se(self.bn2(self.depthwise(out))))
        out = self.bn3(self.project(out))
        return out + x if self.residual else out


class MobileNetV3(nn.Module):
    """MobileNetV3 (Howard et al., 2019): inverted residuals with SE gates and hardswish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList(
            [
                _V3Block(16, 48, 24, 3, 2, se=False),
                _V3Block(24, 64, 24, 5, 1, se=True),
                _V3Block(24, 64, 32, 5, 1, se=True),
            ]
        )
        self.last = nn.Linear(32, 64)
        self.classifier = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.hardswish(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.classifier(F.hardswish(self.last(x)))
        return logits


class _MBConv(nn.Module):
    def __init__(self, channels: int, expand: int = 4) -> None:
        super().__init__()
        hidden, squeezed = channels * expand, max(1, channels // 4)
        self.expand = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden, eps=1e-3), nn.SiLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden, eps=1e-3),
            nn.SiLU(),
        )
        self.se_reduce = nn.Conv2d(hidden, squeezed, 1)
        self.se_expand = nn.Conv2d(squeezed, hidden, 1)
        self.project = nn.Sequential(
            nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels, eps=1e-3)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.depthwise(self.expand(x))
        gate = out.mean((2, 3), keepdim=True)
        gate = self.se_expand(F.silu(self.se_reduce(gate)))
        result: Tensor = x + self.project(gate.sigmoid() * out)
        return result


class EfficientNet(nn.Module):
    """EfficientNet (Tan and Le, 2019): MBConv blocks with SE gates and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU()
        )
        self.blocks = nn.Sequential(_MBConv(16), _MBConv(16))
        self.top = nn.Sequential(nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.top(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(self.pool(x).squeeze(-1).squeeze(-1))
        return logits


class _GhostModule(nn.Module):
    def __init__(self, inputs: int, outputs: int, ratio: int = 2, relu: bool = True) -> None:
        super().__init__()
        self.outputs = outputs
        primary = math.ceil(outputs / ratio)
        cheap = primary * (ratio - 1)
        self.primary = nn.Sequential(
            nn.Conv2d(inputs, primary, 1, bias=False),
            nn.BatchNorm2d(primary),
            nn.ReLU() if relu else nn.Identity(),
        )
        self.cheap = nn.Sequential(
            nn.Conv2d(primary, cheap, 3, padding=1, groups=primary, bias=False),
            nn.BatchNorm2d(cheap),
            nn.ReLU() if relu else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary(x)
        out = torch.cat([x1, self.cheap(x1)], dim=1)
        return out[:, : self.outputs, :, :]


class GhostNet(nn.Module):
    """GhostNet (Han et al., 2020): half of the features come from cheap depthwise operations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 24, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(24)
        self.ghost1 = _GhostModule(24, 48)
        self.ghost2 = _GhostModule(48, 24, relu=False)
        self.ghost3 = _GhostModule(24, 47)
        self.head = nn.Linear(47, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn(self.conv_stem(x)))
        x = x + self.ghost2(self.ghost1(x))
        x = self.ghost3(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _PartialConv(nn.Module):
    def __init__(self, channels: int, divisor: int = 4) -> None:
        super().__init__()
        part = channels // divisor
        self.conv = nn.Conv2d(part, part, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        part = self.conv.in_channels
        x1, x2 = torch.split(x, [part, x.size(1) - part], dim=1)
        return torch.cat((self.conv(x1), x2), 1)


class _FasterBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixing = _PartialConv(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.Conv2d(2 * channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.mlp(self.mixing(x))
        return result


class FasterNet(nn.Module):
    """FasterNet (Chen et al., 2023): convolutions on a quarter of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 32, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.stage = nn.Sequential(_FasterBlock(32), _FasterBlock(32))
        self.pre_head = nn.Conv2d(32, 48, 1, bias=False)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage(self.norm(self.patch_embed(x)))
        x = F.relu(self.pre_head(F.adaptive_avg_pool2d(x, 1)))
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits


_IMAGE = (3, 16, 16)

#: The structures of this family.
MOBILE = (
    Structure("mobilenet-v2", MobileNetV2, _IMAGE, must_cut=True),
    Structure("mobilenet-v3", MobileNetV3, _IMAGE, must_cut=True),
    Structure("efficientnet", EfficientNet, _IMAGE, must_cut=True),
    Structure("ghostnet", GhostNet, _IMAGE, must_cut=True),
    Structure("fasternet", FasterNet, _IMAGE, must_cut=True),
)
