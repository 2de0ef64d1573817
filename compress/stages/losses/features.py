"""Losses that look inside both nets; the teacher must be a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.algorithms import losses as functions
from compress.algorithms.attention import AttentionSource, attention_source
from compress.algorithms.features import Adapter, Feature, channels_first
from compress.stages.losses.base import LossBlock, Paths
from compress.stages.terms import Answer, Layers, Scene, Term

__all__ = ["AttentionMapsLoss", "AttentionTransferLoss", "HiddenLoss", "HintLoss"]

#: Of the student's feature, the teacher's, and which tokens count where texts are padded.
_Compare = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class PairedBlock(LossBlock):
    """``student`` and ``teacher`` are layers, by path or glob, one or several of each.

    As many of each pair in order; else they are spread evenly (TinyBERT's uniform map).
    """

    student: Paths
    teacher: Paths

    def pairs(self, scene: Scene) -> list[tuple[str, str]]:
        """Which layer learns from which."""
        return scene.pairs(self.kind, self.student, self.teacher)


class HintLoss(PairedBlock):
    """Match feature maps (Romero et al. 2015).

    Where channels differ, a learned 1x1 convolution brings the student's to the teacher's; it is
    thrown away afterwards. Where sizes differ, the finer map is averaged down.
    """

    kind: Literal["hint"] = "hint"

    def term(self, scene: Scene) -> Term:
        """Adapted differences, averaged over pairs."""
        pairs = self.pairs(scene)
        adapters = [_adapter(scene, pair, tokens=False) for pair in pairs]

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return functions.hint(student, teacher)

        return scene.tried(self.kind, _paired(scene, pairs, compare, adapters))


class AttentionTransferLoss(PairedBlock):
    """Match where activations are strong (Zagoruyko and Komodakis 2017); any widths."""

    kind: Literal["attention-transfer"] = "attention-transfer"
    power: float = Field(default=2.0, gt=0)

    def term(self, scene: Scene) -> Term:
        """Differences of attention, averaged over pairs."""

        def compare(student: Tensor, teacher: Tensor, _: Tensor | None) -> Tensor:
            return functions.attention_transfer(student, teacher, self.power)

        return scene.tried(self.kind, _paired(scene, self.pairs(scene), compare))


class HiddenLoss(PairedBlock):
    """Match hidden states of transformers (Jiao et al. 2020).

    Where widths differ, a learned linear map brings the student's to the teacher's; it is thrown
    away afterwards. Padding does not count.
    """

    kind: Literal["hidden"] = "hidden"

    def term(self, scene: Scene) -> Term:
        """Adapted differences, averaged over pairs."""
        pairs = self.pairs(scene)
        adapters = [_adapter(scene, pair, tokens=True) for pair in pairs]

        def compare(student: Tensor, teacher: Tensor, own_tokens: Tensor | None) -> Tensor:
            return functions.hidden(student.movedim(1, -1), teacher.movedim(1, -1), own_tokens)

        term = _paired(scene, pairs, compare, adapters, tokens=True)
        return scene.tried(self.kind, term)


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
            ]
            return torch.stack(parts).mean()

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


def _paired(
    scene: Scene,
    pairs: Sequence[tuple[str, str]],
    compare: _Compare,
    adapters: Sequence[nn.Module] = (),
    *,
    tokens: bool = False,
) -> Term:
    """The mean over pairs of layers of a comparison of their features, channels on axis 1."""
    ours = [_feature(scene.student_layers, name, tokens) for name, _ in pairs]
    theirs = [_feature(scene.teacher_layers, name, tokens) for _, name in pairs]
    between = nn.ModuleList(adapters or [nn.Identity() for _ in pairs])

    def function(student: Answer, teacher: Answer, _: Tensor | None) -> Tensor:
        parts = [
            compare(
                adapter(channels_first(student.features[a], ours[i].channels_last)),
                channels_first(teacher.features[b], theirs[i].channels_last),
                student.own_tokens,
            )
            for i, ((a, b), adapter) in enumerate(zip(pairs, between, strict=True))
        ]
        return torch.stack(parts).mean()

    learns = any(True for _ in between.parameters())
    return Term(
        function,
        tuple(name for name, _ in pairs),
        tuple(dict.fromkeys(name for _, name in pairs)),
        between if learns else None,
    )


def _adapter(scene: Scene, pair: tuple[str, str], *, tokens: bool) -> nn.Module:
    before = _feature(scene.student_layers, pair[0], tokens).channels
    after = _feature(scene.teacher_layers, pair[1], tokens).channels
    return nn.Identity() if before == after else Adapter(before, after)


def _feature(layers: Layers, name: str, tokens: bool) -> Feature:
    """What a layer gives; with ``tokens``, two axes are tokens and their width."""
    feature = layers.features[name]
    if tokens and len(feature.shape) == 2:
        return replace(feature, channels_last=True)
    return feature


def _layers_of(sources: Sequence[AttentionSource]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for source in sources for name in source.layers))
