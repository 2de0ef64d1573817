"""Measuring a cascade: choose on validation samples, count on test samples, time in one session."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from compress.cascade.curve import Answered, curve_of, point_of
from compress.cascade.detection import auroc
from compress.cascade.fitting import MOST_FITTED, Fitted, fit
from compress.cascade.latency import MixTimes, mix_times, seconds_of
from compress.cascade.models import CascadeModel
from compress.cascade.program.scores import OF_FEATURES, confidence
from compress.cascade.result import ForeignFacts, ScoreFacts, Timed
from compress.cascade.threshold import Wanted, sent_back, threshold_for, threshold_of_share
from compress.errors import DataError, MeasurementError, StageError
from compress.io.scratch import scratch
from compress.measure.compare import ComparedModel, compare
from compress.measure.named_arrays import Array
from compress.measure.score import score
from compress.measure.target import Mode, Target
from compress.running.scoring import Scoring
from compress.running.split_arrays import SplitArrays
from compress.task import Dataset, Task
from compress.training.data import is_labeled

__all__ = ["FIXED_SHARES", "Measured", "Samples", "timed"]

_TIMED_SAMPLES = 32
_MOST_BYTES = 256 << 20  # of training samples whose features are looked at
#: Shares that accuracy is told at on other samples.
FIXED_SHARES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Samples:
    """What both models make of some samples.

    Args:
        confidence: of the student, by score, each ``(n,)``.
        student: 1 where it is right, else 0; ``None`` without labels.
        larger: likewise, of the larger model.
        count: how many samples there are.
    """

    confidence: Mapping[str, Array]
    student: Array | None
    larger: Array | None
    count: int

    def answered(self, score: str) -> Answered:
        """Of samples with labels, what a threshold on this score is tried on."""
        assert self.student is not None
        assert self.larger is not None
        return Answered(self.confidence[score], self.student, self.larger)


class Measured:
    """Both models on the splits of a task, each run once.

    Args:
        student: the first to answer.
        larger: what is sent back to it.
        task: of the run.
        scoring: of the run.
        scores: to be tried, the deciding one first.
    """

    def __init__(
        self,
        student: CascadeModel,
        larger: CascadeModel,
        task: Task,
        scoring: Scoring,
        scores: Sequence[str],
    ) -> None:
        self.student, self.larger = student, larger
        self._task, self._scoring = task, scoring
        self.scores = tuple(dict.fromkeys(scores))
        self.notes: list[str] = []

    @property
    def deployed(self) -> CascadeModel:
        """The student as it is deployed: with features where the deciding score looks at them."""
        is_needed = self.scores[0] in OF_FEATURES
        return self.student if is_needed else self.student.without_features()

    @cached_property
    def fitted(self) -> dict[str, Fitted]:
        """What each score needs of training samples."""
        if not set(self.scores) & set(OF_FEATURES):
            return {each: fit(each, np.empty((0, 0)), np.empty(0)) for each in self.scores}
        one = SplitArrays.spread(self._task.train, 1)
        size = sum(array.nbytes for array in one.inputs.values())
        count = max(2, min(MOST_FITTED, _MOST_BYTES // max(1, size)))
        split = SplitArrays.spread(self._task.train, count)
        outputs, features = self.student.run(split.inputs)
        assert features is not None
        classes = self._classes(split, outputs)
        return {each: fit(each, features, classes) for each in self.scores}

    def _classes(self, split: SplitArrays, outputs: Array) -> Array:
        if split.labels is None:
            self.notes.append(
                "the training split has no labels: features belong to the classes that the student "
                "says"
            )
            predicted = outputs.reshape(len(outputs), -1)
            return predicted.argmax(1) if predicted.shape[1] > 1 else (predicted[:, 0] > 0) * 1
        labels = self._scoring.leading.fitted(outputs.shape, split.labels)
        flat = np.asarray(labels, np.float64).reshape(len(outputs), -1)[:, 0]
        return np.where(np.isnan(flat), -1, flat).astype(np.int64)

    @cached_property
    def validation(self) -> Samples:
        """Validation samples, which the threshold is chosen on."""
        return self.on(self._task.validation, "validation")

    @cached_property
    def test(self) -> Samples:
        """Test samples, which all is counted on."""
        return self.on(self._task.test, "test")

    def on(self, dataset: Dataset, name: str, *, is_foreign: bool = False) -> Samples:
        """Both models on a data set; the larger one only where there are labels to score it.

        Raises:
            DataError: there is no sample, or there are no labels in a split of the task.
        """
        has_labels = len(dataset) > 0 and is_labeled(dataset)
        if not len(dataset) or not (has_labels or is_foreign):
            raise DataError(
                f"task {self._task.name!r}: a cascade takes labeled samples of the {name} split, "
                f"and it has {'no labels' if len(dataset) else 'no sample'}."
            )
        split = SplitArrays.of(dataset)
        outputs, features = self.student.run(split.inputs)
        sure = {
            each: confidence(each, outputs, features, self.fitted[each]) for each in self.scores
        }
        if not has_labels:
            return Samples(sure, None, None, len(outputs))
        right = self._right(outputs, split)
        known = ~np.isnan(right)
        if not known.any():
            return Samples(sure, None, None, len(outputs))
        back = self._right(self.larger.run(split.inputs)[0], split)[known]
        sure = {name: array[known] for name, array in sure.items()}
        return Samples(sure, right[known], back, int(known.sum()))

    def _right(self, outputs: Array, split: SplitArrays) -> Array:
        """1 where an answer is right, 0 where it is wrong, NaN where no label says it, ``(n,)``."""
        leading, labels = self._scoring.leading, split.labels
        kind = leading.kind
        assert labels is not None
        own = leading.labels_of(labels)
        assert not isinstance(own, dict)
        metric: Literal["accuracy", "binary-accuracy"]
        metric = "accuracy" if kind == "class-scores" else "binary-accuracy"
        flat = own.reshape(len(own), -1)
        is_known = ~np.isnan(flat).any(1) if own.dtype.kind == "f" else (flat >= 0).all(1)
        if leading.ignore_index is not None:
            is_known &= (flat != leading.ignore_index).all(1)
        right = np.full(len(outputs), np.nan)
        if is_known.any():
            given = outputs[is_known], own[is_known]
            right[is_known] = np.asarray(score(*given, metric, kind, leading.ignore_index))
        return right

    def score_facts(self, wanted: Wanted, times: MixTimes | None) -> Iterator[ScoreFacts]:
        """Every score with its threshold and its curve.

        Raises:
            StageError: no threshold of the deciding score reaches what is wanted.
        """
        for each in self.scores:
            own = self.validation.confidence[each]
            curve = curve_of(own, self.test.answered(each), times)
            try:
                threshold = self.threshold(each, wanted)
            except StageError as error:
                if each == self.scores[0]:
                    raise
                yield ScoreFacts(each, None, curve, str(error))
                continue
            yield ScoreFacts(each, point_of(self.test.answered(each), threshold, times), curve)

    def threshold(self, score: str, wanted: Wanted) -> float:
        """What is chosen on validation samples.

        Raises:
            StageError: none reaches what is wanted.
        """
        answered = self.validation.answered(score)
        return threshold_for(wanted, answered.confidence, answered.student, answered.larger)

    def foreign(
        self, name: str, dataset: Dataset, threshold: float, times: MixTimes | None
    ) -> ForeignFacts:
        """What the student makes of other samples.

        Raises:
            DataError: fewer than two.
        """
        samples = self.on(dataset, name, is_foreign=True)
        if samples.count < 2:
            raise DataError(f"{name}: it takes two samples or more; got {samples.count}.")
        first = self.scores[0]
        own, other = self.test.confidence, samples.confidence
        facts = ForeignFacts(
            name=name,
            samples=samples.count,
            auroc={each: auroc(own[each], other[each]) for each in self.scores},
            share=float(sent_back(other[first], threshold).mean()),
        )
        if samples.student is None or samples.larger is None:
            return facts
        answered = samples.answered(first)
        point = point_of(answered, threshold, times)
        fixed = {
            f"{share:g}": float(answered.cascade(threshold_of_share(other[first], share)).mean())
            for share in FIXED_SHARES
        }
        return replace(
            facts,
            point=point,
            fixed=fixed,
            student=float(samples.student.mean()),
            larger=float(samples.larger.mean()),
        )


def timed(found: Measured, task: Task, target: Target, mode: Mode) -> tuple[MixTimes, Timed]:
    """Both files in one session, in turns, and the score by itself.

    Raises:
        MeasurementError: one of them cannot be timed.
    """
    inputs = SplitArrays.spread(task.test, _TIMED_SAMPLES).inputs
    name = found.scores[0]
    outputs, features = found.deployed.run({key: array[:1] for key, array in inputs.items()})
    score_s = seconds_of(lambda: confidence(name, outputs, features, found.fitted[name])[0] >= 0)
    with scratch() as folder:
        raw = Path(folder) / "raw.jsonl"
        models = [found.larger.path, found.deployed.path]
        compared = compare(models, target, mode, inputs=inputs, raw=raw)
        for each in compared:
            if each.error is not None:
                raise MeasurementError(f"cascade: {each.error}")
        times = mix_times(_lines(raw), score_s)
    larger, student = compared
    facts = Timed(
        student_s=times.student_s,
        larger_s=times.larger_s,
        score_s=score_s,
        processes=times.rounds,
        mode=mode,
        student_bytes=_peak(student),
        larger_bytes=_peak(larger),
        warnings=tuple(dict.fromkeys([*larger.warnings, *student.warnings])),
    )
    return times, facts


def _lines(raw: Path) -> Iterator[dict[str, Any]]:
    with raw.open(encoding="utf-8") as stream:
        for line in stream:
            yield cast("dict[str, Any]", json.loads(line))


def _peak(model: ComparedModel) -> int | None:
    return None if model.memory is None else model.memory.model_peak_bytes
