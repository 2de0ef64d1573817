"""Files of a model with formats of its layers: their sizes, and what each layer takes in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from compress.artifact import Artifact
from compress.candidate import Candidate
from compress.layer_facts import Change, LayerSensitivity, Sensitivity, Timed
from compress.measure.profile.layer_times import LayerTimes, layer_times
from compress.measure.profile.profiler import PROCESSES
from compress.measure.target import Mode, backend_of
from compress.quantization.numerics import LayerFormat, Numerics
from compress.running.encoding import encode
from compress.running.job import Job
from compress.stages.format_choice import ChosenFormats, FormatChoice, TimeLimit

__all__ = ["LayerFiles", "choose_formats", "with_times"]


@dataclass
class LayerFiles:
    """Lowers a job's model for its first target; equal formats are lowered once.

    Args:
        job: whose candidate is lowered; formats that are declared for it are left out.
        formats: by name.
        folder: for the files.
    """

    job: Job
    formats: Mapping[str, LayerFormat]
    folder: Path
    _made: dict[tuple[tuple[str, str], ...], Artifact] = field(default_factory=dict)

    def of(self, chosen: Mapping[str, str]) -> Artifact:
        """The file in which layers have formats, by name; the others stay in float32.

        Raises:
            LoweringError: it cannot be exported, encoded, or run as the module runs.
        """
        key = tuple(sorted(chosen.items()))
        if key not in self._made:
            target = self.job.targets[0]
            path = self.folder / f"{len(self._made):02d}{backend_of(target).suffix}"
            self._made[key] = encode(self._candidate(chosen), self.job.task, target, path)
        return self._made[key]

    def _candidate(self, chosen: Mapping[str, str]) -> Candidate:
        own = {layer: self.formats[name] for layer, name in chosen.items()}
        return replace(self.job.candidate.fork(), numerics=Numerics().with_formats(own))


def with_times(found: Sensitivity, files: LayerFiles, mode: Mode) -> Sensitivity:
    """What was found, with what each layer wins in each format on the job's first target.

    Every file is profiled as a whole: as it is, and with all layers in one format.

    Raises:
        MeasurementError: the target cannot profile, or a file does not run there.
        LoweringError: a file cannot be made.
    """
    layers = [one.layer for one in found.layers]
    chosen = [{}, *(dict.fromkeys(layers, name) for name in files.formats)]
    paths = [files.of(one).path for one in chosen]
    target = files.job.targets[0]
    first, *others = layer_times(paths, layers, target, mode, files.job.seed)
    times = dict(zip(files.formats, others, strict=True))
    seconds = {"": first.whole, **{name: own.whole for name, own in times.items()}}
    return replace(
        found,
        layers=tuple(_timed(one, times) for one in found.layers),
        timed=Timed(target.name, seconds, PROCESSES[mode]),
    )


def _timed(one: LayerSensitivity, times: Mapping[str, LayerTimes]) -> LayerSensitivity:
    formats = {}
    for name, change in one.formats.items():
        won = times[name].won.get(one.layer)
        formats[name] = _with(change, won.seconds, won.ci95) if won else change
    return replace(one, formats=formats)


def _with(change: Change, seconds: float, ci95: tuple[float, float]) -> Change:
    return replace(change, saved_s=seconds, saved_s_ci95=ci95)


def choose_formats(
    found: Sensitivity, files: LayerFiles, where: str, kib: float | None, ms: float | None
) -> ChosenFormats:
    """The formats with the least sum of errors under a budget.

    Args:
        found: of each layer; with times, where ``ms`` is given.
        files: of its model.
        where: begins the sentences of errors.
        kib: the largest file.
        ms: the longest time of one inference, as the profile has it.

    Raises:
        StageError: no choice keeps the budget.
        LoweringError: a file cannot be made.
    """
    names = list(files.formats)
    errors = {f: {one.layer: one.formats[f].error for one in found.layers} for f in names}
    saved = {
        f: {one.layer: float(one.formats[f].saved_bytes) for one in found.layers} for f in names
    }
    time = None
    if ms is not None and found.timed is not None:
        won = {f: {one.layer: one.formats[f].saved_s or 0.0 for one in found.layers} for f in names}
        time = TimeLimit(found.timed.seconds[""], won, ms / 1e3)
    choice = FormatChoice(errors, {}, saved, lambda one: files.of(one).bytes, where)
    return choice.within(float("inf") if kib is None else kib * 1024, time)
