"""Feature losses: on what modules inside the two nets give.

Maps have channels on axis 1: ``(n, channels, ...)``. Learned adapters, which bring a student's
channels to a teacher's, are applied before (``compress.modules.features.Adapter``).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from compress.distillation.functions.checks import in_float32, same_batch
from compress.errors import DataError
from compress.modules.features import aligned

__all__ = ["attention_maps", "attention_transfer", "hidden", "hint"]


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two feature maps of the same number of channels.

    Romero et al. 2015, "FitNets: hints for thin deep nets", with the mean for their half sum. Maps
    of different sizes are brought to one by :func:`compress.modules.features.aligned`.

    Raises:
        DataError: maps that cannot be brought to one size, or channels that differ.
    """
    student, teacher = aligned(*in_float32(student, teacher))
    if student.shape != teacher.shape:
        raise DataError(
            f"hint: the student's feature has {student.shape[1]} channels and the teacher's "
            f"{teacher.shape[1]}; an adapter goes between."
        )
    return F.mse_loss(student, teacher)


def attention_transfer(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """Squared distance of normalized maps of where the channels are strong; widths may differ.

    Zagoruyko and Komodakis 2017, "Paying more attention to attention": at each position the mean
    over channels of ``|a| ** power``, the map scaled to length 1. Squared, as in the authors' code,
    and summed over positions, so that a weight does not depend on the size of the map: 0 to 2.
    Maps of different sizes are brought to one first
    (:func:`compress.modules.features.aligned`).

    Raises:
        DataError: features without positions, or maps that cannot be brought to one size.
    """
    student, teacher = aligned(*in_float32(student, teacher))
    if student.dim() < 3:
        raise DataError(
            "attention-transfer compares maps, and a feature here has no positions: choose layers "
            "before the pooling, or use hint."
        )
    maps = [F.normalize(f.abs().pow(power).mean(1).flatten(1)) for f in (student, teacher)]
    return (maps[0] - maps[1]).square().sum(1).mean()


def hidden(student: Tensor, teacher: Tensor, own_tokens: Tensor | None = None) -> Tensor:
    """Mean squared difference of hidden states ``(n, tokens, width)``.

    Jiao et al. 2020, "TinyBERT", equation 8.

    Args:
        student: hidden states.
        teacher: hidden states, same shape.
        own_tokens: which tokens count, ``(n, tokens)``: padding says nothing; ``None`` for all.

    Raises:
        DataError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise DataError(
            f"hidden: the student's states are {tuple(student.shape)} and the teacher's "
            f"{tuple(teacher.shape)}; both must see the same tokens: use hint where they do not."
        )
    student, teacher = in_float32(student, teacher)
    if own_tokens is not None and own_tokens.shape == student.shape[:2]:
        student, teacher = student[own_tokens], teacher[own_tokens]
    return F.mse_loss(student, teacher)


def attention_maps(student: Tensor, teacher: Tensor, own_tokens: Tensor | None = None) -> Tensor:
    """Mean squared difference of attention ``(n, heads, queries, keys)``.

    Jiao et al. 2020, "TinyBERT", equation 7, on scores before the softmax. Where the numbers of
    heads differ, which the paper does not have, each net's mean over its heads is compared.

    Args:
        student: maps.
        teacher: maps; heads may differ.
        own_tokens: which tokens count, as queries and as keys, ``(n, tokens)``; ``None`` for all.
            The authors' code leaves out what is masked, too.

    Raises:
        DataError: different tokens.
    """
    student, teacher = same_batch(student, teacher)
    if student.shape[2:] != teacher.shape[2:]:
        raise DataError(
            f"attention-maps: the student attends over {tuple(student.shape[2:])} queries and keys "
            f"and the teacher over {tuple(teacher.shape[2:])}; both must see the same tokens."
        )
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    if own_tokens is not None and (own_tokens.shape[-1],) * 2 == student.shape[2:]:
        both = own_tokens[:, None, :, None] & own_tokens[:, None, None, :]
        both = both.expand_as(student)
        student, teacher = student[both], teacher[both]
    return F.mse_loss(student, teacher)
