"""Keys: all that a result depends on, by name, as a few hex digits.

What is kept beside a result are the names with a digest of each, so that a run that makes it again
can say why. Of what has no stable content there is no key, and nothing is re-used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from pydantic_core import to_jsonable_python

from compress.candidate import Candidate
from compress.config.own_settings import own_blocks
from compress.config.references import CodeReferences, is_reference
from compress.errors import CodeReferenceError
from compress.fingerprints import (
    FileDigestCache,
    Unstable,
    code_fingerprint,
    leaves,
    named_files,
    package_source,
)
from compress.measure.ondevice.runtimes import RUNTIMES
from compress.measure.target import Target
from compress.running.digests import ContentDigests
from compress.stage import Stage
from compress.stages.own import FunctionStage

__all__ = ["Dependencies", "StageModels", "TargetFacts", "of_measurement", "of_stage", "seed_of"]

# Packages whose versions change what is measured and nothing that a stage does.
_ONLY_MEASURES = frozenset(
    name for runtime in RUNTIMES.values() if runtime.only_measures for name in runtime.libraries
)
_OWN = "compress."
# Targets that are known by their device and settings alone.
_DEVICES = ("compress.measure.local", "compress.measure.remote.")
_SHOWN = ("train", "augment", "named code", "files", "model code", "threads", "compresskit")
#: How a sentence names what a result depends on; in the order in which changes are reported.
_PHRASES = {
    "earlier stages": "what comes in",
    "model": "the model",
    "model code": "the code of the model",
    "teacher": "the teacher",
    "original": "the model that ratios count from",
    "settings": "the stage's settings",
    "stage code": "the stage's code",
    "named code": "code that the recipe names",
    "files": "a file that the recipe names",
    "seed": "the seed",
    "train": "the training data",
    "validation": "the validation data",
    "test": "the test data",
    "calibration": "the calibration data",
    "served": "the samples of what will be served",
    "loss": "the loss",
    "augment": "the augmentation",
    "metric": "the metric",
    "classes": "the classes",
    "task": "the outputs that the task declares",
    "baseline": "the baseline row",
    "scoring": "how rows are scored",
    "mode": "how hard to measure",
    "target": "the target",
    "target code": "the code of the target",
    "threads": "the number of threads",
    "processes": "the number of processes",
    "compresskit": "compresskit's own code",
    "versions": "a library",
}


@dataclass(frozen=True)
class Dependencies:
    """What a result depends on.

    Args:
        facts: by name, plain JSON values.
        unknown: why there is no telling one content from another, in clauses.
    """

    facts: Mapping[str, Any]
    unknown: tuple[str, ...] = ()

    @property
    def key(self) -> str | None:
        """32 hex digits; ``None`` where something has no stable digests."""
        if self.unknown:
            return None
        return _digest(self.facts)

    @property
    def teacher_cache_key(self) -> str:
        """Identifies what a teacher is shown, and its code; new each time where that is unknown."""
        if self.unknown:
            return uuid4().hex
        return _digest([self.facts.get(name) for name in _SHOWN])

    def changed(self, before: Mapping[str, Any]) -> str:
        """What is another than in ``before``, as a clause; empty where nothing is."""
        names = [name for name in _PHRASES if self.facts.get(name) != before.get(name)]
        if before.get("baseline", "") is None:
            names = [
                name for name in names if name != "baseline"
            ]  # it was measured before there was one
        if not names:
            return ""
        if names == ["versions"]:
            return _versions(self.facts["versions"], before.get("versions"))
        changed = [_PHRASES[name] for name in names if name != "versions"]
        *others, last = changed
        listed = f"{', '.join(others)} and {last}" if others else last
        return f"{listed} changed"

    def is_but_for(self, name: str, other: Mapping[str, Any]) -> bool:
        """Whether nothing but ``name`` is another than in ``other``."""
        return not self.unknown and {**self.facts, name: None} == {**other, name: None}


@dataclass(frozen=True)
class StageModels:
    """The models that a stage's result depends on, as the run has come to them."""

    candidate: Candidate
    teacher: Candidate
    original: Candidate


@dataclass(frozen=True)
class TargetFacts:
    """What a measurement on one target depends on, besides the models and the data.

    Args:
        target: where it is measured.
        device: which device that is, with its settings, as plain JSON values.
        mode: how hard to measure.
        scoring: how outputs are scored, as plain JSON values.
        reference: settings that name the teacher whose outputs stand for labels, if they do.
    """

    target: Target
    device: Sequence[Any]
    mode: str
    scoring: Sequence[Any]
    reference: Any


@dataclass
class _FactGatherer:
    """Facts as they are worked out; of what has no stable content there is a clause instead."""

    facts: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def take(self, digests: ContentDigests, *names: str) -> None:
        for name in names:
            found = digests.of(name)
            self.facts[name] = found.digest
            if found.problem:
                self.unknown.append(found.problem)

    def code(self, name: str, values: Sequence[Any], files: FileDigestCache) -> None:
        try:
            self.facts[name] = [code_fingerprint(one, _PHRASES[name], files) for one in values]
        except Unstable as problem:
            self.unknown.append(str(problem))

    def named(self, settings: Any, digests: ContentDigests, references: CodeReferences) -> None:
        """The files and the code that settings name."""
        self.facts["files"] = named_files(settings, digests.files)
        self.code("named code", list(_named_code(settings, references)), digests.files)

    def measured_on(self, target: TargetFacts, digests: ContentDigests) -> None:
        """The device, how hard it is measured, and how outputs are scored."""
        self.facts |= {
            "scoring": list(target.scoring),
            "target": list(target.device),
            "mode": target.mode,
        }
        if not type(target.target).__module__.startswith(_DEVICES):
            self.code("target code", [target.target], digests.files)

    def done(self) -> Dependencies:
        return Dependencies(self.facts, tuple(dict.fromkeys(self.unknown)))


def seed_of(seed: int, index: int) -> int:
    """The seed of the stage that makes row ``index``."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def of_stage(
    stage: Stage,
    models: StageModels,
    digests: ContentDigests,
    references: CodeReferences,
    *,
    seed: int,
    processes: int,
    target: TargetFacts | None = None,
) -> Dependencies:
    """What a stage's result depends on.

    Args:
        stage: the stage.
        models: what comes in, the teacher of the run, and what ratios count from.
        digests: of the task and the model's code.
        references: the user's code that may be followed.
        seed: of the stage.
        processes: how many train together.
        target: what the stage measures on while it works; ``None`` where it does not.
    """
    gathered = _FactGatherer()
    settings = _plain(stage.model_dump(exclude={"label"}))
    gathered.facts |= {
        "earlier stages": models.candidate.fingerprint,
        "teacher": models.teacher.fingerprint,
        "original": models.original.fingerprint,
        "settings": [type(stage).__qualname__, settings],
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processes": processes,
        **_packages(digests, _ONLY_MEASURES if target is None else frozenset()),
    }
    gathered.take(digests, "model code", "train", "validation", "calibration", "loss", "augment")
    gathered.take(digests, "classes", "task")
    named = [stage.model_dump(), *_own_options(stage, references)]
    gathered.named(named if target is None else [*named, target.reference], digests, references)
    is_own = type(stage).__module__.startswith(_OWN) and not isinstance(stage, FunctionStage)
    if not is_own:
        # What a stage of the user's own looks at is not known.
        gathered.take(digests, "test")
        gathered.code("stage code", [type(stage)], digests.files)
    if target is not None:
        gathered.measured_on(target, digests)
    if target is not None or not is_own:
        gathered.take(digests, "metric")
    return gathered.done()


def of_measurement(
    candidate: Candidate,
    baseline: Candidate | None,
    digests: ContentDigests,
    references: CodeReferences,
    target: TargetFacts,
) -> Dependencies:
    """What a row's measurement on one target depends on, less the noise.

    Args:
        candidate: of the row.
        baseline: that it is compared with.
        digests: of the task and the model's code.
        references: the user's code that may be followed.
        target: where, how hard and by which metric it is measured.
    """
    gathered = _FactGatherer()
    gathered.facts |= {
        "model": candidate.fingerprint,
        "baseline": None if baseline is None else baseline.fingerprint,
        **_packages(digests, frozenset()),
    }
    gathered.named(target.reference, digests, references)
    gathered.measured_on(target, digests)
    gathered.take(digests, "model code", "test", "validation", "metric", "task")
    gathered.take(digests, "calibration" if digests.has_calibration else "train")
    if digests.has_served:
        gathered.take(digests, "served")
    return gathered.done()


def _digest(facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(settings: Any) -> Any:
    """Settings as JSON values; a file is what is in it, wherever it lies."""
    if isinstance(settings, Path):
        return "a file"
    if isinstance(settings, Mapping):
        return {str(name): _plain(value) for name, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [_plain(value) for value in settings]
    return to_jsonable_python(settings)


def _packages(digests: ContentDigests, less: frozenset[str]) -> dict[str, Any]:
    versions = {name: v for name, v in digests.versions.items() if name not in less}
    return {"versions": versions, "compresskit": package_source()}


def _named_code(settings: Any, references: CodeReferences) -> Iterator[Any]:
    """The functions and classes that settings name."""
    for text in leaves(settings):
        is_code = isinstance(text, str) and is_reference(text)
        if is_code and text.partition(":")[0] in references.allowed:
            with suppress(CodeReferenceError):  # a text that happens to look like a reference
                yield references.resolve(text, text)


def _own_options(stage: Stage, references: CodeReferences) -> list[Any]:
    """The options of own parts as they are read: what an annotation makes a path is a file."""
    return [block.checked_options(references)[0] for block in own_blocks(stage)]


def _versions(now: Mapping[str, str], before: Any) -> str:
    before = before if isinstance(before, Mapping) else {}
    names = [name for name in {**now, **before} if now.get(name) != before.get(name)]
    parts = [
        f"{name} is {now.get(name, 'gone')} and was {before.get(name, 'not there')}"
        for name in names
    ]
    return "; ".join(parts)
