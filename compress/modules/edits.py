"""Edits: modules that stand in for others, as plain data and as what they do to a module.

A block may be skipped, and an embedding be two factors. Names of all other modules stay what they
were. What is written of an edit makes the freshly built module that of the candidate again, before
its sizes and tensors are restored: a later edit of one path takes the place of an earlier one, and
an edit that is there already changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from torch import Tensor, nn

from compress.config.settings import Settings
from compress.errors import CompressError
from compress.io.files import named

__all__ = ["Edit", "Factorize", "FactorizedEmbedding", "Skip", "SkippedBlock"]
__all__ += ["apply_edits", "first_argument", "modules_of", "put", "put_for_now"]
__all__ += ["refused_factorization", "renumbered", "with_edit"]

_LONGEST_PATH = 1000
_LARGEST_RANK = 1 << 20


class Skip(Settings):
    """The module at ``path`` gives its first tensor back: alone, or as a tuple of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["skip"] = "skip"
    path: str = Field(min_length=1, max_length=_LONGEST_PATH)
    as_tuple: bool = Field(default=False, strict=True)


class Factorize(Settings):
    """The embedding at ``path`` becomes a narrow one of ``rank`` columns and a linear layer.

    A later cut of channels may make its rank smaller still.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["factorize"] = "factorize"
    path: str = Field(min_length=1, max_length=_LONGEST_PATH)
    rank: int = Field(ge=1, le=_LARGEST_RANK, strict=True)


#: What a candidate carries of each module that stands in for another.
Edit = Annotated[Skip | Factorize, Field(discriminator="kind")]


class SkippedBlock(nn.Module):
    """Stands where a block was: gives its first tensor back, whatever else it is called with.

    Args:
        as_tuple: whether the block gave a tuple of one.
    """

    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, *given: Any, **named: Any) -> Tensor | tuple[Tensor]:
        """The first tensor of the arguments."""
        first = first_argument(given, named)
        if first is None:
            raise TypeError("a skipped block was called without a tensor")
        return (first,) if self.as_tuple else first


class FactorizedEmbedding(nn.Module):
    """An embedding as the product of two factors: ``factor`` ``(V, r)``, ``project`` ``(D, r)``.

    Source: Lan et al. 2020, "ALBERT", for the factors; Chen et al. 2018, "GroupReduce", for
    taking them from the singular values of a trained embedding.

    Args:
        embedding: what it stands for, or a factorized one; its sizes and its ``padding_idx``.
        rank: r, above 0.
    """

    factor: nn.Embedding
    project: nn.Linear

    def __init__(self, embedding: nn.Embedding | FactorizedEmbedding, rank: int) -> None:
        super().__init__()
        rows = embedding if isinstance(embedding, nn.Embedding) else embedding.factor
        # Without drawing numbers, since they would be replaced.
        zeros, columns = rows.weight.detach().new_zeros, embedding.embedding_dim
        self.factor = nn.Embedding(
            rows.num_embeddings,
            rank,
            padding_idx=rows.padding_idx,
            scale_grad_by_freq=rows.scale_grad_by_freq,
            _weight=zeros(rows.num_embeddings, rank),
        )
        self.project = nn.Linear(rank, columns, bias=False, device="meta")
        self.project.weight = nn.Parameter(zeros(columns, rank))

    @property
    def num_embeddings(self) -> int:
        """V."""
        return self.factor.num_embeddings

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.project.out_features

    @property
    def padding_idx(self) -> int | None:
        """The row that is padding, which training leaves alone."""
        return self.factor.padding_idx

    def forward(self, input: Tensor) -> Tensor:
        """Ids ``(...)`` to vectors ``(..., D)``."""
        vectors: Tensor = self.project(self.factor(input))
        return vectors


def first_argument(given: Sequence[Any], named: Mapping[str, Any]) -> Tensor | None:
    """The first tensor among the arguments of a call, positional ones first."""
    return next((one for one in (*given, *named.values()) if isinstance(one, Tensor)), None)


def modules_of(module: nn.Module) -> dict[str, nn.Module]:
    """All modules below ``module``, under all their names."""
    return {name: one for name, one in module.named_modules(remove_duplicate=False) if name}


def put(module: nn.Module, path: str, inner: nn.Module) -> nn.Module:
    """Put ``inner`` at ``path``, and give back what was there."""
    owner, _, leaf = path.rpartition(".")
    places = module.get_submodule(owner)._modules
    before = places[leaf]
    assert before is not None
    places[leaf] = inner.train(before.training)
    return before


@contextmanager
def put_for_now(module: nn.Module, path: str, inner: nn.Module) -> Iterator[nn.Module]:
    """While open, ``inner`` is at ``path``; gives what was there before, and is again after."""
    before = put(module, path, inner)
    try:
        yield before
    finally:
        put(module, path, before)


def with_edit(edits: Sequence[Edit], new: Edit) -> tuple[Edit, ...]:
    """Edits with one more; those of its path and of what is below it end."""
    kept = (e for e in edits if e.path != new.path and not e.path.startswith(f"{new.path}."))
    return (*kept, new)


def renumbered(edits: Sequence[Edit], row: str, kept: Mapping[str, str]) -> tuple[Edit, ...]:
    """Edits after blocks of a row have closed ranks; those of the blocks that went end.

    Args:
        edits: of before.
        row: path of the row.
        kept: new names of its blocks by old ones.
    """
    found: list[Edit] = []
    for edit in edits:
        if not edit.path.startswith(f"{row}."):
            found.append(edit)
            continue
        block, dot, rest = edit.path.removeprefix(f"{row}.").partition(".")
        if block in kept:
            path = f"{row}.{kept[block]}{dot}{rest}"
            found.append(edit.model_copy(update={"path": path}))
    return tuple(found)


def apply_edits(
    module: nn.Module, edits: Iterable[Edit], where: object, error: type[CompressError]
) -> None:
    """Edit a module in place; the weights of new factors are not those of what they stand for.

    Args:
        module: freshly built, or one to which some of the edits were made already.
        edits: in order.
        where: they come from, for messages.
        error: what is raised of edits that do not fit.

    Raises:
        CompressError: of the given class: a path that the module does not have, or a rank that its
            embedding cannot have.
    """
    for edit in edits:
        layer = modules_of(module).get(edit.path)
        if layer is None:
            raise error(
                f"{named(where)}: it edits {named(repr(edit.path))}, which this architecture does "
                "not have; load it into the model it came from."
            )
        if isinstance(edit, Skip):
            put(module, edit.path, SkippedBlock(edit.as_tuple))
            continue
        if isinstance(layer, FactorizedEmbedding):
            continue  # of whatever rank: its sizes are restored from the file
        if problem := _misfit(layer, edit.rank):
            raise error(
                f"{named(where)}: it makes {named(repr(edit.path))} two factors, {problem}."
            )
        assert isinstance(layer, nn.Embedding)
        put(module, edit.path, FactorizedEmbedding(layer, edit.rank))


def refused_factorization(layer: nn.Module) -> str:
    """Why an embedding cannot be two factors, in words; empty where it can."""
    if isinstance(layer, FactorizedEmbedding):
        return ""
    if type(layer) is not nn.Embedding:
        return "it is of a class of its own"
    return "" if layer.max_norm is None else "it scales its rows by max_norm"


def _misfit(layer: nn.Module, rank: int) -> str:
    if not isinstance(layer, nn.Embedding):
        return f"and it is a {type(layer).__name__}, no embedding"
    if problem := refused_factorization(layer):
        return f"and {problem}"
    rows, columns = layer.num_embeddings, layer.embedding_dim
    if rank > min(rows, columns):
        return (
            f"of rank {rank}, and it is {rows} x {columns}; a rank is at most the smaller of both"
        )
    return ""
