"""Keys: what a stage's result depends on, as a few hex digits."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from compress.candidate import Candidate
from compress.environment import package_versions
from compress.running.named import named_files
from compress.stages.base import Stage
from compress.task import Task

__all__ = ["key_of", "seed_of"]

# Packages whose versions change what is measured and nothing that a stage does.
_ONLY_MEASURES = frozenset({"openvino"})


def seed_of(seed: int, index: int) -> int:
    """The seed of the stage that makes row ``index``."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def key_of(
    stage: Stage, candidate: Candidate, teacher: Candidate, origin: Candidate, task: Task, seed: int
) -> str:
    """Identifies everything that a stage's result depends on; ``seed`` is the stage's."""
    facts = [
        candidate.fingerprint,
        teacher.fingerprint,
        origin.fingerprint,
        type(stage).__qualname__,
        stage.model_dump(mode="json", exclude={"label"}),
        named_files(stage.model_dump()),
        seed,
        _data_fingerprint(task),
        {name: v for name, v in package_versions().items() if name not in _ONLY_MEASURES},
    ]
    return hashlib.blake2b(json.dumps(facts, default=str).encode(), digest_size=16).hexdigest()


def _data_fingerprint(task: Task) -> str:
    # A look at a few samples of each split: enough to notice another data set, at no cost.
    digest = hashlib.blake2b(task.name.encode(), digest_size=16)
    for split in (task.train, task.validation, task.test):
        count = len(split)
        digest.update(str(count).encode())
        for place in (0, count // 3, count // 2, count - 1):
            for tensor in _tensors(split[place]):
                digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _tensors(sample: Any) -> list[Tensor]:
    if sample is None:
        return []
    if isinstance(sample, Tensor):
        return [sample]
    if isinstance(sample, dict):
        return [t for value in sample.values() for t in _tensors(value)]
    if isinstance(sample, (tuple, list)):
        return [t for value in sample for t in _tensors(value)]
    return [torch.as_tensor(sample)]
