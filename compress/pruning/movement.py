"""Movement pruning: training decides which weights go, by where it moves them.

Sanh, Wolf and Rush 2020, "Movement pruning: adaptive sparsity by fine-tuning". A weight that
training moves away from zero gains, and one that it moves towards zero loses. The schedule is that
of Zhu and Gupta 2018, "To prune, or not to prune".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Keep", "Movement", "highest", "share_kept"]

#: Masks of weights of their scores, and of the share that stays; true where one does.
Keep = Callable[[Mapping[str, Tensor], float], Mapping[str, Tensor]]

_SCORE, _DENSE, _MASK = "score", "dense", "mask"


def share_kept(progress: float, final: float) -> float:
    """The share of the weights that stay: along a cubic from all to ``final`` in the first half.

    Args:
        progress: share of the training that is done, 0 to 1.
        final: share at the end.
    """
    left = 1 - min(1.0, 2 * progress)
    return final + (1 - final) * left**3


def highest(
    scores: Mapping[str, Tensor], share: float, scope: Literal["local", "global"]
) -> dict[str, Tensor]:
    """True where a score is among the highest ``share``, of its tensor or of all together."""
    if scope == "local":
        return {
            name: _highest(score.flatten(), share).view_as(score) for name, score in scores.items()
        }
    flat = torch.cat([score.flatten() for score in scores.values()])
    parts = torch.split(_highest(flat, share), [score.numel() for score in scores.values()])
    return {
        name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)
    }


class Movement(nn.Module):
    """Scores of weights beside a module, for the length of one training.

    The module computes with the weights that are not masked. Gradients with respect to these reach
    the scores of all weights, straight through the mask, and the weights themselves where the mask
    lets them. Scores begin at 0; each step takes gradient times weight from them.

    Args:
        module: to be trained.
        names: of its parameters that lose weights.
        keep: masks of scores; what was zero before has the lowest.
        final: share of the weights that stays in the end.
    """

    steps_done: Tensor

    def __init__(self, module: nn.Module, names: Sequence[str], keep: Keep, final: float) -> None:
        super().__init__()
        # Not the module itself, which would become a part of this one.
        self._parameter, self._keep, self._final = module.get_parameter, keep, final
        first = {id(module.get_parameter(name)): name for name in reversed(names)}
        self.names = tuple(name for name in names if name in set(first.values()))
        self._steps = 1
        for number, name in enumerate(self.names):
            weight = module.get_parameter(name).detach()
            self.register_buffer(f"{_SCORE}_{number}", torch.zeros_like(weight))
            self.register_buffer(f"{_DENSE}_{number}", weight.clone())
            self.register_buffer(f"{_MASK}_{number}", torch.ones_like(weight, dtype=torch.bool))
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def begin(self, steps: int) -> None:
        """Say how many steps the training has."""
        self._steps = steps

    @torch.no_grad()
    def before_step(self) -> None:
        """With gradients there, and before the optimizer's step: update scores, show all weights.

        A gradient that is not finite, which is no step of mixed precision, is left out.
        """
        for name, score, dense, mask in self._each():
            weight = self._parameter(name)
            if weight.grad is not None:
                if weight.grad.isfinite().all():
                    score.sub_(weight.grad * dense)
                weight.grad.mul_(mask)
            weight.copy_(dense)

    @torch.no_grad()
    def after_step(self) -> None:
        """After the optimizer's step: choose the masks anew, and hide what is masked."""
        self.steps_done += 1
        for name, _, dense, _ in self._each():
            dense.copy_(self._parameter(name))
        share = share_kept(int(self.steps_done) / self._steps, self._final)
        masks = self._keep({name: self._ranked(*rest) for name, *rest in self._each()}, share)
        for name, _, _, mask in self._each():
            mask.copy_(masks[name])
        self.hide()

    @torch.no_grad()
    def hide(self) -> None:
        """Set what is masked to zero in the module."""
        for name, _, _, mask in self._each():
            weight = self._parameter(name)
            weight.mul_(mask.to(weight.device))

    def without_gradients(self) -> list[str]:
        """The weights that training gave no gradient, and that go by magnitude for it."""
        return [name for name, score, _, _ in self._each() if not score.any()]

    def _ranked(self, score: Tensor, dense: Tensor, _: Tensor) -> Tensor:
        own = score if score.any() else dense.abs()
        return own.masked_fill(dense == 0, -torch.inf)

    def _each(self) -> list[tuple[str, Tensor, Tensor, Tensor]]:
        """Names, with scores, all weights, and masks."""
        kinds = (_SCORE, _DENSE, _MASK)
        return [
            (name, *(self.get_buffer(f"{kind}_{number}") for kind in kinds))  # type: ignore[misc]
            for number, name in enumerate(self.names)
        ]


def _highest(flat: Tensor, share: float) -> Tensor:
    kept = len(flat) - round(len(flat) * (1 - share))
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[flat.topk(kept, sorted=False).indices] = True
    return mask
