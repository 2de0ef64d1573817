"""Where the time of one inference goes: operators, from onnxruntime's profiler."""

from __future__ import annotations

import base64
import itertools
import json
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.measure.ondevice.inputs import rotation_of, shapes_of
from compress.measure.ondevice.runtimes import open_model, runtime_of
from compress.measure.ondevice.tensor_spec import pairs
from compress.measure.ondevice.timing import collect, first_runs, runs_per_sample, sampler, warm_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from compress.measure.ondevice.answers import OperatorFacts, ProfileAnswer
    from compress.measure.ondevice.jobs import WorkerJob

    #: Of onnxruntime's profiler: ``name``, ``ts`` and ``dur`` (microseconds), ``args``.
    Event = Mapping[str, Any]

__all__ = ["operators_of", "own_times", "profile", "traced_runs"]

_TRACED_RUNS = 100


def profile(job: WorkerJob) -> ProfileAnswer:
    """Time of every operator, by onnxruntime's profiler, beside that of an unprofiled run.

    Reads what :func:`.timing.time_model` reads, and ``graph``: whether to return the graph that
    ran. An operator's time includes what the profiler itself took; that of the run does not.
    """
    plain = open_model(job)
    batch, rotation = rotation_of(plain, job)
    first, _ = first_runs(plain, rotation, job["cap_s"])
    grouped = runs_per_sample(first)
    sample = sampler(plain, rotation, grouped)
    warm_up(sample, job["window_s"], job["warmup_cap_s"])
    samples = collect(sample, job["sample_s"], job["least"], job["cap_s"])
    run_ns = float(np.median(samples)) / grouped
    del plain, sample
    runs = max(5, min(_TRACED_RUNS, int(job["sample_s"] * 1e9 / run_ns)))
    with tempfile.TemporaryDirectory(prefix="compresskit-") as folder:
        traced = runtime_of(job).open_traced(job, folder)
        for feed in itertools.islice(itertools.cycle(rotation), len(rotation) + runs):
            traced.run(None, feed)
        events = json.loads(Path(traced.end_profiling()).read_text(encoding="utf-8"))
        graph = Path(folder, "graph.onnx").read_bytes() if job.get("graph") else b""
    return {
        "batch": batch,
        "shapes": shapes_of(rotation),
        "run_ns": run_ns,
        "runs": runs,
        "operators": operators_of(traced_runs(events, runs)),
        "graph": base64.b64encode(zlib.compress(graph)).decode() if graph else None,
    }


def traced_runs(events: Iterable[Event], runs: int) -> list[list[Event]]:
    """The operators of each of the last ``runs`` runs, from onnxruntime's list of events."""
    found: list[list[Event]] = [[]]
    for event in events:
        if str(event.get("name", "")).endswith("_kernel_time") and event.get("cat") == "Node":
            found[-1].append(event)
        elif event.get("name") == "model_run":
            found.append([])
    return found[:-1][-runs:]


def operators_of(runs: Sequence[Sequence[Event]]) -> list[OperatorFacts]:
    """What is known of each operator, and its mean time in the middle half of the runs.

    Whole runs are kept or left out, so that the times add up to that of a run; what disturbed the
    machine fell into the slow ones.
    """
    times = [own_times(events) for events in runs]
    order = sorted(range(len(runs)), key=lambda run: sum(times[run]))
    kept = order[len(order) // 4 : len(order) - len(order) // 4]
    found: dict[tuple[str, str], OperatorFacts] = {}
    for run in kept:
        for event, took_us in pairs(runs[run], times[run]):
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


def own_times(events: Sequence[Event]) -> list[float]:
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
