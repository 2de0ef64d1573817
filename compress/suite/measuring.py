"""Measuring a suite: each net is built, lowered for the target, and timed in its two formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.artifact import Artifact, Lowering
from compress.backends import Backend
from compress.candidate import count_parameters
from compress.errors import CompressError, LoweringError, MeasurementError
from compress.events import EventCallback, MeasureStart, RunEnd, StageStart
from compress.measure.compare import ComparedModel, compare
from compress.measure.target import Mode, Target, backend_of
from compress.suite.building import RANDOM, SuiteModel, build_net, check_weights
from compress.suite.nets import FORMATS, Net

__all__ = ["NetResult", "measure_suite"]


@dataclass(frozen=True)
class NetResult:
    """What one net is, and a row for each of ``FORMATS``.

    Facts of a file are ``None`` without one; those of a net where it could not be built.

    Args:
        net: of the suite.
        parameters: their number.
        weights: ``random``, or where they were read.
        macs: multiply-accumulates for one input.
        int8_mac_fraction: the share of them that the int8 file computes in int8.
        rows: what was measured.
    """

    net: Net
    parameters: int | None
    weights: str | None
    macs: int | None
    int8_mac_fraction: float | None
    rows: tuple[ComparedModel, ...]


@dataclass(frozen=True)
class _SuiteSession:
    """What holds for all nets that are measured together."""

    target: Target
    lowering: Lowering
    backend: Backend
    mode: Mode
    folder: Path
    raw: Path | None
    seed: int


def measure_suite(
    nets: Sequence[Net],
    target: Target,
    mode: Mode = "default",
    *,
    folder: Path,
    weights: Path | None = None,
    raw: Path | None = None,
    seed: int = 0,
    callback: EventCallback = lambda _: None,
) -> list[NetResult]:
    """Build, lower and measure ``nets`` one after the other.

    What cannot be built, lowered or measured is a row that says why, and the others are measured
    nevertheless.

    Args:
        nets: as of a suite.
        target: lowers for itself, and measures.
        mode: ``quick``, ``default`` or ``strict``.
        folder: gets ``NET-FORMAT.onnx``.
        weights: a folder; a net whose ``NET.safetensors`` is in it has these weights.
        raw: samples of all sessions are appended here.
        seed: of random weights, of data and of the order of rounds.
        callback: called when a net is begun, and when it is measured.

    Raises:
        RecipeError: ``weights`` has a file for none of the nets.
        MeasurementError: the target cannot measure anything.
        StorageError: a file could not be written.
    """
    check_weights(nets, weights)
    session = _SuiteSession(target, target.lowering(), backend_of(target), mode, folder, raw, seed)
    results: list[NetResult] = []
    for index, net in enumerate(nets, start=1):
        callback(dict(StageStart(index, net.name, len(nets))))
        try:
            built = build_net(net, weights, seed)
        except CompressError as error:
            results.append(NetResult(net, None, None, None, None, _failed(net, error)))
            continue
        made = {format: _lowered(net, format, built, session) for format in FORMATS}
        callback(dict(MeasureStart()))
        try:
            rows = _rows(net, made, built, session)
        except MeasurementError as error:
            if all(result.parameters is None for result in results):
                raise  # whatever is wrong with the device is wrong for all
            rows = _failed(net, error)
        results.append(_result(net, built, made, rows))
    callback(dict(RunEnd()))
    return results


def _lowered(
    net: Net, format: str, built: SuiteModel, session: _SuiteSession
) -> Artifact | LoweringError:
    try:
        return session.backend.lower(
            replace(built.candidate, numerics=net.numerics(format)),
            session.lowering,
            calibration=[built.inputs],
            check=built.inputs,
            path=session.folder / f"{net.name}-{format}{session.backend.suffix}",
        )
    except LoweringError as error:
        return error


def _rows(
    net: Net,
    made: Mapping[str, Artifact | LoweringError],
    built: SuiteModel,
    session: _SuiteSession,
) -> tuple[ComparedModel, ...]:
    paths = [artifact.path for artifact in made.values() if isinstance(artifact, Artifact)]
    has_baseline = isinstance(made[FORMATS[0]], Artifact)
    measured = iter(_compared(paths, built, session) if has_baseline else ())
    notes = _notes(net, built)
    rows = []
    for format, artifact in made.items():
        name = f"{net.name} {format}"
        if isinstance(artifact, LoweringError):
            rows.append(ComparedModel(name, None, error=str(artifact)))
        elif has_baseline:
            row = next(measured)
            rows.append(replace(row, name=name, warnings=(*notes, *row.warnings)))
        else:
            rows.append(ComparedModel(name, None, error="there is nothing to compare it with."))
    return tuple(rows)


def _compared(
    paths: Sequence[Path], built: SuiteModel, session: _SuiteSession
) -> list[ComparedModel]:
    return compare(
        paths,
        session.target,
        session.mode,
        inputs=built.measured,
        seed=session.seed,
        raw=session.raw,
    )


def _notes(net: Net, built: SuiteModel) -> tuple[str, ...]:
    if built.weights != RANDOM or not net.converter:
        return ()
    note = (
        f"its weights are random; {net.converter} makes {net.name}.safetensors of its trained "
        "ones, for a folder that --weights names."
    )
    return (note,)


def _failed(net: Net, error: CompressError) -> tuple[ComparedModel, ...]:
    return tuple(ComparedModel(f"{net.name} {f}", None, error=str(error)) for f in FORMATS)


def _result(
    net: Net,
    built: SuiteModel,
    made: Mapping[str, Artifact | LoweringError],
    rows: tuple[ComparedModel, ...],
) -> NetResult:
    fp32, int8 = (made[name] for name in FORMATS)
    return NetResult(
        net=net,
        parameters=count_parameters(built.candidate.module)[0],
        weights=built.weights,
        macs=fp32.census.macs if isinstance(fp32, Artifact) else None,
        int8_mac_fraction=int8.census.int8_mac_fraction if isinstance(int8, Artifact) else None,
        rows=rows,
    )
