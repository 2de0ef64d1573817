"""``compresskit doctor``: what this machine, or a device, can do, with a fix for what it cannot."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata

from compress.cli.targets import target_of
from compress.errors import DataError
from compress.measure.local import LocalTarget
from compress.measure.ondevice.machine import read_file
from compress.measure.ondevice.runtimes import RUNTIMES
from compress.measure.ondevice.runtimes.base import Finding
from compress.measure.remote.target import RemoteTarget
from compress.measure.target import Target

_REQUIRED = ("torch", "torch-pruning", "accelerate", "onnx", "onnxscript", "onnxruntime")
_LEAST_DISK_BYTES = 2 << 30
_LEAST_PYTHON = (3, 10)
_LEAST_DISK_BYTES_THERE = 1 << 28
_LEAST_PYTHON_THERE = (3, 9)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 where something needed is missing."""
    target = target_of(arguments)
    if isinstance(target, RemoteTarget):
        findings = list(_there(target))
    else:
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


def _runtimes() -> Iterator[Finding]:
    for runtime in RUNTIMES.values():
        yield from runtime.findings()


def _processor() -> Iterator[Finding]:
    target = LocalTarget()
    device = target.environment()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", f"{device.get('cpu', platform.processor())}, {cores} cores to use")
    yield _saturation(target)


def _saturation(target: Target) -> Finding:
    if target.lowering().avoid_saturation:
        return Finding(
            "note",
            "no VNNI: int8 products are summed in 16 bits, which can overflow",
            "nothing to do: weights are encoded so that they cannot; int8 gains less speed here",
        )
    return Finding("ok", "int8 dot products without overflow")


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
    free_bytes = shutil.disk_usage(".").free
    yield _space(free_bytes, _LEAST_DISK_BYTES, "here", "free some, or use --out elsewhere")


def _space(free_bytes: int, least_bytes: int, where: str, fix: str) -> Finding:
    text = f"{free_bytes / 2**30:.1f} GiB of disk free {where}"
    return Finding("note", text, fix) if free_bytes < least_bytes else Finding("ok", text)


def _system() -> Iterator[Finding]:
    """What is not measured on systems other than Linux."""
    if not sys.platform.startswith("linux"):
        yield Finding(
            "note",
            f"the system is {platform.system()}, and releases are tested on Linux",
            "docs/installing.md says what is not measured here",
        )
    if "VmHWM:" not in read_file("/proc/self/status"):
        yield Finding(
            "note",
            "peak memory is not measured here: it needs VmHWM in /proc/self/status",
            "leave model_peak_mib out of budgets, or measure on a Linux device (--target)",
        )


def _clock() -> Iterator[Finding]:
    if not hasattr(os, "getloadavg"):
        yield Finding(
            "note",
            "how busy the machine is cannot be read here",
            "see that nothing else runs while models are measured",
        )
        return
    yield _quiet(os.getloadavg()[0], os.cpu_count() or 1)


def _quiet(load: float, cores: int) -> Finding:
    if load > 0.5 * cores:
        return Finding(
            "note",
            f"the machine is busy: load {load:.1f} on {cores} cores",
            "measurements will take longer and be wider; stop what else is running",
        )
    return Finding("ok", f"the machine is quiet: load {load:.1f} on {cores} cores")


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
    _system,
    _packages,
    _runtimes,
    _processor,
    _accelerator,
    _disk,
    _clock,
    _data,
)


def _there(target: RemoteTarget) -> Iterator[Finding]:
    """What another device can do; it needs far less than this machine."""
    facts = target.contact()
    version = tuple(int(part) for part in facts["python"].split(".")[:2])
    if version < _LEAST_PYTHON_THERE:
        yield Finding(
            "missing", f"Python {facts['python']}", "give --python the path of a 3.9 or newer"
        )
    else:
        yield Finding("ok", f"Python {facts['python']}")
    for name, found in facts["libraries"].items():
        if found is None:
            fix = f"{target.python} -m pip install {name}, there"
            yield Finding("missing", f"{name} is not installed", fix)
        else:
            yield Finding("ok", f"{name} {found}")
    yield _space(
        facts["free_bytes"], _LEAST_DISK_BYTES_THERE, f"in {facts['folder']}", "or give --folder"
    )
    if version >= _LEAST_PYTHON_THERE and None not in facts["libraries"].values():
        environment = target.environment()
        device, state = environment["device"], environment["state"]
        yield Finding("ok", f"{environment['cpu']}, {len(state['affinity'])} cores to use")
        yield Finding("ok", f"instructions: {', '.join(device['isa']) or 'it names none'}")
        yield _saturation(target)
        yield _quiet(environment["volatile"]["load"] or 0.0, device["cores"])
