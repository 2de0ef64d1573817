"""What an event of a run says: a line that stays, or one that is replaced by the next."""

from __future__ import annotations

from dataclasses import dataclass

from compress.events import (
    CandidateMeasured,
    EpochEnd,
    Event,
    MeasurementReused,
    MeasureStart,
    Notice,
    ReadingData,
    Redone,
    Rehearsal,
    Resumed,
    StageProgress,
    StageStart,
    StageWarning,
    StepEnd,
)

__all__ = ["Moving", "RunLines", "Staying", "clock"]


@dataclass(frozen=True)
class Staying:
    """A line that stays. ``is_step`` is of one that says where the run is, and no more."""

    text: str
    is_step: bool = False


@dataclass(frozen=True)
class Moving:
    """A line that is replaced by the next.

    Args:
        text: without the stage.
        done: which share of the stage is, if that is known.
        left_s: until the end of the stage; 0 where that is not known.
        is_brief: whether it is worth no line where lines stay.
    """

    text: str
    done: float | None = None
    left_s: float = 0.0
    is_brief: bool = False


class RunLines:
    """Turns a run's events into lines."""

    def __init__(self) -> None:
        self.stage, self._of = "", 0  # the label of a stage with its row, and the last row
        self._index = 0

    def of(self, event: Event | None) -> Staying | Moving | None:
        """What to show of one event; of a stage of the user's own, only those that are listed."""
        match event:
            case StageStart(index=index, label=label, of=last):
                self._of, self._index = last, index
                self.stage = self._at(index, label)
                return Staying(self.stage, is_step=True)
            case StepEnd() as step:
                done = step.epoch - 1 + step.step / step.steps
                return Moving(_step(step), done / step.epochs, step.left_s, is_brief=True)
            case EpochEnd() as epoch:
                return Moving(_epoch(epoch), epoch.epoch / epoch.epochs, epoch.left_s)
            case StageProgress(what=what, number=number, count=count):
                return Moving(f"{what} {number}/{count}", (number - 1) / count)
            case ReadingData(what=what):
                return Moving(f"reading {what}", is_brief=True)
            case Rehearsal():
                return Moving("trying all stages on a few samples", is_brief=True)
            case MeasureStart(index=index, label=label):
                return Staying(self._measuring(index, label), is_step=True)
            case MeasurementReused(index=index, label=label):
                return Staying(
                    f"{self._at(index, label)}: unchanged, measurements re-used", is_step=True
                )
        text = self._said(event)
        return None if text is None else Staying(text)

    def _said(self, event: Event | None) -> str | None:
        match event:
            case Resumed(epoch=epoch):
                return f"{self.stage}: resumed after epoch {epoch}"
            case StageWarning(text=text):
                return f"{self.stage}: {text}"
            case Redone(index=index, label=label, why=why, what=what):
                return f"{self._at(index, label)}: {what or 'done'} again, since {why}"
            case Notice(text=text):
                return text
            case CandidateMeasured() as tried:
                return f"{self.stage}: measured a candidate, {_candidate_text(tried)}"
        return None

    def _measuring(self, index: int | None, label: str | None) -> str:
        if index is not None and index < self._index:  # it is no start from the beginning
            return f"{self.stage}: measuring row {index} ({label}) beside it"
        return f"{self._at(index, label)}: measuring"

    def _at(self, index: int | None, label: str | None) -> str:
        # Rows are measured again once there is a baseline: an event may be of an earlier stage.
        if index is None:  # a net of a suite
            return self.stage
        return f"[{index}/{self._of}] {label}"


def clock(seconds: float) -> str:
    """A time as a clock has it: ``1:05`` or ``2:00:00``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _epoch(epoch: EpochEnd) -> str:
    validation = epoch.validation_loss
    seen = "" if validation is None else f", validation {validation:.4f}"
    return (
        f"epoch {epoch.epoch}/{epoch.epochs}, loss {epoch.loss:.4f}{seen}, "
        f"{epoch.samples_per_s:.0f} samples/s"
    )


def _step(step: StepEnd) -> str:
    return (
        f"epoch {step.epoch}/{step.epochs}, step {step.step}/{step.steps}, "
        f"loss {step.loss:.4f}, {step.samples_per_s:.0f} samples/s"
    )


def _candidate_text(tried: CandidateMeasured) -> str:
    text = f"{tried.bytes / 1024:.1f} KiB"
    if tried.score is not None:
        text += f", score {tried.score:.4f}"
    return text if tried.speedup is None else f"{text}, {tried.speedup:.2f}x as fast as before"
