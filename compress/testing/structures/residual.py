"""Residual convolutional nets: ResNet and its relatives, and RepVGG."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["RESIDUAL"]


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        if self.downsample is not None:
            identity = self.downsample(x)
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        result: Tensor = self.relu(out)
        return result


class BasicResNet(nn.Module):
    """ResNet of basic blocks with batch norm (He et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(_BasicBlock(16, 16), _BasicBlock(16, 16))
        self.layer2 = nn.Sequential(_BasicBlock(16, 32, stride=2), _BasicBlock(32, 32))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


class BottleneckResNet(nn.Module):
    """ResNet of bottleneck blocks (He et al., 2016), with the stem of those for ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.layer1 = nn.Sequential(_Bottleneck(16, 12), _Bottleneck(48, 12))
        self.layer2 = nn.Sequential(_Bottleneck(48, 16, stride=2), _Bottleneck(64, 16))
        self.fc = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.layer2(self.layer1(self.stem(x)))
        x = F.adaptive_avg_pool2d(x, 1)
        logits: Tensor = self.fc(x.view(x.size(0), -1))
        return logits


class _PreActBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        if stride != 1 or inputs != width:
            self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut: Tensor = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        result: Tensor = out + shortcut
        return result


class PreActResNet(nn.Module):
    """ResNet with batch norm and activation before each convolution (He et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            _PreActBlock(16, 16), _PreActBlock(16, 32, stride=2), _PreActBlock(32, 32)
        )
        self.bn = nn.BatchNorm2d(32)
        self.linear = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        x = F.avg_pool2d(x, 8)
        logits: Tensor = self.linear(x.view(x.size(0), -1))
        return logits


class _PaddedShortcutBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.extra = width - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or self.extra:
            half = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(out + x)


class OptionAResNet(nn.Module):
    """ResNet for CIFAR, whose shortcuts pad with zero channels (option A of He et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stage1 = _PaddedShortcutBlock(16, 16)
        self.stage2 = _PaddedShortcutBlock(16, 32, stride=2)
        self.stage3 = _PaddedShortcutBlock(32, 48, stride=2)
        self.fc = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class ResNeXt(nn.Module):
    """ResNeXt (Xie et al., 2017): bottlenecks of 32 groups of 2 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.block1 = self._block(32, 64)
        self.block2 = self._block(64, 64)
        self.project = nn.Sequential(nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1, groups=32, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.max_pool2d(self.stem(x), 2)
        x = F.relu(self.project(x) + self.block1(x))
        x = F.relu(x + self.block2(x))
        logits: Tensor = self.head(x)
        return logits


class _Res2NetBlock(nn.Module):
    def __init__(self, channels: int, width: int, scales: int) -> None:
        super().__init__()
        self.scales = scales
        self.conv1 = nn.Conv2d(channels, width * scales, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * scales)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(scales - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(scales - 1))
        self.conv3 = nn.Conv2d(width * scales, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.chunk(F.relu(self.bn1(self.conv1(x))), self.scales, dim=1)
        outputs: list[Tensor] = []
        for index, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            part = parts[index] if index == 0 else parts[index] + outputs[-1]
            outputs.append(F.relu(bn(conv(part))))
        outputs.append(parts[-1])
        return F.relu(x + self.bn3(self.conv3(torch.cat(outputs, dim=1))))


class Res2Net(nn.Module):
    """Res2Net (Gao et al., 2019): a hierarchy of convolutions over 4 parts of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(48)
        self.blocks = nn.Sequential(_Res2NetBlock(48, 10, 4), _Res2NetBlock(48, 10, 4))
        self.fc = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        logits: Tensor = self.fc(x.mean(dim=[2, 3]))
        return logits


class _RepVGGBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
        same = inputs == outputs and stride == 1
        self.identity = nn.BatchNorm2d(inputs) if same else None

    def forward(self, x: Tensor) -> Tensor:
        skip = 0 if self.identity is None else self.identity(x)
        return F.relu(self.dense(x) + self.pointwise(x) + skip)


class RepVGG(nn.Module):
    """RepVGG in its form for training (Ding et al., 2021): 3x3, 1x1 and identity branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stage0 = _RepVGGBlock(3, 16)
        self.stage1 = nn.Sequential(_RepVGGBlock(16, 24, stride=2), _RepVGGBlock(24, 24))
        self.stage2 = nn.Sequential(_RepVGGBlock(24, 32, stride=2), _RepVGGBlock(32, 32))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage2(self.stage1(self.stage0(x)))
        x = self.gap(x)
        logits: Tensor = self.linear(x.view(x.size(0), -1))
        return logits


_IMAGE = (3, 16, 16)

#: The structures of this family.
RESIDUAL = (
    Structure("resnet-basic", BasicResNet, _IMAGE, must_cut=True),
    Structure("resnet-bottleneck", BottleneckResNet, _IMAGE, must_cut=True),
    Structure("resnet-preactivation", PreActResNet, _IMAGE, must_cut=True),
    Structure(
        "resnet-option-a",
        OptionAResNet,
        _IMAGE,
        must_cut=False,
        reason="how many zero channels a shortcut adds, and where, is a number held in Python",
    ),
    Structure("resnext", ResNeXt, _IMAGE, must_cut=True),
    Structure("res2net", Res2Net, _IMAGE, must_cut=True),
    Structure("repvgg", RepVGG, _IMAGE, must_cut=True),
)
