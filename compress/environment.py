"""Environment: the machine and the packages behind a record. No heavy imports."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

__all__ = ["environment", "package_versions", "process_count", "process_index"]

_PACKAGES = (
    "compresskit",
    "torch",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "accelerate",
    "numpy",
)


# What torchrun and accelerate set, and three kinds of mpirun.
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_INDICES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def process_count() -> int:
    """How many processes were launched together; 1 where nothing was said."""
    return _first_number(_COUNTS, 1)


def process_index() -> int:
    """Which of them this is, from 0."""
    return _first_number(_INDICES, 0)


def package_versions(runtimes: Iterable[str] = ()) -> dict[str, str]:
    """Installed versions of the packages that results depend on, those of ``runtimes`` too."""
    found = {}
    for name in dict.fromkeys((*_PACKAGES, *runtimes)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """The ``environment`` block of a record, less what targets say of themselves."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": package_versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _first_number(names: Sequence[str], otherwise: int) -> int:
    values = [os.environ.get(name, "") for name in names]
    return next((int(value) for value in values if value.isdecimal()), otherwise)
