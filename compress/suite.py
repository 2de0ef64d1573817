"""Suite: a fixed set of nets, each in float32 and in int8, as one comparable table for a device.

The nets are built, lowered for the target, and measured by the usual protocol: a session for each
net, in which its int8 file is paired with its own float32 one. Weights and calibration data are
random and come from a seed, since speed and memory are compared and accuracy is not.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from compress.artifact import Artifact, Lowering
from compress.candidate import Candidate, count_parameters
from compress.errors import LoweringError, MeasurementError, RecipeError
from compress.lower import lower
from compress.measure.compare import Comparison, compare
from compress.measure.target import Mode, Target
from compress.numerics import LayerFormat, Numerics, QuantRule
from compress.zoo import build

__all__ = ["FORMATS", "SUITES", "Net", "NetResult", "Suite", "measure_suite", "suite_of"]

Observer = Callable[[Mapping[str, Any]], None]

_SAMPLES = 32

#: In the order of the rows of one net; the first is what the second is compared with.
FORMATS: Mapping[str, Numerics] = MappingProxyType(
    {
        "fp32": Numerics(),
        "int8": Numerics((QuantRule(format=LayerFormat(weights="int8", activations="int8")),)),
    }
)


@dataclass(frozen=True)
class Net:
    """One net: a built-in architecture with ``options``, for inputs of ``shape`` without batch."""

    name: str
    arch: str
    options: Mapping[str, int]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Suite:
    """Nets that are measured together; ``about`` says what the table is and is not."""

    name: str
    about: str
    nets: tuple[Net, ...]


@dataclass(frozen=True)
class NetResult:
    """What one net is, and a row for each of ``FORMATS``; facts are ``None`` without a file."""

    net: Net
    parameters: int
    macs: int | None
    int8_mac_fraction: float | None
    rows: tuple[Comparison, ...]


_IMAGE = {"in_channels": 3}
_IMAGENET = {**_IMAGE, "classes": 1000}

_TINY = Suite(
    name="tiny",
    about=(
        "Topologies of the MLPerf Tiny reference models, MobileNetV2, MobileNetV3-Small and a "
        "small U-Net. Weights are random: speed and memory are compared, not accuracy. "
        "These are not MLPerf results."
    ),
    nets=(
        Net("resnet-8", "resnet", {**_IMAGE, "blocks": 1}, (3, 32, 32)),
        Net("ds-cnn", "dscnn-kws", {}, (1, 49, 10)),
        Net("mobilenet-v1-0.25", "mobilenet-v1", {**_IMAGE, "width": 8, "classes": 2}, (3, 96, 96)),
        Net("autoencoder", "autoencoder", {}, (640,)),
        Net("mobilenet-v2", "mobilenet-v2", _IMAGENET, (3, 224, 224)),
        Net("mobilenet-v3-small", "mobilenet-v3", _IMAGENET, (3, 224, 224)),
        Net("u-net", "unet", {**_IMAGE, "width": 16}, (3, 96, 96)),
    ),
)

#: By name.
SUITES: Mapping[str, Suite] = MappingProxyType({_TINY.name: _TINY})


def suite_of(name: str) -> Suite:
    """The suite of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in SUITES:
        near = difflib.get_close_matches(name, SUITES, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise RecipeError(f"there is no suite {name!r}; {meant}known are {', '.join(SUITES)}.")
    return SUITES[name]


def measure_suite(
    nets: Sequence[Net],
    target: Target,
    mode: Mode = "default",
    *,
    folder: Path,
    raw: Path | None = None,
    seed: int = 0,
    observer: Observer = lambda _: None,
) -> list[NetResult]:
    """Build, lower and measure ``nets`` one after the other.

    What cannot be lowered or measured is a row that says why, and the others are measured
    nevertheless.

    Args:
        nets: as of a suite.
        target: lowers for itself, and measures.
        mode: ``quick``, ``default`` or ``strict``.
        folder: gets ``NET-FORMAT.onnx``.
        raw: samples of all sessions are appended here.
        seed: of weights, data and the order of rounds.
        observer: is told of every net, and of its measuring.

    Raises:
        MeasurementError: the target cannot measure anything.
        StorageError: a file could not be written.
    """
    lowering = target.lowering()
    results: list[NetResult] = []
    for index, net in enumerate(nets, start=1):
        observer({"event": "stage", "index": index, "of": len(nets), "label": net.name})
        candidate, inputs = _candidate(net, seed)
        made = {
            name: _lowered(
                replace(candidate, numerics=numerics),
                inputs,
                lowering,
                folder / f"{net.name}-{name}.onnx",
            )
            for name, numerics in FORMATS.items()
        }
        observer({"event": "measure"})
        try:
            rows = _rows(net, made, target, mode, raw, seed)
        except MeasurementError as error:
            if not results:  # whatever is wrong with the device is wrong for all
                raise
            rows = tuple(Comparison(f"{net.name} {n}", None, error=str(error)) for n in made)
        results.append(_result(net, candidate, made, rows))
    observer({"event": "end"})
    return results


def _candidate(net: Net, seed: int) -> tuple[Candidate, Tensor]:
    """The net with seeded weights, and the inputs that it is calibrated and checked with."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = build(net.arch, net.options)
        inputs = torch.randn(_SAMPLES, *net.shape)
        _settle(module, inputs)
    return Candidate.of(module, inputs[:2]), inputs


def _settle(module: nn.Module, inputs: Tensor) -> None:
    """Let the norms see data, as a trained net's have.

    Fresh ones pass on what random weights make of an input, which is less in every layer: at the
    end of a deep net the biases would be all that is left, and parity would compare nothing.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # the average of what is seen, and nothing of the start
    module.train()(inputs)


def _lowered(
    candidate: Candidate, inputs: Tensor, lowering: Lowering, path: Path
) -> Artifact | LoweringError:
    try:
        return lower(candidate, lowering, calibration=[inputs], check=inputs, path=path)
    except LoweringError as error:
        return error


def _rows(
    net: Net,
    made: Mapping[str, Artifact | LoweringError],
    target: Target,
    mode: Mode,
    raw: Path | None,
    seed: int,
) -> tuple[Comparison, ...]:
    paths = [artifact.path for artifact in made.values() if isinstance(artifact, Artifact)]
    baseline = next(iter(made.values()))
    has_baseline = isinstance(baseline, Artifact)
    measured = iter(compare(paths, target, mode, seed=seed, raw=raw) if has_baseline else ())
    rows = []
    for format, artifact in made.items():
        name = f"{net.name} {format}"
        if isinstance(artifact, LoweringError):
            rows.append(Comparison(name, None, error=str(artifact)))
        elif has_baseline:
            rows.append(replace(next(measured), name=name))
        else:
            rows.append(Comparison(name, None, error="there is nothing to compare it with."))
    return tuple(rows)


def _result(
    net: Net,
    candidate: Candidate,
    made: Mapping[str, Artifact | LoweringError],
    rows: tuple[Comparison, ...],
) -> NetResult:
    fp32, int8 = (made[name] for name in FORMATS)
    return NetResult(
        net=net,
        parameters=count_parameters(candidate.module)[0],
        macs=fp32.census.macs if isinstance(fp32, Artifact) else None,
        int8_mac_fraction=int8.census.int8_mac_fraction if isinstance(int8, Artifact) else None,
        rows=rows,
    )
