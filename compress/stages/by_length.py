"""Whether a training may cut batches to the longest of their texts: where that shows nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.distillation.context import DistillationContext
from compress.errors import StageError
from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import Outputs, by_name
from compress.stages.training_settings import Training
from compress.training.data import SeededEpochs, samples_at
from compress.training.lengths import cut_inputs, lengths_of, longest_of, padded_length

__all__ = ["TrainingData", "training_data"]

_TRIED = 8
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TrainingData:
    """The batches of a training, and what there is to say of their lengths."""

    epochs: SeededEpochs
    note: str = ""


def training_data(distillation: DistillationContext, training: Training) -> TrainingData:
    """The batches of a training: of similar lengths, where data have lengths and nets allow it.

    Nets allow it where their outputs for a few short texts are the same without the padding behind
    them, as those of nets with an attention mask are.

    Raises:
        StageError: ``by_length`` is asked for, and cannot be had.
    """
    epochs = training.data(distillation.stage)
    if training.by_length is False:
        return TrainingData(epochs)
    problem = _problem(distillation, epochs)
    if not problem:
        shorter = replace(epochs, by_length=True)
        saved = 1 - shorter.positions(0) / epochs.positions(0)
        return TrainingData(shorter, f"batches are cut to their longest text: {saved:.0%} shorter")
    if training.by_length:
        raise StageError(f"by_length: batches cannot be cut to their longest text: {problem}.")
    has_lengths = lengths_of(epochs.dataset) is not None
    return TrainingData(epochs, f"batches keep their padding: {problem}" if has_lengths else "")


def _problem(distillation: DistillationContext, epochs: SeededEpochs) -> str:
    """Why batches cannot be cut, as a clause; empty where they can."""
    lengths = lengths_of(epochs.dataset)
    if lengths is None:
        return "the training data do not say how long samples are (an attribute lengths)"
    if epochs.mix is not None or epochs.augment is not None:
        return "batches are augmented or mixed"
    shortest = lengths.argsort(stable=True)[:_TRIED]
    inputs, longest = samples_at(epochs.dataset, shortest.tolist()), longest_of(lengths, shortest)
    padded = padded_length(inputs)
    if padded is None or longest >= padded:
        return "no sample is shorter than the inputs are"
    nets: dict[str, Callable[[Inputs], Outputs]] = {
        "the student": lambda x: forward(distillation.student, x)
    }
    if distillation.teacher is not None:
        nets["the teacher"] = distillation.teacher
    changed = [who for who, net in nets.items() if not _same(net, inputs, padded, longest)]
    return f"the outputs of {' and '.join(changed)} depend on it" if changed else ""


@torch.no_grad()
def _same(net: Callable[[Inputs], Outputs], inputs: Inputs, padded: int, longest: int) -> bool:
    """Whether a net's outputs are the same for inputs that are cut to the longest of them."""
    try:
        whole, found = by_name(net(inputs)), by_name(net(cut_inputs(inputs, padded, longest)))
    except Exception:  # whatever a net raises on lengths that it was not made for
        return False
    return whole.keys() == found.keys() and all(
        _same_output(whole[name], found[name]) for name in whole
    )


def _same_output(whole: Tensor, found: Tensor) -> bool:
    places = [slice(size) for size in found.shape]
    if found.dim() != whole.dim() or whole[tuple(places)].shape != found.shape:
        return False
    limit = _TOLERANCE * float(whole.abs().max())
    return bool((whole[tuple(places)] - found).abs().max() <= limit)
