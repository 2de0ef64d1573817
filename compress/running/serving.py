"""Serving: how rows do on samples of what will be served, beside the test split.

Samples are scored as the test split is where they have labels, and against the named teacher, or
the baseline row, where they have none. Nothing here is ever seen by a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compress.artifact import Artifact
from compress.errors import DataError
from compress.measure import stats
from compress.measure.named_arrays import Array, Arrays
from compress.measure.score import UndefinedMetric, accuracy_facts
from compress.measure.shift import FEWEST, LEVEL, features_of, told_apart
from compress.measure.target import Target
from compress.measure.without_labels import Inputs, estimated, trials
from compress.record import Accuracy, Measurement
from compress.record_scores import (
    BASELINE,
    AccuracyEstimate,
    Change,
    SampleFacts,
    ServedScore,
    ToldApartFacts,
)
from compress.running.job import Job
from compress.running.scoring import Scoring, reference_of
from compress.running.split_arrays import SplitArrays
from compress.task import SERVING, Dataset, Task, slice_key
from compress.training.data import head, is_labeled

__all__ = ["RowOutputs", "ServedSamples", "check_samples", "sample_facts", "served_scoring"]

_VALIDATION, _TRIED = 1000, 500


def served_scoring(job: Job, scoring: Scoring) -> dict[str, Scoring]:
    """How rows are scored on each of a task's serving samples, by its name.

    Raises:
        CompressError: a named teacher that cannot be made.
    """
    labeled = {name: is_labeled(dataset) for name, dataset in job.task.served.items()}
    # Making a teacher may take long, and may fail.
    needs = not all(labeled.values()) and scoring.has_labels
    without = scoring.without_labels(reference_of(job)) if needs else scoring
    return {name: scoring.with_labels() if has else without for name, has in labeled.items()}


def check_samples(task: Task) -> None:
    """Check that serving samples are of the form that the test split is of.

    Raises:
        DataError: other inputs, or another shape or kind of numbers.
    """
    wanted = _form_of(task.test)
    for name, dataset in task.served.items():
        found = _form_of(dataset)
        if found != wanted:
            given, needed = (
                ", ".join(f"{key} {form}".strip() for key, form in each.items())
                for each in (found, wanted)
            )
            raise DataError(
                f"task {task.name!r}, {name} sample: its inputs are {given}, and those of the test "
                f"split {needed}; give samples of that form."
            )


def _form_of(dataset: Dataset) -> dict[str, str]:
    """The shape of each input and whether it is of whole numbers, by name."""
    inputs = head(dataset, 1).inputs
    tensors = inputs if isinstance(inputs, dict) else {"": inputs}
    kinds = {True: "", False: " of whole numbers"}
    return {
        name: f"{tuple(tensor.shape[1:])}{kinds[tensor.is_floating_point()]}"
        for name, tensor in tensors.items()
    }


def sample_facts(task: Task, served: Mapping[str, Scoring]) -> dict[str, SampleFacts]:
    """What a record says of the samples, by name."""
    return {
        name: SampleFacts(
            samples=len(dataset), metric=served[name].name, reference=_reference(served[name])
        )
        for name, dataset in task.served.items()
    }


def _reference(scoring: Scoring) -> str | None:
    if scoring.has_labels:
        return None
    return BASELINE if scoring.reference is None else scoring.reference.name


@dataclass(frozen=True)
class RowOutputs:
    """A row's artifact, and what it gives for the test split, where that is asked for."""

    artifact: Artifact
    on_test: Arrays


class ServedSamples:
    """The serving samples of a run; each is read once, and each row runs on it once.

    Args:
        task: has the samples.
        scoring: of the test split.
        served: of each sample, by name.
    """

    def __init__(self, task: Task, scoring: Scoring, served: Mapping[str, Scoring]) -> None:
        self._task, self._scoring, self._served = task, scoring, served
        self._outputs: dict[tuple[str, str], Arrays] = {}
        self._labels: dict[str, Arrays | None] = {}

    def note_in(
        self, measurement: Measurement, own: RowOutputs, base: RowOutputs, target: Target
    ) -> None:
        """Put a row's scores into its measurement; ``base`` is the row it is compared with.

        A metric that has no value on a sample is a warning.

        Raises:
            MeasurementError: the target cannot run the model.
        """
        for name, scoring in self._served.items():
            scored = _ScoredSample(self, name, scoring, own, base, target)
            try:
                found = scored.facts(measurement)
            except UndefinedMetric as error:
                text = str(error).removeprefix("scoring: ")
                measurement.warnings.append(f"on the {_words(name)}, {text}")
                continue
            if name == SERVING:
                measurement.serving = found
            else:
                measurement.slices[name.removeprefix(slice_key(""))] = found

    def labels(self, name: str) -> Arrays | None:
        """The labels of a sample, or what the reference says of it; worked out once."""
        if name not in self._labels:
            self._labels[name] = self._served[name].labels(self._arrays[name])
        return self._labels[name]

    @cached_property
    def _arrays(self) -> dict[str, SplitArrays]:
        return {name: SplitArrays.of(dataset) for name, dataset in self._task.served.items()}

    @cached_property
    def test(self) -> SplitArrays:
        """The test split as if it had no labels."""
        return SplitArrays(self._task.test, {}, None)

    @cached_property
    def validation(self) -> SplitArrays:
        """Some validation samples, evenly spaced."""
        return SplitArrays.spread(self._task.validation, _VALIDATION)

    def outputs(self, name: str, artifact: Artifact, target: Target) -> Arrays:
        """What a row gives for a sample, or for the validation samples."""
        key = (name, f"{target.name}/{artifact.path}")
        if key not in self._outputs:
            split = self.validation if name == "" else self._arrays[name]
            self._outputs[key] = self.predicted(split.inputs, artifact, target)
        return self._outputs[key]

    def predicted(self, inputs: Inputs, artifact: Artifact, target: Target) -> Arrays:
        """What a row gives for some inputs."""
        found = target.predict(artifact.path, inputs)
        return self._scoring.named(found, artifact.outputs)

    @cached_property
    def reference_on_test(self) -> Arrays | None:
        """What the reference says of the test split, where there is one."""
        scoring = next(one for one in self._served.values() if not one.has_labels)
        return scoring.labels(self.test)

    @property
    def compares_on_test(self) -> bool:
        """Whether a row's outputs on the test split are asked for."""
        has_labels = self._scoring.has_labels
        return has_labels and not all(one.has_labels for one in self._served.values())

    @property
    def test_scoring(self) -> Scoring:
        """How rows are scored on the test split."""
        return self._scoring


@dataclass(frozen=True)
class _ScoredSample:
    """One sample, a row, and the row that it is compared with."""

    of: ServedSamples
    name: str
    scoring: Scoring
    own: RowOutputs
    base: RowOutputs
    target: Target

    def facts(self, measurement: Measurement) -> ServedScore:
        """All that the record has of it."""
        is_baseline = self.own is self.base
        accuracy = self._accuracy(self.own, None if is_baseline else self.base)
        on_test = self._on_test()
        beside = measurement.accuracy if on_test is None else on_test
        is_alike = on_test is not None or self.scoring.name == self.of.test_scoring.name
        found = ServedScore(
            accuracy=accuracy,
            on_test=on_test,
            change=_change(accuracy, beside) if beside is not None and is_alike else None,
        )
        if self.name == SERVING:
            if is_baseline:
                found.told_apart = self._told_apart()
                if found.told_apart is None:
                    measurement.warnings.append(
                        f"with fewer than {FEWEST} serving or validation samples it is not tested "
                        "whether these are of other data"
                    )
            if not self.scoring.has_labels and measurement.accuracy is not None:
                self._note_estimate(found, measurement.accuracy)
        return found

    def _accuracy(self, row: RowOutputs, base: RowOutputs | None) -> Accuracy:
        labels = self.of.labels(self.name)
        if labels is None:
            labels = self.scoring.as_labels(self._outputs(self.base))
        scores = self.scoring.of(self._outputs(row), labels)
        theirs = None if base is None else self.scoring.of(self._outputs(base), labels)
        better = self.scoring.higher_is_better
        return accuracy_facts(scores, theirs, higher_is_better=better)

    def _outputs(self, row: RowOutputs) -> Arrays:
        return self.of.outputs(self.name, row.artifact, self.target)

    def _on_test(self) -> Accuracy | None:
        """The same score on the test split, where the row's own there is another."""
        if self.scoring.has_labels or not self.of.test_scoring.has_labels:
            return None
        labels = self.of.reference_on_test
        if labels is None:
            labels = self.scoring.as_labels(self.base.on_test)
        scores = self.scoring.of(self.own.on_test, labels)
        return accuracy_facts(scores, higher_is_better=self.scoring.higher_is_better)

    def _told_apart(self) -> ToldApartFacts | None:
        validation = self.of.outputs("", self.own.artifact, self.target)
        found = told_apart(features_of(validation), features_of(self._outputs(self.own)))
        if found is None:
            return None
        return ToldApartFacts(
            share=found.share,
            ci95=found.ci95,
            p_value=found.p_value,
            level=LEVEL,
            held_out=found.held_out,
        )

    # -- without labels ---------------------------------------------------------------------------

    def _note_estimate(self, found: ServedScore, on_test: Accuracy) -> None:
        given = self._logits_and_classes()
        if isinstance(given, str):
            found.no_estimate = given
            return
        served, validation, classes = given
        known = np.flatnonzero(classes >= 0)
        tried = {name: array[known[:_TRIED]] for name, array in self.of.validation.inputs.items()}

        def predict(inputs: Inputs) -> Array:
            outputs = self.of.predicted(inputs, self.own.artifact, self.target)
            logits = self.of.test_scoring.leading.outputs_of(outputs)
            assert not isinstance(logits, dict)
            return logits

        estimate = estimated(
            served,
            validation[known],
            classes[known],
            lambda threshold: trials(predict, tried, classes[known[:_TRIED]], threshold),
        )
        if estimate is None:
            found.no_estimate = (
                "what the model makes of them is too unlike what it makes of validation samples "
                "for its confidence to tell"
            )
            return
        value, ci95, count = estimate
        own = Accuracy(value=value, ci95=ci95, n=len(served))
        found.estimate = AccuracyEstimate(
            value=value, ci95=ci95, change=_change(own, on_test), trials=count
        )

    def _logits_and_classes(self) -> tuple[Array, Array, Array] | str:
        """Logits of the samples, those of validation samples and their classes; or why not."""
        leading, labels = self.of.test_scoring.leading, self.of.validation.labels
        if not self.of.test_scoring.has_labels or labels is None:
            return "it takes labels of the test and the validation split"
        names = (self.name, "")
        found = [self.of.outputs(name, self.own.artifact, self.target) for name in names]
        served, validation = (leading.outputs_of(outputs) for outputs in found)
        is_plain = not isinstance(served, dict) and not isinstance(validation, dict)
        if leading.rule != "accuracy" or not is_plain or served.ndim != 2:  # type: ignore[union-attr]
            return f"it is made of one class for each sample, and rows are scored by {leading.name}"
        assert not isinstance(served, dict)
        assert not isinstance(validation, dict)
        classes = leading.fitted(validation.shape, labels)
        if len(served) < FEWEST or classes is None or (classes >= 0).sum() < FEWEST:
            return f"it takes {FEWEST} samples, and as many of validation with labels"
        return served, validation, classes


def _change(served: Accuracy, test: Accuracy) -> Change:
    """The difference of scores on samples that have nothing to do with each other."""
    value = served.value - test.value
    below = np.hypot(served.value - served.ci95[0], test.ci95[1] - test.value)
    above = np.hypot(served.ci95[1] - served.value, test.value - test.ci95[0])
    ends = stats.Interval(float(value - below), float(value + above))
    return Change(value=value, ci95=ends)


def _words(name: str) -> str:
    return f"{name} sample" if name == SERVING else name
