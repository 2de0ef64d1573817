"""Measuring candidates while a stage works: on the validation split, beside the one that came in.

The same parts as for rows (:mod:`.evaluator`): lowering, scoring on the target, and interleaved
timing. Nothing is read, lowered or timed before a stage asks. What was measured is kept until the
stage is done: a run that is killed goes on with the same numbers, and so to the same result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compress.artifact import Artifact
from compress.candidate import Candidate
from compress.errors import MeasurementError
from compress.events import CandidateMeasured, EventCallback
from compress.io.atomic import write_atomically
from compress.io.files import read_bounded
from compress.measure.named_arrays import Arrays
from compress.measure.profile.layer_times import layer_times
from compress.measure.score import accuracy_facts
from compress.measure.target import BenchmarkConfig, Failure, Mode, Target, Timing, backend_of
from compress.record import Accuracy
from compress.running.encoding import encode
from compress.running.scoring import Scoring
from compress.running.split_arrays import SplitArrays
from compress.stage import EVALUATION_PARTS, Evaluation, EvaluationPart, LayerSeconds
from compress.task import Task
from compress.training.checkpoint import Checkpoint

__all__ = ["StageEvaluator"]

_PROBE_SAMPLES = 32
_INCOMING, _OWN = "incoming", "candidate"
_KEPT, _MOST_KEPT_BYTES = "measured.json", 64 << 20


@dataclass
class _Measured:
    """Which parts of a candidate were measured, and what they gave."""

    parts: list[EvaluationPart]
    evaluation: Evaluation


@dataclass
class _Kept:
    """What the file holds: measurements by fingerprint, of what the key stands for."""

    key: str
    measured: dict[str, _Measured]
    layers: dict[str, LayerSeconds] = field(default_factory=dict)


_FORM = TypeAdapter(_Kept)


@dataclass(frozen=True)
class StageEvaluator:
    """``context.evaluator`` of one stage; see :class:`compress.stage.CandidateEvaluator`.

    Args:
        incoming: the candidate that came in.
        task: whose validation split candidates are scored on.
        scoring: how.
        target: the first one of the run.
        mode: how hard to measure.
        seed: of the stage; fixes the order of rounds.
        folder: of its own, for artifacts.
        report: called with an event for every measurement.
        kept: where measurements are kept for a run that is killed and goes on; ``None`` for
            nowhere.
    """

    incoming: Candidate
    task: Task
    scoring: Scoring
    target: Target
    mode: Mode
    seed: int
    folder: Path
    report: EventCallback
    kept: Checkpoint | None = None

    def measure(
        self, candidate: Candidate, parts: Collection[EvaluationPart] = EVALUATION_PARTS
    ) -> Evaluation:
        """What the candidate does on the target, beside the one that came in.

        Raises:
            LoweringError: it cannot be exported, encoded, or run as its module runs.
            MeasurementError: the target cannot run it.
            StorageError: what was measured could not be kept.
        """
        key = candidate.fingerprint
        known = self._measured.get(key)
        missing = {*parts} - {*known.parts} if known else {*parts}
        if known is None or missing:
            before = known.evaluation if known else None
            found = self._evaluate(candidate, missing, before)
            known = _Measured(sorted(missing.union(known.parts if known else ())), found)
            self._measured[key] = known
            self._keep()
            self.report(
                CandidateMeasured(
                    bytes=found.artifact_bytes,
                    score=found.score,
                    score_ci95=found.score_ci95,
                    speedup=found.speedup,
                    speedup_ci95=found.speedup_ci95,
                    latency_s=found.latency_s,
                )
            )
        return known.evaluation

    def layer_seconds(self, candidate: Candidate, layers: Sequence[str]) -> LayerSeconds:
        """What each layer takes in the candidate that came in, and in this one.

        See :class:`compress.stage.TimesLayers`.

        Raises:
            LoweringError: it cannot be exported, encoded, or run as its module runs.
            MeasurementError: the target cannot profile.
            StorageError: what was measured could not be kept.
        """
        known, key = self._known.layers, candidate.fingerprint
        if key not in known:
            own = encode(candidate, self.task, self.target, self._file(_OWN))
            paths = [self._incoming_artifact.path, own.path]
            before, after = layer_times(paths, layers, self.target, self.mode, self.seed)
            both = before.seconds.keys() & after.seconds.keys()
            known[key] = LayerSeconds(
                {layer: before.seconds[layer] for layer in layers if layer in both},
                {layer: after.seconds[layer] for layer in layers if layer in both},
                before.whole,
                after.whole,
            )
            self._keep()
        return known[key]

    @property
    def _measured(self) -> dict[str, _Measured]:
        return self._known.measured

    @cached_property
    def _known(self) -> _Kept:
        """What is known of each candidate, by fingerprint; also what a killed run measured."""
        if self.kept is None:
            return _Kept("", {})
        path, empty = self.kept.folder / _KEPT, _Kept(self.kept.key, {})
        try:
            kept = _FORM.validate_json(read_bounded(path, _MOST_KEPT_BYTES, MeasurementError))
        except (MeasurementError, ValidationError):
            return empty
        return kept if kept.key == self.kept.key else empty

    def _keep(self) -> None:
        if self.kept is not None:
            content = _FORM.dump_json(self._known)
            self.kept.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.kept.folder / _KEPT, content)

    @cached_property
    def _validation(self) -> SplitArrays:
        return SplitArrays.of(self.task.validation)

    @cached_property
    def _labels(self) -> Arrays | None:
        # Where the test split has no labels, rows are scored against a reference: so is this.
        split = self._validation
        has_labels = self.scoring.has_labels
        return self.scoring.labels(split if has_labels else split.without_labels())

    @cached_property
    def _incoming_artifact(self) -> Artifact:
        return encode(self.incoming, self.task, self.target, self._file(_INCOMING))

    def _file(self, stem: str) -> Path:
        return self.folder / f"{stem}{backend_of(self.target).suffix}"

    def _evaluate(
        self, candidate: Candidate, parts: Collection[EvaluationPart], known: Evaluation | None
    ) -> Evaluation:
        artifacts = [self._incoming_artifact]
        if candidate.fingerprint != self.incoming.fingerprint:
            artifacts.append(encode(candidate, self.task, self.target, self._file(_OWN)))
        own, higher_is_better = artifacts[-1], self.scoring.higher_is_better
        found = known or Evaluation(
            own.bytes,
            None,
            None,
            higher_is_better,
            warnings=(*own.warnings,),
            metric=self.scoring.leading.name,
        )
        if "score" in parts:
            accuracy = self._accuracy(own)
            found = replace(found, score=accuracy.value, score_ci95=accuracy.ci95)
        if "latency" in parts:
            config = BenchmarkConfig(self._validation.first(_PROBE_SAMPLES), self.mode, self.seed)
            timings = self.target.measure([artifact.path for artifact in artifacts], config)
            found = _with_times(found, timings)
        return found

    def _accuracy(self, artifact: Artifact) -> Accuracy:
        outputs = self._outputs(artifact)
        labels = self._labels
        if labels is None:  # nothing says what is right: how much it is like the one that came in
            labels = self.scoring.as_labels(self._outputs(self._incoming_artifact))
        scores = self.scoring.of(outputs, labels)
        return accuracy_facts(scores, higher_is_better=self.scoring.higher_is_better)

    def _outputs(self, artifact: Artifact) -> Arrays:
        found = self.target.predict(artifact.path, self._validation.inputs)
        return self.scoring.named(found, artifact.outputs)


def _with_times(found: Evaluation, timings: Sequence[Timing | Failure]) -> Evaluation:
    own, incoming = timings[-1], timings[0]
    if isinstance(own, Failure):
        return replace(found, warnings=(*found.warnings, own.error))
    found = replace(found, latency_s=own.latency.p50_s, warnings=(*found.warnings, *own.warnings))
    if isinstance(incoming, Failure):  # without its time there is nothing to be faster than
        return found
    return replace(found, speedup=own.speedup.value, speedup_ci95=own.speedup.ci95)
