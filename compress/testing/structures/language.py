"""Transformers over tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["LANGUAGE"]

_TOKENS = 40
_LENGTH = 10


class _RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.eps))


class _SwiGLU(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _GroupedQueryAttention(nn.Module):
    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = heads, kv_heads
        self.n_rep = heads // kv_heads
        self.head_dim = dim // heads
        self.wq = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wo = nn.Linear(heads * self.head_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.wq(x).view(b, n, self.n_heads, self.head_dim).transpose(1, 2)
        k = self.wk(x).view(b, n, self.n_kv_heads, self.head_dim).transpose(1, 2)
        v = self.wv(x).view(b, n, self.n_kv_heads, self.head_dim).transpose(1, 2)
        k = torch.repeat_interleave(k, self.n_rep, dim=1)
        v = torch.repeat_interleave(v, self.n_rep, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: Tensor = self.wo(out.transpose(1, 2).contiguous().view(b, n, -1))
        return result


class GroupedQuery(nn.Module):
    """Grouped-query attention (Ainslie et al., 2023) with RMSNorm and SwiGLU, as in Mistral."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(_TOKENS, dim)
        self.norms = nn.ModuleList(nn.RMSNorm(dim, eps=1e-5) for _ in range(4))
        self.attention = nn.ModuleList(_GroupedQueryAttention(dim, 4, 2) for _ in range(2))
        self.feed_forward = nn.ModuleList(_SwiGLU(dim, 48) for _ in range(2))
        self.output = nn.Linear(dim, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after the last token."""
        x = self.tok_embeddings(tokens)
        for i, (attention, feed_forward) in enumerate(
            zip(self.attention, self.feed_forward, strict=True)
        ):
            x = x + attention(self.norms[2 * i](x))
            x = x + feed_forward(self.norms[2 * i + 1](x))
        logits: Tensor = self.output(x[:, -1])
        return logits


def _rotary(head_dim: int) -> tuple[Tensor, Tensor]:
    frequencies = 1.0 / (100.0 ** (torch.arange(0, head_dim, 2) / head_dim))
    angles = torch.outer(torch.arange(_LENGTH), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotate_half(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


class _RotaryAttention(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.q_proj = nn.Linear(hidden_size, num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * self.head_dim, hidden_size, bias=False)
        cos, sin = _rotary(self.head_dim)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, _ = x.size()
        q = self.q_proj(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        q = q * self.cos[:n] + _rotate_half(q) * self.sin[:n]
        k = k * self.cos[:n] + _rotate_half(k) * self.sin[:n]
        scores = torch.matmul(q, k.transpose(2, 3)) / self.head_dim**0.5
        scores = scores.masked_fill(mask[:n, :n], float("-inf"))
        out = torch.matmul(F.softmax(scores, dim=-1), v).transpose(1, 2).contiguous()
        result: Tensor = self.o_proj(out.reshape(b, n, self.num_heads * self.head_dim))
        return result


class _LlamaBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.input_layernorm = _RMSNorm(dim)
        self.self_attn = _RotaryAttention(dim, 4)
        self.post_attention_layernorm = _RMSNorm(dim)
        self.mlp = _SwiGLU(dim, 56)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), mask)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class Llama(nn.Module):
    """LLaMA (Touvron et al., 2023): rotary embeddings, RMSNorm by hand, SwiGLU."""

    mask: Tensor

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(_TOKENS, dim)
        self.layers = nn.ModuleList(_LlamaBlock(dim) for _ in range(2))
        self.norm = _RMSNorm(dim)
        self.score = nn.Linear(dim, 4, bias=False)
        mask = torch.ones(_LENGTH, _LENGTH, dtype=torch.bool).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after the last token."""
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.mask)
        logits: Tensor = self.score(self.norm(x)[:, -1])
        return logits


class _Conv1D(nn.Module):
    """A linear layer whose weight is transposed."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) / nx**0.5)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        size_out = (*x.size()[:-1], self.nf)
        x = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return x.view(size_out)


class _GPT2Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.split_size = heads, dim
        self.ln_1 = nn.LayerNorm(dim)
        self.c_attn = _Conv1D(3 * dim, dim)
        self.c_proj = _Conv1D(dim, dim)
        self.ln_2 = nn.LayerNorm(dim)
        self.c_fc = _Conv1D(2 * dim, dim)
        self.mlp_proj = _Conv1D(dim, 2 * dim)

    def _split_heads(self, x: Tensor) -> Tensor:
        new_shape = (*x.size()[:-1], self.heads, x.size(-1) // self.heads)
        return x.view(new_shape).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.c_attn(self.ln_1(x)).split(self.split_size, dim=2)
        query, key, value = map(self._split_heads, (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out = out.permute(0, 2, 1, 3).contiguous()
        x = x + self.c_proj(out.view(*out.size()[:-2], self.split_size))
        result: Tensor = x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))
        return result


class GPT2(nn.Module):
    """GPT-2 (Radford et al., 2019): transposed weights, and an output tied to the embedding."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.wte = nn.Embedding(_TOKENS, dim)
        self.wpe = nn.Embedding(_LENGTH, dim)
        self.h = nn.ModuleList(_GPT2Block(dim, 4) for _ in range(2))
        self.ln_f = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, _TOKENS, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        position = torch.arange(tokens.size(1), device=tokens.device).unsqueeze(0)
        x = self.wte(tokens) + self.wpe(position)
        for block in self.h:
            x = block(x)
        logits: Tensor = self.lm_head(self.ln_f(x))
        return logits


class _DisentangledAttention(nn.Module):
    index: Tensor

    def __init__(self, dim: int, heads: int, span: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.pos_query = nn.Linear(dim, dim)
        self.pos_key = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim)
        places = torch.arange(_LENGTH)
        index = (places[:, None] - places[None, :]).clamp(-span, span - 1) + span
        self.register_buffer("index", index)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(-3, -2)

    def forward(self, x: Tensor, relative: Tensor) -> Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        pos_q, pos_k = self._split(self.pos_query(relative)), self._split(self.pos_key(relative))
        index = self.index.expand(x.shape[0], self.heads, -1, -1)
        scores = q @ k.transpose(-1, -2)
        scores = scores + torch.gather(q @ pos_k.transpose(-1, -2), -1, index)
        p2c = torch.gather(k @ pos_q.transpose(-1, -2), -1, index)
        scores = (scores + p2c.transpose(-1, -2)) / (3 * q.size(-1)) ** 0.5
        context = (scores.softmax(-1) @ v).transpose(1, 2)
        out: Tensor = self.output(context.reshape(*context.shape[:2], -1))
        return out


class DeBERTa(nn.Module):
    """DeBERTa (He et al., 2021): attention disentangled into content and relative position."""

    def __init__(self, dim: int = 32, span: int = 4) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(_TOKENS, dim)
        self.rel_embeddings = nn.Embedding(2 * span, dim)
        self.norm0 = nn.LayerNorm(dim)
        self.attention = _DisentangledAttention(dim, 4, span)
        self.norm1 = nn.LayerNorm(dim)
        self.intermediate = nn.Linear(dim, 64)
        self.output = nn.Linear(64, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.pooler = nn.Linear(dim, dim)
        self.classifier = nn.Linear(dim, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.norm0(self.word_embeddings(tokens))
        x = self.norm1(x + self.attention(x, self.rel_embeddings.weight))
        x = self.norm2(x + self.output(F.gelu(self.intermediate(x))))
        logits: Tensor = self.classifier(F.gelu(self.pooler(x[:, 0])))
        return logits


class _ModernBlock(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.attn_norm = nn.LayerNorm(dim, bias=False)
        self.Wqkv = nn.Linear(dim, 3 * dim, bias=False)
        self.Wo = nn.Linear(dim, dim, bias=False)
        self.mlp_norm = nn.LayerNorm(dim, bias=False)
        self.Wi = nn.Linear(dim, 2 * hidden, bias=False)
        self.mlp_Wo = nn.Linear(hidden, dim, bias=False)
        cos, sin = _rotary(self.head_dim)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, x: Tensor) -> Tensor:
        b, n, dim = x.shape
        qkv = self.Wqkv(self.attn_norm(x)).view(b, n, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.transpose(3, 1).unbind(dim=2)
        q = q * self.cos + _rotate_half(q) * self.sin
        k = k * self.cos + _rotate_half(k) * self.sin
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()
        x = x + self.Wo(out.view(b, n, dim))
        value, gate = self.Wi(self.mlp_norm(x)).chunk(2, dim=-1)
        result: Tensor = x + self.mlp_Wo(F.gelu(value) * gate)
        return result


class ModernBERT(nn.Module):
    """ModernBERT (Warner et al., 2024): fused q, k, v, gated perceptrons, and no biases."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(_TOKENS, dim)
        self.norm = nn.LayerNorm(dim, bias=False)
        self.layers = nn.ModuleList(_ModernBlock(dim, 4, 48) for _ in range(2))
        self.final_norm = nn.LayerNorm(dim, bias=False)
        self.classifier = nn.Linear(dim, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.norm(self.tok_embeddings(tokens))
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.classifier(self.final_norm(x).mean(dim=1))
        return logits


_TEXT = (_LENGTH,)

#: The structures of this family.
LANGUAGE = (
    Structure("grouped-query", GroupedQuery, _TEXT, must_cut=True, tokens=_TOKENS),
    Structure("llama", Llama, _TEXT, must_cut=True, tokens=_TOKENS),
    Structure("gpt2", GPT2, _TEXT, must_cut=True, tokens=_TOKENS),
    Structure("deberta", DeBERTa, _TEXT, must_cut=True, tokens=_TOKENS),
    Structure("modernbert", ModernBERT, _TEXT, must_cut=True, tokens=_TOKENS),
)
