"""Measuring one row: lower the candidate for each target, score the artifact, time it."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic_core import to_jsonable_python

from compress.artifact import Artifact, Parity
from compress.candidate import Candidate
from compress.config.references import CodeReferences
from compress.events import EventCallback
from compress.io.scratch import scratch
from compress.measure.controls import followed
from compress.measure.named_arrays import Array, Arrays
from compress.measure.open_sizes import sizes_of
from compress.measure.score import Scores, accuracy_facts
from compress.measure.target import (
    Failure,
    Mode,
    Target,
    backend_of,
)
from compress.record import ArtifactFacts, Measurement, ParityFacts
from compress.record_images import ControlValue
from compress.running.candidate_measurements import StageEvaluator
from compress.running.digests import ContentDigests
from compress.running.encoding import encode
from compress.running.folder import RunFolder
from compress.running.keys import Dependencies, TargetFacts, of_measurement
from compress.running.row_timing import RowModel, RowTiming
from compress.running.scoring import Scoring
from compress.running.serving import RowOutputs, ServedSamples
from compress.running.split_arrays import SplitArrays
from compress.task import Task
from compress.training.checkpoint import Checkpoint

__all__ = ["Evaluator", "RowInput"]

_MODEL = "model"
_PROBE_SAMPLES = 32
_INT8_MARGIN = 0.01  # of the multiply-accumulates


@dataclass(frozen=True)
class RowInput:
    """A candidate and its place in the record."""

    index: int
    label: str
    candidate: Candidate


@dataclass(frozen=True)
class _ScoredRow:
    """An artifact, its scores on the test split by each metric, and its outputs as labels.

    ``controls`` is how its images follow each value of a control, by its name.
    """

    artifact: Artifact
    scores: Scores
    further: dict[str, Scores]
    as_labels: Arrays
    outputs: RowOutputs
    controls: dict[str, list[ControlValue]]


class Evaluator:
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
        served: Mapping[str, Scoring] = MappingProxyType({}),
    ) -> None:
        self._references = references
        self._served = ServedSamples(task, scoring, served)
        self._served_facts = {name: one.facts for name, one in served.items()}
        self._served_reference = [one.named_reference for one in served.values()]
        self._task, self._scoring = task, scoring
        self.targets = targets
        self._folder = folder
        self._mode: Mode = mode
        self._timing = RowTiming(mode, seed, lambda: self._test.first(_PROBE_SAMPLES))
        self._scored: dict[tuple[int, str], _ScoredRow] = {}
        self._baseline: RowInput | None = None

    @cached_property
    def environments(self) -> dict[str, dict[str, Any]]:
        """The environment that each target reports; read once, since that may start a process."""
        return {target.name: target.environment() for target in self.targets}

    @cached_property
    def _test(self) -> SplitArrays:
        return SplitArrays.of(self._task.test)

    @cached_property
    def _labels_for_all(self) -> Arrays | None:
        # Those that are the same for every row; fitted once.
        return self._scoring.labels(self._test)

    def set_baseline(self, row: RowInput) -> None:
        """From now on rows are compared with this one."""
        self._baseline = row

    @property
    def has_baseline(self) -> bool:
        """Whether there is a row to compare with."""
        return self._baseline is not None

    def depends(self, row: RowInput, target: Target, digests: ContentDigests) -> Dependencies:
        """All that a row's measurement on a target depends on, less the noise."""
        baseline = self._baseline.candidate if self._baseline else None
        facts = self._facts_of(target)
        if self._served_facts:
            facts = replace(
                facts,
                scoring=[*facts.scoring, self._served_facts],
                reference=[facts.reference, *self._served_reference],
            )
        return of_measurement(row.candidate, baseline, digests, self._references, facts)

    def first_target(self) -> TargetFacts:
        """What the measurements of a stage at work depend on: all are on the first target."""
        return self._facts_of(self.targets[0])

    def _facts_of(self, target: Target) -> TargetFacts:
        # A target that does not say which device it is counts as one of this machine alone.
        device = self.environments[target.name].get("device_id") or platform.node()
        lowering = to_jsonable_python(target.lowering().facts())  # as it will be read again
        if sizes := sizes_of(target):
            lowering["sizes"] = [size.name for size in sizes]
        return TargetFacts(
            target=target,
            device=[type(target).__qualname__, target.runtime, lowering, device],
            mode=self._mode,
            scoring=self._scoring.facts,
            reference=self._scoring.named_reference,
        )

    @contextmanager
    def for_stage(
        self,
        incoming: Candidate,
        workdir: Path,
        seed: int,
        report: EventCallback,
        kept: Checkpoint,
    ) -> Iterator[StageEvaluator]:
        """Measures candidates of a stage at work; its artifacts below ``workdir`` are removed."""
        with scratch(workdir) as folder:
            yield StageEvaluator(
                incoming=incoming,
                task=self._task,
                scoring=self._scoring,
                target=self.targets[0],
                mode=self._mode,
                seed=seed,
                folder=Path(folder),
                report=report,
                kept=kept,
            )

    def model(self, row: RowInput, target: Target) -> Path:
        """Where the row's artifact for a target lies."""
        stem = _MODEL if len(self.targets) == 1 else f"{_MODEL}-{target.name}"
        return self._folder.stage(row.index, row.label) / f"{stem}{backend_of(target).suffix}"

    def measure(
        self, row: RowInput, target: Target, beside: Sequence[RowInput] = ()
    ) -> Measurement:
        """The row's measurement, paired with the baseline; without one, of its accuracy alone.

        Rows ``beside`` are timed along with it, and are still to be measured after it.
        """
        if self._baseline is None:
            return self._measurement(self._score(row, target), target)
        return self._compare(row, target, beside)

    def macs(self, row: RowInput, target: Target) -> int:
        """Multiply-accumulates of one sample, from the target's artifact."""
        return self._score(row, target).artifact.census.macs

    def _compare(self, row: RowInput, target: Target, beside: Sequence[RowInput]) -> Measurement:
        assert self._baseline is not None
        own, base = self._score(row, target), self._score(self._baseline, target)
        measurement = self._measurement(own, target, None if own is base else base)
        self._served.note_in(measurement, own.outputs, base.outputs, target)
        timings = self._timing.timings(
            self._row_model(row, target),
            self._row_model(self._baseline, target),
            target,
            measurement,
            [self._row_model(other, target) for other in beside],
        )
        timing = timings[-1]
        if isinstance(timing, Failure):
            measurement.warnings.append(timing.error)
            return measurement
        timing.note_in(measurement)
        # Without the baseline's time there is nothing to be faster than.
        measurement.speedup = None if isinstance(timings[0], Failure) else timing.speedup
        measurement.warnings.extend(timing.warnings)
        measurement.executed = timing.executed
        measurement.warnings.extend(_lost_int8(measurement))
        return measurement

    def _row_model(self, row: RowInput, target: Target) -> RowModel:
        path = self._score(row, target).artifact.path
        return RowModel(row.index, path, self._folder.raw(row.index, target.name))

    def _measurement(
        self, own: _ScoredRow, target: Target, base: _ScoredRow | None = None
    ) -> Measurement:
        artifact = own.artifact
        path = self._folder.named(artifact.path)
        directions = self._scoring.directions
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
            metrics={
                name: accuracy_facts(
                    scores,
                    base.further[name] if base else None,
                    higher_is_better=directions[name],
                )
                for name, scores in own.further.items()
            },
            controls=own.controls,
        )

    def _score(self, row: RowInput, target: Target) -> _ScoredRow:
        key = (row.index, target.name)
        if key not in self._scored:
            self._scored[key] = self._encode_and_score(row, target)
        return self._scored[key]

    def _encode_and_score(self, row: RowInput, target: Target) -> _ScoredRow:
        path = self.model(row, target)
        # Links in the path are resolved by lowering; the record names places in the run folder.
        artifact = replace(encode(row.candidate, self._task, target, path), path=path)
        found = target.predict(artifact.path, self._test.inputs)
        outputs = self._scoring.named(found, artifact.outputs)
        as_labels = self._scoring.as_labels(outputs)
        labels = self._labels(row, target, as_labels)
        return _ScoredRow(
            artifact,
            self._scoring.of(outputs, labels),
            self._scoring.further_of(outputs, labels),
            as_labels,
            RowOutputs(artifact, outputs if self._served.compares_on_test else as_labels),
            followed(self._test.inputs, outputs, labels) if self.makes_images else {},
        )

    @property
    def makes_images(self) -> bool:
        """Whether rows make images, and labels are those of the data."""
        return self._scoring.has_labels and self._scoring.kind == "image"

    def images(self, row: RowInput, inputs: Mapping[str, Array]) -> Arrays:
        """What a row that was measured makes of some inputs, on the first target.

        Raises:
            MeasurementError: the target cannot load or run its file; carries its words.
        """
        target = self.targets[0]
        return self._scoring.named(target.predict(self.model(row, target), inputs))

    def _labels(self, row: RowInput, target: Target, own: Arrays) -> Arrays:
        """Labels; of unlabeled data the outputs of the reference, or else of the baseline."""
        if self._labels_for_all is not None:
            return self._labels_for_all
        if self._baseline is None or row.index == self._baseline.index:
            return own
        return self._score(self._baseline, target).as_labels


def _parity_facts(parity: Parity) -> ParityFacts:
    agreement = None if math.isnan(parity.agreement) else parity.agreement
    outputs = {name: _parity_facts(one) for name, one in parity.outputs.items()}
    return ParityFacts(**{**vars(parity), "agreement": agreement, "outputs": outputs})


def _lost_int8(measurement: Measurement) -> list[str]:
    ran = measurement.executed.int8_mac_fraction if measurement.executed else None
    declared = measurement.artifact.int8_mac_fraction
    if ran is None or ran > declared - _INT8_MARGIN:
        return []
    would = f"onnxruntime's CPU would {declared:.0%}"
    return [f"{measurement.runtime} computes {ran:.0%} of its products in int8, where {would}"]
