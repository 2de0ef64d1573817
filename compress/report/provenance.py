"""Where the numbers of a record come from: device, sample sizes, mode, date.

Environments are written by targets, which may be anyone's: a fact that is not there is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.formatting import sanitize
from compress.record import Latency, Record

__all__ = [
    "caption",
    "device_id",
    "device_name",
    "reference",
    "runs_each",
    "scored_against",
    "target_environment",
]


def target_environment(record: Record, target: str) -> Mapping[str, Any]:
    """What ``target`` said about itself; empty if nothing."""
    targets = record.environment.get("targets")
    found = targets.get(target) if isinstance(targets, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def device_id(record: Record, target: str) -> str | None:
    """The fingerprint of the device behind ``target``; ``None`` if it is not known."""
    found = target_environment(record, target).get("device_id")
    return str(found) if found else None


def device_name(record: Record, target: str) -> str:
    """The board or CPU behind ``target``; its name in the recipe where the device did not say."""
    return sanitize(_fact(record, target, "board", "cpu") or target, 60)


def caption(record: Record, target: str, *others: tuple[Record, str]) -> str:
    """One line for below a figure: device, runtime, sample sizes, interval level, mode, date.

    Args:
        record: what is shown.
        target: where it was measured.
        others: further records that are shown with it, each with its target.
    """
    shown = ((record, target), *others)
    found = [m for one, on in shown for row in one.rows if (m := row.on(on)) is not None]
    timed = [m.latency for m in found if m.latency is not None]
    runtimes = dict.fromkeys(sanitize(m.runtime, 30) for m in found)
    provider = _fact(record, target, "provider")
    noun = "timed runs" if all(runs_each(latency) == 1 for latency in timed) else "timings"
    modes = dict.fromkeys(str(mode) for one in shown if (mode := _fact(*one, "mode")))
    date = _fact(record, target, "date", "started")
    facts = [
        device_name(record, target),
        " + ".join(runtimes) + (f" on {sanitize(provider, 20)}" if provider else ""),
        f"{record.task.test_samples:,} test samples",
        scored_against(record),
        _span([latency.processes for latency in timed], "processes"),
        _span([latency.samples for latency in timed], f"{noun} per row"),
        "bars: 95 % intervals",
        " and ".join(f"{sanitize(mode, 20)} mode" for mode in modes),
        sanitize(date)[:10] if date else "",
    ]
    return " · ".join(fact for fact in facts if fact)


def reference(record: Record) -> str:
    """What the metric is scored against where that is not the labels; empty where it is."""
    return sanitize(getattr(record.task, "reference", None) or "", 80)


def scored_against(record: Record) -> str:
    """The same as words: ``scored against row 0``."""
    found = reference(record)
    return f"scored against {found}" if found else ""


def runs_each(latency: Latency) -> int | None:
    """How many inferences each timing is of; ``None`` where an older record does not say."""
    if latency.runs_per_sample is None and latency.p90_s is not None:
        return 1  # percentiles are given of single inferences alone
    return latency.runs_per_sample


def _fact(record: Record, target: str, *names: str) -> object:
    said = target_environment(record, target)
    device = said.get("device")
    for source in (device if isinstance(device, Mapping) else {}, said, record.environment):
        for name in names:
            if source.get(name):
                return source[name]
    return None


def _span(counts: list[int], noun: str) -> str:
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"{low:,} {noun}" if low == high else f"{low:,} to {high:,} {noun}"
