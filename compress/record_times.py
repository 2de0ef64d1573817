"""What a record has of times: of one inference, against the baseline, and at each open size.

Blocks of ``record.json`` (:mod:`compress.record`).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

__all__ = ["Latency", "SizeTiming", "Speedup"]


class _TimeFacts(BaseModel):
    # Readers of newer files must not fail on names that were added since.
    model_config = ConfigDict(extra="allow")


class Latency(_TimeFacts):
    """Of one inference at the target's batch size.

    ``p50_s`` is the median over processes of each process's median; ``p90_s``, ``p99_s`` pool the
    iterations and are ``None`` where the number of samples cannot support them. One of ``samples``
    is the time of ``runs_per_sample`` inferences; older records do not say how many.
    """

    p50_s: float
    p90_s: float | None
    p99_s: float | None
    ci95_p50_s: tuple[float, float]
    processes: int
    samples: int
    runs_per_sample: int | None = None


class Speedup(_TimeFacts):
    """Baseline time over this row's time, paired by round; above 1 is faster.

    ``verdict`` is one of ``faster``, ``slower``, ``no difference shown``, ``noisy``, ``baseline``.
    """

    value: float
    ci95: tuple[float, float]
    verdict: str = ""
    noise_floor: float | None = None


class SizeTiming(_TimeFacts):
    """A file with open sizes at one of them: ``batch`` samples of ``length`` tokens.

    ``latency`` is of one inference of them all; ``length`` is absent where it is not open.
    """

    batch: int
    length: int | None = None
    latency: Latency | None = None
    speedup: Speedup | None = None

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {key: value for key, value in content.items() if key != "length" or value}
