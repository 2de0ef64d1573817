"""How hard a session tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Plan", "checked_plan"]


@dataclass(frozen=True)
class Plan:
    """How hard to try.

    Rounds are added until the 95 % interval of every ratio is within ``bound`` on either side (not
    until it is significant): at least ``min_rounds``, at most ``max_rounds``, and none after
    ``budget_s`` once there are enough. ``timing`` goes to the worker's ``time`` job as it is.
    ``energy_s`` is how long a model runs for its energy to be read, on devices that tell it.
    """

    bound: float
    min_rounds: int
    max_rounds: int
    budget_s: float
    memory_processes: int
    checks: bool
    timing: Mapping[str, float]
    energy_s: float = 0.0


def checked_plan(given: Mapping[str, Any]) -> Plan:
    """A plan from plain data.

    Raises:
        TypeError: other fields than those of :class:`Plan`, or no numbers in them.
        ValueError: numbers with which nothing can be measured.
    """
    plan = Plan(**given)
    if not 2 <= plan.min_rounds <= plan.max_rounds or plan.memory_processes < 1:
        raise ValueError("a plan needs 2 rounds and 1 process for memory, at least")
    if not all(number > 0 for number in (plan.bound, plan.budget_s, *plan.timing.values())):
        raise ValueError("the bound, budget and times of a plan must be positive")
    if not plan.energy_s >= 0:
        raise ValueError("energy_s of a plan must be 0 or more")
    return plan
