"""Keys: all that a result depends on, by name, as a few hex digits.

What is kept beside a result are the names with a digest of each, so that a run that makes it again
can say why. Of what has no stable content there is no key, and nothing is re-used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from pydantic_core import to_jsonable_python

from compress.candidate import Candidate
from compress.config.references import CodeReferences, is_reference
from compress.fingerprints import (
    FileMemory,
    Unstable,
    code_fingerprint,
    leaves,
    named_files,
    package_source,
)
from compress.measure.target import Target
from compress.running.digests import Content
from compress.stage import Stage

__all__ = ["Dependencies", "Lineage", "of_measurement", "of_stage", "seed_of"]

# Packages whose versions change what is measured and nothing that a stage does.
_ONLY_MEASURES = frozenset({"openvino"})
_OWN = "compress."
# Targets that are known by their device and settings alone.
_DEVICES = frozenset({"compress.measure.local", "compress.measure.remote.target"})
_SHOWN = ("train", "augment", "named code", "files", "model code", "threads", "compresskit")
#: How a sentence names what a result depends on; in the order in which changes are told.
_WORDS = {
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
    "loss": "the loss",
    "augment": "the augmentation",
    "metric": "the metric",
    "classes": "the classes",
    "task": "what the task says of its outputs",
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
        """32 hex digits; ``None`` where something has no stable content."""
        if self.unknown:
            return None
        return _digest(self.facts)

    @property
    def answers(self) -> str:
        """Identifies what a teacher is shown, and its code; new each time where that is unknown."""
        if self.unknown:
            return uuid4().hex
        return _digest([self.facts.get(name) for name in _SHOWN])

    def changed(self, before: Mapping[str, Any]) -> str:
        """What is another than in ``before``, as a clause; empty where nothing is."""
        names = [name for name in _WORDS if self.facts.get(name) != before.get(name)]
        if before.get("baseline", "") is None:
            names = [
                name for name in names if name != "baseline"
            ]  # it was measured before there was one
        if not names:
            return ""
        if names == ["versions"]:
            return _versions(self.facts["versions"], before.get("versions"))
        words = [_WORDS[name] for name in names if name != "versions"]
        listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
        return f"{listed} changed"

    def is_but_for(self, name: str, other: Mapping[str, Any]) -> bool:
        """Whether nothing but ``name`` is another than in ``other``."""
        return not self.unknown and {**self.facts, name: None} == {**other, name: None}


@dataclass(frozen=True)
class Lineage:
    """The models that a stage's result depends on, as the run has come to them."""

    candidate: Candidate
    teacher: Candidate
    original: Candidate


@dataclass
class _Gathered:
    """Facts as they are worked out; what has no stable content is noted, and the rest goes on."""

    facts: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def take(self, content: Content, *names: str) -> None:
        for name in names:
            found = content.of(name)
            self.facts[name] = found.digest
            if found.problem:
                self.unknown.append(found.problem)

    def code(self, name: str, values: Sequence[Any], files: FileMemory) -> None:
        try:
            self.facts[name] = [code_fingerprint(one, _WORDS[name], files) for one in values]
        except Unstable as problem:
            self.unknown.append(str(problem))

    def named(self, settings: Any, content: Content, references: CodeReferences) -> None:
        """The files and the code that settings name."""
        self.facts["files"] = named_files(settings, content.files)
        self.code("named code", list(_named_code(settings, references)), content.files)

    def done(self) -> Dependencies:
        return Dependencies(self.facts, tuple(dict.fromkeys(self.unknown)))


def seed_of(seed: int, index: int) -> int:
    """The seed of the stage that makes row ``index``."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def of_stage(
    stage: Stage,
    models: Lineage,
    content: Content,
    references: CodeReferences,
    *,
    seed: int,
    processes: int,
) -> Dependencies:
    """What a stage's result depends on.

    Args:
        stage: the stage.
        models: what comes in, the teacher of the run, and what ratios count from.
        content: of the task and the model's code.
        references: the user's code that may be followed.
        seed: of the stage.
        processes: how many train together.
    """
    gathered = _Gathered()
    settings = _plain(stage.model_dump(exclude={"label"}))
    gathered.facts |= {
        "earlier stages": models.candidate.fingerprint,
        "teacher": models.teacher.fingerprint,
        "original": models.original.fingerprint,
        "settings": [type(stage).__qualname__, settings],
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processes": processes,
        **_packages(content, _ONLY_MEASURES),
    }
    gathered.take(content, "model code", "train", "validation", "calibration", "loss", "augment")
    gathered.take(content, "classes", "task")
    gathered.named(stage.model_dump(), content, references)
    if not type(stage).__module__.startswith(_OWN):
        # What a stage of the user's own looks at is not known.
        gathered.take(content, "test", "metric")
        gathered.code("stage code", [type(stage)], content.files)
    return gathered.done()


def of_measurement(
    candidate: Candidate,
    baseline: Candidate | None,
    content: Content,
    references: CodeReferences,
    *,
    reference: Any,
    scoring: Sequence[Any],
    target: Target,
    device: Sequence[Any],
    mode: str,
) -> Dependencies:
    """What a row's measurement on one target depends on, less the noise.

    Args:
        candidate: of the row.
        baseline: that it is compared with.
        content: of the task and the model's code.
        references: the user's code that may be followed.
        reference: settings that name whose answers stand for labels, if they do.
        scoring: how rows are scored, as plain JSON values.
        target: where it is measured.
        device: which device that is, with its settings, as plain JSON values.
        mode: how hard to measure.
    """
    gathered = _Gathered()
    gathered.facts |= {
        "model": candidate.fingerprint,
        "baseline": None if baseline is None else baseline.fingerprint,
        "scoring": list(scoring),
        "target": list(device),
        "mode": mode,
        **_packages(content, frozenset()),
    }
    gathered.named(reference, content, references)
    if type(target).__module__ not in _DEVICES:
        gathered.code("target code", [target], content.files)
    gathered.take(content, "model code", "test", "validation", "metric", "task")
    gathered.take(content, "calibration" if content.has_calibration else "train")
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


def _packages(content: Content, less: frozenset[str]) -> dict[str, Any]:
    versions = {name: v for name, v in content.versions.items() if name not in less}
    return {"versions": versions, "compresskit": package_source()}


def _named_code(settings: Any, references: CodeReferences) -> Iterator[Any]:
    """The functions and classes that settings name."""
    for text in leaves(settings):
        is_code = isinstance(text, str) and is_reference(text)
        if is_code and text.partition(":")[0] in references.allowed:
            yield references.resolve(text, text)


def _versions(now: Mapping[str, str], before: Any) -> str:
    before = before if isinstance(before, Mapping) else {}
    names = [name for name in {**now, **before} if now.get(name) != before.get(name)]
    parts = [
        f"{name} is {now.get(name, 'gone')} and was {before.get(name, 'not there')}"
        for name in names
    ]
    return "; ".join(parts)
