"""Drawing the Pareto figure; what it shows is decided in ``pareto_info``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from compress.formatting import duration, latency_unit, sanitize, score
from compress.report.figures.canvas import (
    LIGHT,
    POINT,
    Theme,
    drawable,
    extent,
    new_figure,
    plate,
    style,
    words_around,
)
from compress.report.figures.labels import Box, Label, place
from compress.report.figures.legends import area_of, draw_legends, marker_of
from compress.report.figures.pareto_data import ParetoInfo, PlotPoint
from compress.report.figures.ticks import log_ticks, tick_score

if TYPE_CHECKING:
    from compress.report.figures.canvas import Axes, Figure

__all__ = ["draw_pareto"]

_LEFT, _RIGHT = 0.085, 0.775
_SPEEDUPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def draw_pareto(info: ParetoInfo, theme: Theme = LIGHT) -> Figure:
    """The metric against latency: front as steps, intervals, budget, sizes, labeled rows."""
    height = 6.2
    with style(theme):
        figure = new_figure(theme, height)
        caption = " · ".join([info.caption, *_footnotes(info)])
        words_around(figure, info.title, info.subtitle, caption, theme)
        above = 1.32 if info.baseline_s is not None else 0.95  # room for the axis of speedups
        axes = figure.add_axes(
            (_LEFT, 1.1 / height, _RIGHT - _LEFT, (height - 1.1 - above) / height)
        )
        if not info.points:
            _say_empty(axes, "No row has both a score and a latency.", theme)
            return figure
        _set_limits(axes, info)
        _draw_axes(axes, info, theme)
        _draw_front(axes, info, theme)
        taken = _draw_budget(axes, info, theme)
        for point in info.points:
            _draw_point(axes, info, point, theme)
        _draw_labels(axes, info, theme, taken)
        draw_legends(figure, axes, info, theme)
    return figure


def _footnotes(info: ParetoInfo) -> list[str]:
    notes = list(info.missing)
    if any(point.ties for point in info.points):
        notes.insert(0, f"≈: cannot be told apart in {sanitize(info.metric, 40)} and speed")
    if info.latency_limit_s is not None and not _shows_limit(info):
        notes.append(
            f"the latency budget, {duration(info.latency_limit_s)}, is beyond the right edge"
        )
    return notes


def _say_empty(axes: Axes, sentence: str, theme: Theme) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, sentence, ha="center", va="center", color=theme.muted, fontsize=11)


def _shows_limit(info: ParetoInfo) -> bool:
    slowest = max((p.latency_s for p in info.points), default=0.0)
    return info.latency_limit_s is not None and info.latency_limit_s <= 3 * slowest


def _set_limits(axes: Axes, info: ParetoInfo) -> None:
    times = [t for p in info.points for t in (*p.latency_ci95_s, p.latency_s) if t > 0]
    if info.latency_limit_s is not None and _shows_limit(info):
        times.append(info.latency_limit_s)
    low, high = min(times), max(times)
    pad = max((high / low) ** 0.12, (2.0 / (high / low)) ** 0.5 if high < 2 * low else 1.0)
    axes.set_xscale("log")
    axes.set_xlim(low / pad, high * pad)
    on_scale = [p for p in info.points if not p.off_scale]
    scores = [s for p in on_scale for s in (*p.score_ci95, p.score)]
    span = max(scores) - min(scores)
    if info.score_limit is not None and min(abs(info.score_limit - s) for s in scores) < 2 * span:
        scores.append(info.score_limit)
    low, high = min(scores), max(scores)
    pad = 0.14 * (high - low) or 0.02 * abs(high) or 0.01
    axes.set_ylim(low - pad, high + pad)
    if not info.higher_is_better:
        axes.invert_yaxis()


def _draw_axes(axes: Axes, info: ParetoInfo, theme: Theme) -> None:
    low, high = axes.get_xlim()
    unit, per_second = latency_unit(math.sqrt(low * high))
    ticks = log_ticks(low, high)
    axes.set_xticks(ticks, [f"{tick * per_second:.4g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"latency, p50, {unit} (log scale)", fontsize=10, labelpad=6)
    axes.set_ylabel(drawable(sanitize(info.metric, 40)), fontsize=10, labelpad=6)
    cue: dict[str, Any] = {"color": theme.muted, "fontsize": 9, "textcoords": "offset points"}
    axes.annotate("← faster", (0, 0), xycoords="axes fraction", xytext=(0, -33), **cue)
    axes.annotate(
        "better →", (0, 1), xycoords="axes fraction", xytext=(-54, 0), rotation=90, va="top", **cue
    )
    bottom, top = sorted(axes.get_ylim())
    axes.yaxis.set_major_formatter(lambda value, _: tick_score(info.metric, value, top - bottom))
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, labelsize=9)
    if info.baseline_s is not None:
        _draw_speedups(axes, info.baseline_s, theme)


def _draw_speedups(axes: Axes, baseline_s: float, theme: Theme) -> None:
    """The same axis on top, as multiples of the baseline's speed."""
    low, high = axes.get_xlim()
    marks = [s for s in _SPEEDUPS if low <= baseline_s / s <= high]
    top = axes.twiny()
    top.set_xscale("log")
    top.set_xlim(low, high)
    top.set_xticks([baseline_s / s for s in marks], [f"{s:g}x" for s in marks])
    top.minorticks_off()
    top.tick_params(length=3, labelsize=9)
    top.spines["top"].set_visible(True)
    top.spines["top"].set_color(theme.grid)
    top.set_xlabel("speed against the baseline", fontsize=9, color=theme.muted, labelpad=5)
    for s in marks:
        axes.axvline(baseline_s / s, color=theme.grid, linewidth=0.8, linestyle=(0, (1, 2)))


def _draw_front(axes: Axes, info: ParetoInfo, theme: Theme) -> None:
    corners = [c for c in info.step_line if _on_scale(axes, c[1])]
    if not corners:
        return
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    xs = [corners[0][0], *(x for x, _ in corners), right]
    ys = [bottom, *(y for _, y in corners), corners[-1][1]]
    axes.fill_between(xs[1:], ys[1:], bottom, step="post", color=theme.muted, alpha=0.06, lw=0)
    axes.plot(xs, ys, drawstyle="steps-post", color=theme.muted, linewidth=1.3, zorder=2)


def _on_scale(axes: Axes, value: float) -> bool:
    low, high = sorted(axes.get_ylim())
    return low <= value <= high


def _draw_budget(axes: Axes, info: ParetoInfo, theme: Theme) -> list[Box]:
    """Limits as dashed lines, what lies beyond them hatched; returns the boxes of their names."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    limit_x = info.latency_limit_s if _shows_limit(info) else None
    limit_y = info.score_limit
    if limit_y is not None and not _on_scale(axes, limit_y):
        limit_y = None
    names = []
    style: dict[str, Any] = {"color": theme.ink, "linewidth": 1.0, "linestyle": (0, (5, 3))}
    hatch: dict[str, Any] = {"facecolor": "none", "hatch": "////", "edgecolor": theme.grid, "lw": 0}
    if limit_x is not None:
        axes.axvline(limit_x, **style)
        axes.fill_between([limit_x, right], bottom, top, **hatch, zorder=0.5)
        names.append(
            axes.annotate(
                f"budget {duration(limit_x)}",
                (limit_x, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-4, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8.5,
                rotation=90,
            )
        )
    if limit_y is not None:
        axes.axhline(limit_y, **style)
        end = right if limit_x is None else limit_x
        axes.fill_between([left, end], bottom, limit_y, **hatch, zorder=0.5)
        names.append(
            axes.annotate(
                drawable(f"budget {score(info.metric, limit_y)}"),
                (1.0, limit_y),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8.5,
            )
        )
    return [extent(name) for name in names]


def _position(axes: Axes, point: PlotPoint) -> tuple[float, float]:
    """Where a point is drawn; one that is off the scale sits just inside the worse edge."""
    if not point.off_scale:
        return point.latency_s, point.score
    bottom, top = axes.get_ylim()
    return point.latency_s, bottom + 0.035 * (top - bottom)


def _draw_point(axes: Axes, info: ParetoInfo, point: PlotPoint, theme: Theme) -> None:
    shape, color = marker_of(info, point, theme)
    x, y = _position(axes, point)
    bars: dict[str, Any] = {"fmt": "none", "ecolor": color, "elinewidth": 1.0, "zorder": 3}
    low, high = point.latency_ci95_s
    axes.errorbar(x, y, xerr=[[max(0.0, x - low)], [max(0.0, high - x)]], **bars)
    if not point.off_scale:
        low, high = point.score_ci95
        axes.errorbar(x, y, yerr=[[max(0.0, y - low)], [max(0.0, high - y)]], **bars)
    area = area_of(info, point)
    axes.scatter(
        [x],
        [y],
        s=area,
        marker=shape,
        facecolor=color if point.on_front else theme.face,
        edgecolor=theme.face if point.on_front else color,
        linewidth=0.9 if point.on_front else 1.4,
        zorder=4,
    )
    if point.is_recommended:
        ring = (math.sqrt(area) + 6) ** 2
        axes.scatter(
            [x], [y], s=ring, marker="o", facecolor="none", edgecolor=theme.ink, lw=1.2, zorder=4.5
        )


def _draw_labels(axes: Axes, info: ParetoInfo, theme: Theme, taken: Sequence[Box]) -> None:
    texts, labels = [], []
    for number, point in enumerate(info.points):
        x, y = axes.transData.transform(_position(axes, point))
        text = axes.text(0, 0, _label_text(info, point), fontsize=9.5, zorder=6, va="bottom")
        text.set_gid(f"label-{number}")
        text.set_bbox(plate(theme))
        if point.is_recommended:
            text.set_fontweight("bold")
        box = extent(text)
        radius = math.sqrt(area_of(info, point)) / 2 + 3.6 * point.is_recommended
        at = (x * POINT, y * POINT)
        labels.append(Label(at, radius, box.x1 - box.x0, box.y1 - box.y0))
        texts.append(text)
    frame = axes.get_window_extent()
    inside = Box(*(end * POINT for end in frame.extents)).grown(-3)
    spots = place(labels, taken, inside, _thin_boxes(axes, info))
    for text, spot in zip(texts, spots, strict=True):
        text.set_position(_to_data(axes, (spot.box.x0, spot.box.y0)))
        if spot.leader is not None:
            xs, ys = zip(*(_to_data(axes, end) for end in spot.leader), strict=True)
            axes.plot(xs, ys, color=theme.ink, linewidth=0.6, zorder=3.5)


def _to_data(axes: Axes, at: tuple[float, float]) -> tuple[float, float]:
    """Data coordinates of a place in points."""
    x, y = axes.transData.inverted().transform((at[0] / POINT, at[1] / POINT))
    return float(x), float(y)


def _thin_boxes(axes: Axes, info: ParetoInfo) -> list[Box]:
    """What labels should rather not cover: error bars and the step line of the front, in points."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    segments = []
    for point in info.points:
        x, y = _position(axes, point)
        segments += [(x, point.score_ci95[0], x, point.score_ci95[1])] * (not point.off_scale)
        segments.append((point.latency_ci95_s[0], y, point.latency_ci95_s[1], y))
    corners = [*info.step_line, (right, bottom)]
    below = bottom
    for (x, y), (following, _) in pairwise(corners):
        segments += [(x, below, x, y), (x, y, following, y)]
        below = y
    boxes = []
    for x0, y0, x1, y1 in segments:
        (left, low), (end, high) = axes.transData.transform([(x0, y0), (x1, y1)]) * POINT
        boxes.append(Box(min(left, end), min(low, high), max(left, end), max(low, high)).grown(1))
    return boxes


def _label_text(info: ParetoInfo, point: PlotPoint) -> str:
    parts = [point.label]
    if point.off_scale:
        parts.append(f"↓ {score(info.metric, point.score)}")
    if point.ties:
        few = ", ".join(tie.split(" ")[0] for tie in point.ties)
        parts.append(f"≈ {few if len(point.ties) < 4 else f'{len(point.ties)} others'}")
    if point.is_recommended:
        parts.append("(ship)")
    return drawable("\n".join([" ".join(parts), *point.notes]))
