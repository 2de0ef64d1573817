"""Response losses: on class scores, ``(n, classes)`` or ``(n, classes, ...)`` for dense outputs.

All average over samples and positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.distillation.functions.checks import class_rows, same_outputs
from compress.errors import DataError

__all__ = ["binary_kl", "dist", "dkd", "hard", "logits_mse", "response", "topk_kl"]


def response(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """KL divergence of softened class probabilities, times the temperature squared.

    The square keeps the size of the gradient independent of the temperature
    (Hinton et al. 2015, "Distilling the knowledge in a neural network").

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    scores, taught = class_rows(student, teacher)
    soft = [(logits / temperature).log_softmax(1) for logits in (scores, taught)]
    return _divergence(*soft) * temperature**2


def binary_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of the Bernoulli distributions that logits ``(n, ...)`` stand for.

    Yang et al. 2023, "Multi-label knowledge distillation": :func:`response` for outputs each of
    which is a yes or no of its own. It is that loss for the two classes with the scores ``(0,
    logit)``, averaged over outputs. Times the temperature squared.

    Raises:
        DataError: the shapes differ.
    """
    student, teacher = (logits / temperature for logits in same_outputs(student, teacher))
    chance = teacher.sigmoid()
    divergence = chance * (F.logsigmoid(teacher) - F.logsigmoid(student))
    divergence = divergence + (1 - chance) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return divergence.mean() * temperature**2


def logits_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the raw outputs (Ba and Caruana 2014, "Do deep nets...").

    Raises:
        DataError: the shapes differ.
    """
    return F.mse_loss(*same_outputs(student, teacher))


def hard(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy on the class that the teacher finds likeliest.

    The teacher as a labeller: pseudo-labels (Lee 2013), and the "hard" distillation of Touvron et
    al. 2021, "Training data-efficient image transformers".

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    scores, taught = class_rows(student, teacher)
    return F.cross_entropy(scores, taught.argmax(1))


def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled distillation: the target class and the others apart (Zhao et al. 2022).

    ``alpha`` weighs the divergence of "target or not", ``beta`` that of the distribution among the
    other classes, which plain KL would damp by how sure the teacher is.

    Args:
        student: scores.
        teacher: scores, same shape.
        target: the true class of each sample (and position), as in the paper; where it is negative
            (what cross-entropy ignores), and everywhere if it is ``None``, the class that the
            teacher finds likeliest.
        alpha: weight of the target's part.
        beta: weight of the others' part.
        temperature: of both.

    Raises:
        DataError: the shapes differ, these are not scores of classes, or targets that are not
            indices of them.
    """
    scores, taught = class_rows(student, teacher)
    is_target = F.one_hot(_classes(target, taught), taught.shape[1]).bool()
    soft = [logits / temperature for logits in (scores, taught)]
    target_part = _divergence(*(_target_or_not(logits, is_target) for logits in soft))
    others_part = _divergence(*(_others(logits, is_target).log_softmax(1) for logits in soft))
    return (alpha * target_part + beta * others_part) * temperature**2


def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """One minus the correlation of probabilities, within samples and within classes.

    Huang et al. 2022, "Knowledge distillation from a stronger teacher": Pearson's correlation
    forgives a shift and a scale, which a much stronger teacher has. ``beta`` weighs the correlation
    over the classes of a sample, ``gamma`` that over the samples of a class (for dense outputs,
    over all positions of the batch). Times the temperature squared, as the authors' code. A batch
    of one has no second part.

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    p, q = ((scores / temperature).softmax(1) for scores in class_rows(student, teacher))
    loss = beta * _decorrelation(p, q)
    if len(p) > 1:
        loss = loss + gamma * _decorrelation(p.T, q.T)
    return loss * temperature**2


def topk_kl(student: Tensor, teacher: Tensor, k: int = 100, temperature: float = 1.0) -> Tensor:
    """KL divergence over the teacher's ``k`` likeliest classes and "any other", for many classes.

    Tan et al. 2019, "Multilingual neural machine translation with knowledge distillation", keep the
    ``k`` likeliest and drop the rest. Here the rest is counted as one class, so that no probability
    is lost: the value is never above that of :func:`response`, and equal to it where ``k`` leaves
    at most one class out.

    Raises:
        DataError: the shapes differ, or these are not scores of classes.
    """
    scores, taught = class_rows(student, teacher)
    scores, taught = scores / temperature, taught / temperature
    top = taught.topk(min(k, taught.shape[1] - 1), dim=1).indices
    return _divergence(_top_and_rest(scores, top), _top_and_rest(taught, top)) * temperature**2


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of rows of log-probabilities, averaged over rows."""
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _classes(target: Tensor | None, taught: Tensor) -> Tensor:
    likeliest = taught.argmax(1)
    if target is None:
        return likeliest
    if target.is_floating_point() or target.numel() != len(taught):
        raise DataError(
            f"dkd needs the index of a class for each of {len(taught)} samples and positions; the "
            f"labels are {tuple(target.shape)} of {target.dtype}."
        )
    classes = target.reshape(-1).long()
    if len(classes) and int(classes.max()) >= taught.shape[1]:
        raise DataError(
            f"dkd: the label {int(classes.max())} is beyond the {taught.shape[1]} classes."
        )
    return torch.where(classes < 0, likeliest, classes)


def _target_or_not(logits: Tensor, is_target: Tensor) -> Tensor:
    rest = _others(logits, is_target).logsumexp(1)
    return torch.stack([logits[is_target], rest], dim=1).log_softmax(1)


def _others(logits: Tensor, is_target: Tensor) -> Tensor:
    return logits[~is_target].view(len(logits), -1)


def _decorrelation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return 1 - F.cosine_similarity(a, b, dim=1).mean()


def _top_and_rest(logits: Tensor, top: Tensor) -> Tensor:
    rest = logits.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    return torch.cat([logits.gather(1, top), rest], dim=1).log_softmax(1)
