"""Digests: what a task and its model consist of, each part as a digest, worked out once for a run.

Data by their samples, functions by their code and what they close over. A part whose content is not
the same from one reading to the next has no digest, and a sentence says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from compress.environment import package_versions
from compress.events import ReadingData
from compress.fingerprints import (
    DataDigestCache,
    FileDigestCache,
    Unstable,
    code_fingerprint,
    data_fingerprint,
    module_definition,
)
from compress.measure.ondevice.runtimes import RUNTIMES
from compress.task import Task

__all__ = ["ContentDigests", "PartDigest"]

_SPLITS = {
    "train": "the training data",
    "validation": "the validation data",
    "test": "the test data",
    "calibration": "the calibration data",
}
_FUNCTIONS = {"loss": "the loss", "metric": "the metric", "augment": "the augmentation"}


@dataclass(frozen=True)
class PartDigest:
    """One part: its digest, or why there is none."""

    digest: str | None
    problem: str = ""


class ContentDigests:
    """The parts of one run's task and model; each is worked out when it is first needed.

    Args:
        task: the task.
        module: the model that comes in.
        memory: of data that were hashed before in this process.
        files: checksums of files that did not change since they were read.
        report: called before all samples of a split are read.
    """

    def __init__(
        self,
        task: Task,
        module: nn.Module,
        memory: DataDigestCache,
        files: FileDigestCache,
        report: Callable[[ReadingData], None],
    ) -> None:
        self._task, self._module, self._memory = task, module, memory
        self._report = report
        self.files = files
        self._known: dict[str, PartDigest] = {}

    def of(self, name: str) -> PartDigest:
        """A split, ``served``, ``loss``, ``metric``, ``augment``, ``classes``, ``task`` or so."""
        if name not in self._known:
            try:
                self._known[name] = PartDigest(self._digest(name))
            except Unstable as problem:
                self._known[name] = PartDigest(None, str(problem))
        return self._known[name]

    @property
    def has_calibration(self) -> bool:
        """Whether ranges have data of their own; else they are from the training data."""
        return self._task.calibration is not None

    @property
    def has_served(self) -> bool:
        """Whether there are samples of what will be served."""
        return bool(self._task.served)

    def _served(self) -> Iterator[str]:
        for name, dataset in self._task.served.items():
            what = f"the {name} sample"
            self._report(ReadingData(what))
            yield f"{name}: {data_fingerprint(dataset, what, self._memory)}"

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of the packages that results depend on; looked up once."""
        return package_versions(RUNTIMES)

    def _digest(self, name: str) -> str:
        if name in _SPLITS:
            dataset = getattr(self._task, name)
            if dataset is None:
                return "none"
            self._report(ReadingData(_SPLITS[name]))
            return data_fingerprint(dataset, _SPLITS[name], self._memory)
        if name == "served":
            return " ".join(self._served())
        if name in _FUNCTIONS:
            function = getattr(self._task, name)
            if name == "metric" and self._task.further_metrics:
                function = (function, *self._task.further_metrics)
            return code_fingerprint(function, _FUNCTIONS[name], self.files)
        if name == "model code":
            return module_definition(self._module, "the model", self.files)
        if name == "classes":
            return code_fingerprint(self._task.classes, "the list of classes")
        task = self._task
        return code_fingerprint((task.outputs, task.ignore_index, task.tokenizer, task.direction))
