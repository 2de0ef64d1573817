"""Invariants: properties that later stages have to keep, such as "these zeros stay zero".

Masks are derived from the weights at hand, never stored: a weight that is zero when a stage begins
is zero when it ends. Only names and sizes are data here; tensors arrive as duck-typed arguments so
that this file imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from pydantic import ConfigDict

from compress.config.settings import Settings

__all__ = ["BLOCK", "N_OF_M", "UNSTRUCTURED", "Invariant", "KeepZeros"]
__all__ += ["block_shape", "carried_to", "n_of_m", "shared_by"]

#: The pattern of zeros that may be anywhere.
UNSTRUCTURED = "unstructured"

#: What a pattern such as ``2:4`` is spelled like.
N_OF_M = r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})"
#: What a block such as ``4x1``, of outputs by inputs, is spelled like.
BLOCK = r"([1-9]|[1-5][0-9]|6[0-4])x([1-9]|[1-5][0-9]|6[0-4])"


def n_of_m(pattern: str) -> tuple[int, int] | None:
    """Both numbers of a pattern such as ``2:4``, the first below the second; ``None`` of others."""
    found = re.fullmatch(N_OF_M, pattern)
    if found is None or int(found[1]) >= int(found[2]):
        return None
    return int(found[1]), int(found[2])


def block_shape(pattern: str) -> tuple[int, int] | None:
    """Outputs and inputs of a block such as ``4x1``, each 1 to 64; ``None`` of others.

    ``1x1`` is none: that is a single weight.
    """
    found = re.fullmatch(BLOCK, pattern)
    if found is None or pattern == "1x1":
        return None
    return int(found[1]), int(found[2])


class KeepZeros(Settings):
    """Zeros in the named weights stay zero.

    ``pattern`` is ``unstructured``; or ``n:m`` (as in ``2:4``): of every ``m`` consecutive inputs
    at most ``n`` are non-zero; or ``rxc`` (as in ``4x1``): they fill blocks of ``r`` consecutive
    outputs by ``c`` consecutive inputs. ``tensors`` are parameter paths
    (``blocks.0.conv1.weight``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["keep-zeros"] = "keep-zeros"
    pattern: str = UNSTRUCTURED
    tensors: tuple[str, ...]

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """How many of how many consecutive inputs are non-zero; ``None`` where any may be."""
        return n_of_m(self.pattern)

    @property
    def block(self) -> tuple[int, int] | None:
        """Outputs and inputs of the blocks that zeros fill; ``None`` where they fill none."""
        return block_shape(self.pattern)

    @property
    def is_known(self) -> bool:
        """Whether its pattern is one that there is; a file may hold any text."""
        return self.pattern == UNSTRUCTURED or bool(self.n_of_m or self.block)

    @property
    def channel_multiple(self) -> int:
        """Input channels must be a multiple of this for the pattern to stay aligned."""
        return 1 if self.n_of_m is None else self.n_of_m[1]


# A union once there is a second kind.
Invariant = KeepZeros


def carried_to(
    invariants: Sequence[Invariant], known: Collection[str], other_names: Mapping[str, str]
) -> tuple[Invariant, ...]:
    """Invariants where only the parameters ``known`` are left: those that are of none end.

    Args:
        invariants: of before.
        known: names of all parameters.
        other_names: under which a tied parameter is left, by a name that is gone.
    """
    found: list[Invariant] = []
    for invariant in invariants:
        names = (other_names.get(name, name) for name in invariant.tensors)
        left = tuple(dict.fromkeys(name for name in names if name in known))
        if left:
            found.append(invariant.model_copy(update={"tensors": left}))
    return tuple(found)


def shared_by(before: Sequence[Invariant], after: Sequence[Invariant]) -> tuple[Invariant, ...]:
    """What of the invariants ``before`` still holds ``after``: the same pattern of as many tensors.

    A stage may have removed some of the tensors.
    """
    found: list[Invariant] = []
    for old in before:
        still = {name for new in after if new.pattern == old.pattern for name in new.tensors}
        if names := tuple(name for name in old.tensors if name in still):
            found.append(old.model_copy(update={"tensors": names}))
    return tuple(found)
