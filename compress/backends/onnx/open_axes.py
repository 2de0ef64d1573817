"""Which axes of a file stay open, at which sizes it is checked, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

from compress.artifact import Census, Lowering, Parity, model_files
from compress.backends.onnx.census import take_census
from compress.backends.onnx.encoding import EncodedGraph
from compress.backends.onnx.export import STATIC, OpenShapes
from compress.backends.onnx.feeds import head
from compress.backends.onnx.files import save
from compress.backends.onnx.parity import check_parity
from compress.errors import LoweringError
from compress.io.scratch import scratch
from compress.modules.inputs import Inputs, copied, forward

if TYPE_CHECKING:
    from compress.backends.onnx.build import LoweringJob

__all__ = ["census_at", "check_at", "check_runs", "open_shapes", "other_sizes", "together"]

_TOGETHER = (
    "activations get their range in each run, over all samples of the batch: what else is in it "
    "moves a sample's outputs by some rounding."
)


def open_shapes(example: Inputs, lowering: Lowering) -> OpenShapes:
    """The open axes of each input by name, under the names that the lowering has for them."""
    if not lowering.open:
        return STATIC
    inputs = {"": example} if isinstance(example, Tensor) else example
    place = {"batch": 0, "length": 1}
    return OpenShapes({key: {place[name]: name for name in lowering.open} for key in inputs})


def other_sizes(check: Inputs, lowering: Lowering) -> Iterator[Inputs]:
    """Batches of other sizes than those of ``check``, as far as these are open."""
    if not lowering.open:
        return
    short = head(check, 1) if "batch" in lowering.open else check
    if "length" not in lowering.open:
        yield short
        return
    inputs = {"": short} if isinstance(short, Tensor) else short
    cut = {name: t[:, : max(1, t.shape[1] // 2)].contiguous() for name, t in inputs.items()}
    yield cut[""] if isinstance(short, Tensor) else cut


def check_runs(module: nn.Module, batch: Inputs) -> None:
    """See that a model runs on a batch of another size.

    Raises:
        LoweringError: it does not.
    """
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


def check_at(job: LoweringJob, encoded: EncodedGraph, batch: Inputs, path: Path) -> Parity:
    """Compare a file with open sizes with its module on a batch of another size.

    Raises:
        ParityError: it computes something else.
    """
    expected = job.simulated(batch, encoded.formats, encoded.ranges)
    floats = job.simulated(head(batch, len(next(iter(job.reference.values())))), {}, {})
    return check_parity(path, batch, expected, job.bounds(encoded, floats, expected))


def together(encoded: EncodedGraph, lowering: Lowering) -> tuple[str, ...]:
    """What dynamic ranges of an open batch come with."""
    return () if encoded.is_float or "batch" not in lowering.open else (_TOGETHER,)


def census_at(path: Path, check: Inputs, lowering: Lowering) -> Census:
    """What a file is made of; of one with open sizes, with the length that ``check`` has."""
    if not lowering.open:
        return take_census(path, batch=lowering.batch)
    model = onnx.load(path)
    first = check if isinstance(check, Tensor) else next(iter(check.values()))
    sizes = {"batch": 1, "length": first.shape[-1]}
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    with scratch() as folder:
        fixed = Path(folder) / path.name
        save(model, fixed)
        found = take_census(fixed, batch=1 if "batch" in lowering.open else lowering.batch)
        change = _bytes_of(path) - _bytes_of(fixed)
    return replace(found, graph_bytes=max(0, found.graph_bytes + change))


def _bytes_of(path: Path) -> int:
    return sum(part.stat().st_size for part in model_files(path))
