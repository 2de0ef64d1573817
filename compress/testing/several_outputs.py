"""Nets that return more than a tensor, in every form that a model may return several in.

For whatever works on outputs by name: lowering, cuts, fake quantization, losses and metrics.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compress.modules.inputs import Inputs

__all__ = ["SEVERAL", "Heads", "SeveralOutputs", "SmallDetector", "SmallSegmenter"]

_FEATURES = 12


@dataclass(frozen=True)
class SeveralOutputs:
    """A net with several outputs.

    Args:
        build: makes it, with weights by torch's seed.
        inputs: a batch of so many samples.
        names: of its outputs in eval mode, in order.
        in_file: what a file calls them, where that is not so.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    names: tuple[str, ...]
    in_file: tuple[str, ...] = ()

    @property
    def file_names(self) -> tuple[str, ...]:
        """What a file calls its outputs."""
        return self.in_file or self.names


class BoxesAndScores(NamedTuple):
    """A named tuple of two outputs."""

    boxes: Tensor
    scores: Tensor


@dataclass
class Prediction:
    """A data class that nobody told torch of, with one part that may be missing."""

    scores: Tensor
    parts: Any
    loss: Tensor | None = None


class LikeModelOutput(OrderedDict[str, Any]):
    """A mapping whose keys are attributes, and that is indexed by place, as transformers has it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]


@dataclass(frozen=True)
class Made:
    """What :class:`Heads` has made of one batch, for the function that puts outputs together.

    ``extra`` is of a head that only training uses, and ``None`` otherwise.
    """

    x: Tensor
    features: Tensor
    boxes: Tensor
    scores: Tensor
    prior: Tensor
    extra: Tensor | None


class Heads(nn.Module):
    """A body of two linear layers and two heads on it; ``give`` puts together what it returns."""

    def __init__(self, give: Callable[[Made], Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, _FEATURES)
        self.box, self.score = nn.Linear(_FEATURES, 4), nn.Linear(_FEATURES, 3)
        self.extra = nn.Linear(_FEATURES, 2)
        self.prior = nn.Buffer(torch.linspace(0, 1, 4))
        self._give = give

    def forward(self, x: Tensor) -> Any:
        """Whatever ``give`` makes of it."""
        features = self.second(self.first(x).relu()).relu()
        extra = self.extra(features) if self.training else None
        made = Made(x, features, self.box(features), self.score(features), self.prior, extra)
        return self._give(made)


class SmallDetector(nn.Module):
    """A single-stage detector: boxes ``(n, anchors, 4)`` and scores ``(n, anchors, classes)``."""

    def __init__(self, classes: int = 3, anchors: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.boxes = nn.Conv2d(16, 4 * anchors, 3, padding=1)
        self.scores = nn.Conv2d(16, classes * anchors, 3, padding=1)
        self.classes = classes

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Boxes and scores of an image ``(n, 1, height, width)``."""
        features = self.body(self.norm(self.stem(image)).relu()).relu()
        boxes = self.boxes(features).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))
        scores = self.scores(features).permute(0, 2, 3, 1).flatten(1)
        return {"boxes": boxes.sigmoid(), "scores": scores.unflatten(1, (-1, self.classes))}


class SmallSegmenter(nn.Module):
    """A map of classes for each pixel, and in training that of an auxiliary head beside it."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.body = nn.Conv2d(8, 12, 3, padding=1)
        self.head, self.aux = nn.Conv2d(12, classes, 1), nn.Conv2d(8, classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``out``, and ``aux`` in training, each ``(n, classes, height, width)``."""
        early = self.down(image).relu()
        given = {"out": self.head(self.body(early).relu())}
        if self.training:
            given["aux"] = self.aux(early)
        size = image.shape[-2:]
        return {k: nn.functional.interpolate(v, size, mode="bilinear") for k, v in given.items()}


def _rows(samples: int) -> Tensor:
    return torch.randn(samples, 6, generator=torch.Generator().manual_seed(samples))


def _named_rows(samples: int) -> dict[str, Tensor]:
    return {"x": _rows(samples)}


def _images(samples: int) -> Tensor:
    return torch.randn(samples, 1, 16, 16, generator=torch.Generator().manual_seed(samples))


def _of(
    give: Callable[[Made], Any],
    *names: str,
    in_file: tuple[str, ...] = (),
    inputs: Callable[[int], Inputs] = _rows,
) -> SeveralOutputs:
    return SeveralOutputs(lambda: Heads(give), inputs, names, in_file)


def _nested(m: Made) -> Any:
    return {"all": [m.boxes, {"s": m.scores, "none": None}], "f": (m.features,)}


def _as_transformers_does(m: Made) -> Any:
    return LikeModelOutput(logits=m.scores, hidden_states=(m.x, m.features))


def _called_as_operators_are(m: Made) -> Any:
    return {"linear": m.scores, "relu": m.boxes, "relu_1": m.features, "first.weight": m.boxes + 1}


def _before_and_after(m: Made) -> Any:
    return {"scores": m.scores, "chance": m.scores.softmax(1), "features": m.features}


#: By the form in which the outputs are returned.
SEVERAL: dict[str, SeveralOutputs] = {
    "tuple": _of(lambda m: (m.boxes, m.scores), "0", "1"),
    "list": _of(lambda m: [m.boxes, m.scores], "0", "1"),
    "dict": _of(lambda m: {"boxes": m.boxes, "scores": m.scores}, "boxes", "scores"),
    "dict of one": _of(lambda m: {"scores": m.scores}, "scores"),
    "named tuple": _of(lambda m: BoxesAndScores(m.boxes, m.scores), "boxes", "scores"),
    "data class": _of(
        lambda m: Prediction(m.scores, (m.boxes, m.features)), "scores", "parts.0", "parts.1"
    ),
    "nested": _of(_nested, "all.0", "all.1.s", "f.0"),
    "model output": _of(_as_transformers_does, "logits", "hidden_states.0", "hidden_states.1"),
    "classes": _of(lambda m: {"boxes": m.boxes, "ids": m.scores.argmax(1)}, "boxes", "ids"),
    "mask": _of(lambda m: (m.scores, m.scores > 0), "0", "1"),
    "extra in training": _of(
        lambda m: {"boxes": m.boxes, "extra": m.extra, "scores": m.scores}, "boxes", "scores"
    ),
    "the input too": _of(
        lambda m: {"x": m.x, "scores": m.scores},
        "x",
        "scores",
        in_file=("x_2", "scores"),
        inputs=_named_rows,
    ),
    "a constant too": _of(
        lambda m: {"scores": m.scores, "prior": m.prior.expand(len(m.x), 4)}, "scores", "prior"
    ),
    "one twice": _of(lambda m: {"a": m.scores, "b": m.scores, "c": m.boxes}, "a", "b", "c"),
    "views of another": _of(
        lambda m: (m.boxes, m.boxes.view(-1, 2, 2), m.scores[:, :2]), "0", "1", "2"
    ),
    "before and after": _of(_before_and_after, "scores", "chance", "features"),
    "names of operators": _of(_called_as_operators_are, "linear", "relu", "relu_1", "first.weight"),
    "detector": SeveralOutputs(SmallDetector, _images, ("boxes", "scores")),
    "segmentation": SeveralOutputs(SmallSegmenter, _images, ("out",)),
}
