"""What a profile holds: plain data, in seconds and shares of one inference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "KINDS",
    "Island",
    "Kind",
    "ModuleChange",
    "OperatorGroup",
    "Profile",
    "Remedy",
    "SessionSetting",
    "Time",
]

#: ``convert``: to and from integers and half floats. ``layout``: the same values in another order.
#: ``move``: what else computes nothing. ``outside``: between operators, and around all of them.
Kind = Literal["int8", "float", "convert", "layout", "move", "outside"]
KINDS: tuple[Kind, ...] = ("int8", "float", "convert", "layout", "move", "outside")


@dataclass(frozen=True)
class Time:
    """Of one inference: the mean over processes, its share of the whole, and that share's interval.

    ``ci95`` is Student's over processes.
    """

    seconds: float
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class OperatorGroup:
    """A module or a type of operator: its name, the operators in it, how often they run."""

    name: str
    operators: dict[str, int]
    time: Time


@dataclass(frozen=True)
class Remedy:
    """Why operators are not in int8, and what could be done about it."""

    cause: str
    cure: str


@dataclass(frozen=True)
class Island:
    """Operators that run in float in a graph that is int8 elsewhere.

    ``time`` includes the conversions at its boundary. ``place`` is ``between`` int8 operators, or
    at the ``start`` or ``end`` of the graph.
    """

    operators: tuple[str, ...]
    modules: tuple[str, ...]
    place: Literal["between", "start", "end"]
    remedies: tuple[Remedy, ...]
    time: Time


@dataclass(frozen=True)
class SessionSetting:
    """One way to open the session: medians over processes; peak memory above the runtime's."""

    name: str
    create_s: float
    run_s: float
    model_peak_bytes: int | None


@dataclass(frozen=True)
class ModuleChange:
    """A module's time less that of the same module in the reference, with its 95 % interval."""

    module: str
    seconds: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """Where the time of one model goes.

    ``speedup`` and ``ci95_speedup`` are against the first model, paired by rounds; ``verdict`` is
    as of :func:`compress.measure.stats.verdict`, or ``not compared`` where the inputs, whose sizes
    are ``shapes``, were of other sizes. ``changes`` are against it too, slowest first.
    ``int8_mac_fraction`` is ``None`` for a model without products.
    """

    name: str
    processes: int
    batch: int
    latency_s: float
    ci95_latency_s: tuple[float, float]
    speedup: float | None
    ci95_speedup: tuple[float, float] | None
    verdict: str
    int8_mac_fraction: float | None
    kinds: dict[Kind, Time]
    modules: tuple[OperatorGroup, ...]
    operators: tuple[OperatorGroup, ...]
    islands: tuple[Island, ...]
    changes: tuple[ModuleChange, ...]
    settings: tuple[SessionSetting, ...]
    summary: str
    notes: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
