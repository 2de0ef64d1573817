"""Which layer hurts: what quantizing each by itself, or cutting a tenth of it, does to the outputs.

On a part of the validation split, in simulation: nothing is lowered or timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.data import Subset

from compress.candidate import Candidate, count_parameters
from compress.errors import AlreadySo, NoEffect, StageError
from compress.layer_facts import Change, LayerSensitivity, Sensitivity
from compress.measure.named_arrays import Arrays
from compress.measure.score import accuracy_facts
from compress.modules.inputs import Inputs
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.quantization.fakequant import declared_formats, layers_with_formats, simulate
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.quantization.sensitivity import as_probabilities, outputs_of, relative_error
from compress.quantization.stored import saved_bytes
from compress.running.job import Job
from compress.running.scoring import Scoring, scoring_of, supervision_of_job
from compress.running.split_arrays import SplitArrays
from compress.stage import ranges_of
from compress.task import Dataset
from compress.training.data import read, spread_places
from compress.training.rng import isolated

__all__ = ["sensitivity_of"]

_BATCH = 64
_SHARE = 0.1


def sensitivity_of(
    job: Job,
    formats: Mapping[str, LayerFormat],
    samples: int,
    tell: Callable[[int, int, str], None] = lambda *_: None,
    *,
    with_cuts: bool = True,
) -> Sensitivity:
    """Change one layer of a job's model after the other.

    Args:
        job: whose candidate, task and metric are taken.
        formats: by the name that they are told under.
        samples: of the validation split, evenly spaced.
        tell: called with the number of a layer, of all, and its path, before it is looked at.
        with_cuts: whether each layer is cut by a tenth, too, which takes longest.

    Raises:
        StageError: the model has no layer that could be quantized.
        CompressError: data, labels or outputs that do not go together.
    """
    candidate = job.candidate
    layers = layers_with_formats(candidate.module)
    if not layers:
        raise StageError("sensitivity: the model has no layer whose weights could be quantized.")
    judge = _Judge.of(job, samples)
    own = {
        name: declared_formats(
            candidate.module, Numerics().with_rule(QuantRule(format=format)), candidate.example
        )
        for name, format in formats.items()
    }
    called = [name for name in layers if all(name in each for each in own.values())]
    ranges = {name: ranges_of(candidate.module, each, job.task) for name, each in own.items()}
    found = []
    for number, layer in enumerate(called, 1):
        tell(number, len(called), layer)
        module, changes = candidate.module.get_submodule(layer), {}
        for name, each in own.items():
            alone = {layer: each[layer]}
            with simulate(candidate.module, alone, ranges[name]):
                saved = saved_bytes(candidate.module, alone)
                changes[name] = judge.change(candidate.module, saved)
        parameters = sum(tensor.numel() for tensor in module.parameters(recurse=False))
        cut = _cut(candidate, layer, judge) if with_cuts else None
        found.append(LayerSensitivity(layer, layers[layer], parameters, changes, cut))
    return Sensitivity(
        judge.scoring.name,
        judge.score,
        judge.scoring.higher_is_better,
        judge.samples,
        tuple(found),
        fingerprint=candidate.fingerprint,
    )


@dataclass(frozen=True)
class _Judge:
    """Compares changed modules with the one that came in.

    Args:
        candidate: that came in.
        scoring: by which metric.
        batches: of inputs.
        labels: of all of them, or what the model itself says.
        expected: its outputs.
        class_scores: the outputs that are compared as probabilities.
        score: and the score of ``expected``.
    """

    candidate: Candidate
    scoring: Scoring
    batches: Sequence[Inputs]
    labels: Arrays
    expected: Mapping[str, Tensor]
    class_scores: frozenset[str]
    score: float

    @classmethod
    def of(cls, job: Job, samples: int) -> _Judge:
        """With evenly spaced samples of the validation split."""
        supervision = supervision_of_job(job)
        scoring, class_scores = scoring_of(job, supervision), supervision.class_scores
        candidate, dataset = job.candidate, job.task.validation
        split: Dataset = Subset(cast("Any", dataset), spread_places(dataset, samples))
        batches = [batch.inputs for batch in read(split, _BATCH)]
        expected = outputs_of(candidate.module, batches)
        given = SplitArrays.of(split)
        labels = scoring.labels(given if scoring.has_labels else given.without_labels())
        if labels is None:
            labels = scoring.as_labels(scoring.arrays(candidate.shipped(dict(expected))))
        judge = cls(candidate, scoring, batches, labels, expected, class_scores, 0.0)
        return replace(judge, score=judge.scored(expected))

    @property
    def samples(self) -> int:
        """How many it looks at."""
        return len(next(iter(self.expected.values())))

    def scored(self, outputs: Mapping[str, Tensor]) -> float:
        """The metric of some outputs."""
        arrays = self.scoring.arrays(self.candidate.shipped(dict(outputs)))
        scores = self.scoring.of(arrays, self.labels)
        return accuracy_facts(scores, higher_is_better=self.scoring.higher_is_better).value

    def change(self, module: nn.Module, saved_bytes: int) -> Change:
        """What has become of the module."""
        outputs = outputs_of(module, self.batches)
        lost = self.score - self.scored(outputs)
        lost = lost if self.scoring.higher_is_better else 0.0 - lost
        pair = (as_probabilities(each, self.class_scores) for each in (self.expected, outputs))
        return Change(relative_error(*pair), lost, saved_bytes)


def _cut(candidate: Candidate, layer: str, judge: _Judge) -> Change | None:
    """A tenth of the layer's channels, and all that goes with them, cut without training."""
    small = candidate.fork()
    before = count_parameters(small.module)[0]
    request = ChannelPruning(ratio=0.0, layer_ratios={layer: _SHARE})
    try:
        with isolated(0):
            prune_channels(small.module, small.example, request)
    except (NoEffect, AlreadySo, StageError):  # its channels stay, as those of the outputs
        return None
    return judge.change(small.module, 4 * (before - count_parameters(small.module)[0]))
