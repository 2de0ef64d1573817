"""``lower_open``: a candidate as one checked ONNX file with open batch and length.

It is made and checked as the file for a target is, at several sizes, and is another file: what a
target times has one batch and one length, and a smaller graph.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from compress.artifact import Lowering, Parity
from compress.backends.onnx.build import LoweringJob, check_output, checked_file
from compress.backends.onnx.encoding import EncodedGraph
from compress.backends.onnx.export import OpenShapes, check_weights
from compress.backends.onnx.feeds import check_inputs, head
from compress.backends.onnx.parity import check_parity
from compress.candidate import Candidate
from compress.errors import LoweringError
from compress.modules.inputs import Inputs, copied, forward

__all__ = ["OpenFile", "lower_open"]

# Of two samples: an exporter takes an axis of size 1 for one that is always that.
_TRACED_BATCH = 2
_TOGETHER = (
    "activations get their range in each run, over all samples of the batch: what else is in it "
    "moves a sample's outputs by some rounding."
)


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
        _check_runs(module, batch)
    lowering = Lowering(batch=_TRACED_BATCH, avoid_saturation=True)
    shapes = replace(shapes, ships=candidate.outputs)
    job = LoweringJob(module, candidate, lowering, (), checks[0], shapes)
    _check_formats(job)
    encoded, parity = checked_file(job, path)
    parities = [parity, *(_parity(job, encoded, batch, path) for batch in checks[1:])]
    notes = () if encoded.is_float else (_TOGETHER,)
    return OpenFile(path, tuple(parities), (*encoded.warnings, *notes))


def _check_runs(module: nn.Module, batch: Inputs) -> None:
    try:
        with torch.no_grad():
            forward(module, copied(batch))
    except (RuntimeError, ValueError, IndexError) as error:
        first = batch if isinstance(batch, torch.Tensor) else next(iter(batch.values()))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise LoweringError(
            f"the model does not run on inputs of shape {tuple(first.shape)}, so that a file "
            f"cannot leave their sizes open: {reason}."
        ) from error


def _check_formats(job: LoweringJob) -> None:
    fixed = [name for name, format in job.declared.items() if format.needs_range]
    if fixed:
        format = job.declared[fixed[0]]
        raise LoweringError(
            f"{fixed[0] or 'the model'} is declared {format.weights} with {format.activations} "
            "activations of fixed ranges, whose form in a file has a fixed batch and length; take "
            "a row with `activations: dynamic` or with weights alone in integers."
        )


def _parity(job: LoweringJob, encoded: EncodedGraph, batch: Inputs, path: Path) -> Parity:
    expected = job.simulated(batch, encoded.formats, encoded.ranges)
    floats = job.simulated(head(batch, len(next(iter(job.reference.values())))), {}, {})
    return check_parity(path, batch, expected, job.bounds(encoded, floats, expected))
