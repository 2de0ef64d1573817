"""Invariants: properties that later stages have to keep, such as "these zeros stay zero".

Masks are derived from the weights at hand, never stored: a weight that is zero when a stage begins
is zero when it ends. Only names and sizes are data here; tensors arrive as duck-typed arguments so
that this file imports no torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from compress.config.settings import Settings

__all__ = ["Invariant", "KeepZeros"]


class KeepZeros(Settings):
    """Zeros in the named weights stay zero.

    ``pattern`` is ``unstructured``, or ``n:m`` (as in ``2:4``): of every ``m`` consecutive inputs
    at most ``n`` are non-zero. ``tensors`` are parameter paths (``blocks.0.conv1.weight``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["keep-zeros"] = "keep-zeros"
    pattern: str = "unstructured"
    tensors: tuple[str, ...]

    @property
    def channel_multiple(self) -> int:
        """Input channels must be a multiple of this for the pattern to stay aligned."""
        return 1 if self.pattern == "unstructured" else int(self.pattern.split(":")[1])


# A union once there is a second kind.
Invariant = KeepZeros
