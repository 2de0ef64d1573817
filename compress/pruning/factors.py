"""Embeddings as two factors: which of a net's may be, and the best factors of each rank.

The factors are those of the truncated singular value decomposition, which of all products of the
rank has the least squared error (Eckart and Young 1936, "The approximation of one matrix by another
of lower rank"). For embeddings: Chen et al. 2018, "GroupReduce: block-wise low-rank approximation
for neural language model shrinking"; Lan et al. 2020, "ALBERT", which trains such factors from the
start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.config.selectors import named
from compress.modules.edits import (
    FactorizedEmbedding,
    put_for_now,
    refused_factorization,
)
from compress.modules.inputs import Inputs
from compress.modules.tied import ties_of
from compress.pruning.blocks import output_shapes

__all__ = ["Embeddings", "Factors", "find_embeddings"]

_FEWEST_ROWS = 1000


@dataclass(frozen=True)
class Factors:
    """The decomposition of one embedding ``(V, D)``, as it is now.

    Args:
        rows: V.
        columns: D.
        parameters: that it has now.
        vectors: right singular vectors ``(D, D)``, a column each, the largest first.
        squares: of the singular values ``(D,)``, likewise.
    """

    rows: int
    columns: int
    parameters: int
    vectors: Tensor
    squares: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, layer: nn.Embedding | FactorizedEmbedding) -> Factors:
        """The decomposition of a layer."""
        weight = _dense(layer)
        # Of the small square matrix, since V may be 100 times D.
        squares, vectors = torch.linalg.eigh(weight.mT @ weight)
        size = sum(parameter.numel() for parameter in layer.parameters())
        rows, columns = weight.shape
        return cls(rows, columns, size, vectors.flip(1), squares.flip(0).clamp_min(0))

    def rank(self, ratio: float, round_to: int = 1) -> int:
        """The largest rank that removes the share ``ratio`` of the parameters; 0 if there is none.

        Args:
            ratio: of the parameters that it has now.
            round_to: the rank is a multiple of this.
        """
        # Less than nothing, so that a ratio such as 0.3 is not one rank short by its last bit.
        most = int((1 - ratio) * self.parameters / (self.rows + self.columns) + 1e-9)
        most = min(most, self.rows, self.columns)
        return most - most % round_to

    def kept(self, rank: int) -> float:
        """The share of the squared norm that a rank keeps."""
        total = float(self.squares.sum())
        return float(self.squares[:rank].sum()) / total if total else 1.0

    @torch.no_grad()
    def fill(self, new: FactorizedEmbedding, old: nn.Embedding | FactorizedEmbedding) -> None:
        """Set the weights of ``new`` to those of its rank that come nearest to ``old``."""
        rank = new.factor.embedding_dim
        vectors = self.vectors[:, :rank]
        # Each factor has half of each singular value, so that neither has columns of very
        # different sizes, which few bits hold badly.
        halves = self.squares[:rank].pow(0.25)
        scale = torch.where(halves > 0, 1 / halves, 1.0)
        new.factor.weight.copy_(_dense(old) @ vectors * scale)
        new.project.weight.copy_(vectors * halves)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a net.

    Args:
        able: those that can be two factors, by path.
        unable: those that cannot, by the reason.
    """

    able: Mapping[str, Factors]
    unable: Mapping[str, Sequence[str]]

    @property
    def why_not(self) -> str:
        """Which embeddings stay, and why; empty where none does."""
        return "; ".join(f"{named(paths)} ({reason})" for reason, paths in self.unable.items())


def find_embeddings(
    module: nn.Module, example: Inputs, ignored: Collection[str] = ()
) -> Embeddings:
    """The embeddings of a net with at least 1,000 rows, found by running it without each.

    Args:
        module: in eval mode; is left as it was.
        example: one batch.
        ignored: paths of modules and parameters that stay.
    """
    able: dict[str, Factors] = {}
    unable: dict[str, list[str]] = {}
    inside: list[str] = []
    for path, layer in list(module.named_modules()):
        if not isinstance(layer, (nn.Embedding, FactorizedEmbedding)) or path in inside:
            continue
        inside.append(f"{path}.factor")
        if reason := _reason(module, path, layer, example, ignored):
            unable.setdefault(reason, []).append(path)
        else:
            able[path] = Factors.of(layer)
    return Embeddings(able, unable)


def _reason(
    module: nn.Module,
    path: str,
    layer: nn.Embedding | FactorizedEmbedding,
    example: Inputs,
    ignored: Collection[str],
) -> str:
    if not path:
        return "it is the whole model"
    if any(one == path or one.startswith(f"{path}.") for one in ignored):
        return "to be ignored"
    if layer.num_embeddings < _FEWEST_ROWS:
        return f"fewer than {_FEWEST_ROWS:,} rows"
    if problem := refused_factorization(layer):
        return problem
    tied = [names for names in ties_of(module) if any(n.startswith(f"{path}.") for n in names)]
    if tied:
        others = [name for name in tied[0] if not name.startswith(f"{path}.")]
        return f"tied to {named(others or tied[0])}, which has no such factors"
    return _fails_without(module, path, layer, example)


@torch.no_grad()
def _fails_without(
    module: nn.Module, path: str, layer: nn.Embedding | FactorizedEmbedding, example: Inputs
) -> str:
    """What becomes of a net whose code may read the weight itself."""
    calls: list[int] = []
    whole = output_shapes(module, example)
    handle = layer.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with put_for_now(module, path, FactorizedEmbedding(layer, 1)):
            shapes = output_shapes(module, example)
    except Exception as error:  # every net has its own way to say so
        line = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        return f"the model fails with two factors: {type(error).__name__}: {line}"[:160]
    finally:
        handle.remove()
    if calls:
        return "the model calls it from somewhere else, too"
    return "" if shapes == whole else "with two factors the outputs have another shape"


def _dense(layer: nn.Embedding | FactorizedEmbedding) -> Tensor:
    """What is looked up, ``(V, D)``, in double precision."""
    if isinstance(layer, FactorizedEmbedding):
        product: Tensor = layer.factor.weight.double() @ layer.project.weight.double().mT
        return product
    return layer.weight.double()
