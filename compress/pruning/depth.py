"""Depth: nets made of repeated blocks, and keeping only some of these.

Knows nothing of architectures: the blocks of a net are the longest row of modules of one class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from compress.errors import StageError
from compress.modules.edits import SkippedBlock
from compress.modules.inputs import Inputs, forward

__all__ = ["blocks_of", "check_blocks", "keep_blocks"]


def blocks_of(module: nn.Module) -> str:
    """Path of the row of blocks: the ``ModuleList`` or ``Sequential`` with the most of one class.

    Of rows of equal length, the one with the most parameters counts; a row in a block of another
    row does not.

    Raises:
        StageError: the net has no such row.
    """
    rows = {
        name: row
        for name, row in module.named_modules()
        if isinstance(row, (nn.ModuleList, nn.Sequential)) and _is_of_one_class(row)
    }
    outer = {n: row for n, row in rows.items() if not any(n.startswith(f"{m}.") for m in rows)}
    if not outer:
        raise StageError(
            "student.layers: the model has no ModuleList or Sequential of two or more blocks of "
            "one class to keep some of; give the student an architecture of its own."
        )
    longest: str = max(outer, key=lambda name: (len(outer[name]), _parameters(outer[name])))
    return longest


def keep_blocks(module: nn.Module, kept: Sequence[int]) -> None:
    """Keep only these blocks of ``module``, in place, counted from 0; they close ranks.

    Layer selection as in Sanh et al. 2019, "DistilBERT", and Sajjad et al. 2023, "On the effect of
    dropping layers of pre-trained transformer models".

    Raises:
        StageError: no row of blocks, or numbers that are not in it, repeated or out of order.
    """
    row = module.get_submodule(blocks_of(module))
    assert isinstance(row, (nn.ModuleList, nn.Sequential))
    blocks, wanted = list(row), list(kept)
    if not wanted or wanted != sorted({*wanted}) or not 0 <= wanted[0] <= wanted[-1] < len(blocks):
        raise StageError(
            f"student.layers: the model has {len(blocks)} blocks, so layers are some of 0 to "
            f"{len(blocks) - 1}, each once and in order; got {wanted}."
        )
    for place in reversed(range(len(blocks))):
        del row[place]
    row.extend(blocks[place] for place in wanted)


def check_blocks(module: nn.Module, kept: Sequence[int], example: Inputs) -> None:
    """See that a net of which only some blocks were kept still runs.

    Raises:
        StageError: it does not, as where blocks change the size of what goes through them.
    """
    try:
        with torch.no_grad():
            forward(module, example)
    except Exception as error:  # every net has its own way to say so
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise StageError(
            f"student.layers: the model does not run with its blocks {', '.join(map(str, kept))} "
            f"alone ({reason}), since a block takes what the one before it gives; keep others, or "
            "give the student an architecture of its own."
        ) from error


def _is_of_one_class(row: nn.ModuleList | nn.Sequential) -> bool:
    # A block that was skipped still has its number.
    classes = {type(block) for block in row if not isinstance(block, SkippedBlock)}
    return len(row) > 1 and len(classes) == 1 and _parameters(row) > 0


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
