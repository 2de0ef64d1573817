"""Plan: how hard each mode of measuring tries. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping

from compress.measure.ondevice.plan import Plan
from compress.measure.target import Mode

__all__ = ["PLANS", "Plan"]


PLANS: Mapping[Mode, Plan] = {
    # For search loops: seconds.
    "quick": Plan(
        bound=0.05,
        min_rounds=3,
        max_rounds=5,
        budget_s=30,
        memory_processes=1,
        checks=False,
        timing={"window_s": 0.02, "warmup_cap_s": 0.15, "sample_s": 0.15, "least": 10, "cap_s": 1},
    ),
    # For the record: half a minute for two small models on a machine that is not quite quiet.
    "default": Plan(
        bound=0.02,
        min_rounds=5,
        max_rounds=12,
        budget_s=180,
        memory_processes=2,
        checks=True,
        timing={"window_s": 0.05, "warmup_cap_s": 0.3, "sample_s": 0.3, "least": 20, "cap_s": 5},
        energy_s=3,
    ),
    # For publication: minutes.
    "strict": Plan(
        bound=0.01,
        min_rounds=6,
        max_rounds=30,
        budget_s=1800,
        memory_processes=2,
        checks=True,
        timing={"window_s": 0.2, "warmup_cap_s": 10, "sample_s": 3, "least": 100, "cap_s": 10},
        energy_s=10,
    ),
}
