"""How long a mix of samples takes: all of them the student, and a share of them the larger model.

Both models are timed in one session, in turns (:mod:`compress.measure.compare`); a mix is worked
out from the times of each. The score is timed by itself, as the numpy that it is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.errors import MeasurementError
from compress.measure import stats

__all__ = ["MixTimes", "mix_times", "seconds_of"]

Array = np.ndarray[Any, Any]

_DRAWS, _SEED = 20_000, 0
_CALLS, _BLOCKS = 50, 10


@dataclass(frozen=True)
class MixTimes:
    """The times of two models and of the score between them.

    Args:
        student: seconds of each inference, an array for each round.
        larger: likewise, of the same rounds.
        score_s: seconds that the score takes for one sample.
        student_is_grouped: whether a time of the student is the mean of several inferences.
        larger_is_grouped: likewise.
    """

    student: Sequence[Array]
    larger: Sequence[Array]
    score_s: float
    student_is_grouped: bool = False
    larger_is_grouped: bool = False

    @property
    def student_s(self) -> float:
        """Mean seconds of the student."""
        return float(np.mean([each.mean() for each in self.student]))

    @property
    def larger_s(self) -> float:
        """Mean seconds of the larger model."""
        return float(np.mean([each.mean() for each in self.larger]))

    @property
    def rounds(self) -> int:
        """Fresh processes of each."""
        return len(self.larger)

    def mean_s(self, share: float) -> float:
        """Mean seconds of one sample where this share goes back."""
        return self.student_s + self.score_s + share * self.larger_s

    def ratio(self, share: float) -> tuple[float, tuple[float, float]]:
        """The mean over that of the larger model alone, with its 95 % interval over rounds."""
        means = [[each.mean() for each in one] for one in (self.larger, self.student)]
        constant = share + self.score_s / self.larger_s
        if self.rounds < 2:
            value = means[1][0] / means[0][0] + constant
            return float(value), (float(value), float(value))
        faster = stats.paired_ratio(*means)
        low, high = (1 / end + constant for end in (faster.ci95.hi, faster.ci95.lo))
        return 1 / faster.value + constant, (low, high)

    def p99_s(self, share: float) -> float | None:
        """The 99th percentile of the mix; ``None`` where the samples cannot support it.

        That is where it lies among times which are means of several inferences, or there are too
        few. The times of both models are taken as independent of each other.
        """
        student, larger = (np.concatenate(list(each)) for each in (self.student, self.larger))
        # Above a hundredth of samples it lies among those that went back.
        is_grouped = self.larger_is_grouped if share > 0.01 else self.student_is_grouped
        fewest = stats.FEWEST_SAMPLES[0.99]
        if is_grouped or min(len(student), len(larger) if share else fewest) < fewest:
            return None
        rng = np.random.default_rng(_SEED)
        drawn = rng.choice(student, _DRAWS) + self.score_s
        back = round(share * _DRAWS)
        drawn[:back] += rng.choice(larger, back) if back else 0
        return float(np.quantile(drawn, 0.99))


def mix_times(lines: Iterable[Mapping[str, Any]], score_s: float) -> MixTimes:
    """The times of a session of two models, the larger one first, from its raw lines.

    Raises:
        MeasurementError: they have no round of both.
    """
    rounds: dict[int, dict[int, tuple[Array, int]]] = {}
    for line in lines:
        if line.get("kind") == "time" and "samples_ns" in line:
            runs = int(line["runs_per_sample"])
            times = np.asarray(line["samples_ns"], np.float64) / runs / 1e9
            own = rounds.setdefault(int(line["round"]), {})
            if line["index"] in own:  # the baseline is there twice
                times = np.concatenate([own[line["index"]][0], times])
            own[line["index"]] = times, runs
    both = [rounds[number] for number in sorted(rounds) if {0, 1} <= rounds[number].keys()]
    if not both:
        raise MeasurementError("cascade: no round of the session timed both models; repeat it.")
    return MixTimes(
        student=[each[1][0] for each in both],
        larger=[each[0][0] for each in both],
        score_s=score_s,
        student_is_grouped=both[0][1][1] > 1,
        larger_is_grouped=both[0][0][1] > 1,
    )


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of one call: the median over blocks of calls, after one that warms up."""
    blocks = []
    for _ in range(_BLOCKS + 1):
        begin = time.perf_counter()
        for _ in itertools.repeat(None, _CALLS):
            work()
        blocks.append((time.perf_counter() - begin) / _CALLS)
    return float(np.median(blocks[1:]))
