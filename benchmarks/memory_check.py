"""Is ``model_peak_bytes`` what a model takes, whoever asks and whoever starts the process?

A chain of matrix products with 24 MiB of weights. The number under test is the worker's: the
high-water mark of resident memory (``VmHWM``), above what the runtime has taken once it has run a
trivial model. It is held against two witnesses that have nothing to do with the worker, both on a
small program that does as an application would (start onnxruntime, load the model, run it):

- *pages*: another process stops the program about every tenth of a millisecond and has the kernel
  count its private pages (``/proc/PID/smaps_rollup``); no counter or high-water mark is involved,
  and since the program stands still meanwhile, no peak of that length is missed;
- *heap*: ``valgrind --tool=massif``, which sees every allocation and no pages at all. It is left
  out where there is no valgrind, and from ``--smoke``: it takes a minute.

A control group's ``memory.peak`` would do as well, but making one takes root. The same number is
taken with and without 1 GB held by the process that starts the worker: a child begins with its
parent's ``ru_maxrss``, which is why that is not what is read.

The worker and the program have ``MALLOC_MMAP_THRESHOLD_=131072``, with which glibc gives large
blocks back as soon as they are freed. What the program takes without it is reported as well.

    python benchmarks/memory_check.py            # some minutes
    python benchmarks/memory_check.py --smoke    # seconds
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from claims import Claim, at_most, mean_interval, script_parser, write
from onnx import TensorProto, helper

from compress.measure.local import LocalTarget
from compress.measure.summary import memory_facts

LAYERS, WIDTH = 6, 1024  # of float32: 24 MiB
REPEATS, SMOKE_REPEATS = 20, 3
HELD_BYTES, SMOKE_HELD_BYTES = 1_000_000_000, 100_000_000
AGREES, SAME = 0.05, 0.02
EVERY_S = 1e-4
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
#: Starts the runtime on a trivial model and says so; given leave, loads and runs the model.
PROGRAM = """
import os, sys
import numpy, onnxruntime

def load(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

def run(session):
    port = session.get_inputs()[0]
    feed = numpy.random.default_rng(0).standard_normal(port.shape, "float32")
    for _ in range(5):
        session.run(None, {port.name: feed})

run(load(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
if len(sys.argv) > 2:
    run(load(sys.argv[2]))
    print("done", flush=True)
    sys.stdin.readline()
os._exit(0)  # nothing is given back before it is counted
"""


def chain(layers: int, width: int, path: Path) -> Path:
    """A file with ``layers`` square products, each followed by a ReLU."""
    draw = np.random.default_rng(0)
    nodes, weights = [], []
    for layer in range(layers):
        values = draw.standard_normal((width, width), "float32") / width**0.5
        weights.append(onnx.numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"y{layer}"]))
        nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
        for name in ("x0", f"x{layers}")
    ]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


# -- the number under test --------------------------------------------------------------------


def model_peak_bytes(model: Path) -> int:
    """As in a record."""
    return memory_facts(LocalTarget().work("memory", model, {"inputs": {}})).model_peak_bytes


def with_parent_holding(bytes_held: int, model: Path) -> int:
    """The same, while this process holds so much."""
    held = np.ones(bytes_held, np.uint8)
    found = model_peak_bytes(model)
    assert held[-1] == 1  # still there
    return found


# -- the witnesses ----------------------------------------------------------------------------


def private_bytes(pid: int) -> int:
    """What the kernel would get back if the process ended, from a walk over its page tables."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.M)))


def pages_peak_bytes(trivial: Path, model: Path, settings: Mapping[str, str]) -> int:
    """Most private pages of the program while it loads and runs the model, above those before."""
    command = [sys.executable, "-c", PROGRAM, str(trivial), str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, **settings}, **pipes) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline()
        before = peak = private_bytes(program.pid)
        program.stdin.write(b"\n")
        program.stdin.flush()
        while not select.select([program.stdout], [], [], EVERY_S)[0]:
            program.send_signal(signal.SIGSTOP)
            peak = max(peak, private_bytes(program.pid))
            program.send_signal(signal.SIGCONT)
        program.stdin.close()
    return peak - before


def heap_bytes(folder: Path, *models: Path) -> tuple[int, int]:
    """Most bytes that the program had allocated at a time, and those at its end, by massif."""
    out = folder / "massif.out"
    options = ["--tool=massif", f"--massif-out-file={out}", "--peak-inaccuracy=0", "--depth=1"]
    command = ["valgrind", *options, sys.executable, "-c", PROGRAM, *map(str, models)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    parts = re.findall(r"mem_heap_B=(\d+)\nmem_heap_extra_B=(\d+)", out.read_text())
    totals = [int(heap) + int(extra) for heap, extra in parts]
    return max(totals), totals[-1]


def heap_peak_bytes(trivial: Path, model: Path, folder: Path) -> int:
    """Most bytes allocated with the model, above those of the runtime when it was ready."""
    _, ready = heap_bytes(folder, trivial)
    peak, _ = heap_bytes(folder, trivial, model)
    return peak - ready


# -- what they say ----------------------------------------------------------------------------


def trial(number: int, trivial: Path, model: Path, held_bytes: int) -> dict[str, int]:
    """Each number once, in an order that depends on ``number``."""
    ways = {
        "worker": lambda: model_peak_bytes(model),
        "worker, parent holding": lambda: with_parent_holding(held_bytes, model),
        "pages": lambda: pages_peak_bytes(trivial, model, GIVES_BACK),
        "pages, by glibc's default": lambda: pages_peak_bytes(trivial, model, {}),
    }
    order = np.random.default_rng(number).permutation(list(ways))
    found = {name: ways[name]() for name in order}
    print(", ".join(f"{name} {found[name] / 2**20:.2f} MiB" for name in ways), flush=True)
    return {name: found[name] for name in ways}


def table(trials: Sequence[Mapping[str, int]], heap: int | None) -> str:
    """Each number's median, least and most."""
    lines = [f"{'MiB':<28}{'median':>8}{'least':>8}{'most':>8}"]
    for way in trials[0]:
        seen = np.array([trial[way] for trial in trials]) / 2**20
        lines.append(f"{way:<28}{np.median(seen):>8.2f}{seen.min():>8.2f}{seen.max():>8.2f}")
    if heap is not None:
        lines.append(f"{'heap, by massif':<28}{heap / 2**20:>8.2f}")
    return "\n".join(lines)


def far_from_one(id: str, statement: str, ratios: list[float], bound: float) -> Claim:
    """A claim that a ratio is 1, give or take ``bound``, at the far end of its interval."""
    mean, ci95 = mean_interval([ratio - 1 for ratio in ratios])
    low, high = ci95 or (mean, mean)
    return at_most(id, statement, max(abs(low), abs(high)), bound, ci95)


def claims_of(trials: list[dict[str, int]], heap: int | None, held_bytes: int) -> Iterator[Claim]:
    """What the trials are to show."""
    weights = f"{LAYERS * WIDTH**2 * 4 >> 20} MiB of weights"
    yield far_from_one(
        "pages",
        f"{weights}: model_peak_bytes over private pages, less 1",
        [t["worker"] / t["pages"] for t in trials],
        AGREES,
    )
    if heap is not None:
        yield far_from_one(
            "heap",
            f"{weights}: model_peak_bytes over massif's heap, less 1",
            [t["worker"] / heap for t in trials],
            AGREES,
        )
    yield far_from_one(
        "parent",
        f"model_peak_bytes with {held_bytes / 1e9:g} GB held by the parent over without, less 1",
        [t["worker, parent holding"] / t["worker"] for t in trials],
        SAME,
    )


def main() -> None:
    """Ask all witnesses and write the result."""
    arguments = script_parser(__doc__).parse_args()
    smoke = arguments.smoke
    held_bytes = SMOKE_HELD_BYTES if smoke else HELD_BYTES
    with tempfile.TemporaryDirectory() as folder:
        trivial = chain(1, 1, Path(folder) / "trivial.onnx")
        model = chain(LAYERS, WIDTH, Path(folder) / "model.onnx")
        numbers = range(SMOKE_REPEATS if smoke else REPEATS)
        trials = [trial(number, trivial, model, held_bytes) for number in numbers]
        heap = None
        if not smoke and shutil.which("valgrind"):
            heap = heap_peak_bytes(trivial, model, Path(folder))
    raw: dict[str, Any] = {"bytes": trials, "heap_bytes": heap, "held_bytes": held_bytes}
    claims = list(claims_of(trials, heap, held_bytes))
    write("memory_check", raw, claims, arguments.results, table(trials, heap))


if __name__ == "__main__":
    main()
