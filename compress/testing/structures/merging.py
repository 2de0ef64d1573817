"""Nets that concatenate: dense blocks, encoders with skips, the parts of detectors, Inception."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["MERGING"]


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int, factor: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, factor * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(factor * growth)
        self.conv2 = nn.Conv2d(factor * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = F.relu(self.norm1(torch.cat(features, 1)))
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(x))))
        return out


class _DenseBlock(nn.Module):
    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _DenseLayer(inputs + index * growth, growth) for index in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """DenseNet (Huang et al., 2017): two dense blocks and the transition between them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, 24, 3, padding=1, bias=False))
        self.features.add_module("block1", _DenseBlock(24, 12, 3))
        self.features.add_module("norm1", nn.BatchNorm2d(60))
        self.features.add_module("relu1", nn.ReLU(inplace=True))
        self.features.add_module("conv1", nn.Conv2d(60, 30, 1, bias=False))
        self.features.add_module("pool1", nn.AvgPool2d(2))
        self.features.add_module("block2", _DenseBlock(30, 12, 3))
        self.features.add_module("norm2", nn.BatchNorm2d(66))
        self.classifier = nn.Linear(66, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out = F.relu(self.features(x), inplace=True)
        out = F.adaptive_avg_pool2d(out, (1, 1))
        logits: Tensor = self.classifier(torch.flatten(out, 1))
        return logits


class _DoubleConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) with transposed convolutions, averaged over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = _DoubleConv(3, 10)
        self.down2 = _DoubleConv(10, 20)
        self.middle = _DoubleConv(20, 40)
        self.up2 = nn.ConvTranspose2d(40, 20, kernel_size=2, stride=2)
        self.dec2 = _DoubleConv(40, 20)
        self.up1 = nn.ConvTranspose2d(20, 10, kernel_size=2, stride=2)
        self.dec1 = _DoubleConv(20, 10)
        self.outc = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the image: the mean of those of its pixels."""
        x1 = self.down1(x)
        x2 = self.down2(F.max_pool2d(x1, 2))
        x = self.middle(F.max_pool2d(x2, 2))
        x = self.dec2(torch.cat([x2, self.up2(x)], dim=1))
        x = self.dec1(torch.cat([x1, self.up1(x)], dim=1))
        pixels: Tensor = self.outc(x)
        return pixels.mean((2, 3))


class _Conv(nn.Module):
    """Convolution, batch norm and SiLU, the unit of the YOLO nets."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class _DarknetBottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool = True) -> None:
        super().__init__()
        self.cv1 = _Conv(channels, channels, 3)
        self.cv2 = _Conv(channels, channels, 3)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv2(self.cv1(x))
        return x + out if self.add else out


class _C2f(nn.Module):
    def __init__(self, inputs: int, outputs: int, n: int = 2) -> None:
        super().__init__()
        self.c = outputs // 2
        self.cv1 = _Conv(inputs, 2 * self.c)
        self.cv2 = _Conv((2 + n) * self.c, outputs)
        self.m = nn.ModuleList(_DarknetBottleneck(self.c) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.extend(m(parts[-1]) for m in self.m)
        out: Tensor = self.cv2(torch.cat(parts, 1))
        return out


class YoloC2f(nn.Module):
    """The C2f block of YOLOv8: halves of the channels, and each bottleneck's output, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(_Conv(3, 16, 3, 2), _Conv(16, 32, 3, 2), _C2f(32, 32))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.model(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _C3(nn.Module):
    def __init__(self, inputs: int, outputs: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        hidden = outputs // 2
        self.cv1 = _Conv(inputs, hidden)
        self.cv2 = _Conv(inputs, hidden)
        self.cv3 = _Conv(2 * hidden, outputs)
        self.m = nn.Sequential(*(_DarknetBottleneck(hidden, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return out


class YoloC3(nn.Module):
    """The C3 block of YOLOv5, after CSPNet (Wang et al., 2020), with shortcuts and without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 16, 3, 2)
        self.csp1 = _C3(16, 24)
        self.down = _Conv(24, 32, 3, 2)
        self.csp2 = _C3(32, 32, n=2, shortcut=False)
        self.classify = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.csp1(self.stem(x))
        logits: Tensor = self.classify(self.csp2(self.down(x)))
        return logits


class SPPF(nn.Module):
    """Fast spatial pyramid pooling of YOLOv5: the same max pooling, once, twice, three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_Conv(3, 24, 3, 2), _Conv(24, 48, 3))
        self.cv1 = _Conv(48, 24)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.cv2 = _Conv(96, 48)
        self.fc = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.cv1(self.stem(x))
        y1 = self.pool(x)
        y2 = self.pool(y1)
        x = self.cv2(torch.cat([x, y1, y2, self.pool(y2)], 1))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class PANNeck(nn.Module):
    """Feature pyramid with path aggregation (Liu et al., 2018), with two detection heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = _Conv(3, 16, 3, 2)
        self.stage2 = _Conv(16, 24, 3, 2)
        self.stage3 = _Conv(24, 32, 3, 2)
        self.lateral = _Conv(32, 24)
        self.top_down = _Conv(48, 24, 3)
        self.bottom_up = _Conv(24, 24, 3, 2)
        self.merge = _Conv(48, 32, 3)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.detect = nn.ModuleList([nn.Conv2d(24, 5, 1), nn.Conv2d(32, 5, 1)])

    def forward(self, x: Tensor) -> Tensor:
        """The outputs at every place of both scales, in one row for each image."""
        c2 = self.stage2(self.stage1(x))
        p3 = self.lateral(self.stage3(c2))
        p2 = self.top_down(torch.cat([self.upsample(p3), c2], 1))
        n3 = self.merge(torch.cat([self.bottom_up(p2), p3], 1))
        outputs = [head(f) for head, f in zip(self.detect, (p2, n3), strict=True)]
        return torch.cat([o.flatten(1) for o in outputs], 1)


class _InceptionBlock(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = nn.Conv2d(inputs, 16, 1)
        self.branch3_reduce = nn.Conv2d(inputs, 12, 1)
        self.branch3 = nn.Conv2d(12, 20, 3, padding=1)
        self.branch5_reduce = nn.Conv2d(inputs, 8, 1)
        self.branch5 = nn.Conv2d(8, 12, 5, padding=2)
        self.branch_pool = nn.Conv2d(inputs, 12, 1)
        self.bn = nn.BatchNorm2d(60)

    def forward(self, x: Tensor) -> Tensor:
        a = self.branch1(x)
        b = self.branch3(F.relu(self.branch3_reduce(x)))
        c = self.branch5(F.relu(self.branch5_reduce(x)))
        d = self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))
        return F.relu(self.bn(torch.cat((a, b, c, d), dim=1)))


class Inception(nn.Module):
    """GoogLeNet's Inception block (Szegedy et al., 2015), with a pooling branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.block1 = _InceptionBlock(24)
        self.block2 = _InceptionBlock(60)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(60, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.block2(self.block1(F.relu(self.stem(x))))
        logits: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return logits


_IMAGE = (3, 16, 16)

#: The structures of this family.
MERGING = (
    Structure("densenet", DenseNet, _IMAGE, must_cut=True),
    Structure("unet", UNet, _IMAGE, must_cut=True),
    Structure("yolo-c2f", YoloC2f, _IMAGE, must_cut=True),
    Structure("yolo-c3", YoloC3, _IMAGE, must_cut=True),
    Structure("sppf", SPPF, _IMAGE, must_cut=True),
    Structure("pan-neck", PANNeck, _IMAGE, must_cut=True),
    Structure("inception", Inception, _IMAGE, must_cut=True),
)
