"""Measuring one row: lower the candidate for each target, score the artifact, time it."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from compress.artifact import Artifact, Parity
from compress.backends.onnx import lower
from compress.candidate import Candidate
from compress.config.references import CodeReferences
from compress.measure.score import accuracy_facts
from compress.measure.target import Failure, Mode, Probe, Target
from compress.modules.inputs import Inputs
from compress.record import ArtifactFacts, Measurement, ParityFacts
from compress.running.digests import Content
from compress.running.folder import RunFolder
from compress.running.keys import Dependencies, of_measurement
from compress.running.scoring import Scoring
from compress.stage import calibration_inputs, formats_of
from compress.task import Task
from compress.training.data import head, is_labeled, read

__all__ = ["Bench", "Entry", "TestSet", "encode"]

_MODEL = "model.onnx"
_PARITY_SAMPLES = 256
_PROBE_SAMPLES = 32
_PREDICT_BATCH = 256
_INT8_MARGIN = 0.01  # of the multiply-accumulates

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Entry:
    """A candidate and its place in the record."""

    index: int
    label: str
    candidate: Candidate


@dataclass(frozen=True)
class TestSet:
    """The test split as arrays; ``labels`` is ``None`` where there are none."""

    inputs: Mapping[str, Array]
    labels: Array | None

    @classmethod
    def of(cls, task: Task) -> TestSet:
        """Read the whole split once."""
        batches = list(read(task.test, _PREDICT_BATCH))
        inputs = _joined([batch.inputs for batch in batches])
        if not is_labeled(task.test):
            return cls(inputs, None)
        labels = [batch.labels.numpy() for batch in batches if batch.labels is not None]
        return cls(inputs, np.concatenate(labels))


@dataclass(frozen=True)
class _Scored:
    """An artifact, its per-sample scores on the test split, and what it answered."""

    artifact: Artifact
    scores: Array
    answer: Array


class Bench:
    """Measures candidates on one run's targets, side by side with the baseline row.

    Each row is encoded and scored once; the baseline again only where a row needs comparing that
    was not measured before.
    """

    def __init__(
        self,
        task: Task,
        scoring: Scoring,
        targets: Sequence[Target],
        folder: RunFolder,
        mode: Mode,
        seed: int,
        references: CodeReferences,
    ) -> None:
        self._references = references
        self._task, self._scoring = task, scoring
        self.targets = targets
        self._folder = folder
        self._mode: Mode = mode
        self._seed = seed
        self._scored: dict[tuple[int, str], _Scored] = {}
        self._baseline: Entry | None = None

    @cached_property
    def environments(self) -> dict[str, dict[str, Any]]:
        """What each target says of its device; asked once, since it may start a process."""
        return {target.name: target.environment() for target in self.targets}

    @cached_property
    def _test(self) -> TestSet:
        return TestSet.of(self._task)

    @cached_property
    def _labels_for_all(self) -> Array | None:
        # Those that are the same for every row; fitted once.
        return self._scoring.labels(self._test.labels)

    def set_baseline(self, entry: Entry) -> None:
        """From now on rows are compared with this one."""
        self._baseline = entry

    @property
    def has_baseline(self) -> bool:
        """Whether there is a row to compare with."""
        return self._baseline is not None

    def depends(self, entry: Entry, target: Target, content: Content) -> Dependencies:
        """All that a row's measurement on a target depends on, less the noise."""
        return of_measurement(
            entry.candidate,
            self._baseline.candidate if self._baseline else None,
            content,
            self._references,
            reference=self._scoring.named_reference,
            scoring=self._scoring.facts,
            target=target,
            device=self._device_facts(target),
            mode=self._mode,
        )

    def _device_facts(self, target: Target) -> list[Any]:
        # A target that does not say which device it is counts as one of this machine alone.
        device = self.environments[target.name].get("device_id") or platform.node()
        return [type(target).__qualname__, target.runtime, vars(target.lowering()), device]

    def model(self, entry: Entry, target: Target) -> Path:
        """Where the row's artifact for a target lies."""
        name = _MODEL if len(self.targets) == 1 else f"model-{target.name}.onnx"
        return self._folder.stage(entry.index, entry.label) / name

    def measure(self, entry: Entry, target: Target) -> Measurement:
        """The row's measurement, paired with the baseline; without one, of its accuracy alone."""
        if self._baseline is None:
            return self._facts(self._score(entry, target), target)
        return self._compare(entry, target)

    def macs(self, entry: Entry, target: Target) -> int:
        """Multiply-accumulates of one sample, from the target's artifact."""
        return self._score(entry, target).artifact.census.macs

    def _compare(self, entry: Entry, target: Target) -> Measurement:
        assert self._baseline is not None
        own, base = self._score(entry, target), self._score(self._baseline, target)
        measurement = self._facts(own, target, None if own is base else base)
        models = [base.artifact.path] if own is base else [base.artifact.path, own.artifact.path]
        probe = Probe(
            {name: array[:_PROBE_SAMPLES] for name, array in self._test.inputs.items()},
            self._mode,
            self._seed + entry.index,
        )
        raw = self._folder.raw(entry.index, target.name)
        raw.unlink(missing_ok=True)  # samples of what was measured before
        timings = target.measure(models, probe, raw)
        timing = timings[-1]
        if isinstance(timing, Failure):
            measurement.warnings.append(timing.error)
            return measurement
        measurement.latency, measurement.memory = timing.latency, timing.memory
        measurement.energy = timing.energy
        # Without the baseline's time there is nothing to be faster than.
        measurement.speedup = None if isinstance(timings[0], Failure) else timing.speedup
        measurement.warnings.extend(timing.warnings)
        measurement.executed = timing.executed
        measurement.warnings.extend(_lost_int8(measurement))
        return measurement

    def _facts(self, own: _Scored, target: Target, base: _Scored | None = None) -> Measurement:
        artifact = own.artifact
        path = self._folder.named(artifact.path)
        return Measurement(
            target=target.name,
            runtime=target.runtime,
            artifact=ArtifactFacts(path=path, **artifact.to_json()),
            accuracy=accuracy_facts(
                own.scores,
                base.scores if base else None,
                higher_is_better=self._scoring.higher_is_better,
            ),
            parity=_parity_facts(artifact.parity) if artifact.parity else None,
            warnings=list(artifact.warnings),
        )

    def _score(self, entry: Entry, target: Target) -> _Scored:
        place = (entry.index, target.name)
        if place not in self._scored:
            self._scored[place] = self._encode_and_score(entry, target)
        return self._scored[place]

    def _encode_and_score(self, entry: Entry, target: Target) -> _Scored:
        place = self.model(entry, target)
        # Links in the path are resolved by lowering; the record names places in the run folder.
        artifact = replace(encode(entry.candidate, self._task, target, place), path=place)
        outputs = target.predict(artifact.path, self._test.inputs)[0]
        answer = self._scoring.as_labels(outputs)
        return _Scored(
            artifact, self._scoring.of(outputs, self._labels(entry, target, answer)), answer
        )

    def _labels(self, entry: Entry, target: Target, answer: Array) -> Array:
        """Labels; of unlabeled data, what the reference says."""
        if self._labels_for_all is not None:
            return self._labels_for_all
        if self._baseline is None or entry.index == self._baseline.index:
            return answer
        return self._score(self._baseline, target).answer


def _parity_facts(parity: Parity) -> ParityFacts:
    agreement = None if math.isnan(parity.agreement) else parity.agreement
    return ParityFacts(**{**vars(parity), "agreement": agreement})


def _lost_int8(measurement: Measurement) -> list[str]:
    ran = measurement.executed.int8_mac_fraction if measurement.executed else None
    declared = measurement.artifact.int8_mac_fraction
    if ran is None or ran > declared - _INT8_MARGIN:
        return []
    would = f"onnxruntime's CPU would {declared:.0%}"
    return [f"{measurement.runtime} computes {ran:.0%} of its products in int8, where {would}"]


def encode(candidate: Candidate, task: Task, target: Target, path: Path) -> Artifact:
    """The candidate as one ONNX file for one target.

    Raises:
        LoweringError: it cannot be exported, encoded, or run as the module runs.
    """
    samples = [f.calibration.samples for f in formats_of(candidate).values()]
    calibration = calibration_inputs(task, max(samples, default=1))
    check = head(task.validation, min(_PARITY_SAMPLES, len(task.validation))).inputs
    return lower(candidate, target.lowering(), calibration=calibration, check=check, path=path)


def _joined(inputs: Sequence[Inputs]) -> dict[str, Array]:
    # A single tensor goes under the empty name: a target feeds it to the only input there is.
    first = inputs[0]
    if isinstance(first, Tensor):
        return {"": np.concatenate([part.numpy() for part in inputs if isinstance(part, Tensor)])}
    parts = [part for part in inputs if isinstance(part, dict)]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in first}
