"""The layers of a net that losses compare: chosen by patterns, and where their channels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from compress.modules.features import Feature, matching, norm_axis
from compress.modules.inputs import Inputs
from compress.pruning.axes import channel_axes

__all__ = ["NetLayers"]

_MOST_LISTED = 60


@dataclass(frozen=True)
class NetLayers:
    """The layers of one net.

    Args:
        owner: whose they are, for messages: "the student".
        module: the net.
        features: of each layer in one forward pass, by name.
        inputs: of that pass; ``None`` where channels are not to be traced.
    """

    owner: str
    module: nn.Module
    features: Mapping[str, Feature]
    inputs: Inputs | None = None

    def choose(self, patterns: Sequence[str]) -> list[str]:
        """The layers that paths and globs match, each once, in the order of the patterns.

        Raises:
            ValueError: a pattern that matches no layer, or one that runs several times.
        """
        chosen: dict[str, None] = {}
        for pattern in patterns:
            found = matching(pattern, [n for n, f in self.features.items() if f.calls == 1])
            if not found and pattern in self.features:
                raise ValueError(
                    f"{pattern!r} of {self.owner} runs {self.features[pattern].calls} times in one "
                    "pass, so that it has no one output; name a module around or before it"
                )
            if not found and matching(pattern, [n for n, _ in self.module.named_modules() if n]):
                raise ValueError(
                    f"{pattern!r} of {self.owner} gives no tensor with samples on axis 0 in a "
                    "forward pass; recurrent layers and transformers do with batch_first=True"
                )
            if not found:
                raise ValueError(f"{pattern!r} matches no layer of {self.owner}")
            chosen |= dict.fromkeys(found)
        return list(chosen)

    def channel_axis(self, name: str, *, trace: bool = True) -> int | None:
        """The axis of the channels of a layer's output; ``None`` where it cannot be derived.

        The layer's own definition says it, or the operators of the net.

        Args:
            name: of the layer.
            trace: whether the net may be run to trace its operators, which is done once.
        """
        feature = self.features[name]
        if feature.axis is not None or not trace:
            return feature.axis
        found = self._traced.get(name, ())
        if len(found) == 1 and found[0] > 0:
            return found[0]
        return norm_axis(self.module.get_submodule(name), len(feature.shape) + 1)

    @cached_property
    def _traced(self) -> Mapping[str, tuple[int, ...]]:
        if self.inputs is None:
            return {}
        try:
            return channel_axes(self.module, self.inputs)
        except Exception:
            return {}  # a net may hold any code: an axis that cannot be traced is asked for

    def __str__(self) -> str:
        listed = [f"{n} {f.shape}" for n, f in self.features.items() if f.calls == 1]
        more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
        return f"{self.owner} has {', '.join(listed[:_MOST_LISTED])}{more}"
