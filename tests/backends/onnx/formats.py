"""The formats that every net is lowered in, and lowering a module in one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from torch import nn

from compress.artifact import Artifact, Lowering
from compress.backends.onnx.build import lower
from compress.backends.onnx.feeds import head
from compress.candidate import Candidate
from compress.modules.inputs import Inputs
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

__all__ = ["FORMATS", "exported_once", "lower_in"]

FORMATS = {
    "float32": LayerFormat(),
    "int8": LayerFormat(weights="int8", activations="int8"),
    "int16": LayerFormat(weights="int8", activations="int16"),
    "dynamic": LayerFormat(weights="int8", activations="dynamic"),
    "integer weights": LayerFormat(weights="int8"),
    "float8": LayerFormat(weights="float8"),
    "float16": LayerFormat(weights="float16", activations="float16"),
}


def exported_once(export: Callable[..., ir.Model]) -> Callable[..., ir.Model]:
    """``export`` of one module: done once for each lowering, of which everyone gets a copy."""
    kept: dict[object, ir.Model] = {}

    def copied(
        module: nn.Module,
        example: Inputs,
        lowering: Lowering,
        *,
        careful: bool = False,
        **options: object,
    ) -> ir.Model:
        key = lowering.batch, lowering.opset, careful
        if key not in kept:
            kept[key] = export(module, example, lowering, careful=careful, **options)
        return kept[key].clone()

    return copied


def lower_in(
    format: str,
    module: nn.Module,
    x: Inputs,
    path: Path,
    *,
    check: Inputs | None = None,
    calibration: Sequence[Inputs] | None = None,
) -> Artifact:
    """``module`` in one of ``FORMATS``, calibrated and checked on ``x`` unless told otherwise."""
    rules = (QuantRule(format=FORMATS[format]),) if format != "float32" else ()
    candidate = replace(Candidate.of(module.eval(), head(x, 2)), numerics=Numerics(rules))
    return lower(
        candidate,
        Lowering(avoid_saturation=True),
        calibration=[x] if calibration is None else calibration,
        check=x if check is None else check,
        path=path,
    )
