"""Two sides compared on the same test samples, seed by seed, and how sure the difference is.

Over seeds the interval is Student's: of training again, tested on the same samples. Over test
samples it is of the mean over seeds, paired by sample: of testing the same nets on other samples.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from claims import mean_interval
from torch import nn

from compress.measure.score import score
from compress.modules.inputs import forward
from compress.task import Dataset
from compress.training.data import read

Row = dict[str, Any]
Scores = np.ndarray[Any, np.dtype[np.float32]]


@torch.no_grad()
def sample_scores(module: nn.Module, dataset: Dataset) -> Scores:
    """A score for every sample, whose mean is the accuracy, or of values R², times 100."""
    batches = [(forward(module, batch.inputs), batch.labels) for batch in read(dataset, 500)]
    outputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    metric = "r2" if labels.is_floating_point() else "accuracy"
    return 100 * score(outputs.numpy(), labels.numpy(), metric).astype(np.float32)


def scored(scores: Scores) -> Row:
    """What a trial keeps of its scores: their mean, and in a text each of them."""
    samples = base64.b64encode(zlib.compress(scores.tobytes())).decode()
    return {"score": float(scores.mean(dtype=np.float64)), "samples": samples}


def without_samples(rows: Sequence[Row]) -> list[Row]:
    """The rows without the scores of each sample, which would make a result long."""
    return [{key: row[key] for key in row if key != "samples"} for row in rows]


@dataclass(frozen=True)
class Difference:
    """Points by which one side is better; both intervals are of 95 %."""

    by_seed: tuple[float, ...]
    mean: float
    over_seeds: tuple[float, float]
    over_samples: tuple[float, float]


def difference(ours: Sequence[Row], theirs: Sequence[Row]) -> Difference:
    """By how much ``ours`` is better, each row paired with that of the same seed."""
    one, other = ({row["seed"]: _samples(row) for row in rows} for rows in (ours, theirs))
    pairs = np.stack([one[seed] - other[seed] for seed in sorted(one)]).astype(np.float64)
    by_seed = tuple(pairs.mean(1).tolist())
    mean, over_seeds = mean_interval(by_seed)
    _, over_samples = mean_interval(pairs.mean(0).tolist())
    assert over_seeds is not None, "at least two seeds"
    assert over_samples is not None, "at least two samples"
    return Difference(by_seed, mean, over_seeds, over_samples)


def _samples(row: Row) -> Scores:
    return np.frombuffer(zlib.decompress(base64.b64decode(row["samples"])), np.float32)
