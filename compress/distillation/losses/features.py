"""Losses that look inside both nets; the teacher must be a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from compress.config.fields import Number
from compress.distillation import functions
from compress.distillation.attention import AttentionSource, attention_source
from compress.distillation.context import Answer, Layers, Scene, Term
from compress.distillation.losses.base import LossBlock, Paths
from compress.distillation.losses.layers import AxisSetting, Seen, axes_of, mean_of, seen
from compress.modules.features import Adapter

__all__ = ["AttentionMapsLoss", "AttentionTransferLoss", "HiddenLoss", "HintLoss"]

#: Of the student's feature, the teacher's, and which tokens count where texts are padded.
_Compare = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_Pair = tuple[Seen, Seen]


class PairedBlock(LossBlock):
    """``student`` and ``teacher`` are layers, by path or glob, one or several of each.

    As many of each pair in order; else they are spread evenly (TinyBERT's uniform map).
    """

    student: Paths
    teacher: Paths

    def pairs(self, scene: Scene) -> list[tuple[str, str]]:
        """Which layer learns from which."""
        return scene.pairs(self.kind, self.student, self.teacher)


class ChannelsBlock(PairedBlock):
    """``axis``: that of the channels of what the layers give, where it is not to be found.

    One for both nets, or a mapping with ``student`` and ``teacher``; samples are on axis 0.
    """

    axis: AxisSetting | None = Field(
        default=None,
        description="The axis of channels where it cannot be told from the nets; samples are on 0.",
    )

    def seen(self, scene: Scene) -> list[_Pair]:
        """The pairs of layers, with where their channels are."""
        return [self._pair(scene, *names) for names in self.pairs(scene)]

    def _pair(self, scene: Scene, student: str, teacher: str) -> _Pair:
        ours, theirs = axes_of(self.axis)
        return (
            seen(self.kind, scene.student_layers, student, ours),
            seen(self.kind, scene.teacher_layers, teacher, theirs),
        )


class HintLoss(ChannelsBlock):
    """Match feature maps (Romero et al. 2015).

    Where channels differ, a learned 1x1 convolution brings the student's to the teacher's; it is
    thrown away afterwards. Where sizes differ, the finer map is averaged down.
    """

    kind: Literal["hint"] = "hint"

    def term(self, scene: Scene) -> Term:
        """Adapted differences, averaged over pairs."""
        pairs = self.seen(scene)

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return functions.hint(student, teacher)

        return scene.tried(self.kind, _paired(pairs, compare, _adapters(pairs)))


class AttentionTransferLoss(ChannelsBlock):
    """Match where activations are strong (Zagoruyko and Komodakis 2017); any widths."""

    kind: Literal["attention-transfer"] = "attention-transfer"
    power: Number = Field(default=2.0, gt=0, le=100)

    def term(self, scene: Scene) -> Term:
        """Differences of attention, averaged over pairs."""

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return functions.attention_transfer(student, teacher, self.power)

        return scene.tried(self.kind, _paired(self.seen(scene), compare))


class HiddenLoss(ChannelsBlock):
    """Match hidden states of transformers, ``(n, tokens, width)`` (Jiao et al. 2020).

    Where widths differ, a learned linear map brings the student's to the teacher's; it is thrown
    away afterwards. Padding does not count.
    """

    kind: Literal["hidden"] = "hidden"

    def term(self, scene: Scene) -> Term:
        """Adapted differences, averaged over pairs."""
        pairs = self.seen(scene)

        def compare(student: Tensor, teacher: Tensor, own_tokens: Tensor | None) -> Tensor:
            return functions.hidden(student.movedim(1, -1), teacher.movedim(1, -1), own_tokens)

        return scene.tried(self.kind, _paired(pairs, compare, _adapters(pairs)))

    def _pair(self, scene: Scene, student: str, teacher: str) -> _Pair:
        nets = (scene.student_layers, scene.teacher_layers)
        names, given = (student, teacher), axes_of(self.axis)
        shapes = {net.features[name].shape for net, name in zip(nets, names, strict=True)}
        ours, theirs = (
            # By definition tokens come before their width; of equal states any order will do.
            axis or net.axis(name, follow=len(shapes) > 1) or _last(net, name)
            for net, name, axis in zip(nets, names, given, strict=True)
        )
        return seen(self.kind, nets[0], student, ours), seen(self.kind, nets[1], teacher, theirs)


class AttentionMapsLoss(PairedBlock):
    """Match attention maps of transformers (Jiao et al. 2020).

    The layers are attention modules. Their scores are worked out from their queries and keys; where
    one net gives only probabilities, probabilities are compared. Padding does not count.
    """

    kind: Literal["attention-maps"] = "attention-maps"

    def term(self, scene: Scene) -> Term:
        """Differences of maps, averaged over pairs."""
        pairs = self.pairs(scene)
        ours = [self._source(scene, scene.student_layers, name) for name, _ in pairs]
        theirs = [self._source(scene, scene.teacher_layers, name) for _, name in pairs]
        softmax = not all(source.has_scores for source in (*ours, *theirs))

        def function(student: Answer, teacher: Answer, _: Tensor | None) -> Tensor:
            parts = [
                functions.attention_maps(
                    a.maps(student.features, softmax),
                    b.maps(teacher.features, softmax),
                    student.own_tokens,
                )
                for a, b in zip(ours, theirs, strict=True)
                if _ran(a, student) and _ran(b, teacher)
            ]
            return mean_of(parts, student)

        term = Term(function, _layers_of(ours), _layers_of(theirs))
        return scene.tried(self.kind, term)

    def _source(self, scene: Scene, layers: Layers, name: str) -> AttentionSource:
        source = attention_source(layers.module, name, layers.features)
        if source is None:
            raise scene.misfit(
                self.kind,
                f"{name!r} of {layers.whose} gives no attention map, and holds no linear layers "
                "query and key beside a number num_heads to work it out from",
            )
        return source


def _paired(pairs: Sequence[_Pair], compare: _Compare, adapters: Sequence[nn.Module] = ()) -> Term:
    """The mean over pairs of layers of a comparison of their features, channels on axis 1."""
    between = nn.ModuleList(adapters or [nn.Identity() for _ in pairs])

    def function(student: Answer, teacher: Answer, _: Tensor | None) -> Tensor:
        parts, idle = [], []
        for (ours, theirs), adapter in zip(pairs, between, strict=True):
            learning, teaching = ours.of(student), theirs.of(teacher)
            if learning is None or teaching is None:
                idle.append(adapter)
            else:
                parts.append(compare(adapter(learning), teaching, student.own_tokens))
        return mean_of(parts, student, idle)

    learns = any(True for _ in between.parameters())
    return Term(
        function,
        tuple(ours.name for ours, _ in pairs),
        tuple(dict.fromkeys(theirs.name for _, theirs in pairs)),
        between if learns else None,
    )


def _adapters(pairs: Sequence[_Pair]) -> list[nn.Module]:
    widths = [(ours.channels, theirs.channels) for ours, theirs in pairs]
    return [nn.Identity() if a == b else Adapter(a, b) for a, b in widths]


def _last(layers: Layers, name: str) -> int | None:
    rank = len(layers.features[name].shape) + 1
    return rank - 1 if rank == 3 else None


def _ran(source: AttentionSource, answer: Answer) -> bool:
    return all(name in answer.features for name in source.layers)


def _layers_of(sources: Sequence[AttentionSource]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for source in sources for name in source.layers))
