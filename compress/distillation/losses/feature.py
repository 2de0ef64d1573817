"""Feature losses: on layers inside the two nets; the teacher must be a module.

Functions take maps with channels on axis 1, ``(n, channels, ...)``, or what their docstrings say,
and return a scalar, the mean over the batch. Learned adapters, which bring a student's channels to
a teacher's, are applied before (``compress.modules.features.Adapter``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from compress.config.fields import Number
from compress.distillation.attention import AttentionSource, attention_source
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import LossFunction, ModelOutputs
from compress.distillation.losses.base import LossBlock, Paths
from compress.distillation.losses.channels import (
    AxisSetting,
    LayerChannels,
    axes_of,
    layer_channels,
    mean_over_layers,
)
from compress.distillation.losses.checks import in_float32, same_batch
from compress.distillation.net_layers import NetLayers
from compress.errors import DataError
from compress.modules.features import Adapter, aligned

__all__ = [
    "LOSSES",
    "AttentionMapsLoss",
    "AttentionTransferLoss",
    "HiddenLoss",
    "HintLoss",
    "attention_maps",
    "attention_transfer",
    "hidden",
    "hint",
]

#: A loss of the student's features, the teacher's, and which tokens are no padding.
_Compare = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_Pair = tuple[LayerChannels, LayerChannels]


class PairedBlock(LossBlock):
    """A loss on pairs of a layer of the student and one of the teacher."""

    student: Paths
    """Layers of the student, by path or glob: one or several. As many as of the teacher pair in
    order; else they are spread evenly over the teacher's (TinyBERT's uniform map)."""
    teacher: Paths
    """Layers of the teacher that they learn from, by path or glob: one or several."""

    def pairs(self, context: DistillationContext) -> list[tuple[str, str]]:
        """Pairs of a layer of the student and the layer of the teacher that it learns from."""
        return context.pairs(self.kind, self.student, self.teacher)


class ChannelsBlock(PairedBlock):
    """A loss on pairs of layers that have channels."""

    axis: AxisSetting | None = None
    """The axis of channels of the layers, where it cannot be told from the nets: one for both, or a
    mapping with ``student`` and ``teacher``; samples are on axis 0."""

    def layer_pairs(self, context: DistillationContext) -> list[_Pair]:
        """The pairs of layers, with their axes of channels."""
        return [self._pair(context, *names) for names in self.pairs(context)]

    def _pair(self, context: DistillationContext, student: str, teacher: str) -> _Pair:
        ours, theirs = axes_of(self.axis)
        return (
            layer_channels(self.kind, context.student_layers, student, ours),
            layer_channels(self.kind, context.teacher_layers, teacher, theirs),
        )


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two feature maps of the same number of channels.

    Romero et al. 2015, "FitNets: hints for thin deep nets", with the mean for their half sum. Maps
    of different sizes are brought to one by :func:`compress.modules.features.aligned`.

    Args:
        student: features ``(n, channels, ...)``.
        teacher: features with as many channels.

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


class HintLoss(ChannelsBlock):
    """Match feature maps by their mean squared difference.

    Where channels differ, a learned 1x1 convolution brings the student's to the teacher's; it is
    thrown away afterwards. Where sizes differ, the finer map is averaged down.

    Source: Romero et al. 2015, "FitNets: hints for thin deep nets".
    """

    kind: Literal["hint"] = "hint"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`hint` on adapted features, averaged over pairs."""
        pairs = self.layer_pairs(context)

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return hint(student, teacher)

        return context.dry_run(self.kind, _paired(pairs, compare, _adapters(pairs)))


def attention_transfer(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """Squared distance of normalized maps of where the channels are strong; widths may differ.

    Zagoruyko and Komodakis 2017, "Paying more attention to attention": at each position the mean
    over channels of ``|a| ** power``, the map scaled to length 1. Squared, as in the authors' code,
    and summed over positions, so that a weight does not depend on the size of the map: 0 to 2.
    Maps of different sizes are brought to one first
    (:func:`compress.modules.features.aligned`).

    Args:
        student: features ``(n, channels, ...)`` with positions.
        teacher: features; channels may differ.
        power: of the absolute values.

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


class AttentionTransferLoss(ChannelsBlock):
    """Match where activations are strong; the widths of the layers may differ.

    Source: Zagoruyko and Komodakis 2017, "Paying more attention to attention".
    """

    kind: Literal["attention-transfer"] = "attention-transfer"
    power: Number = Field(default=2.0, gt=0, le=100)
    """Of the absolute values, before their mean over channels: a larger one looks at the strongest
    channels alone."""

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`attention_transfer` on features, averaged over pairs."""

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return attention_transfer(student, teacher, self.power)

        return context.dry_run(self.kind, _paired(self.layer_pairs(context), compare))


def hidden(student: Tensor, teacher: Tensor, own_tokens: Tensor | None = None) -> Tensor:
    """Mean squared difference of hidden states ``(n, tokens, width)``.

    Jiao et al. 2020, "TinyBERT", equation 8.

    Args:
        student: hidden states ``(n, tokens, width)``.
        teacher: hidden states, same shape.
        own_tokens: which tokens are no padding, and count, ``(n, tokens)``; ``None`` for all.

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


class HiddenLoss(ChannelsBlock):
    """Match hidden states of transformers, ``(n, tokens, width)``.

    Where widths differ, a learned linear map brings the student's to the teacher's; it is thrown
    away afterwards. Padding does not count.

    Source: Jiao et al. 2020, "TinyBERT", equation 8.
    """

    kind: Literal["hidden"] = "hidden"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`hidden` on adapted states, averaged over pairs."""
        pairs = self.layer_pairs(context)

        def compare(student: Tensor, teacher: Tensor, own_tokens: Tensor | None) -> Tensor:
            return hidden(student.movedim(1, -1), teacher.movedim(1, -1), own_tokens)

        return context.dry_run(self.kind, _paired(pairs, compare, _adapters(pairs)))

    def _pair(self, context: DistillationContext, student: str, teacher: str) -> _Pair:
        nets = (context.student_layers, context.teacher_layers)
        names, given = (student, teacher), axes_of(self.axis)
        shapes = {net.features[name].shape for net, name in zip(nets, names, strict=True)}
        ours, theirs = (
            # By definition tokens come before their width; of equal states any order will do.
            axis or net.channel_axis(name, trace=len(shapes) > 1) or _last_axis(net, name)
            for net, name, axis in zip(nets, names, given, strict=True)
        )
        return (
            layer_channels(self.kind, nets[0], student, ours),
            layer_channels(self.kind, nets[1], teacher, theirs),
        )


def attention_maps(student: Tensor, teacher: Tensor, own_tokens: Tensor | None = None) -> Tensor:
    """Mean squared difference of attention ``(n, heads, queries, keys)``.

    Jiao et al. 2020, "TinyBERT", equation 7, on scores before the softmax. Where the numbers of
    heads differ, which the paper does not have, each net's mean over its heads is compared.

    Args:
        student: maps ``(n, heads, queries, keys)``.
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


class AttentionMapsLoss(PairedBlock):
    """Match attention maps of transformers.

    The layers are attention modules. Their scores are computed from their queries and keys; where
    one net gives only probabilities, probabilities are compared. Padding does not count.

    Source: Jiao et al. 2020, "TinyBERT", equation 7.
    """

    kind: Literal["attention-maps"] = "attention-maps"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """:func:`attention_maps` on scores, averaged over pairs.

        Raises:
            SelectorError: a layer without an attention map.
            StageError: the teacher is not a module.
        """
        pairs = self.pairs(context)
        ours = [self._source(context, context.student_layers, name) for name, _ in pairs]
        theirs = [self._source(context, context.teacher_layers, name) for _, name in pairs]
        softmax = not all(source.has_scores for source in (*ours, *theirs))

        def compute(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
            parts = [
                attention_maps(
                    a.maps(student.features, softmax),
                    b.maps(teacher.features, softmax),
                    student.own_tokens,
                )
                for a, b in zip(ours, theirs, strict=True)
                if _ran(a, student) and _ran(b, teacher)
            ]
            return mean_over_layers(parts, student)

        loss = LossFunction(compute, _layers_of(ours), _layers_of(theirs))
        return context.dry_run(self.kind, loss)

    def _source(
        self, context: DistillationContext, layers: NetLayers, name: str
    ) -> AttentionSource:
        source = attention_source(layers.module, name, layers.features)
        if source is None:
            raise context.misfit(
                self.kind,
                f"{name!r} of {layers.owner} gives no attention map, and holds no linear layers "
                "query and key beside a number num_heads to compute it from",
            )
        return source


def _paired(
    pairs: Sequence[_Pair], compare: _Compare, adapters: Sequence[nn.Module] = ()
) -> LossFunction:
    """The mean of a loss over pairs of layers, whose features have channels on axis 1.

    Args:
        pairs: of a layer of the student and one of the teacher.
        compare: the loss of one pair.
        adapters: for each pair, what the student's features go through; none where empty.
    """
    modules = nn.ModuleList(adapters or [nn.Identity() for _ in pairs])

    def compute(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
        parts, idle = [], []
        for (ours, theirs), adapter in zip(pairs, modules, strict=True):
            a, b = ours.of(student), theirs.of(teacher)
            if a is None or b is None:
                idle.append(adapter)
            else:
                parts.append(compare(adapter(a), b, student.own_tokens))
        return mean_over_layers(parts, student, idle)

    is_trained = any(True for _ in modules.parameters())
    return LossFunction(
        compute,
        student_layers=tuple(ours.name for ours, _ in pairs),
        teacher_layers=tuple(dict.fromkeys(theirs.name for _, theirs in pairs)),
        auxiliary=modules if is_trained else None,
    )


def _adapters(pairs: Sequence[_Pair]) -> list[nn.Module]:
    widths = [(ours.channels, theirs.channels) for ours, theirs in pairs]
    return [nn.Identity() if a == b else Adapter(a, b) for a, b in widths]


def _last_axis(layers: NetLayers, name: str) -> int | None:
    rank = len(layers.features[name].shape) + 1
    return rank - 1 if rank == 3 else None


def _ran(source: AttentionSource, outputs: ModelOutputs) -> bool:
    return all(name in outputs.features for name in source.layers)


def _layers_of(sources: Sequence[AttentionSource]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for source in sources for name in source.layers))


LOSSES: tuple[type[LossBlock], ...] = (
    HintLoss,
    AttentionTransferLoss,
    HiddenLoss,
    AttentionMapsLoss,
)
