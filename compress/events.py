"""Events: all that a run reports, in one list, with the fields of each.

A run hands every event to its callback (``Recipe.run(..., observer=...)``) as a plain ``dict``, and
writes most of them to ``log.jsonl``, one a line. A stage reports its own with ``context.report``,
and has its label under ``stage``. The log adds ``time_s``, since 1970, and ``crc32`` of the rest.

An event is a frozen dataclass, and the mapping that callbacks get: ``event["event"]`` is its name,
every other key a field. A stage may report a mapping of its own, too, which is logged and handed on
as it is; numbers that come with an ``epoch`` are tracked. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar

__all__ = [
    "EVENTS",
    "CacheSize",
    "CandidateMeasured",
    "EpochEnd",
    "Event",
    "EventCallback",
    "Expected",
    "MeasureStart",
    "MeasurementReused",
    "Notice",
    "Pace",
    "ReadingData",
    "Redone",
    "Rehearsal",
    "Resumed",
    "RowDone",
    "RunEnd",
    "RunStart",
    "StageProgress",
    "StageStart",
    "StageWarning",
    "StepEnd",
    "Widths",
    "parse_event",
]

#: Called with what happens in a run: each event as a dict of its own.
EventCallback = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Event(Mapping[str, Any]):
    """An event: what it is called, and its fields; equal to any mapping with the same content."""

    event: ClassVar[str]

    def __getitem__(self, key: str) -> Any:
        return self._present()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def _present(self) -> dict[str, Any]:
        present: dict[str, Any] = {"event": self.event}
        for one in fields(self):
            value = getattr(self, one.name)
            # What may be left out has None as its default.
            if value is not None or one.default is MISSING:
                present[one.name] = value
        return present


# What the loop reports of a run is first.
@dataclass(frozen=True, eq=False)
class RunStart(Event):
    """A run begins. Not logged.

    Args:
        labels: of all rows, from row 0.
        folder: the run folder.
        record: as ``record.json`` will have it, without rows.
    """

    event: ClassVar[str] = "start"
    labels: Sequence[str]
    folder: str
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Expected(Event):
    """What is left of a run will about take, as its dry run found it. Not logged.

    Args:
        training_s: of each stage from the first that is run, by the index of its row, in seconds;
            0 for one that does not train.
        measuring_s: of lowering, scoring and timing one row on all targets, in seconds.
    """

    event: ClassVar[str] = "expected"
    training_s: Mapping[int, float]
    measuring_s: float


@dataclass(frozen=True, eq=False)
class StageStart(Event):
    """A stage is run or re-used. Not logged.

    Args:
        index: of the row that it makes; 0 is the model that comes in.
        label: of the row.
        of: the index of the last row.
    """

    event: ClassVar[str] = "stage"
    index: int
    label: str
    of: int


@dataclass(frozen=True, eq=False)
class Redone(Event):
    """An earlier result is there and is not used.

    Args:
        index: of the row.
        label: of the row.
        why: a clause, such as ``the seed changed``.
        what: ``measured`` where the row is measured again; left out where its stage runs again.
    """

    event: ClassVar[str] = "again"
    index: int
    label: str
    why: str
    what: str | None = None


@dataclass(frozen=True, eq=False)
class ReadingData(Event):
    """All samples of a split are read, to tell whether it changed. Not logged.

    Args:
        what: such as ``the training data``.
    """

    event: ClassVar[str] = "reading"
    what: str


@dataclass(frozen=True, eq=False)
class Rehearsal(Event):
    """The stages ahead are tried on a few samples, before the first of them is run. Not logged."""

    event: ClassVar[str] = "rehearsal"


@dataclass(frozen=True, eq=False)
class MeasureStart(Event):
    """A row is lowered, scored and timed. Not logged.

    Args:
        index: of the row; left out by a suite, whose net is that of the last ``stage``.
        label: of the row, likewise.
    """

    event: ClassVar[str] = "measure"
    index: int | None = None
    label: str | None = None


@dataclass(frozen=True, eq=False)
class MeasurementReused(Event):
    """A row's measurement of an earlier run is used. Not logged.

    Args:
        index: of the row.
        label: of the row.
    """

    event: ClassVar[str] = "reuse"
    index: int
    label: str


@dataclass(frozen=True, eq=False)
class RowDone(Event):
    """A row is complete: reported once the baseline is measured, for earlier rows too. Not logged.

    Args:
        index: of the row.
        row: as in ``record.json``.
    """

    event: ClassVar[str] = "row"
    index: int
    row: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Notice(Event):
    """A sentence that the user should read, such as that a damaged file was set aside.

    Args:
        text: the sentence.
    """

    event: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True, eq=False)
class RunEnd(Event):
    """A run is over. Not logged.

    Args:
        status: ``done``, ``failed`` or ``interrupted``; left out by a suite.
    """

    event: ClassVar[str] = "end"
    status: str | None = None


# What a stage reports while it works begins here.
@dataclass(frozen=True, eq=False)
class StageWarning(Event):
    """What the user should know of this stage; becomes a note of its row.

    Args:
        text: a clause or a sentence.
    """

    event: ClassVar[str] = "warning"
    text: str


@dataclass(frozen=True, eq=False)
class StepEnd(Event):
    """An optimizer step of a training is done. Not logged, since there are many.

    Args:
        epoch: from 1.
        epochs: how many there will be at most.
        step: from 1, within the epoch.
        steps: of an epoch.
        loss: mean over this epoch so far.
        samples_per_s: of this epoch so far.
        left_s: until the end of the last epoch, in seconds.
    """

    event: ClassVar[str] = "step"
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    samples_per_s: float
    left_s: float


@dataclass(frozen=True, eq=False)
class EpochEnd(Event):
    """An epoch of a training is done; all but ``left_s`` becomes an entry of the row's history.

    Args:
        epoch: from 1.
        epochs: how many there will be at most.
        loss: mean over the epoch, weighted.
        losses: mean over the epoch of each loss by its name, unweighted; none from the loop itself.
        validation_loss: of the weights that would leave the training now; ``None`` without labels.
        samples_per_s: of training alone.
        left_s: until the end of the last epoch, in seconds.
        part: which of several trainings of the stage, whose epochs are counted through.
    """

    event: ClassVar[str] = "epoch"
    epoch: int
    epochs: int
    loss: float
    losses: Mapping[str, float]
    validation_loss: float | None
    samples_per_s: float
    left_s: float
    part: str | None = None


@dataclass(frozen=True, eq=False)
class Resumed(Event):
    """A training is resumed from a checkpoint.

    Args:
        epoch: the last whole one, from 1; 0 for none.
        seconds: that the training took until then.
        history: of its epochs, each as :class:`EpochEnd` without ``event`` and ``left_s``.
    """

    event: ClassVar[str] = "resumed"
    epoch: int
    seconds: float
    history: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class StageProgress(Event):
    """How far a stage is with something that it does several times.

    Args:
        what: it does, such as ``running the teacher, view``.
        number: which one begins now, from 1.
        count: how many there are.
    """

    event: ClassVar[str] = "progress"
    what: str
    number: int
    count: int


@dataclass(frozen=True, eq=False)
class Widths(Event):
    """Channels were cut.

    Args:
        asked: the share of channels that was to be removed.
        layers: every layer, as the record's ``widths`` have it.
    """

    event: ClassVar[str] = "widths"
    asked: float
    layers: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class CandidateMeasured(Event):
    """A stage had a candidate measured with ``context.evaluator``.

    Args:
        bytes: of its artifact.
        score: the metric on the validation split; ``None`` where only its time was asked for.
        score_ci95: its 95 % interval, likewise.
        speedup: the time of the candidate that came in over this one's; ``None`` if not timed.
        speedup_ci95: its 95 % interval, likewise.
        latency_s: the median of one inference at the target's batch size, in seconds.
    """

    event: ClassVar[str] = "candidate"
    bytes: int
    score: float | None
    score_ci95: tuple[float, float] | None
    speedup: float | None
    speedup_ci95: tuple[float, float] | None
    latency_s: float | None


# What a stage reports of a dry run, which only the forecast reads, and adds up.
@dataclass(frozen=True, eq=False)
class Pace(Event):
    """About how long a training will take.

    Args:
        seconds: of the whole training.
    """

    event: ClassVar[str] = "pace"
    seconds: float


@dataclass(frozen=True, eq=False)
class CacheSize(Event):
    """What the cached outputs of a teacher will take on disk.

    Args:
        bytes: of all views.
    """

    event: ClassVar[str] = "answers"
    bytes: int


#: Every event above by its name.
EVENTS: Mapping[str, type[Event]] = MappingProxyType(
    {kind.event: kind for kind in Event.__subclasses__()}
)


def parse_event(event: Mapping[str, Any]) -> Event | None:
    """The event that a mapping stands for, such as a callback's argument or a line of the log.

    Keys that are no field of it (``stage``, ``time_s``, ``crc32``, a stage's own) are left out.
    ``None`` where the name is not listed, or a field is missing.
    """
    kind = EVENTS.get(str(event.get("event")))
    if kind is None:
        return None
    wanted = fields(kind)
    if any(one.default is MISSING and one.name not in event for one in wanted):
        return None
    return kind(**{one.name: event[one.name] for one in wanted if one.name in event})
