"""Losses that look inside both nets; the teacher must be a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from compress.config.fields import Number
from compress.distillation import functions
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
from compress.distillation.net_layers import NetLayers
from compress.modules.features import Adapter

__all__ = ["AttentionMapsLoss", "AttentionTransferLoss", "HiddenLoss", "HintLoss"]

#: Of the student's feature, the teacher's, and which tokens count where texts are padded.
_Compare = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_Pair = tuple[LayerChannels, LayerChannels]


class PairedBlock(LossBlock):
    """``student`` and ``teacher`` are layers, by path or glob, one or several of each.

    As many of each pair in order; else they are spread evenly (TinyBERT's uniform map).
    """

    student: Paths
    teacher: Paths

    def pairs(self, context: DistillationContext) -> list[tuple[str, str]]:
        """Which layer learns from which."""
        return context.pairs(self.kind, self.student, self.teacher)


class ChannelsBlock(PairedBlock):
    """``axis``: that of the channels of what the layers give, where it is not to be found.

    One for both nets, or a mapping with ``student`` and ``teacher``; samples are on axis 0.
    """

    axis: AxisSetting | None = Field(
        default=None,
        description="The axis of channels where it cannot be told from the nets; samples are on 0.",
    )

    def layer_pairs(self, context: DistillationContext) -> list[_Pair]:
        """The pairs of layers, with where their channels are."""
        return [self._pair(context, *names) for names in self.pairs(context)]

    def _pair(self, context: DistillationContext, student: str, teacher: str) -> _Pair:
        ours, theirs = axes_of(self.axis)
        return (
            layer_channels(self.kind, context.student_layers, student, ours),
            layer_channels(self.kind, context.teacher_layers, teacher, theirs),
        )


class HintLoss(ChannelsBlock):
    """Match feature maps (Romero et al. 2015).

    Where channels differ, a learned 1x1 convolution brings the student's to the teacher's; it is
    thrown away afterwards. Where sizes differ, the finer map is averaged down.
    """

    kind: Literal["hint"] = "hint"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Adapted differences, averaged over pairs."""
        pairs = self.layer_pairs(context)

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return functions.hint(student, teacher)

        return context.dry_run(self.kind, _paired(pairs, compare, _adapters(pairs)))


class AttentionTransferLoss(ChannelsBlock):
    """Match where activations are strong (Zagoruyko and Komodakis 2017); any widths."""

    kind: Literal["attention-transfer"] = "attention-transfer"
    power: Number = Field(default=2.0, gt=0, le=100)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Differences of attention, averaged over pairs."""

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return functions.attention_transfer(student, teacher, self.power)

        return context.dry_run(self.kind, _paired(self.layer_pairs(context), compare))


class HiddenLoss(ChannelsBlock):
    """Match hidden states of transformers, ``(n, tokens, width)`` (Jiao et al. 2020).

    Where widths differ, a learned linear map brings the student's to the teacher's; it is thrown
    away afterwards. Padding does not count.
    """

    kind: Literal["hidden"] = "hidden"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Adapted differences, averaged over pairs."""
        pairs = self.layer_pairs(context)

        def compare(student: Tensor, teacher: Tensor, own_tokens: Tensor | None) -> Tensor:
            return functions.hidden(student.movedim(1, -1), teacher.movedim(1, -1), own_tokens)

        return context.dry_run(self.kind, _paired(pairs, compare, _adapters(pairs)))

    def _pair(self, context: DistillationContext, student: str, teacher: str) -> _Pair:
        nets = (context.student_layers, context.teacher_layers)
        names, given = (student, teacher), axes_of(self.axis)
        shapes = {net.features[name].shape for net, name in zip(nets, names, strict=True)}
        ours, theirs = (
            # By definition tokens come before their width; of equal states any order will do.
            axis or net.channel_axis(name, trace=len(shapes) > 1) or _last(net, name)
            for net, name, axis in zip(nets, names, given, strict=True)
        )
        return layer_channels(self.kind, nets[0], student, ours), layer_channels(
            self.kind, nets[1], teacher, theirs
        )


class AttentionMapsLoss(PairedBlock):
    """Match attention maps of transformers (Jiao et al. 2020).

    The layers are attention modules. Their scores are worked out from their queries and keys; where
    one net gives only probabilities, probabilities are compared. Padding does not count.
    """

    kind: Literal["attention-maps"] = "attention-maps"

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Differences of maps, averaged over pairs."""
        pairs = self.pairs(context)
        ours = [self._source(context, context.student_layers, name) for name, _ in pairs]
        theirs = [self._source(context, context.teacher_layers, name) for _, name in pairs]
        softmax = not all(source.has_scores for source in (*ours, *theirs))

        def function(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
            parts = [
                functions.attention_maps(
                    a.maps(student.features, softmax),
                    b.maps(teacher.features, softmax),
                    student.own_tokens,
                )
                for a, b in zip(ours, theirs, strict=True)
                if _ran(a, student) and _ran(b, teacher)
            ]
            return mean_over_layers(parts, student)

        term = LossFunction(function, _layers_of(ours), _layers_of(theirs))
        return context.dry_run(self.kind, term)

    def _source(
        self, context: DistillationContext, layers: NetLayers, name: str
    ) -> AttentionSource:
        source = attention_source(layers.module, name, layers.features)
        if source is None:
            raise context.misfit(
                self.kind,
                f"{name!r} of {layers.owner} gives no attention map, and holds no linear layers "
                "query and key beside a number num_heads to work it out from",
            )
        return source


def _paired(
    pairs: Sequence[_Pair], compare: _Compare, adapters: Sequence[nn.Module] = ()
) -> LossFunction:
    """The mean over pairs of layers of a comparison of their features, channels on axis 1."""
    between = nn.ModuleList(adapters or [nn.Identity() for _ in pairs])

    def function(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
        parts, idle = [], []
        for (ours, theirs), adapter in zip(pairs, between, strict=True):
            learning, teaching = ours.of(student), theirs.of(teacher)
            if learning is None or teaching is None:
                idle.append(adapter)
            else:
                parts.append(compare(adapter(learning), teaching, student.own_tokens))
        return mean_over_layers(parts, student, idle)

    learns = any(True for _ in between.parameters())
    return LossFunction(
        function,
        tuple(ours.name for ours, _ in pairs),
        tuple(dict.fromkeys(theirs.name for _, theirs in pairs)),
        between if learns else None,
    )


def _adapters(pairs: Sequence[_Pair]) -> list[nn.Module]:
    widths = [(ours.channels, theirs.channels) for ours, theirs in pairs]
    return [nn.Identity() if a == b else Adapter(a, b) for a, b in widths]


def _last(layers: NetLayers, name: str) -> int | None:
    rank = len(layers.features[name].shape) + 1
    return rank - 1 if rank == 3 else None


def _ran(source: AttentionSource, answer: ModelOutputs) -> bool:
    return all(name in answer.features for name in source.layers)


def _layers_of(sources: Sequence[AttentionSource]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for source in sources for name in source.layers))
