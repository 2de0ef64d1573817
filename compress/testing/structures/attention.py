"""Nets with attention over images and vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["ATTENTION"]


def _mlp(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class _WindowAttention(nn.Module):
    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        axis = torch.arange(window)
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
        offset = places[:, :, None] - places[:, None, :] + window - 1
        index = offset[0] * (2 * window - 1) + offset[1]
        self.register_buffer("relative_position_index", index)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        attn = attn + bias.view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            attn = attn.view(b // mask.shape[0], mask.shape[0], self.heads, n, n)
            attn = attn.masked_fill(mask[None, :, None], -100.0).view(-1, self.heads, n, n)
        out: Tensor = self.proj((attn.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))
        return out


def _windows(x: Tensor, size: int) -> Tensor:
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size * size, c)


class _SwinBlock(nn.Module):
    mask: Tensor | None

    def __init__(self, dim: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _WindowAttention(dim, window, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _mlp(dim, 2 * dim)
        mask = None
        if shift:
            edges = torch.arange(side)
            part = (edges >= side - window).long() + (edges >= side - shift).long()
            region = _windows((3 * part[:, None] + part).view(1, side, side, 1), window).squeeze(-1)
            mask = region[:, None, :] != region[:, :, None]
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        out: Tensor = self.norm1(x)
        if self.shift:
            out = torch.roll(out, shifts=(-self.shift, -self.shift), dims=(1, 2))
        out = self.attn(_windows(out, self.window), self.mask)
        out = out.view(b, h // self.window, w // self.window, self.window, self.window, -1)
        out = out.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, c)
        if self.shift:
            out = torch.roll(out, shifts=(self.shift, self.shift), dims=(1, 2))
        x = x + out
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class Swin(nn.Module):
    """Swin Transformer (Liu et al., 2021): attention in shifted windows, and patch merging."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 24, 2, stride=2)
        self.stage1 = nn.Sequential(
            _SwinBlock(24, heads=3, side=8, window=4, shift=0),
            _SwinBlock(24, heads=3, side=8, window=4, shift=2),
        )
        self.merge_norm = nn.LayerNorm(96)
        self.reduction = nn.Linear(96, 40, bias=False)
        self.stage2 = _SwinBlock(40, heads=4, side=4, window=4, shift=0)
        self.norm = nn.LayerNorm(40)
        self.head = nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stage1(self.patch_embed(x).permute(0, 2, 3, 1))
        x0 = x[:, 0::2, 0::2, :]
        x1 = x[:, 1::2, 0::2, :]
        x2 = x[:, 0::2, 1::2, :]
        x3 = x[:, 1::2, 1::2, :]
        x = self.reduction(self.merge_norm(torch.cat([x0, x1, x2, x3], -1)))
        x = self.norm(self.stage2(x))
        logits: Tensor = self.head(x.mean((1, 2)))
        return logits


class _FusedAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(b, n, c)
        out: Tensor = self.proj(x)
        return out


class _ViTBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _FusedAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _mlp(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class ViTFused(nn.Module):
    """Vision Transformer (Dosovitskiy et al., 2021), with one layer for q, k and v."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, dim))
        self.blocks = nn.Sequential(_ViTBlock(dim, 4), _ViTBlock(dim, 4))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        x = self.norm(self.blocks(x))
        logits: Tensor = self.head(x[:, 0])
        return logits


class _SeparateAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        context = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.output(context.transpose(1, 2).flatten(2))
        return out


class ViTSeparate(nn.Module):
    """Vision Transformer (Dosovitskiy et al., 2021), with separate q, k and v, and mean pooling."""

    def __init__(self, dim: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.to_patches = nn.Linear(48, dim)
        self.position = nn.Parameter(0.1 * torch.randn(16, dim))
        self.norm1 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.attention = nn.ModuleList(_SeparateAttention(dim, 4) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.feed_forward = nn.ModuleList(_mlp(dim, 64) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        b = x.shape[0]
        x = x.reshape(b, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(b, 16, 48)
        x = self.to_patches(x) + self.position
        for norm1, attention, norm2, feed_forward in zip(
            self.norm1, self.attention, self.norm2, self.feed_forward, strict=True
        ):
            x = x + attention(norm1(x))
            x = x + feed_forward(norm2(x))
        logits: Tensor = self.head(x.mean(1))
        return logits


class DictTransformer(nn.Module):
    """Transformer (Vaswani et al., 2017) whose blocks are dictionaries, with a fused q, k, v."""

    def __init__(self, dim: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(10, dim)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(dim),
                    "qkv": nn.Linear(dim, 3 * dim, bias=False),
                    "proj": nn.Linear(dim, dim),
                    "norm2": nn.LayerNorm(dim),
                    "mlp": _mlp(dim, 64),
                }
            )
            for _ in range(2)
        )
        self.head = nn.Linear(dim, 4)

    def _attend(self, block: nn.ModuleDict, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            t.reshape(b, n, self.heads, -1).permute(0, 2, 1, 3)
            for t in block["qkv"](x).chunk(3, dim=-1)
        )
        scores = torch.matmul(q, k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        mixed = torch.matmul(F.softmax(scores, dim=-1), v)
        out: Tensor = block["proj"](mixed.permute(0, 2, 1, 3).reshape(b, n, -1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(x)
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            x = x + self._attend(block, block["norm1"](x))
            x = x + block["mlp"](block["norm2"](x))
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


class TorchEncoder(nn.Module):
    """torch's own ``nn.TransformerEncoder`` (Vaswani et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(10, 32)
        self.position = nn.Parameter(0.1 * torch.randn(1, 12, 32))
        layer = nn.TransformerEncoderLayer(32, nhead=4, dim_feedforward=64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.encoder(self.embed(x) + self.position)
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


class TorchAttention(nn.Module):
    """``nn.MultiheadAttention`` with steps first, and norms after (Vaswani et al., 2017)."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(10, dim)
        self.attn = nn.MultiheadAttention(dim, num_heads=4, dropout=0.1)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, 64)
        self.linear2 = nn.Linear(64, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(x).transpose(0, 1)
        attended, _ = self.attn(x, x, x, need_weights=False)
        x = self.norm1(x + attended)
        x = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        logits: Tensor = self.head(x.mean(dim=0))
        return logits


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(context, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.to_q(self.norm(x))
        k, v = self.to_kv(self.norm_context(context)).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        similarity = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
        out = torch.einsum("bhij,bhjd->bhid", similarity.softmax(dim=-1), v)
        result: Tensor = x + self.to_out(out.transpose(1, 2).flatten(2))
        return result


class Perceiver(nn.Module):
    """Perceiver (Jaegle et al., 2021): a few learned latents attend to the pixels."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(6, dim))
        self.embed = nn.Conv2d(3, 20, 3, stride=2, padding=1)
        self.cross = _CrossAttention(dim, 20, heads=2)
        self.latent = _CrossAttention(dim, dim, heads=4)
        self.feed_forward = nn.Sequential(nn.LayerNorm(dim), *_mlp(dim, 64))
        self.to_logits = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        pixels = self.embed(x).flatten(2).permute(0, 2, 1)
        x = self.latents.unsqueeze(0).repeat(pixels.shape[0], 1, 1)
        x = self.cross(x, pixels)
        x = self.latent(x, x)
        x = x + self.feed_forward(x)
        logits: Tensor = self.to_logits(x.mean(dim=1))
        return logits


_IMAGE = (3, 16, 16)

#: The structures of this family.
ATTENTION = (
    Structure("swin", Swin, _IMAGE, must_cut=True),
    Structure("vit-fused", ViTFused, _IMAGE, must_cut=True),
    Structure("vit-separate", ViTSeparate, _IMAGE, must_cut=True),
    Structure("attention-module-dict", DictTransformer, (8, 10), must_cut=True),
    Structure("torch-encoder", TorchEncoder, (12, 10), must_cut=True),
    Structure("torch-attention", TorchAttention, (8, 10), must_cut=True),
    Structure("perceiver", Perceiver, _IMAGE, must_cut=True),
)
