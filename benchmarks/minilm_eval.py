"""Is the small encoder of recipes/minilm.yaml as good as MiniLM, and how much smaller and faster?

Every row of a finished run is lowered for 32 and for 128 tokens and compared with row 0, the
teacher in float32: bytes, paired latency on one thread, and on 2,000 held-out definitions the rank
correlation of all pairwise similarities, the overlap of the ten nearest neighbours, and a linear
probe of the 45 lexicographers' files, fitted on 8,000 other definitions.

    compresskit run recipes/minilm.yaml --out runs/minilm
    python benchmarks/minilm_eval.py --run runs/minilm    # about 15 minutes
    python benchmarks/minilm_eval.py --smoke              # a minute, on a tiny random BERT
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from claims import RESULTS, Claim, at_least, at_most, write
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from compress.algorithms.batches import head
from compress.candidate import Candidate
from compress.lower import lower
from compress.measure.local import LocalTarget
from compress.measure.similarity import neighbour_overlap, similarity_spearman
from compress.measure.stats import bootstrap_mean
from compress.measure.target import Failure, Mode, Probe
from compress.recipe import Recipe
from compress.record import Record
from compress.references import CodeReferences
from compress.task import Task
from compress.tasks import TaskConfig, make_task
from compress.testing.tiny_bert import write_lines, write_model
from compress.zoo.building import build_module

PROBE_SAMPLES = 8_000
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Setting:
    """A finished run, and what its rows are compared on.

    ``tasks`` are by length in tokens; the first is what embeddings are compared on, and has
    labels for the probe.
    """

    run: Path
    record: Record
    tasks: dict[int, Task]
    mode: Mode
    probe_samples: int


def full(run: Path) -> Setting:
    """The run of the recipe, on WordNet with its classes."""
    record = Record.load(run / "record.json")
    tasks = {length: _task(record, length, labels=True) for length in (32, 128)}
    return Setting(run, record, tasks, "default", PROBE_SAMPLES)


def smoke(folder: Path) -> Setting:
    """A quick run on a tiny random BERT: whether the script runs."""
    write_model(folder / "bert")
    write_lines(folder / "lines.txt", 300)
    recipe = Recipe.loads(
        f"task: {{name: text, path: {folder / 'lines.txt'}, tokenizer: {folder / 'bert'}}}\n"
        f"model: {{hf: {folder / 'bert'}}}\n"
        "stages:\n"
        "  - {kind: distill, student: {layers: [0, 2]}, losses: [{kind: logits-mse}]}\n"
        "  - {kind: quantize, weights: int8, activations: dynamic}\n"
    )
    short = recipe.model_copy(update={"task": recipe.task.model_copy(update={"max_length": 8})})
    short.execute(workdir=folder / "run", mode="quick")
    record = Record.load(folder / "run" / "record.json")
    tasks = {length: _task(record, length, labels=False) for length in (8, 16)}
    return Setting(folder / "run", record, tasks, "quick", 200)


def _task(record: Record, length: int, *, labels: bool) -> Task:
    block = {**record.recipe["task"], "max_length": length}
    block.pop("limit", None)
    return make_task(TaskConfig.model_validate({**block, "labels": True} if labels else block))


def candidates(setting: Setting) -> Iterator[tuple[str, Candidate]]:
    """Every row of the run, as it was saved."""
    example = head(next(iter(setting.tasks.values())).validation, 2).inputs
    for row in setting.record.rows:
        folder = setting.run / "stages" / f"{row.index:02d}-{row.stage}" / "candidate"
        yield (
            row.stage,
            Candidate.load(folder, example, lambda a: build_module(a, CodeReferences())),
        )


def files_of(
    rows: Sequence[tuple[str, Candidate]], length: int, setting: Setting, folder: Path
) -> list[Path]:
    """One file for each row, for texts of ``length`` tokens."""
    task, lowering, paths = setting.tasks[length], LocalTarget().lowering(), []
    check = head(task.validation, 64).inputs
    for stage, candidate in rows:
        path = folder / f"{stage}-{length}.onnx"
        fitted = replace(candidate, example=head(task.validation, 2).inputs)
        lower(fitted, lowering, calibration=[], check=check, path=path)
        paths.append(path)
    return paths


def embed(path: Path, dataset: Any, count: int) -> Array:
    """What a file makes of the first samples of a data set."""
    inputs = head(dataset, min(count, len(dataset))).inputs
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    return LocalTarget().predict(path, arrays)[0]


def pair_spearman(a: Array, b: Array) -> float:
    """Rank correlation of the cosines of all pairs."""
    upper = np.triu_indices(len(a), 1)
    ranks = []
    for x in (a, b):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        order = np.argsort((unit @ unit.T)[upper], kind="stable")
        places = np.empty(len(order))
        places[order] = np.arange(len(order))
        ranks.append(places)
    return float(np.corrcoef(*ranks)[0, 1])


def probe_accuracy(path: Path, task: Task, samples: int) -> float:
    """Accuracy of a linear classifier on frozen embeddings."""
    labels = [head(part, min(samples, len(part))).labels for part in (task.train, task.test)]
    if labels[0] is None:  # a trial run has no classes: the parity of the first dimension
        truths = [embed(path, part, samples)[:, 0] > 0 for part in (task.train, task.test)]
    else:
        truths = [part.numpy() for part in labels]
    seen = [embed(path, part, samples) for part in (task.train, task.test)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    classifier.fit(seen[0], truths[0])
    return float(classifier.score(seen[1], truths[1]))


def compare(setting: Setting, folder: Path) -> dict[str, dict[str, Any]]:
    """Every row of the run against the teacher."""
    rows, lengths = list(candidates(setting)), list(setting.tasks)
    files = {length: files_of(rows, length, setting, folder) for length in lengths}
    task = setting.tasks[lengths[0]]
    found: dict[str, dict[str, Any]] = {}
    teacher = None
    for (stage, _), path in zip(rows, files[lengths[0]], strict=True):
        outputs = embed(path, task.test, len(task.test))
        teacher = outputs if teacher is None else teacher
        by_sample = similarity_spearman(outputs, teacher)
        interval = bootstrap_mean(by_sample)
        found[stage] = {
            "bytes": path.stat().st_size,
            "pair_spearman": pair_spearman(outputs, teacher),
            "sample_spearman": float(by_sample.mean()),
            "sample_spearman_ci95": [interval.lo, interval.hi],
            "overlap_10": float(neighbour_overlap(outputs, teacher).mean()),
            "probe": probe_accuracy(path, task, setting.probe_samples),
            "speedup": {},
            "latency_p50_s": {},
        }
    for length in lengths:
        probe = Probe(_arrays(setting.tasks[length]), setting.mode)
        timings = LocalTarget().measure(files[length], probe, folder / f"raw-{length}.jsonl")
        for (stage, _), timing in zip(rows, timings, strict=True):
            if isinstance(timing, Failure):
                raise SystemExit(f"{stage}: {timing.error}")
            found[stage]["speedup"][length] = timing.speedup.model_dump(mode="json")
            found[stage]["latency_p50_s"][length] = timing.latency.p50_s
    return found


def _arrays(task: Task) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in head(task.test, 32).inputs.items()}


def claims_of(setting: Setting, rows: dict[str, dict[str, Any]]) -> Iterator[Claim]:
    """What the int8 student is to show."""
    teacher = rows[setting.record.rows[0].stage]
    small = next(rows[row.stage] for row in setting.record.rows if row.kind == "quantize")
    yield at_most("bytes", "int8 student: file in MB", small["bytes"] / 1e6, 19.0)
    for length in setting.tasks:
        speedup = small["speedup"][length]
        yield at_least(
            f"speed-{length}",
            f"int8 student: times as fast as the float32 teacher at {length} tokens",
            speedup["value"],
            2.0,
            tuple(speedup["ci95"]),
        )
    said = "int8 student: rank correlation of pairwise similarities with the teacher's"
    yield at_least("spearman", said, small["pair_spearman"], 0.93)
    lost = 100 * (teacher["probe"] - small["probe"])
    yield at_most("probe", "int8 student: points of a linear probe lost", lost, 3.0)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'':<12}{'MB':>7}{'Spearman':>10}{'top 10':>8}{'probe':>8}  times as fast at"]
    for stage, row in rows.items():
        speeds = ", ".join(f"{n} tokens: {s['value']:.2f}" for n, s in row["speedup"].items())
        lines.append(
            f"{stage:<12}{row['bytes'] / 1e6:>7.1f}{row['pair_spearman']:>10.3f}"
            f"{row['overlap_10']:>8.2f}{100 * row['probe']:>7.1f}%  {speeds}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the comparison and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/minilm"), help="a finished run")
    parser.add_argument("--smoke", action="store_true", help="a minute; shows that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        setting = smoke(folder) if arguments.smoke else full(arguments.run)
        rows = compare(setting, folder)
    print(table(rows))
    write("minilm_eval", {"rows": rows}, list(claims_of(setting, rows)), arguments.results)


if __name__ == "__main__":
    main()
