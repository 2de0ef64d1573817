"""Worker: the fresh process that loads one ONNX model and times, sizes, checks or runs it.

One file on purpose. It needs the standard library, numpy and onnxruntime, keeps to Python 3.9, and
knows nothing of this package, so that a copy of it runs on a bare device::

    python -I worker.py job.json        # or the job on standard input

A job is a JSON object; ``kind`` is a key of :data:`JOBS`, whose functions say what else they read
and what they return. The answer is one JSON object on standard output, ``{"error": "..."}`` where
the job could not be done; the exit status is non-zero only if the process crashed.

Keys that every job with a model reads: ``model`` (path), ``threads`` (intra-op), ``batch`` (for
models that do not fix it), ``inputs`` (model input name to ``.npy`` path, the empty name for a
single input; without it inputs are drawn from ``seed``). Array rows are samples. Times are in
nanoseconds: integers survive JSON.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["JOBS", "Feeds", "answer", "cpu_count", "cpu_flags", "machine", "main"]

Array = Any
Job = dict[str, Any]

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
_SHORT_RUN_NS = 100_000  # below this, the clock and the loop are a visible part of one run
_SHORT_SAMPLE_NS = 200_000  # so runs are timed in groups of about this length
_PROBE_LOOPS = 40_000  # about 5 ms on a core of the 2020s
_MEMORY_RUNS = 20  # an arena has its final size after a few
_MEMORY_CAP_S = 10
# The smallest model there is: one Identity (opset 13, IR 7) on one float.
_TRIVIAL = (
    b'\x08\x07\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
_UNKNOWN_DIM = 16
_UNKNOWN_SIDE = 224


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


def _cpu_limit() -> float:
    """The tightest CPU quota, in cores, of this process's control groups and those above them."""
    limit = math.inf
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root = Path("/sys/fs/cgroup/cpu" if controllers else "/sys/fs/cgroup")
            parts = path.strip("/").split("/")
            folders = [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
            limit = min([limit, *map(_quota, folders)])
    return limit


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


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine() -> Job:
    """What the device is and how it is set: names are stable, missing facts are empty."""
    cpu = sorted(set(_cpuinfo("model name"))) or sorted(
        set(_cpuinfo("CPU implementer", "CPU part"))
    )
    policies = sorted(Path("/sys/devices/system/cpu/cpufreq").glob("policy*"))
    supplies = sorted(Path("/sys/class/power_supply").glob("*/online"))
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    memory = _read("/proc/meminfo").partition("MemTotal:")[2].split()
    return {
        "arch": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "cpu": ", ".join(cpu) or platform.processor(),
        "board": _read("/proc/device-tree/model"),
        "isa": [flag for flag in ISA_FLAGS if flag in cpu_flags()],
        "cores": os.cpu_count() or 1,
        "max_khz": [_read(f"{policy}/cpuinfo_max_freq") for policy in policies],
        "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
        "python": platform.python_version(),
        "governor": sorted({_read(f"{policy}/scaling_governor") for policy in policies}),
        "boost": _read("/sys/devices/system/cpu/cpufreq/boost"),
        "affinity": _affinity(),
        "cpu_limit": None if math.isinf(_cpu_limit()) else _cpu_limit(),
        "mains_power": [_read(str(supply)) == "1" for supply in supplies],
        "load": _load(),
        "pressure": _read("/proc/pressure/cpu").partition("\n")[0],
        "temperatures_mc": [int(value) for value in map(_read, map(str, zones)) if value.isdigit()],
    }


def _probe() -> int:
    """Time of a fixed piece of integer work: the only sensor where there is no cpufreq."""
    begin = time.perf_counter_ns()
    value = 1
    for _ in range(_PROBE_LOOPS):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return time.perf_counter_ns() - begin


# -- the model and its inputs -----------------------------------------------------------------


def _open(job: Job, option: str = "") -> Any:
    """An onnxruntime session as it would be deployed, or with one session option switched on."""
    import onnxruntime

    model = job["model"]
    if isinstance(model, str) and not os.path.isfile(model):
        raise JobError("there is no such file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(job.get("threads", 1))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if option:
        options.add_session_config_entry(option, "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Port(NamedTuple):
    """One input of a model; ``None`` stands for a dimension that the file leaves open."""

    name: str
    type: str
    shape: list[int | None]

    @property
    def dtype(self) -> Any:
        """The numpy type that the input takes."""
        element = self.type[len("tensor(") : -1] if self.type.startswith("tensor(") else ""
        if element not in _DTYPES and element not in _SAME_NAME:
            raise JobError(
                f"the input {self.name!r} has type {self.type}, which numpy cannot hold."
            )
        return np.dtype(_DTYPES.get(element, element))


def _ports(values: Any) -> list[Port]:
    fixed = [[d if isinstance(d, int) and d > 0 else None for d in value.shape] for value in values]
    return [Port(value.name, value.type, shape) for value, shape in _pairs(values, fixed)]


def _pairs(left: Any, right: Any) -> Iterator[tuple[Any, Any]]:
    # Python 3.9 has no zip(strict=True), and both sides are always of one length here.
    return ((left[i], right[i]) for i in range(len(left)))


def _draw(port: Port, samples: int, rng: Any) -> Array:
    """Samples for one input: standard normal floats, pixels for uint8, else zeros and ones.

    Zeros and ones are in range for token ids, masks and flags alike. An open dimension becomes
    16, or 224 where it is a side of a four-dimensional float input (an image).
    """
    image = len(port.shape) == 4 and port.dtype.kind == "f"
    unknown = [
        _UNKNOWN_SIDE if image and axis >= 2 else _UNKNOWN_DIM for axis in range(len(port.shape))
    ]
    shape = [samples, *(d or unknown[axis] for axis, d in enumerate(port.shape) if axis > 0)]
    if port.dtype.kind == "f":
        return rng.standard_normal(shape).astype(port.dtype)
    if port.dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    return rng.integers(0, 256 if port.dtype == np.uint8 else 2, shape).astype(port.dtype)


class Feeds:
    """Batches of a model's inputs, cut from arrays whose rows are samples.

    An array with one axis more than its input belongs to an input without a batch axis; it is fed
    one row at a time.
    """

    def __init__(self, session: Any, job: Job) -> None:
        self.ports = _ports(session.get_inputs())
        self.arrays = self._arrays(job)
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

    def _arrays(self, job: Job) -> dict[str, Array]:
        given = job.get("inputs") or {}
        if not given:
            rng = np.random.default_rng(job.get("seed", 0))
            batches = [port.shape[0] or 0 for port in self.ports if port.shape]
            samples = max([_FEEDS, int(job.get("batch", 1)), *batches])
            return {port.name: _draw(port, samples, rng) for port in self.ports}
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
                f"the input {port.name!r} takes shape {port.shape}; got samples {array.shape}."
            )
        if port.dtype.kind != "O" and not np.can_cast(array.dtype, port.dtype, "same_kind"):
            raise JobError(f"the input {port.name!r} takes {port.dtype}; got {array.dtype}.")
        return array

    def take(self, rows: Array) -> dict[str, Array]:
        """One batch: the samples with these row numbers."""
        feed = {}
        for port in self.ports:
            chosen = rows[0] if port.name in self.single else rows
            feed[port.name] = np.array(self.arrays[port.name][chosen], port.dtype, order="C")
        return feed

    def rotation(self) -> list[dict[str, Array]]:
        """Up to eight different batches, spread over the samples."""
        count = min(_FEEDS, self.samples)
        starts = [i * self.samples // count for i in range(count)]
        return [self.take((start + np.arange(self.batch)) % self.samples) for start in starts]


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


def _time(job: Job) -> Job:
    """Load, warm up and time a model.

    Reads ``window_s`` and ``warmup_cap_s`` (warm-up), ``sample_s``, ``least`` and ``cap_s``
    (sampling), and optionally ``runs_per_sample``, which else is 1 for runs of 100 us or more.
    Each entry of ``samples_ns`` is the time of ``runs_per_sample`` inferences.
    """
    begin = time.perf_counter_ns()
    import onnxruntime

    imported = time.perf_counter_ns()
    session = _open(job)
    created = time.perf_counter_ns()
    feeds = Feeds(session, job)
    rotation = feeds.rotation()
    first, finite = _first_runs(session, rotation, job["cap_s"])
    quickest = max(1, min(first))
    runs = job.get("runs_per_sample") or (
        1 if quickest >= _SHORT_RUN_NS else math.ceil(_SHORT_SAMPLE_NS / quickest)
    )
    sample = _sampler(session, rotation, runs)
    gc.collect()
    gc.freeze()
    gc.disable()
    warmup, steady = _warm_up(sample, job["window_s"], job["warmup_cap_s"])
    load, probe = _load(), _probe()
    sample()  # the probe has had the caches
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    samples = _collect(sample, job["sample_s"], job["least"], job["cap_s"])
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return {
        "batch": feeds.batch,
        "runs_per_sample": runs,
        "import_ns": imported - begin,
        "create_ns": created - imported,
        "first_run_ns": first[0],
        "warmup_ns": warmup,
        "samples_ns": samples,
        "steady": steady,
        "finite": finite,
        "wall_ns": wall,
        "cpu_ns": cpu,
        "load": [load, _load()],
        "probe_ns": [probe, _probe()],
        "onnxruntime": onnxruntime.__version__,
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
    numpy and onnxruntime after one trivial model: the first session of a process pages in some
    10 MB of library, which would hide what a small model needs. Without a writable ``clear_refs``
    the peak of the run includes that of the load, which the headline does anyway. Where the
    system does not tell, the answer is ``{"unavailable": "why"}``.
    """
    if "VmHWM:" not in _read("/proc/self/status"):
        return {"unavailable": "peak memory needs VmHWM in /proc/self/status, which is not here"}
    _start_runtime(job)
    gc.collect()
    reset = _reset_peak()
    runtime = _status_bytes("VmRSS" if reset else "VmHWM")
    session = _open(job)
    load_peak = _status_bytes("VmHWM")
    feeds = Feeds(session, job)
    batch = feeds.batch
    feed = feeds.take(np.arange(batch) % feeds.samples)
    # Samples beyond the one batch that an application holds too are this job's own.
    del feeds
    _reset_peak()
    _collect(_sampler(session, [feed], 1), 0, _MEMORY_RUNS, _MEMORY_CAP_S)
    run_peak = _status_bytes("VmHWM")
    return {
        "batch": batch,
        "runtime_bytes": runtime,
        "load_peak_bytes": load_peak,
        "run_peak_bytes": run_peak,
        "resident_bytes": _status_bytes("VmRSS"),
        "reset": reset,
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
        rotation = Feeds(plain, job).rotation()
        quick, slow = _sampler(flushed, rotation, 1), _sampler(plain, rotation, 1)
        begin = time.perf_counter()
        while len(ratios) < 40 and (len(ratios) < 4 or time.perf_counter() - begin < 0.5):
            without = np.median(other.submit(_collect, quick, 0.002, 1, 1.0).result())
            ratios.append(float(np.median(_collect(slow, 0.002, 1, 1.0)) / without))
    return float(np.percentile(ratios, 25))


def _sqnr_db(reference: Any, outputs: Any) -> float | None:
    """Signal-to-noise ratio in decibel over all float outputs; ``None`` where they are equal."""
    signal = noise = 0.0
    for expected, got in _pairs(reference, outputs):
        if isinstance(expected, np.ndarray) and expected.dtype.kind in "fiu":
            signal += float(np.square(expected, dtype=np.float64).sum())
            noise += float(np.square(np.subtract(got, expected, dtype=np.float64)).sum())
    if not noise > 0 or not signal > 0:
        return None
    return 10 * math.log10(signal / noise)


def _check(job: Job) -> Job:
    """What would make a model's numbers misleading on this device.

    ``saturation_sqnr_db`` compares the outputs with those of saturation-free int8 kernels
    (``session.x64quantprecision``) and is ``None`` where they are the same, or where the file
    cannot be opened so; ``denormal_ratio`` is the slow-down by denormal numbers.
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
    for feed in Feeds(usual, job).rotation()[:4]:
        noisy += usual.run(None, feed)
        signal += exact.run(None, feed) if exact is not None else []
        again += usual.run(None, feed)
    repeatable = _sqnr_db(noisy, again) is None
    return {
        "denormal_ratio": ratio,
        "saturation_sqnr_db": _sqnr_db(signal, noisy) if exact is not None and repeatable else None,
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


def _inspect(job: Job) -> Job:
    """Names, types and shapes of a model's inputs and outputs; ``None`` where a size is open."""
    session = _open(job)
    return {
        "inputs": [port._asdict() for port in _ports(session.get_inputs())],
        "outputs": [port._asdict() for port in _ports(session.get_outputs())],
    }


def _environment(_: Job) -> Job:
    """:func:`machine`, and the runtime's version, build and providers."""
    import onnxruntime

    return {
        **machine(),
        "onnxruntime": onnxruntime.__version__,
        "build": onnxruntime.get_build_info(),
        "providers": onnxruntime.get_available_providers(),
    }


JOBS: dict[str, Callable[[Job], Job]] = {
    "time": _time,
    "memory": _memory,
    "check": _check,
    "predict": _predict,
    "inspect": _inspect,
    "environment": _environment,
}


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, JobError):
        return text
    return f"{type(error).__name__}: {text}"[:500]


def answer(text: str) -> Job:
    """What standard output gets for the job in ``text``."""
    try:
        job = json.loads(text)
        work = JOBS.get(job["kind"])
        if work is None:
            return {"error": f"the job's kind is {job['kind']!r}; known are {', '.join(JOBS)}."}
        return work(job)
    except Exception as error:
        return {"error": _sentence(error)}


def main(arguments: list[str]) -> None:
    """Do the job in the file named by the first argument, or on standard input."""
    # Native code may print; only the answer may reach standard output.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    text = Path(arguments[0]).read_text(encoding="utf-8") if arguments else sys.stdin.read()
    with channel:
        json.dump(answer(text), channel)


if __name__ == "__main__":
    main(sys.argv[1:])
