"""Nets that trade channels for space, or flatten, fold and compare features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["RESHAPING"]


class _ScaledBlock(nn.Module):
    def __init__(self, channels: int, scale: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x).mul(self.scale)
        out += x
        return out


class PixelShuffleSR(nn.Module):
    """EDSR (Lim et al., 2017): super-resolution by residual blocks and a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 20, 3, padding=1)
        self.body = nn.Sequential(
            _ScaledBlock(20), _ScaledBlock(20), nn.Conv2d(20, 20, 3, padding=1)
        )
        self.tail = nn.Sequential(
            nn.Conv2d(20, 80, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(20, 3, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """An image of twice the size."""
        x = self.head(x)
        res = self.body(x)
        res += x
        image: Tensor = self.tail(res)
        return image


class SpaceToDepth(nn.Module):
    """Space-to-depth (SPD-Conv, Sunkara and Luo, 2022): by pixel unshuffle, and by reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(12, 24, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(4 * 24, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(4 * 32, 48, 1)
        self.fc = nn.Linear(48, 4)

    @staticmethod
    def _blocks_to_channels(x: Tensor, size: int = 2) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b, c, h // size, size, w // size, size)
        x = x.permute(0, 3, 5, 1, 2, 4).contiguous()
        return x.view(b, c * size * size, h // size, w // size)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.pixel_unshuffle(x, 2)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self._blocks_to_channels(x)
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.conv3(F.pixel_unshuffle(x, 2)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class FocusNet(nn.Module):
    """The Focus stem of YOLOv5: four interleaved images, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.focus = nn.Conv2d(12, 24, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(24)
        self.conv1 = nn.Conv2d(24, 32, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.act = nn.LeakyReLU(0.1)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.cat(
            [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1
        )
        x = self.act(self.bn(self.focus(x)))
        x = self.act(self.conv1(x))
        x = x + self.act(self.conv2(x))
        logits: Tensor = self.fc(F.adaptive_max_pool2d(x, 1).flatten(1))
        return logits


class DCGANGenerator(nn.Module):
    """Generator of DCGAN (Radford et al., 2016): a layer, a small image, and upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 40 * 2 * 2)
        self.bn0 = nn.BatchNorm2d(40)
        self.deconv1 = nn.ConvTranspose2d(40, 24, 4, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.deconv2 = nn.ConvTranspose2d(24, 16, 4, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.to_rgb = nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """An image ``(3, 16, 16)`` of each latent vector."""
        x = self.project(z).view(z.size(0), -1, 2, 2)
        x = F.relu(self.bn0(x))
        x = F.relu(self.bn1(self.deconv1(x)))
        x = F.relu(self.bn2(self.deconv2(x)))
        return torch.tanh(self.to_rgb(x))


class UnfoldNet(nn.Module):
    """Convolution as ``unfold``, a linear layer over patches, and ``fold`` (Jia, 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.patches = nn.Linear(16 * 9, 40)
        self.mix = nn.Conv2d(40, 32, 1)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn(self.stem(x)))
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        columns = F.unfold(x, kernel_size=3, padding=1, stride=2)
        columns = F.relu(self.patches(columns.transpose(1, 2))).transpose(1, 2)
        x = F.fold(columns, output_size=(height, width), kernel_size=1)
        x = F.relu(self.mix(x))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class PrototypeNet(nn.Module):
    """Cosine similarity to a learned prototype of each class (Snell et al., 2017; CLIP's scale)."""

    def __init__(self, embedding: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.score = nn.Conv2d(48, 1, 1)
        self.project = nn.Linear(48, embedding)
        self.prototypes = nn.Parameter(torch.randn(4, embedding))
        self.log_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        """Scaled similarities, one for each class."""
        x = self.encoder(x)
        weights = self.score(x).flatten(1).softmax(dim=-1)
        pooled = torch.einsum("bcn,bn->bc", x.flatten(2), weights)
        embedding = F.normalize(self.project(pooled), dim=-1)
        prototypes = F.normalize(self.prototypes, dim=-1)
        return self.log_scale.exp() * torch.einsum("bd,kd->bk", embedding, prototypes)


_IMAGE = (3, 16, 16)

#: The structures of this family.
RESHAPING = (
    Structure("pixel-shuffle", PixelShuffleSR, (3, 8, 8), must_cut=True),
    Structure("space-to-depth", SpaceToDepth, _IMAGE, must_cut=True),
    Structure("focus", FocusNet, _IMAGE, must_cut=True),
    Structure("dcgan", DCGANGenerator, (16,), must_cut=True),
    Structure("unfold", UnfoldNet, _IMAGE, must_cut=True),
    Structure("prototypes", PrototypeNet, _IMAGE, must_cut=True),
)
