"""Preflight: what can be known of a job's data before anything is trained or measured.

The same for ``plan`` and for ``run``. Every sample is looked at once, for as long as that is cheap:
labels against the outputs, inputs for values that are not finite and for samples that stand in two
splits, and the metric on a few samples.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from compress.budget import check_budget
from compress.data.named_fields import unused_fields
from compress.distillation.probabilities import are_probabilities
from compress.errors import DataError
from compress.measure.named_arrays import Arrays
from compress.measure.score import UndefinedMetric
from compress.measure.target import backend_of, check_settings
from compress.modules.inputs import Inputs, batch_size_of, forward
from compress.modules.outputs import OUTPUT, Outputs, by_name
from compress.pruning.trace import record
from compress.record import TaskFacts
from compress.running.job import Job
from compress.running.scoring import Scoring, scoring_of, supervision_of_job
from compress.running.serving import check_samples, sample_facts, served_scoring
from compress.running.split_arrays import as_arrays
from compress.task import SERVING, Dataset, Task, slice_key
from compress.training.data import Batch, head, read, spread
from compress.training.output_supervision import OutputSupervision
from compress.training.supervision import Supervision

__all__ = ["Preflight", "preflight"]

_SPLITS = ("train", "validation", "test")
_BATCH = 256
_MOST_S = 3.0  # for one split; samples that are made while they are read can take any time
_METRIC_SAMPLES = 64
_REFERENCE_SAMPLES = 8  # of a teacher that may take seconds for each


@dataclass(frozen=True)
class Preflight:
    """How rows will be scored, and what there is to say about the data."""

    scoring: Scoring
    notes: tuple[str, ...]
    served: Mapping[str, Scoring]

    def task_facts(self, task: Task) -> TaskFacts:
        """The ``task`` block of the record."""
        found = sample_facts(task, self.served)
        slices = {name: found[slice_key(name)] for name in task.slices}
        update = {"serving": found.get(SERVING), "slices": slices}
        return self.scoring.task_facts(task).model_copy(update=update)


@dataclass
class _Split:
    """What was seen of one split."""

    name: str
    samples: int
    seen: int = 0
    digests: list[bytes] = field(default_factory=list)
    highest: dict[str, float] = field(default_factory=dict)

    @property
    def extent(self) -> str:
        """How much of it was looked at."""
        return "" if self.seen == self.samples else f" (of the first {self.seen:,} looked at)"


def preflight(job: Job) -> Preflight:
    """Look at a job's data.

    Raises:
        RecipeError: a budget that cannot have been meant for the metric, or a target's backend that
            is none.
        DataError: data, labels, outputs or a metric that do not go together; the message says what
            would do.
        MeasurementError: settings of a target that this machine does not have.
        CompressError: a named teacher that cannot be made.
    """
    for target in job.targets:
        backend_of(target)
        check_settings(target)
    for name in _SPLITS:
        head(getattr(job.task, name), 1)  # an invalid sample is reported before what follows
    supervision = supervision_of_job(job)
    scoring = scoring_of(job, supervision)
    supervision.check_classes("the model that comes in")
    check_budget(job.budget, scoring.name)
    check_samples(job.task)
    given = {name: getattr(job.task, name) for name in _SPLITS}
    splits = {
        name: _looked_at(job, supervision, scoring, f"{name} split", dataset)
        for name, dataset in given.items()
    }
    served = {
        name: _looked_at(job, supervision, scoring, f"{name} sample", dataset)
        for name, dataset in job.task.served.items()
    }
    notes = [*_unused(job), *_shared(splits, "test"), *_classes(job, supervision, splits)]
    for name, split in served.items():
        notes += _shared({**splits, name: split}, name)
    notes += _try_metric(job, scoring)
    return Preflight(scoring, tuple(notes), served_scoring(job, scoring))


def _looked_at(
    job: Job, supervision: Supervision, scoring: Scoring, name: str, dataset: Dataset
) -> _Split:
    split, start_s = _Split(name, len(dataset)), time.monotonic()
    for batch in read(dataset, _BATCH):
        _check_batch(job, split, batch)
        for name_, labels in _by_output(job, supervision, scoring, batch).items():
            output = supervision.on(name_)
            _check_labels(job, _at_size(job, output, name_, batch.inputs), split, labels)
        split.seen += batch_size_of(batch.inputs)
        if time.monotonic() - start_s > _MOST_S:
            break
    return split


def _check_batch(job: Job, split: _Split, batch: Batch) -> None:
    where = f"task {job.task.name!r}, {split.name}"
    for tensor in _tensors(batch.inputs):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            rows = (~torch.isfinite(tensor).reshape(len(tensor), -1).all(1)).nonzero()
            raise DataError(
                f"{where}: the input of sample {split.seen + int(rows[0])} holds values that are "
                "not finite; mend it or leave it out."
            )
    split.digests.extend(_digests(batch.inputs))


def _by_output(
    job: Job, supervision: Supervision, scoring: Scoring, batch: Batch
) -> dict[str, Tensor]:
    """The labels that must fit an output, by its name.

    A loss of the task's own on several outputs may take labels of any form.
    """
    labels, names = batch.labels, list(supervision.by_output)
    if labels is None:
        return {}
    if len(names) > 1:
        scored = {metric.output for metric in (scoring.leading, *scoring.further)}
        losses = labels.keys() if isinstance(labels, dict) else supervision.labels_on
        wanted = scored if job.task.loss is not None else scored | losses
        names = [name for name in names if name in wanted]
    found = {name: supervision.labels_for(name, labels) for name in names}
    return {name: given for name, given in found.items() if given is not None}


@torch.no_grad()
def _at_size(job: Job, output: OutputSupervision, name: str, inputs: Inputs) -> OutputSupervision:
    """What is known of an image that is as large as the input, which may be a part of an image."""
    candidate = job.candidate
    pair = [[t.shape[1:] for t in _tensors(each)] for each in (inputs, candidate.example)]
    if output.kind != "image" or pair[0] == pair[1]:
        return output
    one = {key: t[:1] for key, t in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
    found = by_name(candidate.shipped(forward(candidate.module, one)))
    return replace(output, outputs=tuple(found[name].shape)) if name in found else output


def _check_labels(job: Job, output: OutputSupervision, split: _Split, labels: Tensor) -> None:
    outputs = torch.empty(len(labels), *output.outputs[1:], device="meta")
    known = output.labeled(labels)
    if not bool(known.any()):
        return
    try:
        output.fitted(outputs[: int(known.sum())], labels[known])
    except DataError as error:
        text = str(error).removeprefix(f"task {job.task.name!r}").removeprefix(": ")
        where = f"task {job.task.name!r}, {split.name}"
        raise DataError(f"{where}{text if text.startswith(',') else f': {text}'}") from error
    if not labels.is_floating_point():
        kept = labels[known]
        if job.task.ignore_index is not None:
            kept = kept[kept != job.task.ignore_index]
        name = output.name or OUTPUT
        highest = float(kept.max()) if len(kept) else -1.0
        split.highest[name] = max(split.highest.get(name, -1.0), highest)


def _digests(inputs: Inputs) -> list[bytes]:
    parts = [t.detach().cpu().contiguous().reshape(len(t), -1) for t in _tensors(inputs)]
    rows = zip(*(part.numpy() for part in parts), strict=True)
    return [
        hashlib.blake2b(b"".join(one.tobytes() for one in row), digest_size=12).digest()
        for row in rows
    ]


def _unused(job: Job) -> Iterator[str]:
    """The fields that the task's data have, and that nothing uses."""
    of = {name: unused_fields(getattr(job.task, name)) for name in _SPLITS}
    for names in dict.fromkeys(tuple(each) for each in of.values() if each):
        where = " and ".join(name for name, each in of.items() if tuple(each) == names)
        yield f"fields of the {where} data that are not used: {', '.join(names)}"


def _shared(splits: dict[str, _Split], own: str) -> Iterator[str]:
    """Samples of the test split, or of others that are scored, that are in another one too."""
    test = splits[own]
    for name in ("train", "validation"):
        known = set(splits[name].digests)
        count = sum(digest in known for digest in test.digests)
        if count:
            of = f"{count:,} of {test.seen:,} {own} samples{test.extent}"
            other = splits[name]
            yield (
                f"{of} are in the {name} split{other.extent} too, so that the score on them says "
                "nothing about new data"
            )


def _classes(job: Job, supervision: Supervision, splits: dict[str, _Split]) -> Iterator[str]:
    """What there is to say of a number of outputs that is not that of the classes."""
    complete = all(split.seen == split.samples for split in splits.values())
    for name, output in supervision.by_output.items():
        if output.kind != "class-scores" or job.task.classes or not complete:
            continue
        count = output.outputs[1]
        highest = int(max(split.highest.get(name, -1.0) for split in splits.values()))
        if 0 <= highest < count - 1:
            which = "" if output.is_only else f" in {name!r}"
            has = f"the model has outputs{which} for {count} classes"
            yield f"{has}, and labels are 0 to {highest} only"


def _try_metric(job: Job, scoring: Scoring) -> list[str]:
    """Try the metrics out on a few samples of the test split, with the model that comes in.

    Raises:
        DataError: outputs and labels do not go together.
    """
    count = _METRIC_SAMPLES if scoring.reference is None else _REFERENCE_SAMPLES
    batch = spread(job.task.test, count)
    with torch.no_grad():
        given = job.candidate.shipped(forward(job.candidate.module, batch.inputs))
    notes, outputs = _activated(job, scoring, given), scoring.arrays(given)
    labels: Arrays
    if batch.labels is not None:
        labels = as_arrays(batch.labels)
    elif scoring.reference is not None:
        labels = scoring.as_labels(scoring.reference.outputs(batch.inputs))
    else:
        labels = scoring.as_labels(outputs)
    # Of these few: nothing is known of all, where a metric has a value for other samples only.
    for metric in (scoring.leading, *scoring.further):
        if metric.rule == "r2" and _is_constant(metric.labels_of(labels)):
            continue
        with suppress(UndefinedMetric):
            metric.of(outputs, labels)
    return notes


def _is_constant(labels: Arrays) -> bool:
    return not isinstance(labels, dict) and bool((labels == labels[:1]).all())


def _activated(job: Job, scoring: Scoring, given: Outputs) -> list[str]:
    """What there is to say of outputs that are not logits where logits are needed.

    Raises:
        DataError: a sigmoid ends the model, and outputs are yes where they are above 0.
    """
    notes = []
    for (name, known), tensor in zip(scoring.outputs.items(), by_name(given).values(), strict=True):
        which = "" if known.is_only else f" in {name!r}"
        outputs = tensor.float()
        is_share = 0 <= float(outputs.min()) <= float(outputs.max()) <= 1
        if known.kind == "independent-logits" and is_share and known.is_only:
            _refuse_sigmoid(job)
        if known.kind == "class-scores" and are_probabilities(outputs):
            notes.append(
                f"the model that comes in gives probabilities{which}, and losses take logits: it "
                "learns slowly until the softmax at its end is left out"
            )
    return notes


def _refuse_sigmoid(job: Job) -> None:
    nodes = record(job.candidate.module, job.candidate.example).nodes
    if nodes and nodes[-1].kind == "sigmoid":
        raise DataError(
            f"task {job.task.name!r}: the model that comes in ends in a sigmoid, and outputs "
            "that are independent-logits come before it: leave it out of the model."
        )


def _tensors(inputs: Inputs) -> Iterator[Tensor]:
    yield from inputs.values() if isinstance(inputs, dict) else [inputs]
