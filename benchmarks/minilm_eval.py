"""Is the small encoder of recipes/minilm.yaml as good as MiniLM, and how much smaller and faster?

Every row of a finished run is lowered for 32 and for 128 tokens and compared with row 0, the
teacher in float32: bytes, paired latency on one thread, and on 2,000 held-out definitions the rank
correlation of all pairwise similarities, the overlap of the ten nearest neighbors, and a linear
probe of the 45 lexicographers' files, fitted on 8,000 other definitions. Intervals of what is
compared on definitions are bootstraps over them, of both files on the same ones.

    compresskit run recipes/minilm.yaml --out runs/minilm
    python benchmarks/minilm_eval.py --run runs/minilm    # about 15 minutes
    python benchmarks/minilm_eval.py --smoke              # a minute, on a tiny random BERT
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from claims import Claim, at_least, at_most, script_parser, write
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from compress.backends.onnx import lower
from compress.candidate import Candidate
from compress.config.references import CodeReferences
from compress.measure.local import LocalTarget
from compress.measure.similarity import neighbor_overlap, similarity_spearman
from compress.measure.stats import bootstrap_mean
from compress.measure.target import BenchmarkConfig, Failure, Mode
from compress.models.build import build_module
from compress.recipe import Recipe
from compress.record import Record
from compress.task import Task
from compress.tasks import TaskConfig, make_task
from compress.testing.tiny_bert import write_lines, write_model
from compress.training.data import head

PROBE_SAMPLES = 8_000
RESAMPLES = 1_000
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
    short.execute(workdir=folder / "run", mode="quick", report=False)
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


def pair_ranks(outputs: Array) -> Array:
    """The rank of each pair's cosine among those of all pairs, around 0, ``(n, n)``."""
    unit = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    upper = np.triu_indices(len(unit), 1)
    order = np.argsort((unit @ unit.T)[upper], kind="stable")
    places = np.empty(len(order))
    places[order] = np.linspace(-1, 1, len(order))
    ranks = np.zeros((len(unit), len(unit)))
    ranks[upper] = places
    return ranks + ranks.T


def pair_spearman(a: Array, b: Array) -> tuple[float, list[float]]:
    """Rank correlation of the cosines of all pairs, and its interval over samples.

    A bootstrap draws samples, and pairs with them; ranks stay those among all pairs.
    """
    n, ranks = len(a), [pair_ranks(a), pair_ranks(b)]
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.vstack([np.ones((1, n)), draws])  # the first is the estimate itself

    def total(matrix: Array) -> Array:
        return np.einsum("ij,ij->i", weights @ matrix, weights)

    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)  # less each sample with itself
    means = [total(one) / pairs for one in ranks]
    spreads = [total(one**2) / pairs - mean**2 for one, mean in zip(ranks, means, strict=True)]
    together = total(ranks[0] * ranks[1]) / pairs - means[0] * means[1]
    found = together / np.sqrt(spreads[0] * spreads[1])
    return float(found[0]), [float(bound) for bound in np.quantile(found[1:], [0.025, 0.975])]


def probe_hits(path: Path, task: Task, samples: int) -> Array:
    """Which test samples a linear classifier on frozen embeddings puts into their class."""
    labels = [head(part, min(samples, len(part))).labels for part in (task.train, task.test)]
    if labels[0] is None:  # a trial run has no classes: the parity of the first dimension
        truths = [embed(path, part, samples)[:, 0] > 0 for part in (task.train, task.test)]
    else:
        truths = [part.numpy() for part in labels]
    seen = [embed(path, part, samples) for part in (task.train, task.test)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    classifier.fit(seen[0], truths[0])
    return (classifier.predict(seen[1]) == truths[1]).astype(float)


def compare(setting: Setting, folder: Path) -> dict[str, dict[str, Any]]:
    """Every row of the run against the teacher."""
    rows, lengths = list(candidates(setting)), list(setting.tasks)
    files = {length: files_of(rows, length, setting, folder) for length in lengths}
    task = setting.tasks[lengths[0]]
    found: dict[str, dict[str, Any]] = {}
    paths = files[lengths[0]]
    embeddings = [embed(path, task.test, len(task.test)) for path in paths]
    hits = [probe_hits(path, task, setting.probe_samples) for path in paths]
    for (stage, _), path, outputs, right in zip(rows, paths, embeddings, hits, strict=True):
        spearman, interval = pair_spearman(outputs, embeddings[0])
        by_sample, overlap = (
            measure(outputs, embeddings[0]) for measure in (similarity_spearman, neighbor_overlap)
        )
        found[stage] = {
            "bytes": path.stat().st_size,
            "pair_spearman": spearman,
            "pair_spearman_ci95": interval,
            "sample_spearman": float(by_sample.mean()),
            "sample_spearman_ci95": [*bootstrap_mean(by_sample)],
            "overlap_10": float(overlap.mean()),
            "overlap_10_ci95": [*bootstrap_mean(overlap)],
            "probe": float(right.mean()),
            "probe_lost": float((hits[0] - right).mean()),
            "probe_lost_ci95": [*bootstrap_mean(hits[0] - right)],
            "speedup": {},
            "latency_p50_s": {},
        }
    for length in lengths:
        config = BenchmarkConfig(_arrays(setting.tasks[length]), setting.mode)
        timings = LocalTarget().measure(files[length], config, folder / f"raw-{length}.jsonl")
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
    yield at_least(
        "spearman", said, small["pair_spearman"], 0.93, tuple(small["pair_spearman_ci95"])
    )
    low, high = (100 * bound for bound in small["probe_lost_ci95"])
    said = "int8 student: points of a linear probe lost"
    yield at_most("probe", said, 100 * small["probe_lost"], 3.0, (low, high))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'':<12}{'MB':>7}{'Spearman':>10}{'top 10':>8}{'probe':>8}  times as fast at"]
    for stage, row in rows.items():
        speeds = ", ".join(
            f"{tokens} tokens: {ratio['value']:.2f} "
            f"[{ratio['ci95'][0]:.2f}, {ratio['ci95'][1]:.2f}]"
            for tokens, ratio in row["speedup"].items()
        )
        lines.append(
            f"{stage:<12}{row['bytes'] / 1e6:>7.1f}{row['pair_spearman']:>10.3f}"
            f"{row['overlap_10']:>8.2f}{100 * row['probe']:>7.1f}%  {speeds}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the comparison and write its result."""
    parser = script_parser(__doc__, smoke="a minute; shows that it runs")
    parser.add_argument("--run", type=Path, default=Path("runs/minilm"), help="a finished run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        setting = smoke(folder) if arguments.smoke else full(arguments.run)
        rows = compare(setting, folder)
    claims = list(claims_of(setting, rows))
    write("minilm_eval", {"rows": rows}, claims, arguments.results, table(rows))


if __name__ == "__main__":
    main()
