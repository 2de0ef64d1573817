"""Does measuring call equal files equal, and find a difference of 5 %? Three ways, side by side.

A/A: a file against a copy of itself; whatever is called different is a false alarm. A/B: a chain of
20 equal convolutions against one of 21, which is 5 % more work. Each trial does all three:

- ``compresskit``: a ``bench`` session in default mode, and its verdict;
- ``sequential``: one process for each file, one after the other, one run to warm up and 1,000
  timed (the shape of ``onnxruntime_perf_test -r 1000``);
- ``in process``: both files in one process, 10 runs to warm up and 20 timed of each (the usual
  shape of evaluators that time while they score).

The last two come without a verdict, so they get the two that people use: Welch's t test over
iterations at 5 %, and a difference of means above 2 %.

    python benchmarks/measure_aa.py            # twenty minutes; resumes where it was stopped
    python benchmarks/measure_aa.py --smoke    # seconds
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from claims import Claim, at_least, at_most, script_parser, write
from onnx import TensorProto, helper
from scipy.stats import ttest_ind
from trials import each

from compress.measure.compare import compare
from compress.measure.local import LocalTarget
from compress.measure.stats import wilson
from compress.measure.target import Mode

LAYERS, CHANNELS, SIDE = 20, 16, 28
PAIRS, TRIES = 40, 20
SEQUENTIAL, IN_PROCESS = (1, 1000), (10, 20)  # runs to warm up, runs timed
FEWEST_DIFFERENCE = 0.02
#: Times runs of the files given, in order, and prints the seconds of each as JSON.
TIMER = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
warm, runs = map(int, sys.argv[1:3])
times = []
for path in sys.argv[3:]:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    feed = {port.name: numpy.random.default_rng(0).standard_normal(port.shape, "float32")}
    for _ in range(warm):
        session.run(None, feed)
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - begin)
    times.append(seconds)
print(json.dumps(times))
"""


def chain(layers: int, path: Path) -> Path:
    """A file with ``layers`` equal 3x3 convolutions, each followed by a ReLU."""
    rng = np.random.default_rng(0)
    shape = [1, CHANNELS, SIDE, SIDE]
    nodes, weights = [], []
    for layer in range(layers):
        kernel = rng.standard_normal((CHANNELS, CHANNELS, 3, 3), "float32") / (3 * CHANNELS**0.5)
        weights.append(onnx.numpy_helper.from_array(kernel, f"w{layer}"))
        conv = helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"c{layer}"], pads=[1] * 4)
        nodes += [conv, helper.make_node("Relu", [f"c{layer}"], [f"x{layer + 1}"])]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("x0", f"x{layers}")
    ]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def timed(shape: tuple[int, int], models: Sequence[Path]) -> list[list[float]]:
    """Seconds of each timed run of each model, all in one process."""
    command = [sys.executable, "-c", TIMER, *map(str, shape), *map(str, models)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    times: list[list[float]] = json.loads(done.stdout)
    return times


def judged(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """What the two usual rules say of two lists of times."""
    ratio = float(np.mean(second) / np.mean(first))
    p_value = float(ttest_ind(first, second, equal_var=False).pvalue)
    return {
        "ratio": ratio,
        "t test": p_value < 0.05,
        "2 % rule": abs(ratio - 1) > FEWEST_DIFFERENCE,
    }


def trial(number: int, models: Sequence[Path], mode: Mode) -> dict[str, Any]:
    """All three protocols once, on the first and the last model."""
    first, second = models
    ours = compare(models, LocalTarget(), mode, seed=number)[1]
    if ours.speedup is None:
        raise SystemExit(f"the second file could not be measured: {ours.error}")
    sequential = [timed(SEQUENTIAL, [model])[0] for model in (first, second)]
    return {
        "compresskit": {
            **ours.speedup.model_dump(mode="json"),
            "verdict rule": ours.speedup.verdict in ("faster", "slower"),
        },
        "sequential": judged(*sequential),
        "in process": judged(*timed(IN_PROCESS, models)),
    }


def trials(plan: Sequence[tuple[str, int]], mode: Mode, kept: Path) -> Iterator[dict[str, Any]]:
    """The trials of ``plan``; those in the file ``kept`` are not done again."""
    with tempfile.TemporaryDirectory() as folder:
        same = chain(LAYERS, Path(folder) / "a.onnx")
        pairs = {
            "A/A": [same, Path(shutil.copy(same, Path(folder) / "copy.onnx"))],
            "A/B": [same, chain(LAYERS + LAYERS // 20, Path(folder) / "b.onnx")],
        }
        told = [{"kind": kind, "number": number} for kind, number in plan]
        for found in each(told, lambda t: trial(t["number"], pairs[t["kind"]], mode), kept):
            print(found["kind"], found["number"], found["compresskit"]["verdict"], flush=True)
            yield found


RULES = (
    ("compresskit", "verdict rule"),
    ("sequential", "t test"),
    ("sequential", "2 % rule"),
    ("in process", "t test"),
    ("in process", "2 % rule"),
)


def called_different(raw: Sequence[dict[str, Any]], kind: str, rule: tuple[str, str]) -> np.ndarray:
    """For each trial of one kind whether the rule said "different"."""
    protocol, name = rule
    return np.array([t[protocol][name] for t in raw if t["kind"] == kind])


def table(raw: Sequence[dict[str, Any]]) -> str:
    """Rates of all rules with their 95 % intervals."""
    lines = [f"{'':<28}{'called different: equal files':>34}{'5 % more work':>28}"]
    for rule in RULES:
        cells = []
        for kind in ("A/A", "A/B"):
            said = called_different(raw, kind, rule)
            low, high = wilson(int(said.sum()), len(said))
            cells.append(f"{said.mean():.0%} [{low:.0%}, {high:.0%}]")
        lines.append(f"{', '.join(rule):<28}{cells[0]:>34}{cells[1]:>28}")
    return "\n".join(lines)


def claims_of(raw: Sequence[dict[str, Any]]) -> list[Claim]:
    """What the trials are to show."""
    alarms = called_different(raw, "A/A", RULES[0])
    slower = np.array([t["compresskit"]["verdict"] == "slower" for t in raw if t["kind"] == "A/B"])
    return [
        at_most(
            "false-alarms",
            f"share of {len(alarms)} pairs of equal files that are called different",
            float(alarms.mean()),
            0.05,
            wilson(int(alarms.sum()), len(alarms)),
        ),
        at_least(
            "found",
            f"share of {len(slower)} tries in which 5 % more work is called slower",
            float(slower.mean()),
            0.9,
            wilson(int(slower.sum()), len(slower)),
        ),
    ]


def main() -> None:
    """Run the trials and write the result."""
    arguments = script_parser(__doc__).parse_args()
    pairs, tries = (2, 1) if arguments.smoke else (PAIRS, TRIES)
    # Both kinds all along, so that both see the same hours of the machine.
    plan = sorted(
        [("A/A", n) for n in range(pairs)] + [("A/B", n) for n in range(tries)],
        key=lambda t: (t[1] / (pairs if t[0] == "A/A" else tries), t[0]),
    )
    kept = arguments.results / "measure_aa.partial.jsonl"
    raw = list(trials(plan, "quick" if arguments.smoke else "default", kept))
    write("measure_aa", {"trials": raw}, claims_of(raw), arguments.results, table(raw))
    kept.unlink()


if __name__ == "__main__":
    main()
