"""Machine: from the facts that a worker reports to a fingerprint, and to an encoding.

``device`` is what the hardware and the runtime are, ``state`` is how they are set, ``volatile`` is
how they were at that moment. Numbers from different devices do not belong on one Pareto front;
those from different states want a note.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from compress.measure.ondevice.runtimes import RUNTIMES

if TYPE_CHECKING:
    from compress.measure.ondevice.runtimes.base import Runtime

__all__ = ["describe", "saturates"]

_DEVICE = (
    *("arch", "cpu", "board", "isa", "cores", "max_khz", "memory_gib"),
    *(*RUNTIMES, "build", "providers", "provider"),
)
_STATE = ("system", "kernel", "python", "governor", "boost", "affinity", "cpu_limit", "mains_power")


def describe(facts: Mapping[str, object], *, threads: int, batch: int) -> dict[str, Any]:
    """The ``environment`` of a target, from the answer to the worker's ``environment`` job."""
    device = {key: facts[key] for key in _DEVICE if key in facts}
    state = {key: facts[key] for key in _STATE} | {
        "threads": threads,
        "batch": batch,
        "session": _runtime_in(facts).settings,
    }
    return {
        "device_id": _digest(device),
        "state_id": _digest(state),
        "cpu": facts["cpu"],
        "device": device,
        "state": state,
        "volatile": {k: v for k, v in facts.items() if k not in (*_DEVICE, *_STATE)},
    }


def _runtime_in(facts: Mapping[str, object]) -> Runtime:
    """The runtime whose version is among the facts; the default one where there is none."""
    default, *others = RUNTIMES.values()
    return next((each for each in others if each.name in facts), default)


def _digest(facts: Mapping[str, object]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def saturates(*, arch: str, system: str, flags: Collection[str]) -> bool:
    """Whether int8 kernels may overflow their 16-bit sums of pairs on this CPU.

    Those of onnxruntime do on x86 without VNNI (``vpmaddubsw``), in u8s8 and s8s8 alike. ARM's dot
    product and matrix instructions sum in 32 bits. What is not known is taken to saturate: the
    narrower weight grid that avoids it costs no time and little accuracy.
    """
    if arch.lower() in ("arm64", "aarch64"):
        # All of Apple's 64-bit desktop processors have the dot product; macOS lists no flags.
        return not (system == "Darwin" or {"asimddp", "i8mm"} & set(flags))
    return not {"avx512_vnni", "avx_vnni"} & set(flags)
