"""Sixty small nets after public designs, to try pruning on.

Each is written as one finds it in the field: sizes taken from shapes or held in Python, fused and
separate layers, views, shuffles and tables. ``must_cut`` was set before any of them was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from compress.testing.structures.attention import ATTENTION
from compress.testing.structures.gated import GATED
from compress.testing.structures.language import LANGUAGE
from compress.testing.structures.merging import MERGING
from compress.testing.structures.mixing import MIXING
from compress.testing.structures.mobile import MOBILE
from compress.testing.structures.recurrent import RECURRENT
from compress.testing.structures.reshaping import RESHAPING
from compress.testing.structures.residual import RESIDUAL
from compress.testing.structures.shuffling import SHUFFLING
from compress.testing.structures.structure import Structure

__all__ = ["STRUCTURES", "Structure"]

#: By name.
STRUCTURES: Mapping[str, Structure] = MappingProxyType(
    {
        structure.name: structure
        for structure in (
            *RESIDUAL,
            *GATED,
            *MERGING,
            *MOBILE,
            *SHUFFLING,
            *RESHAPING,
            *MIXING,
            *ATTENTION,
            *LANGUAGE,
            *RECURRENT,
        )
    }
)
