"""Does what ``compresskit export`` writes open in optimum, and give our outputs at other sizes?

Ten tiny families are written, loaded and exported in float32 and, once their weights are int8 with
dynamic activations and half of their heads are gone, again. In an environment with optimum-onnx,
each folder is opened by its class of ``optimum.onnxruntime`` and run at two batch sizes and two
lengths that the export did not look at; outputs are compared with those of the module.

    sh benchmarks/peers/optimum/make_env.sh ENV
    python benchmarks/peers/optimum/exports.py --python ENV/bin/python    # a few minutes
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
import torch

from compress import PruneStage, QuantizeStage
from compress.candidate import Candidate
from compress.errors import NoEffect
from compress.models.build import build_module
from compress.models.hub_export import ExportedRow, write_hub_folder
from compress.models.huggingface import build_hub_model, load_folder, read_architecture
from compress.models.text_encoder import Encoder
from compress.modules.inputs import forward
from compress.quantization.fakequant import declared_formats, simulate
from compress.stage import Context
from compress.task import Task
from compress.testing.tiny_hub import TINY_FAMILIES, inputs_like, write_family

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from claims import RESULTS, at_most, write  # noqa: E402 - the scripts' folder is no package

#: Batches and lengths beside those that an export checks; sound is longer than text.
SIZES = ((3, 9), (7, 17))
SOUND = 40
#: Of the largest output. With int8 activations, an output is off by its steps.
FLOAT_BOUND, INT8_BOUND = 1e-3, 0.15


class Samples:
    """Inputs of a family without labels."""

    def __init__(self, family: str, count: int, seed: int) -> None:
        self.inputs, self.count = inputs_like(family, count, seed), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Any:
        if not 0 <= place < self.count:
            raise IndexError(place)
        if isinstance(self.inputs, dict):
            return {name: tensor[place] for name, tensor in self.inputs.items()}
        return self.inputs[place]


def start(folder: Path, family: str) -> Candidate:
    """The family's model as a candidate."""
    write_family(folder, family)
    architecture = read_architecture(folder, TINY_FAMILIES[family][3])
    model = build_hub_model(architecture.options)
    load_folder(model, folder)
    return replace(Candidate.of(model, inputs_like(family, 4)), architecture=architecture)


def smaller(candidate: Candidate, family: str, workdir: Path) -> Candidate:
    """The candidate with int8 weights, dynamic activations and, if they can go, half its heads."""
    splits = (Samples(family, 8, seed) for seed in range(3))
    context = Context(
        task=Task("samples", *splits, metric="mse", outputs="values"),
        teacher=None,
        origin=candidate,
        seed=0,
        workdir=workdir,
        build=lambda architecture: build_module(architecture, None),
    )
    quantized = QuantizeStage(weights="int8", activations="dynamic").run(candidate, context)
    try:
        return PruneStage(granularity="heads", ratio=0.5).run(quantized, context)
    except NoEffect as error:  # of wav2vec2, whose attention scales by a number from its width
        print(f"{family}: {error}", file=sys.stderr)
        return quantized


def expected(candidate: Candidate, batch: dict[str, torch.Tensor]) -> np.ndarray[Any, Any]:
    """What the module gives under its formats, not pooled."""
    own = candidate.fork().module.eval()
    if isinstance(own, Encoder) and own.pooling is not None:
        own.pooling, own.normalize = "none", False
    formats = declared_formats(own, candidate.numerics, candidate.example)
    with torch.no_grad(), simulate(own, formats, {}, avoid_saturation=True):
        return forward(own, batch).numpy()


def write_case(root: Path, name: str, candidate: Candidate, family: str, source: Path) -> None:
    """An exported folder, and beside it inputs and outputs at other sizes."""
    row = ExportedRow(family, 0, name, candidate.fingerprint, "not timed")
    made = write_hub_folder(candidate, source, inputs_like(family, 5), root / name, row)
    module: Any = candidate.module
    for number, (samples, length) in enumerate(SIZES):
        scale = SOUND if family == "wav2vec2" else 1
        batch = inputs_like(family, samples, seed=9, length=length * scale)
        whole = batch if isinstance(batch, dict) else {module.input_names[0]: batch}
        if "token_type_ids" in module.input_names:
            whole["token_type_ids"] = (
                (torch.arange(length) > length // 2).long().expand(samples, -1)
            )
        arrays = {key: tensor.numpy() for key, tensor in whole.items()}
        np.savez(root / f"{name}-{number}.npz", expected=expected(candidate, whole), **arrays)
    facts = {"opened_by": made.opened_by, "bytes": made.bytes, "float": "int8" not in name}
    (root / f"{name}.json").write_text(json.dumps(facts))


def relative(case: dict[str, Any]) -> float:
    """The largest error of a case, as a share of its largest output."""
    return max(b["max_error"] / b["largest"] for b in case["batches"])


def table(cases: list[dict[str, Any]]) -> str:
    """One line for each folder."""
    lines = ["| folder | opened by | sizes | largest error / largest output |", "|---|---|---|---|"]
    for case in cases:
        sizes = ", ".join("x".join(map(str, b["shape"])) for b in case.get("batches", []))
        end = f"{relative(case):.2g}" if "batches" in case else case["error"]
        lines.append(f"| {case['case']} | {case['opened_by']} | {sizes} | {end} |")
    return "\n".join(lines)


def main() -> None:
    """Write the folders, have them opened, and keep what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="of the environment with optimum-onnx")
    parser.add_argument("--families", nargs="*", default=list(TINY_FAMILIES))
    parser.add_argument("--results", type=Path, default=RESULTS / "optimum")
    arguments = parser.parse_args()
    # Where the environment is says nothing about the result.
    sys.argv[sys.argv.index(arguments.python)] = "ENV/bin/python"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cases"
        root.mkdir()
        for family in arguments.families:
            source = Path(folder) / family
            candidate = start(source, family)
            write_case(root, f"{family}-float32", candidate, family, source)
            write_case(
                root, f"{family}-int8-heads", smaller(candidate, family, root), family, source
            )
            print(f"{family}: exported", file=sys.stderr)
        command = [arguments.python, str(HERE / "opened.py"), str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = [case["case"] for case in cases if "batches" not in case]
    floats = [relative(c) for c in cases if "batches" in c and c["float"]]
    others = [relative(c) for c in cases if "batches" in c and not c["float"]]
    claims = [
        at_most("opened", "exported folders that optimum does not open", len(failed), 0),
        at_most("float32", "largest error / largest output", max(floats), FLOAT_BOUND),
        at_most("int8-heads", "largest error / largest output", max(others), INT8_BOUND),
    ]
    write("exports", {"cases": cases}, claims, arguments.results, table(cases))


if __name__ == "__main__":
    main()
