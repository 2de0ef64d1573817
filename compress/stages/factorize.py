"""Make embeddings of a candidate the product of two factors each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from compress.candidate import Candidate, count_parameters
from compress.errors import NoEffect
from compress.modules.edits import Factorize, FactorizedEmbedding, put
from compress.modules.parametrizations import duplicate
from compress.pruning.factors import Embeddings, find_embeddings
from compress.stage import Context
from compress.stages.edited import edited
from compress.training.loop import isolated

__all__ = ["Factorization"]


@dataclass(frozen=True)
class Factorization:
    """Factorizes embeddings of one candidate; the decompositions are kept from call to call.

    Args:
        candidate: is left as it was.
        context: of the stage.
        ignored: paths of modules and parameters that stay.
        round_to: ranks are multiples of this.
    """

    candidate: Candidate
    context: Context
    ignored: Collection[str]
    round_to: int = 1

    def factorized(self, ratio: float) -> Candidate:
        """The candidate without a share of the parameters of its embeddings, with a note of ranks.

        Raises:
            NoEffect: there is no embedding that can be factorized, or none has such a rank.
            StageError: what is left has other outputs, or as many parameters.
        """
        found = self._embeddings
        stay = f" ({found.why_not})" if found.unable else ""
        if not found.able:
            raise NoEffect(
                f"prune: the model has no embedding that can be two factors{stay}; granularity: "
                "channels makes embeddings narrower, with all that reads them."
            )
        ranks = {path: one.rank(ratio, self.round_to) for path, one in found.able.items()}
        if not any(ranks.values()):
            raise NoEffect(
                f"prune: no rank leaves {1 - ratio:.3g} of the parameters of an embedding; give a "
                f"smaller ratio or round_to{stay}."
            )
        module = duplicate(self.candidate.module)
        edits, parts = [], []
        for path, rank in ranks.items():
            if not rank:
                parts.append(f"{path!r} stays: no rank leaves so few parameters")
                continue
            one, old = found.able[path], module.get_submodule(path)
            new = FactorizedEmbedding(old, rank)  # type: ignore[arg-type]
            one.fill(new, old)  # type: ignore[arg-type]
            put(module, path, new)
            edits.append(Factorize(path=path, rank=rank))
            left = count_parameters(new)[0] / one.parameters
            parts.append(
                f"{path!r} {one.rows:,} x {one.columns} has rank {rank}, {left:.3g} of its "
                f"parameters and {one.kept(rank):.4g} of its squared norm"
            )
        with isolated(self.context.seed):
            after = edited(self.candidate, module, edits)
        text = f"{ratio:.3g} of each embedding was requested: {', '.join(parts)}"
        if found.unable:
            text += f"; what stays: {found.why_not}"
        return replace(after, notes=(f"prune: {text}", *after.notes))

    @cached_property
    def _embeddings(self) -> Embeddings:
        with isolated(self.context.seed):
            net = duplicate(self.candidate.module)
            return find_embeddings(net, self.candidate.example, self.ignored)
