"""Sizes: how many channels, features and classes a task asks of a net."""

from __future__ import annotations

import math

from torch import Tensor

from compress.outputs import CLASS_KINDS
from compress.task import Task
from compress.training.data import head, is_labeled, spread
from compress.training.labels import facts_of

__all__ = ["sizes_of", "takes_classes"]

# Labels that are looked at for the highest class, where the task names none.
_SAMPLES = 4096


def sizes_of(task: Task) -> dict[str, int]:
    """What the task's inputs and labels say, by the names that built-in nets have for it.

    ``in_channels``, ``image_size``, ``in_features`` and ``context`` of inputs that are one tensor,
    and ``classes`` where names or labels say how many there are.
    """
    found = _of_inputs(head(task.train, 1).inputs)
    classes = len(task.classes) or _of_labels(task)
    return {**found, "classes": classes} if classes else found


def takes_classes(task: Task) -> bool:
    """Whether the task's outputs are scores of classes, by what it says or by its first label."""
    if task.outputs is not None:
        return isinstance(task.outputs, str) and task.outputs in CLASS_KINDS
    labels = head(task.train, 1).labels
    return isinstance(labels, Tensor) and not labels.is_floating_point()


def _of_inputs(inputs: Tensor | dict[str, Tensor]) -> dict[str, int]:
    if not isinstance(inputs, Tensor) or inputs.dim() < 2:
        return {}
    sample = tuple(inputs.shape[1:])
    if not inputs.is_floating_point():
        return {"context": sample[0]} if len(sample) == 1 else {}
    sizes = {"in_features": math.prod(sample)}
    if len(sample) > 1:
        sizes["in_channels"] = sample[0]
    if len(sample) == 3 and sample[1] == sample[2]:
        sizes["image_size"] = sample[1]
    return sizes


def _of_labels(task: Task) -> int:
    """How many outputs the labels ask for; 0 where they do not say."""
    if not is_labeled(task.train):
        return 0
    labels = spread(task.train, _SAMPLES).labels
    # Labels by name are for several outputs, none of which is all that the model has.
    facts = facts_of(labels, task.ignore_index) if isinstance(labels, Tensor) else None
    if facts is None:
        return 0
    several = len(facts.shape) == 2 and facts.is_binary and task.outputs is None
    if task.outputs in (None, "class-scores", "tokens") and not (facts.is_float or several):
        return int(facts.highest) + 1
    return facts.shape[1] if len(facts.shape) == 2 else 1 if len(facts.shape) == 1 else 0
