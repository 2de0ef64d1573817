"""Profile: where the time of ONNX files goes, on the graph that onnxruntime really runs.

::

    each round, in random order    every model once, in a fresh process: its operators' times
                                   and the time of a run without the profiler
    the first rounds               each model's session opened as deployed, without prepacking and
                                   without the memory arena, in a fresh process each
    at the end                     names, parts, islands, and why           profile_*.py

The first model is what the others are compared with.
"""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from compress.errors import MeasurementError
from compress.measure import stats
from compress.measure.arrays import on_disk
from compress.measure.compare import short_names
from compress.measure.input_sizes import Fit, Given, alike, fits, unlike
from compress.measure.modes import PLANS
from compress.measure.profile.facts import KINDS, Profile, SessionSetting
from compress.measure.profile.graph import Graph, modules_of, noted, read_graph
from compress.measure.profile.parts import (
    UNNAMED,
    ProfiledModel,
    changes,
    int8_mac_fraction,
    islands,
    kernel_ratio,
    parts,
    profiled_model,
    time_of,
)
from compress.measure.profile.sentences import ProfileComparison, int8_dot_product, summary
from compress.measure.summary import memory_facts
from compress.measure.target import Failure, Mode, Target

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import MemoryAnswer

__all__ = ["PROCESSES", "Answer", "Profiles", "profile"]

#: How many a model is profiled in.
PROCESSES: Mapping[Mode, int] = {"quick": 3, "default": 5, "strict": 10}
_SETTING_ROUNDS = 3
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "as deployed": {},
    "without prepacking": {"session": {"session.disable_prepacking": "1"}},
    "without arena": {"arena": False},
}

Answer = Mapping[str, Any]


@runtime_checkable
class Profiles(Protocol):
    """A target whose worker can be given single jobs."""

    def work(self, kind: str, model: Path, settings: Mapping[str, object], /) -> Answer:
        """One job (of :data:`.ondevice.worker.JOBS`) in a fresh process.

        Raises:
            MeasurementError: the job failed, or its process was killed or took too long.
        """
        ...

    def environment(self) -> dict[str, Any]:
        """Fingerprint and state of the device."""
        ...


def profile(
    models: Sequence[Path],
    target: Target,
    mode: Mode = "default",
    *,
    given: Given | None = None,
    seed: int = 0,
) -> list[Profile | Failure]:
    """Where the time of each of ``models`` goes, one result each, in order.

    Inputs are drawn from ``seed`` to each model's own signature, less what is ``given`` of them. A
    model that cannot be profiled is a :class:`Failure` in its place; if it is the first, the next
    one that works is the reference.

    Raises:
        RecipeError: something is ``given`` of inputs that no model has.
        MeasurementError: the target cannot be given single jobs, or measures nothing.
    """
    if not isinstance(target, Profiles):
        raise MeasurementError(
            f"target {target.name!r} cannot be profiled from here: copy the files to the device, "
            "and run `compresskit bench --profile` there."
        )
    device = target.environment().get("device", {})
    given = given or Given()
    found = fits(models, target, given)
    with on_disk(given.values) as values:
        shapes = {m: found[m].shapes if m in found else given.shapes for m in models}
        fed = {model: {"shapes": shapes[model], "values": values} for model in models}
        taken = _rounds(models, target, mode, seed, fed)
    names = short_names(models)
    built = {
        index: _ProfiledFile.of(each, names[index], found.get(each.model), given)
        for index, each in enumerate(taken)
        if isinstance(each, _ModelAnswers)
    }
    reference = next(iter(built.values()), None)
    return [
        _finished(built[index], cast("_ProfiledFile", reference), device)
        if index in built
        else _explained(failure, found.get(models[index]))
        for index, failure in enumerate(cast("list[Failure]", taken))
    ]


def _explained(failure: Failure, fit: Fit | None) -> Failure:
    return Failure(fit.error) if fit and fit.error else failure


# -- the processes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _ModelAnswers:
    """The answers of the processes of one model."""

    model: Path
    profiles: list[Answer] = field(default_factory=list)
    times: dict[str, list[Answer]] = field(default_factory=dict)
    memory: dict[str, Answer] = field(default_factory=dict)


def _rounds(
    models: Sequence[Path], target: Profiles, mode: Mode, seed: int, fed: Mapping[Path, Answer]
) -> list[_ModelAnswers | Failure]:
    found: list[_ModelAnswers | Failure] = [_ModelAnswers(model) for model in models]
    chance = random.Random(seed)
    for number in range(PROCESSES[mode]):
        for index in chance.sample(range(len(models)), len(models)):
            taken = found[index]
            if isinstance(taken, Failure):
                continue
            try:
                _visit(taken, target, mode, {"seed": seed, **fed[taken.model]}, number)
            except MeasurementError as error:
                found[index] = Failure(str(error).removeprefix(f"{taken.model}: "))
    return found


def _visit(taken: _ModelAnswers, target: Profiles, mode: Mode, fed: Answer, number: int) -> None:
    timing = {**PLANS[mode].timing, **fed}
    settings = {**timing, "graph": number == 0}
    taken.profiles.append(target.work("profile", taken.model, settings))
    if number >= _SETTING_ROUNDS:
        return
    for name, changed in _SETTINGS.items():
        answer = target.work("time", taken.model, {**timing, **changed})
        taken.times.setdefault(name, []).append(answer)
        if number == 0:
            taken.memory[name] = target.work("memory", taken.model, {**fed, **changed})


# -- one model --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ProfiledFile:
    """One model: its profile as far as it follows from this model alone, and its sources."""

    profile: Profile
    profiled_model: ProfiledModel
    stores_integers: bool
    is_open: bool

    @classmethod
    def of(cls, taken: _ModelAnswers, name: str, fit: Fit | None, given: Given) -> _ProfiledFile:
        running = read_graph(zlib.decompress(base64.b64decode(taken.profiles[0]["graph"])))
        source = read_graph(taken.model.read_bytes())
        model = profiled_model(
            taken.profiles, running, source, modules_of(source, noted(taken.model))
        )
        own = _described(taken, name, model)
        if fit:
            own = replace(own, notes=(*fit.notes(given), *own.notes))
        return cls(own, model, _stores_integers(source), bool(fit and fit.is_open))


def _described(taken: _ModelAnswers, name: str, model: ProfiledModel) -> Profile:
    kinds = {kind: time_of(model.seconds_of(kind), model.run_s) for kind in KINDS}
    by_module = parts(model, lambda step: step.module)
    # Of the operators' time: between them the runtime may take more than a small model does.
    named = sum(part.time.share for part in by_module if part.name != UNNAMED)
    unnamed = sum(part.time.share for part in by_module if part.name == UNNAMED)
    note = (
        "nothing in the file names its modules; an artifact of a run has them in NAME.modules.json "
        "beside it"
    )
    return Profile(
        name=name,
        processes=len(model.run_s),
        batch=taken.profiles[0]["batch"],
        shapes={name: tuple(sizes) for name, sizes in taken.profiles[0]["shapes"].items()},
        latency_s=float(np.median(model.run_s)),
        ci95_latency_s=stats.median_interval(model.run_s),
        speedup=1.0,
        ci95_speedup=(1.0, 1.0),
        verdict="reference",
        int8_mac_fraction=int8_mac_fraction(model),
        kinds=kinds,
        modules=by_module,
        operators=parts(model, lambda step: step.operator),
        islands=islands(model),
        changes=(),
        settings=tuple(_setting(taken, name) for name in _SETTINGS),
        summary="",
        notes=(note,) if unnamed > named else (),
    )


def _setting(taken: _ModelAnswers, name: str) -> SessionSetting:
    results, memory = taken.times[name], taken.memory[name]
    create_s = [result["create_ns"] / 1e9 for result in results]
    run_s = [np.median(r["samples_ns"]) / r["runs_per_sample"] / 1e9 for r in results]
    return SessionSetting(
        name=name,
        create_s=float(np.median(create_s)),
        run_s=float(np.median(run_s)),
        model_peak_bytes=_model_peak_bytes(memory),
    )


def _model_peak_bytes(memory: Answer) -> int | None:
    if "unavailable" in memory:
        return None
    return memory_facts(cast("MemoryAnswer", memory)).model_peak_bytes


def _stores_integers(source: Graph) -> bool:
    """Whether most weights of a file are integers of 8 bits or less."""
    sizes = {True: 0, False: 0}
    for constant in source.constants.values():
        if len(constant.shape) > 1:
            sizes["int" in constant.type] += int(np.prod(constant.shape))
    return sizes[True] > sizes[False]


def _finished(built: _ProfiledFile, reference: _ProfiledFile, device: Mapping[str, Any]) -> Profile:
    own, other = built.profile, reference.profile
    ratio = None
    if not alike(own.shapes, other.shapes):
        some_open = built.is_open or reference.is_open
        note = unlike(own.shapes, other.name, other.shapes, some_open)
        own = replace(own, verdict="not compared", notes=(note, *own.notes))
        own = replace(own, speedup=None, ci95_speedup=None)
    elif built is not reference:
        speedup = stats.paired_ratio(reference.profiled_model.run_s, built.profiled_model.run_s)
        own = replace(
            own,
            speedup=speedup.value,
            ci95_speedup=(speedup.ci95.lo, speedup.ci95.hi),
            verdict=stats.verdict(speedup, noise_floor=0.0, bound=PLANS["quick"].bound),
            changes=changes(built.profiled_model, reference.profiled_model),
        )
        ratio = kernel_ratio(built.profiled_model, reference.profiled_model)
    compared = ProfileComparison(
        own=own,
        reference=other if ratio is not None else own,
        kernel_ratio=ratio,
        stores_integers=built.stores_integers,
        dot_product=int8_dot_product(device),
    )
    return replace(own, summary=summary(compared))
