"""Nets of modern blocks without attention: ConvNeXt, mixers of tokens, PoolFormer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["MIXING"]


class _ConvNeXtBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(0.5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.dwconv(x).permute(0, 2, 3, 1)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        x = (self.gamma * x).permute(0, 3, 1, 2)
        return shortcut + x


class ConvNeXt(nn.Module):
    """ConvNeXt (Liu et al., 2022): layer norm and linear layers with channels last."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 2, stride=2)
        self.blocks = nn.Sequential(_ConvNeXtBlock(dim), _ConvNeXtBlock(dim))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.blocks(self.stem(x))
        logits: Tensor = self.head(self.norm(x.mean([-2, -1])))
        return logits


class _LayerNorm2d(nn.Module):
    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class _ConvNeXtConvBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, dim, 5, padding=2, groups=dim),
            _LayerNorm2d(dim),
            nn.Conv2d(dim, 3 * dim, 1),
            nn.GELU(),
            nn.Conv2d(3 * dim, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class ConvNeXtHandNorm(nn.Module):
    """ConvNeXt (Liu et al., 2022) of convolutions, with a layer norm over channels by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 2, stride=2), _LayerNorm2d(24))
        self.stage1 = _ConvNeXtConvBlock(24)
        self.downsample = nn.Sequential(_LayerNorm2d(24), nn.Conv2d(24, 40, 2, stride=2))
        self.stage2 = _ConvNeXtConvBlock(40)
        self.norm = _LayerNorm2d(40)
        self.head = nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage2(self.downsample(self.stage1(self.stem(x))))
        x = F.adaptive_avg_pool2d(self.norm(x), 1)
        logits: Tensor = self.head(x.flatten(1))
        return logits


class _Mlp(nn.Module):
    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.act = nn.GELU()
        self.drop = nn.Dropout(0.1)
        self.fc2 = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.drop(self.act(self.fc1(x))))
        return out


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_mlp = _Mlp(tokens, 32)
        self.norm2 = nn.LayerNorm(dim)
        self.channel_mlp = _Mlp(dim, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        result: Tensor = x + self.channel_mlp(self.norm2(x))
        return result


class MLPMixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al., 2021): perceptrons over tokens, and over channels."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, stride=4)
        self.blocks = nn.Sequential(_MixerBlock(16, dim), _MixerBlock(16, dim))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.norm(self.blocks(x))
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


class _SpatialGatingUnit(nn.Module):
    def __init__(self, features: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.proj = nn.Conv1d(tokens, tokens, 1)
        nn.init.constant_(self.proj.bias, 1.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, dim=-1)
        gate: Tensor = self.proj(self.norm(v))
        return u * gate


class _GMLPBlock(nn.Module):
    def __init__(self, dim: int, hidden: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.proj_in = nn.Linear(dim, hidden)
        self.sgu = _SpatialGatingUnit(hidden // 2, tokens)
        self.proj_out = nn.Linear(hidden // 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        out = F.gelu(self.proj_in(self.norm(x)))
        result: Tensor = x + self.proj_out(self.sgu(out))
        return result


class GMLP(nn.Module):
    """gMLP (Liu et al., 2021): half of the features gate the other half, across tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 32)
        self.blocks = nn.ModuleList(_GMLPBlock(32, 96, 10) for _ in range(2))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean(1))
        return logits


class _Affine(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + self.beta


class _ResMLPBlock(nn.Module):
    def __init__(self, dim: int, tokens: int) -> None:
        super().__init__()
        self.norm1 = _Affine(dim)
        self.attn = nn.Linear(tokens, tokens)
        self.norm2 = _Affine(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))
        self.gamma_1 = nn.Parameter(0.5 * torch.ones(dim))
        self.gamma_2 = nn.Parameter(0.5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma_1 * self.attn(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        result: Tensor = x + self.gamma_2 * self.mlp(self.norm2(x))
        return result


class ResMLP(nn.Module):
    """ResMLP (Touvron et al., 2021): scales and shifts in the place of norms."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, stride=4)
        self.blocks = nn.ModuleList(_ResMLPBlock(dim, 16) for _ in range(2))
        self.norm = _Affine(dim)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        b = x.shape[0]
        x = self.patch_embed(x)
        x = x.reshape(b, x.shape[1], -1).permute(0, 2, 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).mean(dim=1).reshape(b, -1)
        logits: Tensor = self.head(x)
        return logits


class _PoolFormerBlock(nn.Module):
    def __init__(self, dim: int, ratio: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, dim)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.norm2 = nn.GroupNorm(1, dim)
        self.fc1 = nn.Conv2d(dim, ratio * dim, 1)
        self.fc2 = nn.Conv2d(ratio * dim, dim, 1)
        self.layer_scale_1 = nn.Parameter(0.5 * torch.ones(dim))
        self.layer_scale_2 = nn.Parameter(0.5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.layer_scale_1.unsqueeze(-1).unsqueeze(-1) * (self.pool(y) - y)
        y = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        result: Tensor = x + self.layer_scale_2.unsqueeze(-1).unsqueeze(-1) * y
        return result


class PoolFormer(nn.Module):
    """PoolFormer (Yu et al., 2022): pooling for attention, and group norm of one group."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.stage1 = _PoolFormerBlock(32)
        self.down = nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.stage2 = _PoolFormerBlock(48)
        self.norm = nn.GroupNorm(1, 48)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage1(self.patch_embed(x))
        x = self.norm(self.stage2(self.down(x)))
        logits: Tensor = self.head(x.mean([-2, -1]))
        return logits


_IMAGE = (3, 16, 16)

#: The structures of this family.
MIXING = (
    Structure("convnext", ConvNeXt, _IMAGE, must_cut=True),
    Structure("convnext-hand-norm", ConvNeXtHandNorm, _IMAGE, must_cut=True),
    Structure("mlp-mixer", MLPMixer, _IMAGE, must_cut=True),
    Structure("gmlp", GMLP, (10, 12), must_cut=True),
    Structure("resmlp", ResMLP, _IMAGE, must_cut=True),
    Structure("poolformer", PoolFormer, _IMAGE, must_cut=True),
)
