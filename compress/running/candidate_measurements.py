"""Measuring candidates while a stage works: on the validation split, beside the one that came in.

The same parts as for rows (:mod:`.evaluator`): lowering, scoring on the target, and interleaved
timing. Nothing is read, lowered or timed before a stage asks, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compress.artifact import Artifact
from compress.candidate import Candidate
from compress.events import CandidateMeasured, EventCallback
from compress.measure.named_arrays import Arrays
from compress.measure.score import accuracy_facts
from compress.measure.target import BenchmarkConfig, Failure, Mode, Target, Timing, backend_of
from compress.record import Accuracy
from compress.running.encoding import encode
from compress.running.scoring import Scoring
from compress.running.split_arrays import SplitArrays
from compress.stage import Evaluation
from compress.task import Task

__all__ = ["StageEvaluator"]

_PROBE_SAMPLES = 32
_INCOMING, _OWN = "incoming", "candidate"


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
    """

    incoming: Candidate
    task: Task
    scoring: Scoring
    target: Target
    mode: Mode
    seed: int
    folder: Path
    report: EventCallback

    def measure(self, candidate: Candidate) -> Evaluation:
        """What the candidate does on the target, beside the one that came in.

        Raises:
            LoweringError: it cannot be exported, encoded, or run as its module runs.
            MeasurementError: the target cannot run it.
        """
        key = candidate.fingerprint
        if key not in self._measured:
            self._measured[key] = found = self._evaluate(candidate)
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
        return self._measured[key]

    @cached_property
    def _measured(self) -> dict[str, Evaluation]:
        return {}

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

    def _evaluate(self, candidate: Candidate) -> Evaluation:
        artifacts = [self._incoming_artifact]
        if candidate.fingerprint != self.incoming.fingerprint:
            artifacts.append(encode(candidate, self.task, self.target, self._file(_OWN)))
        accuracy = self._accuracy(artifacts[-1])
        config = BenchmarkConfig(self._validation.first(_PROBE_SAMPLES), self.mode, self.seed)
        timings = self.target.measure([artifact.path for artifact in artifacts], config)
        return self._evaluation(artifacts[-1], accuracy, timings)

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

    def _evaluation(
        self, artifact: Artifact, accuracy: Accuracy, timings: Sequence[Timing | Failure]
    ) -> Evaluation:
        own, incoming = timings[-1], timings[0]
        timing = None if isinstance(own, Failure) else own
        # Without the time of what came in there is nothing to be faster than.
        pair = None if isinstance(incoming, Failure) else timing
        notes = (own.error,) if isinstance(own, Failure) else own.warnings
        return Evaluation(
            artifact_bytes=artifact.bytes,
            score=accuracy.value,
            score_ci95=accuracy.ci95,
            higher_is_better=self.scoring.higher_is_better,
            latency_s=None if timing is None else timing.latency.p50_s,
            speedup=None if pair is None else pair.speedup.value,
            speedup_ci95=None if pair is None else pair.speedup.ci95,
            warnings=(*artifact.warnings, *notes),
        )
