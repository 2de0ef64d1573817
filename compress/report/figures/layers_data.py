"""What the figure of layers shows: which bars, on which scales. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compress.formatting import sanitize
from compress.layer_facts import Change, LayerSensitivity, Sensitivity

__all__ = ["MOST_LAYERS", "Bars", "LayersInfo", "layers_info", "shortened"]

#: That a figure shows; of more, those whose outputs move most.
MOST_LAYERS = 60
CUT = "a tenth cut"
_MOST_CHARACTERS = 38


@dataclass(frozen=True)
class Bars:
    """One panel: of each series a value for each layer, ``None`` where there is none.

    Args:
        title: of the panel.
        better: which end is better.
        series: names, the same for all panels.
        values: by series, then by layer.
        intervals: likewise; empty where there are none.
        is_log: whether the scale is logarithmic.
    """

    title: str
    better: str
    series: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    intervals: tuple[tuple[tuple[float, float] | None, ...], ...] = ()
    is_log: bool = False


@dataclass(frozen=True)
class LayersInfo:
    """All that the figure shows.

    Args:
        title: above it.
        subtitle: below that.
        caption: at the end.
        layers: names, from the top.
        panels: side by side.
    """

    title: str
    subtitle: str
    caption: str
    layers: tuple[str, ...]
    panels: tuple[Bars, ...]


def layers_info(found: Sensitivity) -> LayersInfo:
    """The layers whose outputs move most first, with a panel for each of what they cost and win."""
    names = list(found.layers[0].formats) if found.layers else []
    ordered = sorted(found.layers, key=lambda one: _most_error(one, names), reverse=True)
    shown = ordered[:MOST_LAYERS]
    series = (*names, CUT) if any(one.cut for one in shown) else tuple(names)
    changes = [[_change(one, name) for one in shown] for name in series]

    def bars(title: str, better: str, of: Callable[[Change], float | None]) -> Bars:
        values = [tuple(None if c is None else of(c) for c in own) for own in changes]
        return Bars(title, better, series, tuple(values))

    error = bars("Disturbance of the outputs", "less", lambda c: c.error or None)
    panels = [
        Bars(error.title, error.better, series, error.values, is_log=True),
        bars("KiB won", "more", lambda c: c.saved_bytes / 1024),
    ]
    if found.timed is not None:
        times = bars("ms won", "more", lambda c: None if c.saved_s is None else 1e3 * c.saved_s)
        ends = [tuple(map(_interval, own)) for own in changes]
        panels.append(Bars(times.title, times.better, series, times.values, tuple(ends)))
    more = len(ordered) - len(shown)
    left = f" {more} layers with smaller errors are left out." if more else ""
    metric = sanitize(found.metric, 40)
    timed = (
        ""
        if found.timed is None
        else f" Times are of {sanitize(found.timed.target, 60)}, by the profile of whole files."
    )
    return LayersInfo(
        title="Which layer hurts",
        subtitle=(
            f"each layer changed by itself, on {found.samples:,} validation samples with {metric} "
            f"{found.score:.4g}"
        ),
        caption=(
            "Disturbance: mean squared error of the outputs over their variance, of class scores "
            f"as probabilities, on a logarithmic scale.{timed}{left}"
        ),
        layers=tuple(shortened(one.layer) for one in shown),
        panels=tuple(panels),
    )


def shortened(name: str, most: int = _MOST_CHARACTERS) -> str:
    """A name with its middle left out where it is long: layers differ at their ends."""
    text = sanitize(name, 500)
    if len(text) <= most:
        return text
    head = (most - 1) // 3
    return f"{text[:head]}…{text[-(most - 1 - head) :]}"


def _most_error(one: LayerSensitivity, names: Sequence[str]) -> float:
    first = one.formats.get(names[0]) if names else None
    return first.error if first is not None and math.isfinite(first.error) else 0.0


def _change(one: LayerSensitivity, name: str) -> Change | None:
    return one.cut if name == CUT else one.formats.get(name)


def _interval(change: Change | None) -> tuple[float, float] | None:
    if change is None or change.saved_s_ci95 is None:
        return None
    low, high = change.saved_s_ci95
    return 1e3 * low, 1e3 * high
