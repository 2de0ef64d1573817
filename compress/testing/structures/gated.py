"""Nets whose channels are multiplied by, or compete with, other channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["GATED"]


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        result: Tensor = x * y.expand_as(x)
        return result


class _SEBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = _SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.se(self.bn2(self.conv2(out)))
        return F.relu(out + x)


class SEResNet(nn.Module):
    """ResNet with squeeze-and-excitation (Hu et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(_SEBlock(24), _SEBlock(24))
        self.fc = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.blocks(F.relu(self.stem(x)))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class _CBAM(nn.Module):
    def __init__(self, channels: int, reduction: int = 4, kernel: int = 7) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average = self.mlp(F.adaptive_avg_pool2d(x, 1))
        largest = self.mlp(F.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(average + largest)
        mean = torch.mean(x, dim=1, keepdim=True)
        peak, _ = torch.max(x, dim=1, keepdim=True)
        return x * torch.sigmoid(self.spatial(torch.cat([mean, peak], dim=1)))


class CBAMNet(nn.Module):
    """Residual net with channel and spatial attention (CBAM, Woo et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.BatchNorm2d(32),
        )
        self.cbam = _CBAM(32)
        self.classifier = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        x = F.relu(x + self.cbam(self.body(x)))
        logits: Tensor = self.classifier(x.mean((-2, -1)))
        return logits


class _ECA(nn.Module):
    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.avg_pool(x).squeeze(-1).transpose(-1, -2)
        y = self.conv(y).transpose(-1, -2).unsqueeze(-1)
        return x * torch.sigmoid(y)


class ECANet(nn.Module):
    """ECA-Net (Wang et al., 2020): a gate from a 1-D convolution over neighboring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(24),
            _ECA(),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            _ECA(5),
            nn.ReLU(),
        )
        self.fc = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.layers(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _SelectiveKernel(nn.Module):
    def __init__(self, channels: int, branches: int = 2, reduction: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1 + i, dilation=1 + i, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            )
            for i in range(branches)
        )
        self.fc = nn.Linear(channels, channels // reduction)
        self.fcs = nn.ModuleList(
            nn.Linear(channels // reduction, channels) for _ in range(branches)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = torch.stack([conv(x) for conv in self.convs], dim=1)
        squeezed = F.relu(self.fc(features.sum(dim=1).mean((2, 3))))
        weights = torch.stack([fc(squeezed) for fc in self.fcs], dim=1).softmax(dim=1)
        return (features * weights[..., None, None]).sum(dim=1)


class SKNet(nn.Module):
    """SKNet (Li et al., 2019): a softmax over branches with different receptive fields."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.reduce = nn.Conv2d(32, 24, 1)
        self.sk = _SelectiveKernel(24)
        self.expand = nn.Conv2d(24, 32, 1)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.stem(x))
        x = F.relu(x + self.expand(self.sk(F.relu(self.reduce(x)))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _SplitAttention(nn.Module):
    def __init__(self, channels: int, radix: int = 2, reduction: int = 2) -> None:
        super().__init__()
        inner = channels * radix // reduction
        self.radix = radix
        self.conv = nn.Conv2d(channels, channels * radix, 3, padding=1, groups=radix, bias=False)
        self.bn0 = nn.BatchNorm2d(channels * radix)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.fc2 = nn.Conv2d(inner, channels * radix, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.conv(x)))
        batch, total = x.shape[:2]
        splits = torch.split(x, total // self.radix, dim=1)
        gap = F.adaptive_avg_pool2d(torch.stack(splits).sum(0), 1)
        gap = F.relu(self.bn1(self.fc1(gap)))
        attention = self.fc2(gap).view(batch, self.radix, -1).softmax(dim=1)
        attention = attention.reshape(batch, -1, 1, 1)
        weights = torch.split(attention, total // self.radix, dim=1)
        return torch.stack([a * s for a, s in zip(weights, splits, strict=True)]).sum(0)


class ResNeStNet(nn.Module):
    """ResNeSt (Zhang et al., 2022): split attention in a bottleneck, of radix 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(48)
        self.conv1 = nn.Conv2d(48, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = _SplitAttention(24)
        self.conv3 = nn.Conv2d(24, 48, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(48)
        self.fc = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn(self.stem(x)))
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.conv2(out)))
        x = F.relu(x + out)
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class _FusedSwiGLU(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(x1) * x2)
        return out


class SwiGLUMLP(nn.Module):
    """Residual perceptron of fused SwiGLU layers, as in DINOv2 (Oquab et al., 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(20, 32)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        self.mlps = nn.ModuleList(_FusedSwiGLU(32, 48) for _ in range(2))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(x)
        for norm, mlp in zip(self.norms, self.mlps, strict=True):
            x = x + mlp(norm(x))
        logits: Tensor = self.head(x)
        return logits


class Maxout(nn.Module):
    """Maxout perceptron (Goodfellow et al., 2013): the largest of each 3 features."""

    def __init__(self, width: int = 32, pieces: int = 3) -> None:
        super().__init__()
        self.pieces = pieces
        self.fc1 = nn.Linear(24, width * pieces)
        self.fc2 = nn.Linear(width, width * pieces)
        self.out = nn.Linear(width, 4)

    def _maxout(self, x: Tensor) -> Tensor:
        b, c = x.shape[0], x.shape[1] // self.pieces
        return x.view(b, c, self.pieces).max(dim=2).values

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self._maxout(self.fc1(x))
        x = self._maxout(self.fc2(x))
        logits: Tensor = self.out(x)
        return logits


class GLUConvNet(nn.Module):
    """Convolutions with gated linear units (Dauphin et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 48, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(48)
        self.conv2 = nn.Conv2d(24, 64, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.glu(self.bn1(self.conv1(x)), dim=1)
        x = F.glu(self.bn2(self.conv2(x)), dim=1)
        x = x + F.glu(self.conv3(x), dim=1)
        logits: Tensor = self.fc(x.amax(dim=(2, 3)))
        return logits


_IMAGE = (3, 16, 16)

#: The structures of this family.
GATED = (
    Structure("se-resnet", SEResNet, _IMAGE, must_cut=True),
    Structure("cbam", CBAMNet, _IMAGE, must_cut=True),
    Structure(
        "eca-net",
        ECANet,
        _IMAGE,
        must_cut=False,
        reason="a convolution over channels gives each of them its neighbors",
    ),
    Structure("sknet", SKNet, _IMAGE, must_cut=True),
    Structure("resnest", ResNeStNet, _IMAGE, must_cut=True),
    Structure("swiglu-fused", SwiGLUMLP, (20,), must_cut=True),
    Structure("maxout", Maxout, (24,), must_cut=True),
    Structure("glu-conv", GLUConvNet, _IMAGE, must_cut=True),
)
