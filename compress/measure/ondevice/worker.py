"""Worker: the fresh process that loads one ONNX model and times, sizes, checks or runs it.

One file on purpose. It needs the standard library, numpy and the runtime that a job asks for, keeps
to Python 3.9, and knows nothing of this package, so that a copy of it runs on a bare device::

    python -I worker.py job.json        # or the job as one line on standard input

A job is a JSON object; ``kind`` is a key of :data:`JOBS`, whose functions say what else they read
and what they return. The answer is one JSON object on standard output, ``{"error": "..."}`` where
the job could not be done; the exit status is non-zero only if the process crashed.

One kind of job is a conversation. ``turns`` does what ``time`` does, when it is told to: the worker
says ``ready``, takes a turn for each line that it gets, and says ``ready`` again; the answer comes
at the end of its input.

Keys that every job with a model reads: ``model`` (path), ``runtime`` (``onnxruntime``, which it is
by default, or ``openvino``), ``provider`` (of onnxruntime: a key of :data:`PROVIDERS`, by default
``cpu``), ``threads`` (intra-op), ``batch`` (for models that do not fix it), ``inputs`` (model input
name to ``.npy`` path, the empty name for a single input; array rows are samples), ``session``
(options of onnxruntime's session, by key), ``arena`` (false turns its memory arena off). Times are
in nanoseconds: integers survive JSON. ``memory_bytes`` bounds what the process may take; without
it, nearly all that is free.

Without ``inputs`` they are drawn from ``seed``, as :class:`Draws` says. Then ``shapes`` has sizes
by the name of an input, or a single one by that of an open axis, and ``values`` has ``.npy`` paths
by the name of an input: such an array is the whole input, in every run.

``parent`` is the process that gave the job: this one ends when it does, whatever a model computes.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import functools
import gc
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "JOBS",
    "PROVIDERS",
    "Draws",
    "Feeds",
    "Provider",
    "answer",
    "cpu_count",
    "cpu_flags",
    "free_memory_bytes",
    "machine",
    "main",
    "provider_keys",
]

Array = Any
Job = dict[str, Any]
#: Says something to whoever gave the job, and returns the line that comes back, empty at the end.
Ask = Callable[[str], str]

ISA_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)
_DTYPES = {"float": "float32", "double": "float64", "string": "object"}
_SAME_NAME = {
    "float16",
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}

_FEEDS = 8  # distinct batches to rotate over, so that no single sample's branches decide the time
_FEEDS_BYTES = 2**28  # fewer are drawn where they would take more
_SHORT_RUN_NS = 100_000  # below this, the clock and the loop are a visible part of one run
_SHORT_SAMPLE_NS = 200_000  # so runs are timed in groups of about this length
_TURN_S = 0.001  # of a comparison by turns
_SPINNING_TURN_S = 0.02
_LEAD = 0.2  # of a turn, at its beginning, is left out
_PROBE_LOOPS = 40_000  # about 5 ms on a core of the 2020s
_MEMORY_RUNS = 20  # an arena has its final size after a few
_MEMORY_CAP_S = 10
_MEMORY_SHARE = 0.9  # of what is free; the rest is for the system and its caches
_TRACED_RUNS = 100
_ENERGY_WINDOWS = 5
_ENERGY_LOOK_S = 0.05  # between looks at a sensor that tells power, not energy
_SYS = Path("/sys")
_INA = ("ina209", "ina219", "ina220", "ina226", "ina230", "ina231", "ina238", "ina3221")
_MODEL_FIELDS = {*range(1, 9), 14, 20, 25, 26}  # of the message that an ONNX file is
# The smallest model there is: one Identity (opset 13, IR 7) on one float.
_TRIVIAL = (
    b'\x08\x07\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
_OPENVINO_DB = (
    30.0  # above it, the float reference's other way of rounding ties may be all there is
)
_PRODUCT = re.compile("Conv|Gemm|MatMul")  # operators, of which a fused one has a longer name
_OPENVINO_PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_LENGTH, _SIDE, _CHANNELS = 16, 224, (3, 1, 4)  # the last two of an image
# Tried in the place of lengths and sides with which a model does not run: common ones first, and
# last what takes the least.
_GUESSES = (
    *(512, 256, 128, 64, 32, 48, 80, 96, 160, 192, 288, 299, 320, 384, 416, 448, 480, 576, 640),
    *(768, 1024, 100, 40, 20, 10, 8, 4, 3, 2, 1),
)
_GUESSING_CAP_S = 20
_SHORT_VECTOR = 8
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_SYNCHRONIZE, _FOREVER = 0x00100000, 0xFFFFFFFF  # of Windows
_LOOK_S = 1.0  # between looks at the process that gave the job, where the system does not tell


class JobError(Exception):
    """A job that cannot be done; the message is the whole explanation."""


# -- the machine ------------------------------------------------------------------------------


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _cpuinfo(*keys: str) -> list[str]:
    lines = (line.partition(":") for line in _read("/proc/cpuinfo").splitlines())
    return [value.strip() for key, _, value in lines if key.strip() in keys]


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the CPU; empty where the system does not tell."""
    return frozenset(
        itertools.chain.from_iterable(v.split() for v in _cpuinfo("flags", "Features"))
    )


def _quota(folder: Path) -> float:
    """The CPU quota of one control group in cores, infinite if it has none (cgroup v2 or v1)."""
    text = _read(f"{folder}/cpu.max") or " ".join(
        _read(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period")
    )
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else math.inf


def _groups(controller: str) -> list[Path]:
    """Folders of this process's control groups and of those above them (cgroup v2 or v1)."""
    found: list[Path] = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = Path(f"/sys/fs/cgroup/{controller}" if controllers else "/sys/fs/cgroup")
            parts = path.strip("/").split("/")
            found += [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return found


def _cpu_limit() -> float:
    """The tightest CPU quota, in cores, of this process's control groups and those above them."""
    return min(map(_quota, _groups("cpu")), default=math.inf)


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


def _room(folder: Path) -> float:
    """Bytes that one control group may still take, infinite if it has no limit (v2 or v1)."""
    limit = _read(f"{folder}/memory.max") or _read(f"{folder}/memory.limit_in_bytes")
    used = _read(f"{folder}/memory.current") or _read(f"{folder}/memory.usage_in_bytes")
    if not (limit.isdigit() and used.isdigit()):
        return math.inf
    # What was read from files counts as used, and makes way.
    cache = _read(f"{folder}/memory.stat").partition("inactive_file ")[2].split()
    return int(limit) - int(used) + (int(cache[0]) if cache else 0)


def free_memory_bytes() -> float:
    """What this process could take: the system's free memory, within its control groups' limits.

    Infinite where the system does not tell.
    """
    free = _read("/proc/meminfo").partition("MemAvailable:")[2].split()
    system = int(free[0]) * 1024 if free else math.inf
    return min([system, *map(_room, _groups("memory"))])


def _bound_memory(job: Job) -> float:
    """Let what would exhaust the machine fail in this process; the bytes that it may take.

    ``RLIMIT_DATA`` is looked at when memory is asked for, not when it is used, so that no number
    here depends on it; unlike ``RLIMIT_AS`` it leaves out the files and libraries that are only
    mapped. Should the machine run short all the same, the kernel is told to end this process
    before any other. Systems without ``/proc`` are left alone.
    """
    allowed = float(job.get("memory_bytes") or _MEMORY_SHARE * free_memory_bytes())
    if math.isinf(allowed) or "VmData:" not in _read("/proc/self/status"):
        return math.inf
    import resource

    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(allowed) + _status_bytes("VmData")
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    return allowed


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine() -> Job:
    """What the device is and how it is set: names are stable, missing facts are empty."""
    cpu = sorted(set(_cpuinfo("model name"))) or sorted(
        set(_cpuinfo("CPU implementer", "CPU part"))
    )
    supplies = sorted(Path("/sys/class/power_supply").glob("*/online"))
    memory = _read("/proc/meminfo").partition("MemTotal:")[2].split()
    return {
        "arch": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "cpu": ", ".join(cpu) or platform.processor(),
        "board": _read("/proc/device-tree/model"),
        "isa": [flag for flag in ISA_FLAGS if flag in cpu_flags()],
        "cores": os.cpu_count() or 1,
        "max_khz": _found("devices/system/cpu/cpufreq/policy*/cpuinfo_max_freq"),
        "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
        "python": platform.python_version(),
        "boost": _read("/sys/devices/system/cpu/cpufreq/boost"),
        "affinity": _affinity(),
        "cpu_limit": None if math.isinf(_cpu_limit()) else _cpu_limit(),
        "mains_power": [_read(str(supply)) == "1" for supply in supplies],
        "pressure": _read("/proc/pressure/cpu").partition("\n")[0],
        **_state(),
    }


def _found(pattern: str) -> list[str]:
    """The texts of the files in ``/sys`` that fit a pattern, in the order of their names."""
    return [_read(str(path)) for path in sorted(_SYS.glob(pattern))]


def _numbers(pattern: str) -> list[int]:
    return [int(text) for text in _found(pattern) if text.isdigit()]


def _state() -> Job:
    """How the machine is set, and how it is at this moment; what is not told is empty.

    ``throttled`` has the flags of a Raspberry Pi's firmware, in hexadecimal. ``throttle_count`` is
    how often Intel's CPUs were slowed down since they started, and ``cooling`` how many of the
    kernel's cooling devices slow a CPU down now.
    """
    cooling = sorted(_SYS.glob("class/thermal/cooling_device*"))
    of_cpu = [each for each in cooling if re.search("cpufreq|Processor", _read(f"{each}/type"))]
    return {
        "governor": sorted(set(_found("devices/system/cpu/cpufreq/policy*/scaling_governor"))),
        "khz": _numbers("devices/system/cpu/cpufreq/policy*/scaling_cur_freq"),
        "temperatures_mc": _numbers("class/thermal/thermal_zone*/temp"),
        "throttled": "".join(_found("devices/platform/soc*/*firmware/get_throttled")[:1]),
        "throttle_count": sum(_numbers("devices/system/cpu/cpu*/thermal_throttle/*_count")),
        "cooling": sum(_read(f"{each}/cur_state") not in ("", "0", "-1") for each in of_cpu),
        "load": _load(),
    }


def _probe() -> int:
    """Time of a fixed piece of integer work: the only sensor where there is no cpufreq."""
    begin = time.perf_counter_ns()
    value = 1
    for _ in range(_PROBE_LOOPS):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return time.perf_counter_ns() - begin


# -- runtimes ---------------------------------------------------------------------------------

# What jobs use of a loaded model is the part of onnxruntime's session that they need: get_inputs,
# get_outputs, run. So onnxruntime is timed with nothing in between, and another runtime is a class.


class Provider(NamedTuple):
    """What onnxruntime can run a model on: its own name for it, and how to get it where it lacks.

    ``plugin`` is a package that brings it to any build of onnxruntime; of the devices that a
    plug-in finds, the first of type ``device`` is taken.
    """

    name: str
    fix: str
    plugin: str = ""
    device: str = ""


_GPU_BUILD = "pip install onnxruntime-gpu in place of onnxruntime"
PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", "pip install onnxruntime"),
    "cuda": Provider("CUDAExecutionProvider", _GPU_BUILD),
    "tensorrt": Provider("TensorrtExecutionProvider", f"{_GPU_BUILD}, and TensorRT's libraries"),
    "xnnpack": Provider(
        "XnnpackExecutionProvider",
        "build onnxruntime with --use_xnnpack: no package for Python has it",
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        "pip install onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
        "CPU",
    ),
    "coreml": Provider("CoreMLExecutionProvider", "use onnxruntime's package for macOS"),
    "qnn": Provider(
        "QNNExecutionProvider", "pip install onnxruntime-qnn", "onnxruntime_qnn", "NPU"
    ),
    "dml": Provider(
        "DmlExecutionProvider",
        "pip install onnxruntime-directml in place of onnxruntime, on Windows",
    ),
}
_OPENVINO_TYPES = {
    "f32": "float",
    "f64": "double",
    "f16": "float16",
    "boolean": "bool",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
# OpenVINO's settings for the options of onnxruntime that jobs switch on.
_OPENVINO_OPTIONS = {
    "session.set_denormal_as_zero": {"CPU_DENORMALS_OPTIMIZATION": "YES"},
    "session.x64quantprecision": {"LP_TRANSFORMS_MODE": "NO"},
}


def _runtime(job: Job) -> str:
    return str(job.get("runtime", "onnxruntime"))


def _provider(job: Job) -> str:
    return str(job.get("provider", "cpu"))


def _import(job: Job) -> Any:
    """The module of the job's runtime; not at the top, so that a device needs no other."""
    name = _runtime(job)
    if name == "onnxruntime":
        import onnxruntime

        return onnxruntime
    if name != "openvino":
        raise JobError(f"the runtime is {name!r}; known are onnxruntime and openvino.")
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise JobError(
            f"the runtime openvino is not here ({error}); pip install 'compresskit[openvino]', or "
            "openvino alone."
        ) from error
    return openvino


def _choose_provider(onnxruntime: Any, options: Any, job: Job) -> Any:
    """What the session's ``providers`` must be; a plug-in goes into ``options`` instead.

    Raises:
        JobError: this installation does not have the job's provider.
    """
    key = _provider(job)
    if key not in PROVIDERS:
        raise JobError(f"the provider is {key!r}; known are {', '.join(PROVIDERS)}.")
    name, fix, _, kind = PROVIDERS[key]
    available = onnxruntime.get_available_providers()
    if key not in provider_keys(onnxruntime):
        raise JobError(
            f"this onnxruntime {onnxruntime.__version__} has no provider {key}; it has "
            f"{', '.join(provider_keys(onnxruntime))}; for {key}, {fix}."
        )
    if key == "cpu":
        return [name]
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    settings = _provider_settings(job)
    if name in available:
        # TensorRT leaves to CUDA what it cannot do.
        helpers = ["CUDAExecutionProvider"] if key == "tensorrt" else []
        rest = [helper for helper in [*helpers, "CPUExecutionProvider"] if helper in available]
        return [(name, settings), *rest]
    devices = _plugin_devices(onnxruntime, key)
    fitting = [device for device in devices if device.device.type.name == kind]
    if not fitting:
        kinds = ", ".join(sorted({device.device.type.name for device in devices})) or "none"
        raise JobError(
            f"the provider {key} needs a device of type {kind}; of this machine's it takes {kinds}."
        )
    options.add_provider_for_devices(fitting[:1], settings)
    return None


def provider_keys(onnxruntime: Any) -> list[str]:
    """The providers that a job may name here."""
    available = onnxruntime.get_available_providers()
    return [
        key
        for key, provider in PROVIDERS.items()
        if provider.name in available
        or (provider.plugin and importlib.util.find_spec(provider.plugin))
    ]


def _provider_settings(job: Job) -> dict[str, str]:
    # What has threads of its own.
    threads = str(job.get("threads", 1))
    names = {"xnnpack": "intra_op_num_threads", "openvino": "num_of_threads"}
    return {names[key]: threads for key in [_provider(job)] if key in names}


def _plugin_devices(onnxruntime: Any, key: str) -> list[Any]:
    """The devices of a plug-in, which is loaded if it is not yet."""
    name, _, plugin, _ = PROVIDERS[key]

    def found() -> list[Any]:
        return [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]

    if not found():
        library = importlib.import_module(plugin).get_library_path()
        onnxruntime.register_execution_provider_library(plugin, library)
    return found()


def _refuse_fallback(session: Any, job: Job) -> None:
    """See that at least a part of the model runs where the job wants it.

    Raises:
        JobError: it does not, of which onnxruntime says nothing.
    """
    key = _provider(job)
    if key == "cpu":
        return
    name = PROVIDERS[key].name
    others = ", ".join(other for other in session.get_providers() if other != name)
    if name not in session.get_providers():
        raise JobError(
            f"the provider {key} did not start, and onnxruntime took {others} in its place; see "
            f"that the libraries and drivers which {key} needs are there."
        )
    placed = _placement(session, key)
    if placed["nodes"] and placed["elsewhere"] == placed["nodes"]:
        raise JobError(
            f"the provider {key} takes none of the model's {placed['nodes']} operators: all fell "
            f"back to {others}, whose numbers these would be."
        )


def _placement(session: Any, key: str) -> Job:
    """How many operators, and products among them, the provider ``key`` left to others.

    Counted are those of the graph that onnxruntime divides up. ``nodes`` is ``None`` where it does
    not tell (before 1.24).
    """
    found: Job = {"provider": key, "nodes": None}
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return found
    parts = session.get_provider_graph_assignment_info()
    nodes = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
    own = PROVIDERS[key].name
    others = [place for place, _ in nodes if place != own]
    products = [place for place, kind in nodes if _PRODUCT.search(kind)]
    return {
        **found,
        "nodes": len(nodes),
        "elsewhere": len(others),
        "products": len(products),
        "products_elsewhere": sum(place != own for place in products),
        "others": sorted(set(others)),
    }


class _OpenVino:
    """A model in OpenVINO on the CPU, to jobs like one of onnxruntime's sessions."""

    def __init__(self, openvino: Any, job: Job, option: str) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(job.get("threads", 1)),
            # It would take shorter floats where the CPU has them, and accuracy would not compare.
            "INFERENCE_PRECISION_HINT": "f32",
            **_OPENVINO_OPTIONS.get(option, {}),
        }
        core = openvino.Core()
        self.compiled = core.compile_model(core.read_model(job["model"]), "CPU", settings)
        self._request = self.compiled.create_infer_request()
        self._names = [port.any_name for port in self.compiled.inputs]
        self._tensor = openvino.Tensor

    def get_inputs(self) -> list[Port]:
        return [_openvino_port(port) for port in self.compiled.inputs]

    def get_outputs(self) -> list[Port]:
        return [_openvino_port(port) for port in self.compiled.outputs]

    def run(self, _: None, feed: dict[str, Array]) -> list[Array]:
        # Its own way with a dictionary of arrays takes longer than a small model does.
        for place, name in enumerate(self._names):
            tensor = self._tensor(feed[name], shared_memory=True)
            self._request.set_input_tensor(place, tensor)
        return list(self._request.infer().values())


def _openvino_port(port: Any) -> Port:
    element = port.element_type.get_type_name()
    sizes = [size.get_length() if size.is_static else None for size in port.partial_shape]
    return Port(port.any_name, f"tensor({_OPENVINO_TYPES.get(element, element)})", sizes, [])


def _ran(session: Any, job: Job) -> Job | None:
    """What the runtime made of the model, as far as it tells and it may surprise.

    Of onnxruntime, for providers other than the CPU: :func:`_placement`. Of OpenVINO:
    ``int8_mac_fraction``, the share of multiply-accumulates that it computes in int8.
    """
    if isinstance(session, _OpenVino):
        fraction = _openvino_int8_fraction(session.compiled)
        return None if fraction is None else {"int8_mac_fraction": fraction}
    return None if _provider(job) == "cpu" else _placement(session, _provider(job))


def _openvino_int8_fraction(compiled: Any) -> float | None:
    """From the graph that runs: a product whose activations are int8 there is computed in int8.

    The type that OpenVINO itself notes there is int8 for weights that are only stored so, too.
    ``None`` where no product is seen: with AVX-512 a whole MLP becomes one kernel.
    """
    total = int8 = 0.0
    for node in compiled.get_runtime_model().get_ops():
        kind = str(node.get_rt_info()["layerType"].get())
        if kind in _OPENVINO_PRODUCTS:
            macs = _openvino_macs(node, kind)
            total += macs
            int8 += macs * (node.input_value(0).element_type.get_type_name() in ("i8", "u8"))
    return int8 / total if total else None


def _openvino_macs(node: Any, kind: str) -> float:
    source, weight = (node.input_value(place).shape for place in (0, 1))
    result = node.output(0).shape
    if kind == "MatMul":
        return float(math.prod(result) * source[-1])
    # Every weight meets every position: of the input for transposed convolutions, else the output.
    shape = source if kind == "Deconvolution" else result
    channels = shape[1] if "onvolution" in kind else shape[-1]
    return float(math.prod(shape) / channels * math.prod(weight))


def _runtime_facts(job: Job) -> Job:
    module = _import(job)
    if _runtime(job) == "openvino":
        return {
            "openvino": module.__version__,
            "build": module.get_version(),
            "providers": module.Core().available_devices,
        }
    facts = {
        "onnxruntime": module.__version__,
        "build": module.get_build_info(),
        "providers": module.get_available_providers(),
    }
    if _provider(job) != "cpu":
        _choose_provider(module, module.SessionOptions(), job)
        facts["provider"] = _provider(job)
    return facts


# -- the model and its inputs -----------------------------------------------------------------


def _check_file(path: str) -> None:
    if not os.path.exists(path):
        raise JobError("there is no such file.")
    if os.path.isdir(path):
        raise JobError("it is a folder; give the ONNX files in it.")
    if not os.path.isfile(path):
        raise JobError("it is no regular file.")
    if os.path.getsize(path) == 0:
        raise JobError("the file is empty.")


def _why_unreadable(path: str) -> str:
    """What is wrong with a file that is not parsed, from the lengths of its outermost fields."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        while stream.tell() < size:
            key, length = _varint(stream), 0
            if key is None or key >> 3 not in _MODEL_FIELDS or key & 7 not in (0, 1, 2, 5):
                return "it is not an ONNX file."
            if key & 7 in (0, 2):
                length = _varint(stream) or 0
            skipped = {0: 0, 1: 8, 2: length, 5: 4}[key & 7]
            stream.seek(skipped, os.SEEK_CUR)
        missing = stream.tell() - size
    if missing:
        return f"the file is cut off: at least {missing} bytes are missing at its end."
    return "the file is damaged: it begins as an ONNX file does, and cannot be parsed."


def _varint(stream: Any) -> int | None:
    value, shift = 0, 0
    for byte in iter(lambda: stream.read(1), b""):
        value |= int(byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value
        if shift > 63:
            break
    return None


def _open(job: Job, option: str = "", trace: str = "") -> Any:
    """A session as it would be deployed, or with one of onnxruntime's options switched on.

    With ``trace``, a folder, every operator is timed, and the graph that runs is written there.
    """
    runtime, model = _import(job), job["model"]
    if isinstance(model, str):
        _check_file(model)
    if _runtime(job) == "openvino":
        if trace:
            raise JobError("operators are timed by onnxruntime's profiler; leave openvino out.")
        return _OpenVino(runtime, job, option)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = int(job.get("threads", 1))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = bool(job.get("arena", True))
    entries = dict(job.get("session") or {})
    if option:
        entries[option] = "1"
    if trace:
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(trace, "trace")
        options.optimized_model_filepath = os.path.join(trace, "graph.onnx")
        beside = "session.optimized_model_external_initializers"
        entries[f"{beside}_file_name"] = "weights"
        entries[f"{beside}_min_size_in_bytes"] = "1024"
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    providers = _choose_provider(runtime, options, job)
    try:
        # By default an error of a provider makes the session begin again on the CPU, and only
        # standard output hears of it.
        session = runtime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:
        # Garbled names come back as words that cannot be decoded.
        garbled = isinstance(error, UnicodeDecodeError) or "INVALID_PROTOBUF" in str(error)
        if isinstance(model, str) and garbled:
            raise JobError(_why_unreadable(model)) from error
        raise
    if isinstance(model, str):  # of the trivial model nothing is expected
        _refuse_fallback(session, job)
    return session


class Port(NamedTuple):
    """One input or output; ``None`` is a size that the file leaves open, ``axes`` are their names.

    onnxruntime shows an input that may have any number of axes as a scalar.
    """

    name: str
    type: str
    shape: list[int | None]
    axes: list[str]

    @property
    def dtype(self) -> Any:
        """The numpy type that the input takes."""
        found = re.fullmatch(r"(?:optional\()?tensor\((\w+)\)+", self.type)
        if found is None:
            raise JobError(
                f"the input {self.name!r} has type {self.type}; only tensors can be fed to it here."
            )
        element = found[1]
        if element not in _DTYPES and element not in _SAME_NAME:
            raise JobError(
                f"the input {self.name!r} has type {self.type}, which numpy cannot hold; a Cast "
                "from float32 before it would do."
            )
        return np.dtype(_DTYPES.get(element, element))

    def taken(self, array: Array) -> Array:
        """``array``, of which values can be had in the input's type."""
        if self.dtype.kind == "O":
            takes, fits = "strings", array.dtype.kind in "OSU"
        else:
            takes, fits = str(self.dtype), np.can_cast(array.dtype, self.dtype, "same_kind")
        if not fits:
            raise JobError(f"the input {self.name!r} takes {takes}; got {array.dtype}.")
        return array

    def declared(self) -> str:
        """Its shape as in the file."""
        sizes = [
            name or "?" if size is None else size for size, name in _pairs(self.shape, self.axes)
        ]
        return f"[{', '.join(map(str, sizes))}]"


def _ports(values: Any) -> list[Port]:
    found = []
    for value in values:
        fixed = [size if isinstance(size, int) and size >= 0 else None for size in value.shape]
        # Some exporters call every open axis "?", which is no name.
        names = [s if isinstance(s, str) and re.search(r"\w", s) else "" for s in value.shape]
        found.append(Port(value.name, value.type, fixed, names))
    return found


def _pairs(left: Any, right: Any) -> Iterator[tuple[Any, Any]]:
    # Python 3.9 has no zip(strict=True), and both sides are always of one length here.
    return ((left[i], right[i]) for i in range(len(left)))


class Feeds:
    """Batches of a model's inputs, cut from arrays whose rows are samples.

    An array with one axis more than its input belongs to an input without a batch axis; it is fed
    one row at a time.
    """

    def __init__(self, session: Any, job: Job) -> None:
        self.ports = _ports(session.get_inputs())
        self.arrays = self._arrays(job.get("inputs") or {})
        self.single = {p.name for p in self.ports if self.arrays[p.name].ndim == len(p.shape) + 1}
        self.batch = self._batch(int(job.get("batch", 1)))
        lengths = {name: len(array) for name, array in self.arrays.items()}
        self.samples = min(lengths.values(), default=1)
        if len(set(lengths.values())) > 1 or self.samples == 0:
            raise JobError(f"inputs need the same number of samples, at least one; got {lengths}.")

    def _batch(self, wanted: int) -> int:
        """The batch that the model fixes, or else ``wanted``; 1 if an input has no batch axis."""
        fixed = sorted({p.shape[0] for p in self.ports if p.name not in self.single and p.shape[0]})
        if len(fixed) > 1:
            raise JobError(f"the model's inputs fix different batch sizes: {fixed}.")
        if self.single and fixed not in ([], [1]):
            raise JobError(
                f"the input {min(self.single)!r} has no batch axis, yet another fixes a batch of "
                f"{fixed[0]}."
            )
        if self.single:
            return 1
        return fixed[0] if fixed else wanted

    def _arrays(self, given: dict[str, str]) -> dict[str, Array]:
        if list(given) == [""] and len(self.ports) == 1:
            given = {self.ports[0].name: given[""]}
        missing = [port.name for port in self.ports if port.name not in given]
        if missing:
            raise JobError(
                f"the model's input {missing[0]!r} was not given; given are {sorted(given)}."
            )
        return {port.name: self._load(port, given[port.name]) for port in self.ports}

    @staticmethod
    def _load(port: Port, path: str) -> Array:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim - len(port.shape) not in (0, 1) or array.ndim == 0:
            raise JobError(
                f"the input {port.name!r} takes {port.declared()}; got samples {array.shape}."
            )
        return port.taken(array)

    def take(self, rows: Array) -> dict[str, Array]:
        """One batch: the samples with these row numbers."""
        feed = {}
        for port in self.ports:
            chosen = rows[0] if port.name in self.single else rows
            feed[port.name] = np.array(self.arrays[port.name][chosen], port.dtype, order="C")
        return feed

    def rotation(self, most: int) -> list[dict[str, Array]]:
        """Up to ``most`` different batches, spread over the samples."""
        count = min(most, self.samples)
        starts = [i * self.samples // count for i in range(count)]
        return [self.take((start + np.arange(self.batch)) % self.samples) for start in starts]


class Draws:
    """Inputs drawn for a model of which no more is known than its signature.

    A size is what the job tells of it, by ``values`` or ``shapes``; else what the file fixes; else
    that of an axis of the same name, or what a name such as ``past + 1`` comes to; else the job's
    ``batch`` where :func:`_batch_axes` sees one; else ``guess``, or the usual guess if that is 0.
    ``shapes`` are by name, and so are ``guessed``, which are axes. Optional inputs are left out
    unless something is told of them.
    """

    def __init__(self, session: Any, job: Job, guess: int = 0) -> None:
        told, values = dict(job.get("shapes") or {}), job.get("values") or {}
        self.ports = [
            port
            for port in _ports(session.get_inputs())
            if not port.type.startswith("optional(") or port.name in {**told, **values}
        ]
        self.values = {p.name: _whole(p, values[p.name]) for p in self.ports if p.name in values}
        told.update((name, array.shape) for name, array in self.values.items())
        self.shapes = {port.name: _told(port, told.get(port.name)) for port in self.ports}
        self.guessed: dict[str, list[int]] = {}
        axes = {name: sizes[0] for name, sizes in told.items() if len(sizes) == 1}
        self.batch = self._settle(axes, int(job.get("batch", 1)), guess)
        self._seed = job.get("seed", 0)

    def _settle(self, axes: dict[str, int], batch: int, guess: int) -> int:
        """Give every open axis a size, knowing those of some named ``axes``; returns the batch."""
        for port in self.ports:
            named = _pairs(port.axes, self.shapes[port.name])
            axes.update((name, size) for name, size in named if name and size is not None)
        batch_axes = _batch_axes(self.ports)
        for port, axis in _open_axes(self.ports):
            name, size = port.axes[axis], self.shapes[port.name][axis]
            if size is None:
                size = _worked_out(name, axes)
            if size is None and (port.name, axis) in batch_axes:
                size = batch
            elif size is None:
                size = _guess(port, axis, guess)
                self.guessed.setdefault(port.name, []).append(axis)
            self.shapes[port.name][axis] = size
            if name:
                axes.setdefault(name, size)
        return _batch_of(self.shapes, batch_axes)

    @property
    def feed_bytes(self) -> int:
        """Of the inputs of one run."""
        return sum(math.prod(self.shapes[p.name]) * p.dtype.itemsize for p in self.ports)

    def rotation(self, most: int) -> list[dict[str, Array]]:
        """Up to ``most`` different inputs for a run."""
        rng = np.random.default_rng(self._seed)
        drawn = [port for port in self.ports if port.name not in self.values]
        count = max(1, min(most, _FEEDS_BYTES // max(1, self.feed_bytes)))
        return [
            {**{p.name: _draw(p, self.shapes[p.name], rng) for p in drawn}, **self.values}
            for _ in range(count)
        ]


def _whole(port: Port, path: str) -> Array:
    return np.array(port.taken(np.load(path, allow_pickle=False)), port.dtype, order="C")


def _told(port: Port, sizes: list[int] | None) -> list[Any]:
    """A new shape: the file's, or one that fits it."""
    if sizes is None:
        return list(port.shape)
    fits = len(sizes) == len(port.shape) and all(
        fixed in (None, size) for fixed, size in _pairs(port.shape, sizes)
    )
    if port.shape and not fits:
        given = "x".join(map(str, sizes)) or "a scalar"
        raise JobError(f"the input {port.name!r} takes {port.declared()}; got {given}.")
    return list(sizes)


def _open_axes(ports: list[Port]) -> list[tuple[Port, int]]:
    """Inputs and axes; names that are made of others come last."""
    found = [(p, axis) for p in ports for axis, size in enumerate(p.shape) if size is None]
    return sorted(found, key=lambda place: bool(re.search("[+*]", place[0].axes[place[1]])))


def _worked_out(name: str, known: dict[str, int]) -> int | None:
    """The size of an axis by its name: itself known, or a sum of products of what is."""
    if name in known:
        return known[name]
    terms = [term.split("*") for term in name.replace(" ", "").split("+")]
    try:
        return sum(math.prod(int(f) if f.isdigit() else known[f] for f in term) for term in terms)
    except KeyError:
        return None


def _batch_axes(ports: list[Port]) -> set[tuple[str, int]]:
    """Open axes that count samples, by the name of the input.

    They are called so, or else come first, and so are others of their name. Without a name it is
    the first open axis, if an open one comes first here or in another input: the state of a
    recurrent model often has its layers before its batch.
    """
    places = _open_axes(ports)
    first = {port.axes[0] for port in ports if port.shape[:1] == [None]}
    names = {port.axes[axis] for port, axis in places}
    called = {name for name in names if "batch" in name.lower()} or first
    return {
        (port.name, axis)
        for port, axis in places
        if (
            port.axes[axis] in called
            if port.axes[axis]
            else first and axis == port.shape.index(None)
        )
    }


def _batch_of(shapes: dict[str, list[int]], batch_axes: set[tuple[str, int]]) -> int:
    """How many samples a run has: without an open batch axis, a first size that all inputs have."""
    if batch_axes:
        name, axis = min(batch_axes)
        return shapes[name][axis]
    tables = [shape for shape in shapes.values() if len(shape) > 1]
    return tables[0][0] if tables and all(tables[0][0] in shape for shape in tables) else 1


def _guess(port: Port, axis: int, guess: int) -> int:
    """A length; of what may be an image, a side or the number of channels."""
    if len(port.shape) != 4 or port.dtype.kind not in "fu":
        return guess or _LENGTH
    channels = 3 if port.shape[3] in _CHANNELS and port.shape[1] not in _CHANNELS else 1
    if axis == channels:
        return _CHANNELS[0]
    sides = {1, 2, 3} - {channels}
    image = port.shape[channels] in (None, *_CHANNELS) or all(port.shape[s] is None for s in sides)
    return guess or (_SIDE if image and axis in sides else _LENGTH)


def _draw(port: Port, shape: list[int], rng: Any) -> Array:
    """Standard normal floats, pixels for uint8, else zeros and ones: ids, masks and flags alike.

    A scalar is 1, and so are the numbers of a short vector: they may be a shape, or scales.
    """
    if port.dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    if len(shape) < 2 and math.prod(shape) <= _SHORT_VECTOR:
        return np.ones(shape, port.dtype)
    if port.dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(port.dtype)
    return rng.integers(0, 256 if port.dtype == np.uint8 else 2, shape).astype(port.dtype)


def _rotation(session: Any, job: Job, most: int = _FEEDS) -> tuple[int, list[dict[str, Array]]]:
    """The batch of a run, and up to ``most`` different inputs to rotate over."""
    feeds = Feeds(session, job) if job.get("inputs") else Draws(session, job)
    return feeds.batch, feeds.rotation(most)


def _shapes(rotation: list[dict[str, Array]]) -> Job:
    return {name: list(array.shape) for name, array in rotation[0].items()}


# -- timing -----------------------------------------------------------------------------------


def _finite(outputs: Any) -> bool:
    floats = (v for v in outputs if isinstance(v, np.ndarray) and v.dtype.kind == "f")
    return all(bool(np.isfinite(value).all()) for value in floats)


def _first_runs(
    session: Any, feeds: list[dict[str, Array]], cap_s: float
) -> tuple[list[int], bool]:
    """Times of one run on each batch, cold first, and whether all outputs were finite.

    A slow model sees fewer batches: none after ``cap_s``.
    """
    times: list[int] = []
    finite = True
    for feed in feeds:
        if sum(times) > cap_s * 1e9:
            break
        begin = time.perf_counter_ns()
        outputs = session.run(None, feed)
        times.append(time.perf_counter_ns() - begin)
        finite = finite and _finite(outputs)
    return times, finite


def _grouped(times: list[int]) -> int:
    """How many runs to time as one, given the times of some: 1 unless they are short."""
    quickest = max(1, min(times))
    return 1 if quickest >= _SHORT_RUN_NS else math.ceil(_SHORT_SAMPLE_NS / quickest)


def _sampler(session: Any, feeds: list[dict[str, Array]], runs: int) -> Callable[[], int]:
    """A function that times ``runs`` inferences and returns the nanoseconds of them all."""
    ring = itertools.cycle(feeds)
    run, clock = session.run, time.perf_counter_ns

    def sample() -> int:
        batch = [next(ring) for _ in range(runs)]
        begin = clock()
        for feed in batch:
            outputs = run(None, feed)
        elapsed = clock() - begin
        del outputs
        return elapsed

    return sample


def _collect(sample: Callable[[], int], seconds: float, least: int, cap_s: float) -> list[int]:
    """Samples until both ``seconds`` and ``least`` are reached, or ``cap_s`` is."""
    samples: list[int] = []
    begin = time.perf_counter()
    while True:
        samples.append(sample())
        elapsed = time.perf_counter() - begin
        if elapsed >= cap_s or (elapsed >= seconds and len(samples) >= least):
            return samples


def _agree(earlier: list[int], later: list[int]) -> bool:
    before = np.percentile(earlier, [25, 50, 75])
    after = np.percentile(later, [25, 50, 75])
    return bool((np.abs(after / before - 1) < [0.05, 0.02, 0.05]).all())


def _warm_up(sample: Callable[[], int], window_s: float, cap_s: float) -> tuple[list[int], bool]:
    """Run until two consecutive windows have like quartiles; the trace, and whether they had."""
    begin = time.perf_counter()
    trace: list[int] = []
    window: list[int] = []
    while True:
        left = max(0.0, cap_s - (time.perf_counter() - begin))
        earlier, window = window, _collect(sample, window_s, 10, left)
        trace += window
        if earlier and _agree(earlier, window):
            return trace, True
        if time.perf_counter() - begin >= cap_s:
            return trace, False


class _Timed:
    """A model that is loaded and warmed up, and what its timing showed so far.

    Reads ``window_s`` and ``warmup_cap_s`` (warm-up), ``cap_s``, and optionally
    ``runs_per_sample``, which else is 1 for runs of 100 us or more.
    """

    def __init__(self, job: Job) -> None:
        begin = time.perf_counter_ns()
        self._runtime = _import(job)
        imported = time.perf_counter_ns()
        self._session, self._job = _open(job), job
        created = time.perf_counter_ns()
        batch, rotation = _rotation(self._session, job)
        first, finite = _first_runs(self._session, rotation, job["cap_s"])
        runs = job.get("runs_per_sample") or _grouped(first)
        self._sample = _sampler(self._session, rotation, runs)
        gc.collect()
        gc.freeze()
        gc.disable()
        warmup, steady = _warm_up(self._sample, job["window_s"], job["warmup_cap_s"])
        self._facts: Job = {
            "batch": batch,
            "shapes": _shapes(rotation),
            "runs_per_sample": runs,
            "import_ns": imported - begin,
            "create_ns": created - imported,
            "first_run_ns": first[0],
            "warmup_ns": warmup,
            "steady": steady,
            "finite": finite,
        }
        self._samples: list[int] = []
        self._turns: list[int] = []
        self._wall = self._cpu = 0
        # The probe first: its work is what the clock is then that of.
        self._probe, self._at, self._state = _probe(), time.monotonic_ns(), _state()

    def turn(self, seconds: float, least: int) -> None:
        """Take samples, after one that is left out: whoever ran before has had the caches."""
        _collect(self._sample, _LEAD * min(seconds, _SPINNING_TURN_S), 1, self._job["cap_s"])
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        samples = _collect(self._sample, seconds, least, self._job["cap_s"])
        self._wall += time.perf_counter_ns() - wall
        self._cpu += time.process_time_ns() - cpu
        self._samples += samples
        self._turns.append(len(samples))

    def result(self) -> Job:
        """Each of ``samples_ns`` is the time of ``runs_per_sample`` inferences.

        ``turns`` are the numbers of samples that were taken together, in order. ``ran`` is what
        :func:`_ran` says. Of ``state`` (before and after the timing) ``at_ns`` are the times, on a
        clock that all processes share.
        """
        probe, now = _probe(), _state()
        return {
            **self._facts,
            "samples_ns": self._samples,
            "turns": self._turns,
            "wall_ns": self._wall,
            "cpu_ns": self._cpu,
            "probe_ns": [self._probe, probe],
            "at_ns": [self._at, time.monotonic_ns()],
            "state": [self._state, now],
            "load": [self._state["load"], now["load"]],
            "ran": _ran(self._session, self._job),
            self._runtime.__name__: self._runtime.__version__,
        }


def _time(job: Job) -> Job:
    """Load, warm up and time a model; see :class:`_Timed`.

    Reads ``sample_s`` and ``least``, too.
    """
    timed = _Timed(job)
    timed.turn(job["sample_s"], job["least"])
    return timed.result()


def _take_turns(job: Job, ask: Ask) -> Job:
    """Load and warm up a model, then time it a little whenever told to.

    So that models which are compared are timed within milliseconds of each other: the speed of a
    machine, most of all of a virtual one, may change within a second.
    """
    timed = _Timed(job)
    # Threads spin for a while after a run, and accelerators change their clocks.
    restless = int(job.get("threads", 1)) > 1 or _provider(job) != "cpu"
    turn_s = _SPINNING_TURN_S if restless else _TURN_S
    while ask("ready"):
        timed.turn(turn_s, 1)
    return timed.result()


# -- for long, and energy ---------------------------------------------------------------------


class _Meter:
    """The energy that the machine has taken since the meter was made, from a sensor that it has.

    Intel's and AMD's running average power limit (packages, and memory where it is apart), or the
    INA power monitors of boards: the rail that feeds the board, if one is named so, or the only
    one. Without such a sensor ``source`` is empty; nothing is guessed from a model of the CPU.
    """

    def __init__(self) -> None:
        self._zones = _rapl()
        self._factors: list[str] = []
        self.source = ", ".join(["RAPL", *(_read(f"{zone}/name") for zone in self._zones)])
        if not self._zones:
            self.source, self._factors = _rail()
        self._uj = 0.0
        self._last: dict[str, int] = {}
        self._at, self._uw = time.monotonic(), 0.0
        self.read()
        self._uj = 0.0

    def read(self) -> float:
        """Microjoules so far; between two calls, a sensor of power is taken to have moved evenly.

        A counter that begins again from 0 has gone on by its range. Of a sensor that stops telling
        numbers, nothing is told from then on: it is no ``source`` any more.
        """
        try:
            for zone in self._zones:
                count = int(_read(f"{zone}/energy_uj"))
                gone = count - self._last.get(zone, count)
                self._last[zone] = count
                self._uj += gone if gone >= 0 else gone + int(_read(f"{zone}/max_energy_range_uj"))
            if self._factors:
                now, uw = time.monotonic(), math.prod(int(_read(path)) for path in self._factors)
                self._uj += (uw + self._uw) / 2 * (now - self._at)
                self._at, self._uw = now, uw
        except ValueError:
            self.source = ""
        return self._uj


def _rapl() -> list[str]:
    """Folders of the zones to add up; those that only root may read are left out.

    Cores and graphics are parts of their package, and the whole platform (psys) has it all again.
    """
    zones = map(str, sorted(_SYS.glob("class/powercap/intel-rapl:*")))
    return [
        zone
        for zone in zones
        if _read(f"{zone}/name").startswith(("package", "dram"))
        and _read(f"{zone}/energy_uj").isdigit()
    ]


def _rail() -> tuple[str, list[str]]:
    """Name and files of the rail to look at, whose product is in microwatt; empty if none is."""
    rails: dict[str, list[str]] = {}
    for monitor in sorted(_SYS.glob("class/hwmon/hwmon*")):
        name = _read(f"{monitor}/name")
        for number in range(1, 4) if name in _INA else ():
            label = _read(f"{monitor}/in{number}_label") or f"{monitor.name}/{number}"
            power = [f"{monitor}/power{number}_input"]
            amperes = [f"{monitor}/in{number}_input", f"{monitor}/curr{number}_input"]
            files = next((f for f in (power, amperes) if all(_read(p).isdigit() for p in f)), None)
            if files:
                rails[f"{name} {label}"] = files
    feeds = [name for name in rails if name.endswith("_IN")]
    chosen = feeds if len(feeds) == 1 else list(rails)
    return (chosen[0], rails[chosen[0]]) if len(chosen) == 1 else ("", [])


def _energy(job: Job) -> Job:
    """What the machine takes while the model runs back to back, and while nothing does.

    Reads what :func:`_time` reads, less its samples, and ``energy_s``: five windows of a fifth of
    it, after one as long of idling. Where no sensor can be read, the answer is
    ``{"unavailable": "why"}``.
    """
    meter = _Meter()
    if meter.source:
        session = _open(job)
        batch, rotation = _rotation(session, job)
        runs = _grouped(_first_runs(session, rotation, job["cap_s"])[0])
        sample = _sampler(session, rotation, runs)
        window_s = job["energy_s"] / _ENERGY_WINDOWS
        idle = _window(meter, window_s, None)
        _warm_up(sample, job["window_s"], job["warmup_cap_s"])
        windows = [_window(meter, window_s, sample) for _ in range(_ENERGY_WINDOWS)]
        for window in windows:
            window["runs"] *= runs
    if not meter.source:
        return {"unavailable": "no sensor of energy can be read here"}
    return {"source": meter.source, "batch": batch, "idle": idle, "windows": windows}


def _window(meter: _Meter, seconds: float, sample: Callable[[], int] | None) -> Job:
    """Energy, time and number of samples of some seconds of running, or of idling."""
    begin, before = time.perf_counter_ns(), meter.read()
    runs, after = 0, before
    while time.perf_counter_ns() - begin < seconds * 1e9:
        if sample is None:
            time.sleep(_ENERGY_LOOK_S)
        else:
            runs += len(_collect(sample, _ENERGY_LOOK_S, 1, _ENERGY_LOOK_S))
        after = meter.read()
    return {"uj": after - before, "ns": time.perf_counter_ns() - begin, "runs": runs}


def _sustain(job: Job) -> Job:
    """Run a model back to back for long, with a look at the machine now and then.

    Reads ``sustain_s``, ``interval_s`` (between looks) and ``cap_s``. Each of ``slots`` has the
    inferences from ``begin_ns`` to ``end_ns`` and the :func:`_state` at its end; ``uj`` is what the
    machine took until then, if there is a ``source``. ``before`` is the state at first.
    """
    before, meter = _state(), _Meter()
    session = _open(job)
    batch, rotation = _rotation(session, job)
    runs = _grouped(_first_runs(session, rotation, job["cap_s"])[0])
    sample = _sampler(session, rotation, runs)
    slots: list[Job] = []
    begin = time.perf_counter_ns()
    begin_uj = meter.read()
    while not slots or slots[-1]["end_ns"] < job["sustain_s"] * 1e9:
        slot = {"begin_ns": time.perf_counter_ns() - begin}
        done = len(_collect(sample, job["interval_s"], 1, job["interval_s"]))
        slot["end_ns"] = time.perf_counter_ns() - begin
        slots.append({**slot, "runs": done * runs, "uj": meter.read() - begin_uj, **_state()})
    return {
        "batch": batch,
        "shapes": _shapes(rotation),
        "source": meter.source,
        "before": before,
        "slots": slots,
    }


# -- where the time goes ----------------------------------------------------------------------


def _own_times(events: list[Job]) -> list[float]:
    """Microseconds of each operator of one run, less those of operators that ran inside it.

    ``events`` are in the order of their ends, so that the body of a loop comes before the loop.
    onnxruntime counts whole microseconds; they are taken at their middle.
    """
    own: list[float] = []
    done: list[tuple[int, float]] = []
    for event in events:
        took = event["dur"] + 0.5
        inside = 0.0
        while done and done[-1][0] >= event["ts"] and event["dur"] > 0:
            inside += done.pop()[1]
        own.append(max(0.0, took - inside))
        done.append((event["ts"], took))
    return own


def _traced_runs(events: list[Job], runs: int) -> list[list[Job]]:
    """The operators of each of the last ``runs`` runs, from onnxruntime's list of events."""
    found: list[list[Job]] = [[]]
    for event in events:
        if str(event.get("name", "")).endswith("_kernel_time") and event.get("cat") == "Node":
            found[-1].append(event)
        elif event.get("name") == "model_run":
            found.append([])
    return found[:-1][-runs:]


def _operators(runs: list[list[Job]]) -> list[Job]:
    """What is known of each operator, and its mean time in the middle half of the runs.

    Whole runs are kept or left out, so that the times add up to that of a run; what disturbed the
    machine fell into the slow ones.
    """
    times = [_own_times(events) for events in runs]
    order = sorted(range(len(runs)), key=lambda run: sum(times[run]))
    kept = order[len(order) // 4 : len(order) - len(order) // 4]
    found: dict[tuple[str, str], Job] = {}
    for run in kept:
        for event, took_us in _pairs(runs[run], times[run]):
            facts = event.get("args", {})
            name = event["name"][: -len("_kernel_time")]
            key = (name, str(facts.get("node_index", "")))
            if key not in found:
                found[key] = {
                    "name": name,
                    "operator": facts.get("op_name", ""),
                    "provider": facts.get("provider", ""),
                    "inputs": [next(iter(t.items())) for t in facts.get("input_type_shape", [])],
                    "outputs": [next(iter(t.items())) for t in facts.get("output_type_shape", [])],
                    "calls": 0.0,
                    "ns": 0.0,
                }
            found[key]["calls"] += 1 / len(kept)
            found[key]["ns"] += 1000 * took_us / len(kept)
    return list(found.values())


def _profile(job: Job) -> Job:
    """Time of every operator, by onnxruntime's profiler, beside that of an unprofiled run.

    Reads what :func:`_time` reads, and ``graph``: whether to return the graph that ran, without its
    large weights (an ONNX file; zlib, base64). ``operators`` are in the order in which they ran,
    with the types and shapes of what they read and made; ``ns`` is for one run of the model, and
    includes what the profiler itself took. ``run_ns`` does not.
    """
    plain = _open(job)
    batch, rotation = _rotation(plain, job)
    first, _ = _first_runs(plain, rotation, job["cap_s"])
    grouped = _grouped(first)
    sample = _sampler(plain, rotation, grouped)
    _warm_up(sample, job["window_s"], job["warmup_cap_s"])
    samples = _collect(sample, job["sample_s"], job["least"], job["cap_s"])
    run_ns = float(np.median(samples)) / grouped
    del plain, sample
    runs = max(5, min(_TRACED_RUNS, int(job["sample_s"] * 1e9 / run_ns)))
    with tempfile.TemporaryDirectory(prefix="compresskit-") as folder:
        traced = _open(job, trace=folder)
        for feed in itertools.islice(itertools.cycle(rotation), len(rotation) + runs):
            traced.run(None, feed)
        events = json.loads(Path(traced.end_profiling()).read_text(encoding="utf-8"))
        graph = Path(folder, "graph.onnx").read_bytes() if job.get("graph") else b""
    return {
        "batch": batch,
        "shapes": _shapes(rotation),
        "run_ns": run_ns,
        "runs": runs,
        "operators": _operators(_traced_runs(events, runs)),
        "graph": base64.b64encode(zlib.compress(graph)).decode() if graph else None,
    }


# -- memory -----------------------------------------------------------------------------------


def _status_bytes(key: str) -> int:
    return int(_read("/proc/self/status").partition(f"{key}:")[2].split()[0]) * 1024


def _reset_peak() -> bool:
    """Set the high-water mark of resident memory back to the present; whether that worked."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _start_runtime(job: Job) -> None:
    """Open and run a trivial model: what a first session costs is the runtime's, no model's."""
    _open({**job, "model": _TRIVIAL}).run(None, {"x": np.ones(1, np.float32)})
    if not job.get("inputs"):
        # Drawing inputs loads a part of numpy that an application would not.
        np.random.default_rng(0).standard_normal(1)


def _memory(job: Job) -> Job:
    """Peak resident memory while loading and while running (``VmHWM``, which misses no spike).

    ``ru_maxrss`` will not do: it starts at the parent's footprint. ``runtime_bytes`` is Python,
    numpy and the runtime after one trivial model: the first session of a process pages in some
    10 MB of library, which would hide what a small model needs. Without a writable ``clear_refs``
    the peak of the run includes that of the load, which the headline does anyway. Where the
    system does not tell, the answer is ``{"unavailable": "why"}``. ``energy_source`` says whether
    an ``energy`` job would be of use.
    """
    if "VmHWM:" not in _read("/proc/self/status"):
        return {"unavailable": "peak memory needs VmHWM in /proc/self/status, which is not here"}
    free = free_memory_bytes()
    _start_runtime(job)
    gc.collect()
    reset = _reset_peak()
    runtime = _status_bytes("VmRSS" if reset else "VmHWM")
    session = _open(job)
    load_peak = _status_bytes("VmHWM")
    # One batch, which an application holds too; more would be this job's own.
    batch, rotation = _rotation(session, job, 1)
    _reset_peak()
    _collect(_sampler(session, rotation, 1), 0, _MEMORY_RUNS, _MEMORY_CAP_S)
    run_peak = _status_bytes("VmHWM")
    return {
        "batch": batch,
        "runtime_bytes": runtime,
        "load_peak_bytes": load_peak,
        "run_peak_bytes": run_peak,
        "resident_bytes": _status_bytes("VmRSS"),
        "free_bytes": None if math.isinf(free) else free,
        "reset": reset,
        "energy_source": _Meter().source,
    }


# -- checks -----------------------------------------------------------------------------------


def _denormal_ratio(job: Job) -> float:
    """Time of a run over its time with denormal numbers flushed to zero: the lower quartile.

    onnxruntime sets the CPU's flush bit only on the thread that makes the first session of a
    process. So the flushed session comes first, on a thread of its own, and short blocks of both
    alternate. On a busy machine the median of their ratios strays by 20 %; the lower quartile
    stayed below 1 in every trial of a model without denormals.
    """
    ratios: list[float] = []
    with ThreadPoolExecutor(1) as other:
        flushed = other.submit(_open, job, "session.set_denormal_as_zero").result()
        plain = _open(job)
        _, rotation = _rotation(plain, job)
        quick, slow = _sampler(flushed, rotation, 1), _sampler(plain, rotation, 1)
        begin = time.perf_counter()
        while len(ratios) < 40 and (len(ratios) < 4 or time.perf_counter() - begin < 0.5):
            without = np.median(other.submit(_collect, quick, 0.002, 1, 1.0).result())
            ratios.append(float(np.median(_collect(slow, 0.002, 1, 1.0)) / without))
    return float(np.percentile(ratios, 25))


def _sqnr_db(reference: Any, outputs: Any) -> float | None:
    """Signal-to-noise ratio in decibel over all numbers; ``None`` where all of them are equal."""
    signal = noise = 0.0
    for expected, got in _pairs(reference, outputs):
        if np.shape(expected) != np.shape(got):
            return -math.inf
        if isinstance(expected, np.ndarray) and expected.dtype.kind in "fiu":
            signal += float(np.square(expected, dtype=np.float64).sum())
            noise += float(np.square(np.subtract(got, expected, dtype=np.float64)).sum())
    if not noise > 0 or not signal > 0:
        return None
    return 10 * math.log10(signal / noise)


def _check(job: Job) -> Job:
    """What would make a model's numbers misleading on this device.

    ``saturation_sqnr_db`` compares the outputs with those of saturation-free int8 kernels
    (``session.x64quantprecision``; in OpenVINO, of the same file in float32) and is ``None`` where
    they are the same, or where the file cannot be opened so; ``denormal_ratio`` is the slow-down by
    denormal numbers.
    """
    # The denormal check first: it must own the first session of the process.
    ratio = _denormal_ratio(job)
    usual = _open(job)
    try:
        exact = _open(job, "session.x64quantprecision")
    except Exception:  # onnxruntime cannot rewrite graphs in which int8 constants are shared
        exact = None
    signal: list[Any] = []
    noisy: list[Any] = []
    again: list[Any] = []
    for feed in _rotation(usual, job)[1][:4]:
        noisy += usual.run(None, feed)
        signal += exact.run(None, feed) if exact is not None else []
        again += usual.run(None, feed)
    repeatable = _sqnr_db(noisy, again) is None
    saturation = _sqnr_db(signal, noisy) if exact is not None and repeatable else None
    if _runtime(job) == "openvino" and saturation is not None and saturation > _OPENVINO_DB:
        saturation = None
    return {
        "denormal_ratio": ratio,
        "saturation_sqnr_db": saturation,
        "repeatable": repeatable,
        "finite": _finite(noisy),
    }


# -- running ----------------------------------------------------------------------------------


def _rows(name: str, value: Any, batch: int, stacked: bool) -> Array:
    if not isinstance(value, np.ndarray):
        raise JobError(f"the output {name!r} is no tensor but a {type(value).__name__}.")
    if value.dtype.kind == "O":
        raise JobError(f"the output {name!r} holds strings; only numbers can be scored.")
    if stacked:
        return value[None]
    if value.shape[:1] != (batch,):
        raise JobError(
            f"the output {name!r} has shape {value.shape}; its first axis should be the {batch} "
            "samples of the batch."
        )
    return value


def _predict(job: Job) -> Job:
    """Run every sample, in order; write each output to ``folder`` as ``output-N.npy``.

    The last batch is filled up with its last sample, which moves no range that a model computes
    from its batch, and cut.
    """
    session = _open(job)
    feeds = Feeds(session, job)
    names = [value.name for value in session.get_outputs()]
    paths = [os.path.join(job["folder"], f"output-{i}.npy") for i in range(len(names))]
    stacked = len(feeds.single) == len(feeds.ports)
    files: list[Any] = []
    for start in range(0, feeds.samples, feeds.batch):
        rows = np.minimum(np.arange(start, start + feeds.batch), feeds.samples - 1)
        values = session.run(None, feeds.take(rows))
        outputs = [_rows(name, v, feeds.batch, stacked) for name, v in _pairs(names, values)]
        if not files:
            files = [
                np.lib.format.open_memmap(
                    path, "w+", value.dtype, (feeds.samples, *value.shape[1:])
                )
                for path, value in _pairs(paths, outputs)
            ]
        count = min(feeds.batch, feeds.samples - start)
        for i, (file, value) in enumerate(_pairs(files, outputs)):
            if value.shape[1:] != file.shape[1:]:
                raise JobError(f"the output {names[i]!r} changes shape between samples.")
            file[start : start + count] = value[:count]
    for file in files:
        file.flush()
    return {"outputs": paths, "names": names, "samples": feeds.samples, "batch": feeds.batch}


def _fit(job: Job) -> Job:
    """Whether a model runs with what is drawn, and with which sizes: guesses are tried in turn.

    ``shapes`` are those it runs with, ``guessed`` the axes among them that nobody told, ``tried``
    all shapes. ``failed`` is what the runtime said to the first; it is ``None`` if the model runs.
    """
    session = _open(job)
    begin = time.monotonic()
    failed = ""
    tried: list[dict[str, Any]] = []
    for guess in (0, *_GUESSES):
        draws = Draws(session, job, guess)
        late = tried and time.monotonic() - begin > _GUESSING_CAP_S
        large = draws.guessed and guess != _GUESSES[-1] and draws.feed_bytes > _FEEDS_BYTES
        if late or large or draws.shapes in tried:
            continue
        tried.append(draws.shapes)
        try:
            session.run(None, draws.rotation(1)[0])
        except JobError:
            raise
        except Exception as error:
            failed = failed or _sentence(error, math.inf)
        else:
            failed = ""
            break
    return {
        "inputs": [port._asdict() for port in _ports(session.get_inputs())],
        "shapes": tried[0] if failed else draws.shapes,
        "guessed": draws.guessed,
        "tried": tried,
        "failed": failed or None,
    }


def _inspect(job: Job) -> Job:
    """Names, types and shapes of a model's inputs and outputs; ``None`` where a size is open."""
    session = _open(job)
    both = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    keys = ("name", "type", "shape")  # what every runtime tells
    return {
        side: [{key: getattr(port, key) for key in keys} for port in _ports(values)]
        for side, values in both.items()
    }


def _environment(job: Job) -> Job:
    """:func:`machine`, and version, build and providers of the job's runtime."""
    return {**machine(), **_runtime_facts(job)}


JOBS: dict[str, Callable[[Job], Job]] = {
    "time": _time,
    "memory": _memory,
    "check": _check,
    "energy": _energy,
    "sustain": _sustain,
    "profile": _profile,
    "predict": _predict,
    "fit": _fit,
    "inspect": _inspect,
    "environment": _environment,
}


def _sentence(error: BaseException, allowed: float) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, JobError):
        return text
    text = f"{type(error).__name__}: {text}"[:2000]
    if math.isfinite(allowed) and "alloc" in text:
        text += f" [the process may take {allowed:.0f} bytes of memory]"
    return text


def answer(text: str, *, bounded: bool = False, ask: Ask | None = None) -> Job:
    """What standard output gets for the job in ``text``.

    ``bounded``: limit the memory of this process first, for good. With ``ask`` there is one more
    kind of job: ``turns``.
    """
    allowed = math.inf
    jobs = dict(JOBS)
    if ask is not None:
        jobs["turns"] = functools.partial(_take_turns, ask=ask)
    try:
        job = json.loads(text)
        allowed = _bound_memory(job) if bounded else allowed
        work = jobs.get(job["kind"])
        if work is None:
            return {"error": f"the job's kind is {job['kind']!r}; known are {', '.join(jobs)}."}
        return work(job)
    except Exception as error:
        return {"error": _sentence(error, allowed)}


# -- the end ----------------------------------------------------------------------------------


def _end_with(text: str) -> None:
    """End when ``parent``, the process that gave the job, does: whatever a model computes.

    What waits for its input sees its end; a model that computes without end never looks.
    """
    with contextlib.suppress(ValueError, TypeError, KeyError):
        parent = int(json.loads(text)["parent"])
        if not (os.getppid() == parent and _killed_with_parent()):
            # Not the system's work, or something stands between: whatever starts Python here.
            threading.Thread(target=_watch, args=(parent,), daemon=True).start()
        elif os.getppid() != parent:
            os._exit(1)  # it ended before the system was asked


def _killed_with_parent() -> bool:
    """Ask Linux to kill this process when the thread that started it ends."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _watch(parent: int) -> None:
    _wait_on_windows(parent) if sys.platform == "win32" else _wait(parent)
    os._exit(1)


def _wait(parent: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        while True:
            time.sleep(_LOOK_S)
            with contextlib.suppress(PermissionError):
                os.kill(parent, 0)


def _wait_on_windows(parent: int) -> None:
    system: Any = ctypes.windll.kernel32  # type: ignore[attr-defined]
    system.OpenProcess.restype = ctypes.c_void_p
    handle = system.OpenProcess(_SYNCHRONIZE, False, parent)
    if handle:
        system.WaitForSingleObject(ctypes.c_void_p(handle), _FOREVER)


def main(arguments: list[str]) -> None:
    """Do the job in the file named by the first argument, or on standard input."""
    # Native code may print; only the answer may reach standard output.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    text = Path(arguments[0]).read_text(encoding="utf-8") if arguments else sys.stdin.readline()
    _end_with(text)

    def ask(line: str) -> str:
        print(line, file=channel, flush=True)
        return sys.stdin.readline()

    with channel:
        json.dump(answer(text, bounded=True, ask=ask), channel)


if __name__ == "__main__":
    main(sys.argv[1:])
