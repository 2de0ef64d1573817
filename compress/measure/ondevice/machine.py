"""The machine that this process runs on: its CPU, its limits, and how it is set at the moment.

What a system does not tell is left empty, or taken to be without limit.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import MachineFacts, MachineState

__all__ = [
    "ISA_FLAGS",
    "SYS",
    "cpu_count",
    "cpu_flags",
    "cpu_quota",
    "free_memory_bytes",
    "machine",
    "machine_state",
    "memory_room",
    "read_file",
    "time_fixed_loop",
]

ISA_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)
_FIXED_LOOPS = 40_000  # about 5 ms on a core of the 2020s
SYS = Path("/sys")


def read_file(path: str) -> str:
    """The text of a small file of the system, stripped; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _cpuinfo(*keys: str) -> list[str]:
    lines = (line.partition(":") for line in read_file("/proc/cpuinfo").splitlines())
    return [value.strip() for key, _, value in lines if key.strip() in keys]


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the CPU; empty where the system does not tell."""
    return frozenset(
        itertools.chain.from_iterable(v.split() for v in _cpuinfo("flags", "Features"))
    )


def cpu_quota(folder: Path) -> float:
    """The CPU quota of one control group in cores, infinite if it has none (cgroup v2 or v1)."""
    text = read_file(f"{folder}/cpu.max") or " ".join(
        read_file(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period")
    )
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else math.inf


def _groups(controller: str) -> list[Path]:
    """Folders of this process's control groups and of those above them (cgroup v2 or v1)."""
    found: list[Path] = []
    for line in read_file("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = Path(f"/sys/fs/cgroup/{controller}" if controllers else "/sys/fs/cgroup")
            parts = path.strip("/").split("/")
            found += [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return found


def _cpu_limit() -> float:
    """The tightest CPU quota, in cores, of this process's control groups and those above them."""
    return min(map(cpu_quota, _groups("cpu")), default=math.inf)


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_count() -> int:
    """Cores that this process may use: its affinity, within its control groups' quota.

    ``os.cpu_count`` and onnxruntime's default both ignore containers.
    """
    limit = _cpu_limit()
    return max(
        1, len(_affinity()) if math.isinf(limit) else min(len(_affinity()), math.ceil(limit))
    )


def memory_room(folder: Path) -> float:
    """Bytes that one control group may still take, infinite if it has no limit (v2 or v1)."""
    limit = read_file(f"{folder}/memory.max") or read_file(f"{folder}/memory.limit_in_bytes")
    used = read_file(f"{folder}/memory.current") or read_file(f"{folder}/memory.usage_in_bytes")
    if not (limit.isdigit() and used.isdigit()):
        return math.inf
    # What was read from files counts as used, and makes way.
    cache = read_file(f"{folder}/memory.stat").partition("inactive_file ")[2].split()
    return int(limit) - int(used) + (int(cache[0]) if cache else 0)


def free_memory_bytes() -> float:
    """What this process could take: the system's free memory, within its control groups' limits.

    Infinite where the system does not tell.
    """
    free = read_file("/proc/meminfo").partition("MemAvailable:")[2].split()
    system = int(free[0]) * 1024 if free else math.inf
    return min([system, *map(memory_room, _groups("memory"))])


def machine() -> MachineFacts:
    """What the device is and how it is set; see :class:`.answers.MachineFacts`."""
    cpu = sorted(set(_cpuinfo("model name"))) or sorted(
        set(_cpuinfo("CPU implementer", "CPU part"))
    )
    supplies = sorted(Path("/sys/class/power_supply").glob("*/online"))
    memory = read_file("/proc/meminfo").partition("MemTotal:")[2].split()
    return {
        "arch": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "cpu": ", ".join(cpu) or platform.processor(),
        "board": read_file("/proc/device-tree/model"),
        "isa": [flag for flag in ISA_FLAGS if flag in cpu_flags()],
        "cores": os.cpu_count() or 1,
        "max_khz": _found("devices/system/cpu/cpufreq/policy*/cpuinfo_max_freq"),
        "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
        "python": platform.python_version(),
        "boost": read_file("/sys/devices/system/cpu/cpufreq/boost"),
        "affinity": _affinity(),
        "cpu_limit": None if math.isinf(_cpu_limit()) else _cpu_limit(),
        "mains_power": [read_file(str(supply)) == "1" for supply in supplies],
        "pressure": read_file("/proc/pressure/cpu").partition("\n")[0],
        **machine_state(),
    }


def _found(pattern: str) -> list[str]:
    """The texts of the files in ``/sys`` that fit a pattern, in the order of their names."""
    return [read_file(str(path)) for path in sorted(SYS.glob(pattern))]


def _numbers(pattern: str) -> list[int]:
    return [int(text) for text in _found(pattern) if text.isdigit()]


def machine_state() -> MachineState:
    """How the machine is set and is at this moment; see :class:`.answers.MachineState`."""
    cooling = sorted(SYS.glob("class/thermal/cooling_device*"))
    of_cpu = [each for each in cooling if re.search("cpufreq|Processor", read_file(f"{each}/type"))]
    return {
        "governor": sorted(set(_found("devices/system/cpu/cpufreq/policy*/scaling_governor"))),
        "khz": _numbers("devices/system/cpu/cpufreq/policy*/scaling_cur_freq"),
        "temperatures_mc": _numbers("class/thermal/thermal_zone*/temp"),
        "throttled": "".join(_found("devices/platform/soc*/*firmware/get_throttled")[:1]),
        "throttle_count": sum(_numbers("devices/system/cpu/cpu*/thermal_throttle/*_count")),
        "cooling": sum(read_file(f"{each}/cur_state") not in ("", "0", "-1") for each in of_cpu),
        "load": _load(),
    }


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def time_fixed_loop() -> int:
    """Nanoseconds of a fixed piece of integer work: the only sensor where there is no cpufreq."""
    begin = time.perf_counter_ns()
    value = 1
    for _ in range(_FIXED_LOOPS):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return time.perf_counter_ns() - begin
