"""What remains of a run: the forecast of its dry run, put right by what has been measured since."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from compress.events import (
    EpochEnd,
    Event,
    Expected,
    MeasurementReused,
    MeasureStart,
    RunStart,
    StageStart,
    StepEnd,
    parse_event,
)

__all__ = ["Remaining", "about"]

# A forecast that was wrong by more is of something else, such as a stage that stopped early.
_MOST_WRONG = 5.0
_SHORTEST_S = 1.0


class Remaining:
    """Follows a run's events, and says about how long the whole of it will still take.

    Trainings that are over say by what factor the forecasts of the others are wrong, and the row
    that took longest to be measured how long the others take.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._start_s = self._since_s = self._clock()
        self._row, self._last, self._is_training = 0, 0, False
        self._ends_s: float | None = None  # of the training, as its last step said
        self._training_s: dict[int, float] = {}
        self._measuring_s: float | None = None
        self._measuring: int | None = None  # the row
        self._took_s: list[float] = []  # each measurement
        self._done: set[int] = set()  # rows that were measured
        self._trained_s, self._forecast_s = 0.0, 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.take(parse_event(event))

    def take(self, event: Event | None) -> None:
        """Take one event that was parsed."""
        now = self._clock()
        match event:
            case RunStart():
                self._begin()
            case Expected(training_s=training_s, measuring_s=measuring_s):
                self._training_s = {int(row): seconds for row, seconds in training_s.items()}
                self._measuring_s = measuring_s
                self._since_s = now if self._is_training else self._since_s
            case StageStart(index=index, of=last):
                self._end_measuring(now)
                self._row, self._last, self._is_training = index, last, True
                self._since_s, self._ends_s = now, None
            case StepEnd(left_s=left_s) | EpochEnd(left_s=left_s):
                self._ends_s = now + left_s
            case MeasureStart(index=index):
                self._end_training(now)
                self._end_measuring(now)
                self._measuring, self._since_s = index, now
            case MeasurementReused(index=index):
                self._end_training(now)
                self._end_measuring(now)
                self._done.add(index)

    @property
    def left_s(self) -> float | None:
        """About how many seconds the run will still take; ``None`` before that can be known."""
        if self._measuring_s is None:
            return None
        now, factor = self._clock(), self._factor
        ahead = [s for row, s in self._training_s.items() if row > self._row]
        left = sum(ahead) * factor
        if self._is_training:
            left += self._left_of_stage(now, factor)
        rows = [row for row in range(self._last + 1) if row not in self._done]
        # Not the mean: a row that was timed in the session of another takes none of its own.
        each = max(self._took_s, default=self._measuring_s)
        left += each * len(rows)
        if self._measuring in rows:
            left -= min(each, now - self._since_s)
        return left

    @property
    def words(self) -> str:
        """Such as ``about 3 min left of about 5 min``; empty before that can be known."""
        known = self._left_of_whole_s
        return "" if known is None else f"{about(known[0])} left of {about(known[1])}"

    @property
    def brief(self) -> str:
        """The same for a line with little room, such as ``run: 3 of 5 min left``."""
        known = self._left_of_whole_s
        if known is None:
            return ""
        (left, unit), (whole, of) = map(_rounded, known)
        return f"run: {left}{'' if unit == of else f' {unit}'} of {whole} {of} left"

    @property
    def _left_of_whole_s(self) -> tuple[float, float] | None:
        left = self.left_s
        return None if left is None else (left, left + self._clock() - self._start_s)

    @property
    def _factor(self) -> float:
        if self._forecast_s < _SHORTEST_S:
            return 1.0
        return min(max(self._trained_s / self._forecast_s, 1 / _MOST_WRONG), _MOST_WRONG)

    def _left_of_stage(self, now: float, factor: float) -> float:
        if self._ends_s is not None:
            return max(self._ends_s - now, 0.0)
        return max(self._training_s.get(self._row, 0.0) * factor - (now - self._since_s), 0.0)

    def _end_training(self, now: float) -> None:
        if self._is_training and self._ends_s is not None and self._row in self._training_s:
            self._trained_s += now - self._since_s
            self._forecast_s += self._training_s[self._row]
        self._is_training = False

    def _end_measuring(self, now: float) -> None:
        if self._measuring is not None:
            self._took_s.append(now - self._since_s)
            self._done.add(self._measuring)
        self._measuring = None


def about(seconds: float) -> str:
    """A time that is not known well, such as ``about 40 s`` or ``about 3 min``."""
    return "a few seconds" if seconds < 5 else f"about {' '.join(_rounded(seconds))}"


def _rounded(seconds: float) -> tuple[str, str]:
    """A time that is not known well, and its unit."""
    if seconds < 90:
        step = 5 if seconds < 30 else 10
        return f"{max(step, round(seconds / step) * step)}", "s"
    if seconds < 5400:
        return f"{seconds / 60:.0f}", "min"
    return f"{seconds / 3600:.1f}", "h"
