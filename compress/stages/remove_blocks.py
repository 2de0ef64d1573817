"""Remove whole blocks of a candidate, those first that its outputs miss least."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from compress.candidate import Candidate
from compress.errors import NoEffect
from compress.modules.edits import Skip, SkippedBlock, modules_of, put
from compress.modules.inputs import Inputs
from compress.modules.outputs import by_name
from compress.modules.parametrizations import duplicate
from compress.pruning.blocks import BlockOrder, Blocks, find_blocks
from compress.quantization.fakequant import simulate
from compress.quantization.sensitivity import outputs_of
from compress.stage import Context, calibration_inputs, formats_of, ranges_of
from compress.stages.edited import edited
from compress.training.loop import isolated

__all__ = ["BlockRemoval"]

_SAMPLES, _FEWEST_SAMPLES = 256, 16
#: Of more blocks fewer samples are looked at: every removal tries all that are left.
_MANY = 32


@dataclass(frozen=True)
class BlockRemoval:
    """Removes blocks of one candidate; what was learned of them is kept from call to call.

    Args:
        candidate: is left as it was.
        context: of the stage.
        ignored: paths of modules and parameters that stay.
        uses_data: whether blocks are ranked on calibration inputs, or else on the example.
    """

    candidate: Candidate
    context: Context
    ignored: Collection[str]
    uses_data: bool = True

    def removed(self, ratio: float) -> Candidate:
        """The candidate without a share of the blocks that may go, with notes that name them.

        Raises:
            NoEffect: none may go, or the share is none.
            StageError: what is left has other outputs, or as many parameters.
        """
        blocks = self._order.blocks
        self._check(blocks, ratio)
        with isolated(self.context.seed):
            gone = self._order.first(blocks.number(ratio))
            if not gone:
                raise NoEffect(f"prune: {_without(self._order.failing)}, so that no block can go.")
            module = duplicate(self.candidate.module)
            for skip, _ in gone:
                put(module, skip.path, SkippedBlock(skip.as_tuple))
            after = edited(self.candidate, module, [skip for skip, _ in gone])
        said = _sentence(blocks, gone, ratio, self._order.failing)
        if not self.uses_data:
            said += "; this was tried on one batch, and a run may choose others"
        return replace(after, notes=(f"prune: {said}", *after.notes))

    def _check(self, blocks: Blocks, ratio: float) -> None:
        stay = f" ({blocks.why_not})" if blocks.unable else ""
        if not blocks.most:
            raise NoEffect(
                f"prune: the model has no block that can go{stay}: a block stands beside others in "
                "a ModuleList or Sequential, has parameters, and gives a tensor like the one that "
                "it takes; granularity: channels makes layers narrower."
            )
        if not blocks.number(ratio):
            raise NoEffect(
                f"prune: a ratio of {ratio:.3g} of {len(blocks.able)} blocks that can go is none; "
                f"give a ratio above {0.5 / len(blocks.able):.3g}{stay}."
            )

    @cached_property
    def _order(self) -> BlockOrder:
        net, example = duplicate(self.candidate.module), self.candidate.example
        with isolated(self.context.seed):
            blocks = find_blocks(net, example, self.ignored)
            batches = self._batches(len(blocks.able))
        return BlockOrder(net, blocks, lambda one: self._simulated(one, batches))

    def _batches(self, count: int) -> Sequence[Inputs]:
        if not self.uses_data:
            return [self.candidate.example]
        samples = _SAMPLES if count <= _MANY else int(_SAMPLES * (_MANY / count) ** 2)
        return calibration_inputs(self.context.task, max(_FEWEST_SAMPLES, samples))

    def _simulated(
        self, net: nn.Module, batches: Sequence[Inputs]
    ) -> Callable[[], Mapping[str, Tensor]]:
        """The outputs that ship, of the net as it computes; ranges are those of what is left."""
        every = formats_of(self.candidate)

        def left() -> list[str]:
            return [name for name in every if name in modules_of(net)]

        ranges = ranges_of(net, {name: every[name] for name in left()}, self.context.task)

        def outputs() -> Mapping[str, Tensor]:
            with simulate(net, {name: every[name] for name in left()}, ranges):
                return by_name(self.candidate.shipped(outputs_of(net, batches)))

        return outputs


def _sentence(
    blocks: Blocks, gone: Sequence[tuple[Skip, float]], ratio: float, failing: Sequence[str]
) -> str:
    each = ", ".join(f"{skip.path!r} ({error:.3g})" for skip, error in gone)
    text = (
        f"{ratio:.3g} of {len(blocks.able)} blocks was requested, and {len(gone)} "
        f"{'was' if len(gone) == 1 else 'were'} removed, in this order: {each}; in brackets is the "
        "mean squared error of the outputs over their variance once it is gone, before any training"
    )
    if blocks.unable:
        text += f"; what cannot go: {blocks.why_not}"
    return f"{text}; {_without(failing)}" if failing else text


def _without(failing: Sequence[str]) -> str:
    return f"the model fails without {', '.join(map(repr, failing))}"
