"""``compresskit doctor``: what this machine can do, with a fix for what it cannot."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from compress.errors import DataError
from compress.measure.local import LocalTarget

_REQUIRED = ("torch", "torch-pruning", "accelerate", "onnx", "onnxscript", "onnxruntime")
_LEAST_DISK_BYTES = 2 << 30
_LEAST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``fix`` is what to do where it is not ``ok``."""

    state: Literal["ok", "note", "missing"]
    what: str
    fix: str = ""


def run(_: argparse.Namespace) -> int:
    """Run the command; 1 where something needed is missing."""
    findings = [finding for check in CHECKS for finding in check()]
    for finding in findings:
        print(f"  {finding.state:<8}{finding.what}")
        if finding.fix:
            print(f"  {'':<8}-> {finding.fix}")
    return int(any(finding.state == "missing" for finding in findings))


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < _LEAST_PYTHON:
        yield Finding("missing", f"Python {version}", "install Python 3.10 or newer")
    else:
        yield Finding("ok", f"Python {version}")


def _packages() -> Iterator[Finding]:
    for name in _REQUIRED:
        try:
            yield Finding("ok", f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding("missing", f"{name} is not installed", f"pip install {name}")


def _processor() -> Iterator[Finding]:
    target = LocalTarget()
    device = target.environment()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", f"{device.get('cpu', platform.processor())}, {cores} cores to use")
    if target.lowering().avoid_saturation:
        yield Finding(
            "note",
            "no VNNI: int8 products are summed in 16 bits, which can overflow",
            "nothing to do: weights are encoded so that they cannot; int8 gains less speed here",
        )
    else:
        yield Finding("ok", "int8 dot products without overflow")


def _accelerator() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield Finding("ok", f"training on {torch.cuda.get_device_name()}")
    else:
        yield Finding(
            "note",
            "no GPU that torch can use: training runs on the CPU",
            "small students, `views` for the teacher, and patience; or train elsewhere",
        )


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(".").free
    if free < _LEAST_DISK_BYTES:
        yield Finding(
            "note", f"{free / 2**30:.1f} GiB of disk free here", "free some, or use --out elsewhere"
        )
    else:
        yield Finding("ok", f"{free / 2**30:.0f} GiB of disk free here")


def _clock() -> Iterator[Finding]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    if load > 0.5 * cores:
        yield Finding(
            "note",
            f"the machine is busy: load {load:.1f} on {cores} cores",
            "measurements will take longer and be wider; stop what else is running",
        )
    else:
        yield Finding("ok", f"the machine is quiet: load {load:.1f} on {cores} cores")


def _data() -> Iterator[Finding]:
    from compress.tasks.fashion_mnist import find

    try:
        yield Finding("ok", f"Fashion-MNIST in {find()}")
    except DataError as error:
        yield Finding(
            "note", "Fashion-MNIST is not here (recipes on digits need nothing)", str(error)
        )


#: In the order in which they are shown.
CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _processor,
    _accelerator,
    _disk,
    _clock,
    _data,
)
