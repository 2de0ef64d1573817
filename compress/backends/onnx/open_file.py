"""``lower_open``: a candidate as one checked ONNX file with open batch and length.

It is made and checked as the file for a target is, at several sizes, and is another file: what a
target times has one batch and one length, and a smaller graph.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.artifact import Lowering, Parity
from compress.backends.base import check_open
from compress.backends.onnx.build import (
    LoweringJob,
    check_output,
    checked_file,
)
from compress.backends.onnx.export import OpenShapes, check_weights
from compress.backends.onnx.feeds import check_inputs
from compress.backends.onnx.open_axes import check_at, check_runs, together
from compress.candidate import Candidate
from compress.modules.inputs import Inputs

__all__ = ["OpenFile", "lower_open"]


@dataclass(frozen=True)
class OpenFile:
    """A file with open sizes: its parity on each batch that it was run on, and its warnings."""

    path: Path
    parities: tuple[Parity, ...]
    warnings: tuple[str, ...]


def lower_open(
    candidate: Candidate, shapes: OpenShapes, checks: Sequence[Inputs], path: Path
) -> OpenFile:
    """Write ``candidate`` to ``path`` with the axes of ``shapes`` open, and check it at every size.

    Args:
        candidate: left as it was.
        shapes: the axes that stay open, and the name of the output.
        checks: real inputs, a batch for each size that parity is looked at for; the first one's
            sizes are those that the graph is traced at, but for its batch.
        path: of the model; its folder must be there. What fails a check is left there.

    Raises:
        LoweringError: formats that have no form with open sizes, or a model that cannot be
            exported.
        ParityError: a file that does not compute what the module computes, at some size.
        StorageError: the disk refused.
    """
    for number, batch in enumerate(checks):
        check_inputs(batch, f"check[{number}]")
    module = copy.deepcopy(candidate.module).eval()
    check_weights(module)
    check_output(module, candidate)
    for batch in checks:
        check_runs(module, batch)
    lowering = Lowering(avoid_saturation=True, open=("batch",))
    shapes = replace(shapes, ships=candidate.outputs)
    job = LoweringJob(module, candidate, lowering, (), checks[0], shapes)
    check_open(job.declared, checks[0], lowering.open)
    encoded, parity = checked_file(job, path)
    parities = [parity, *(check_at(job, encoded, batch, path) for batch in checks[1:])]
    notes = together(encoded, lowering)
    return OpenFile(path, tuple(parities), (*encoded.warnings, *notes))
