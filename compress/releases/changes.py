"""What changed between two deployed models, sample by sample on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compress.errors import DataError, RecipeError, RecordError
from compress.fingerprints import DataDigestCache, Unstable, data_fingerprint
from compress.io.files import named
from compress.measure.compare import ComparedModel
from compress.measure.named_arrays import Array, Arrays
from compress.measure.score import Scores, UndefinedMetric, accuracy_facts
from compress.outputs import CLASS_KINDS
from compress.record import Accuracy
from compress.releases.deployed import Deployed
from compress.report.differences import Difference, differences
from compress.running.scoring import Scoring
from compress.running.split_arrays import SplitArrays
from compress.task import Dataset, Task

__all__ = ["Changes", "ClassFlips", "MovedSample", "SplitChange"]
__all__ += ["changes_between", "check_comparable"]

_MOST_MOVED = 5
_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_SPLITS |= {"calibration": "calibration"}


@dataclass(frozen=True)
class SplitChange:
    """Both models on the same samples; ``new`` has the comparison with the old one.

    ``differing`` is how many predicted classes are others, where there are such; ``against`` whose
    outputs stand for labels, where the samples have none.
    """

    old: Accuracy
    new: Accuracy
    differing: int | None = None
    against: str | None = None

    @property
    def lost(self) -> int | None:
        """Samples that became worse; ``None`` of a metric over all samples."""
        return self._flips("lost")

    @property
    def gained(self) -> int | None:
        """Samples that became better."""
        return self._flips("gained")

    def _flips(self, name: str) -> int | None:
        found = (self.new.versus_baseline or {}).get(name)
        return None if found is None else int(found)


@dataclass(frozen=True)
class ClassFlips:
    """One class: its samples, how many each model has right, and those that changed."""

    name: str
    samples: int
    old_right: int
    new_right: int
    lost: int
    gained: int


@dataclass(frozen=True)
class MovedSample:
    """A sample by its place in the test split, with its score by both models."""

    place: int
    old: float
    new: float


@dataclass(frozen=True)
class Changes:
    """All that is said of two deployed models.

    Args:
        old: what was deployed.
        new: what would be.
        metric: that both are scored by; ``against`` whom, without labels.
        test: on the test split.
        classes: of the test split that have samples which changed, the worst first.
        slices: on the serving sample and the slices, by name.
        moved: samples whose score changed most, where it is no right or wrong, the worst first.
        differences: keys of the recipes, packages and devices that differ.
        data: splits whose content differs.
        notes: what is to be known of the comparison.
        timed: both files in one session, the old one first.
    """

    old: Deployed
    new: Deployed
    metric: str
    against: str | None
    test: SplitChange
    classes: tuple[ClassFlips, ...]
    slices: Mapping[str, SplitChange]
    moved: tuple[MovedSample, ...]
    differences: tuple[Difference, ...]
    data: tuple[str, ...]
    notes: tuple[str, ...] = ()
    timed: tuple[ComparedModel, ...] = field(default=())


def check_comparable(old: Deployed, new: Deployed) -> None:
    """Check that two rows have something to compare.

    Raises:
        RecordError: they are one.
        RecipeError: their runs are of different tasks.
    """
    if old.is_same_row(new):
        raise RecordError(
            f"{named(old.folder)}: row {old.row.index} is compared with itself; give two runs, or "
            "two rows of one (--row OLD --row NEW)."
        )
    tasks = [(each.record.task.name, each.record.task.metric) for each in (old, new)]
    if tasks[0] != tasks[1]:
        given = " and ".join(f"{named(name)} (scored by {named(metric)})" for name, metric in tasks)
        raise RecipeError(
            f"the runs are of different tasks, {given}, and what both deploy can be compared on "
            "one alone."
        )


def changes_between(old: Deployed, new: Deployed, task: Task, scoring: Scoring) -> Changes:
    """Run both files on the same samples, and say what changed.

    Args:
        old: what was deployed.
        new: what would be.
        task: of the new run.
        scoring: of that run.

    Raises:
        RecordError: the two are one row, or take inputs of another form.
        RecipeError: the runs are of different tasks.
        DataError: outputs that cannot be scored alike.
        LoweringError: onnxruntime cannot run a file.
    """
    check_comparable(old, new)
    both = _Both(old, new, scoring)
    test = both.on(task.test)
    if isinstance(test.old, np.ndarray) != isinstance(test.new, np.ndarray):
        raise DataError("scoring: the metric gives a score of each sample for one model alone.")
    notes = [*_data_notes(old, new, task)]
    if old.is_same_file(new):
        notes.append("both rows are the same file, bit for bit: nothing changed for the device")
    return Changes(
        old=old,
        new=new,
        metric=scoring.name,
        against=None if scoring.has_labels else _against(scoring),
        test=test.change,
        classes=tuple(_classes(test, task, scoring)),
        slices=dict(both.slices(task)),
        moved=tuple(_moved(test, scoring)),
        differences=tuple(differences([old.record, new.record])),
        data=tuple(_changed_data(old, new)),
        notes=tuple(notes),
    )


def _against(scoring: Scoring) -> str:
    return "the old model" if scoring.reference is None else scoring.reference.name


@dataclass(frozen=True)
class _Scored:
    """Both models' outputs and scores on one data set."""

    labels: Arrays
    outputs: tuple[Arrays, Arrays]
    old: Scores
    new: Scores
    change: SplitChange


class _Both:
    """Two deployed models, scored alike."""

    def __init__(self, old: Deployed, new: Deployed, scoring: Scoring) -> None:
        self._old, self._new, self._scoring = old, new, scoring

    def on(self, dataset: Dataset) -> _Scored:
        """Both on the samples of a data set: against its labels, or those of the reference."""
        scoring, split = self._scoring, SplitArrays.of(dataset)
        outputs = tuple(
            scoring.named(each.outputs(split.inputs), each.found.artifact.outputs)
            for each in (self._old, self._new)
        )
        old, new = outputs
        has_labels = split.labels is not None
        scoring = scoring.with_labels() if has_labels else scoring.without_labels(None)
        labels = scoring.labels(split)
        if labels is None:
            labels = scoring.as_labels(old)
        scores = scoring.of(old, labels), scoring.of(new, labels)
        better = scoring.higher_is_better
        change = SplitChange(
            accuracy_facts(scores[0], higher_is_better=better),
            accuracy_facts(scores[1], scores[0], higher_is_better=better),
            _differing(scoring, old, new),
            None if scoring.has_labels else _against(scoring),
        )
        return _Scored(labels, (old, new), *scores, change)

    def slices(self, task: Task) -> list[tuple[str, SplitChange]]:
        """The serving sample and the slices; those on which the metric has no value are absent."""
        found = []
        for name, dataset in task.served.items():
            try:
                found.append((name.removeprefix("slice "), self.on(dataset).change))
            except UndefinedMetric:
                continue
        return found


def _differing(scoring: Scoring, old: Arrays, new: Arrays) -> int | None:
    """How many samples have another predicted class, in any place."""
    leading = scoring.leading
    if leading.kind not in CLASS_KINDS:
        return None
    given = [leading.outputs_of(outputs) for outputs in (old, new)]
    predicted = [array.argmax(axis=1) for array in given if not isinstance(array, dict)]
    if len(predicted) != len(given) or predicted[0].shape != predicted[1].shape:
        return None
    changed = (predicted[0] != predicted[1]).reshape(len(predicted[0]), -1)
    return int(changed.any(axis=1).sum())


def _classes(test: _Scored, task: Task, scoring: Scoring) -> list[ClassFlips]:
    """Each class of which samples changed between right and wrong, that with most losses first."""
    labels = scoring.leading.labels_of(test.labels)
    right = [np.asarray(each) for each in (test.old, test.new) if isinstance(each, np.ndarray)]
    is_plain = isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"
    if not is_plain or len(right) != 2 or not np.isin(right, (0, 1)).all():
        return []
    assert isinstance(labels, np.ndarray)
    found = [
        _flips(_class_name(task, int(number)), right[0][own] == 1, right[1][own] == 1)
        for number in np.unique(labels[labels >= 0])
        for own in [labels == number]
    ]
    changed = [each for each in found if each.lost or each.gained]
    return sorted(changed, key=lambda each: (each.gained - each.lost, -each.lost))


def _class_name(task: Task, number: int) -> str:
    return task.classes[number] if number < len(task.classes) else f"class {number}"


def _flips(name: str, old: Array, new: Array) -> ClassFlips:
    lost, gained = int((old & ~new).sum()), int((new & ~old).sum())
    return ClassFlips(name, len(old), int(old.sum()), int(new.sum()), lost, gained)


def _moved(test: _Scored, scoring: Scoring) -> list[MovedSample]:
    """The samples whose score changed most, of scores that are no right or wrong."""
    if not isinstance(test.old, np.ndarray) or not isinstance(test.new, np.ndarray):
        return []
    if np.isin([test.old, test.new], (0, 1)).all():
        return []
    sign = 1 if scoring.higher_is_better else -1
    change = sign * (test.new - test.old)
    order = np.argsort(change, kind="stable")
    places = [*order[:_MOST_MOVED], *order[-_MOST_MOVED:]]
    return [
        MovedSample(int(place), float(test.old[place]), float(test.new[place]))
        for place in dict.fromkeys(map(int, places))
        if change[place] != 0
    ]


# -- data -------------------------------------------------------------------------------------


def _changed_data(old: Deployed, new: Deployed) -> list[str]:
    """The splits that both runs kept digests of, and whose content differs."""
    before, after = old.data, new.data
    return [
        words
        for name, words in _SPLITS.items()
        if name in before and name in after and before[name] != after[name]
    ]


def _data_notes(old: Deployed, new: Deployed, task: Task) -> Sequence[str]:
    notes = []
    if "test" in _changed_data(old, new):
        notes.append(
            "the runs had different test splits; both files were run on that of the new run, so "
            "that the old score here is another than in its record"
        )
    kept = new.data.get("test")
    if kept is not None and kept != _digest(task.test):
        notes.append(
            "the test split has changed since the new run; both files were run on what it is now"
        )
    return notes


def _digest(dataset: Dataset) -> str | None:
    try:
        return data_fingerprint(dataset, "the test data", DataDigestCache())
    except Unstable:
        return None
