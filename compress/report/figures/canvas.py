"""The canvas: a theme, fonts, files and the few things that only matplotlib can make.

The only file that imports matplotlib, and only inside functions. Figures are made without
``pyplot``, so nothing global is left behind, and equal figures give equal bytes. Colors are Okabe
and Ito's (distinct for color-blind readers); shapes say the same as colors.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from compress.report.figures.labels import Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

__all__ = [
    "LIGHT",
    "POINT",
    "WIDTH_IN",
    "Axes",
    "Figure",
    "Line2D",
    "Theme",
    "color_of",
    "drawable",
    "extent",
    "line_handle",
    "marker_handle",
    "new_figure",
    "plate",
    "render",
    "shape_of",
    "style",
    "words_around",
]


@dataclass(frozen=True)
class Theme:
    """Colors of one background; ``kinds`` are those of the stages, ``runs`` those of overlays."""

    face: str
    ink: str
    muted: str
    grid: str
    kinds: tuple[tuple[str, str], ...]
    other: str
    runs: tuple[str, ...]


_BLUE, _SKY, _GREEN, _VERMILION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
_ORANGE, _PURPLE = "#E69F00", "#CC79A7"

LIGHT = Theme(
    face="#ffffff",
    ink="#1b2026",
    muted="#5a6572",
    grid="#e4e8ec",
    kinds=(("train", _ORANGE), ("distill", _BLUE), ("quantize", _VERMILION), ("prune", _GREEN)),
    other=_PURPLE,
    runs=(_BLUE, _VERMILION, _GREEN, _PURPLE, _ORANGE, _SKY),
)

_SHAPES = {"train": "o", "distill": "D", "quantize": "s", "prune": "^", "input": "h"}
_OTHER_SHAPE = "P"
_FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same
_DPI = 200  # laid out at the resolution of the PNG, where hinting changes widths of text
POINT = 72 / _DPI  # of a pixel
WIDTH_IN = 10.0


def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's bytes; equal figures give equal bytes."""
    stream = io.BytesIO()
    unstamped: dict[str, Any] = (
        {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    )
    with style(LIGHT):
        figure.savefig(
            stream,
            format=kind,
            dpi=_DPI,
            facecolor=figure.get_facecolor(),
            metadata=unstamped,
        )
    return stream.getvalue()


@contextmanager
def style(theme: Theme) -> Iterator[None]:
    """Matplotlib's own defaults, whatever the user's matplotlibrc, and ours on top."""
    import matplotlib.style

    ours = {
        "font.family": _FONT,
        "font.size": 9.5,
        "text.parse_math": False,
        "text.color": theme.ink,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": theme.face,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "hatch.color": theme.grid,
        "hatch.linewidth": 1.0,
        "svg.hashsalt": "compresskit",
        "svg.fonttype": "path",
    }
    with matplotlib.style.context(["default", ours]):
        yield


def new_figure(theme: Theme, height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure that can measure its texts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor=theme.face)
    FigureCanvasAgg(figure)
    return figure


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont(_FONT)).get_charmap())


def drawable(text: str) -> str:
    """``text`` with characters that the font lacks as boxes, so that no warning is raised."""
    return "".join(char if ord(char) in _glyphs() or char == "\n" else "□" for char in text)


def extent(text: Text) -> Box:
    """The box of a drawn text, in points."""
    figure = text.get_figure(root=True)
    assert figure is not None
    box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return Box(*(end * POINT for end in box.extents))


def words_around(figure: Figure, title: str, subtitle: str, caption: str, theme: Theme) -> None:
    """Title and subtitle above, caption below; distances are in inches, whatever the height."""
    height = figure.get_size_inches()[1]
    _write(figure, title, 1 - 0.18 / height, 1, {"fontsize": 12.5, "fontweight": "bold"})
    _write(figure, subtitle, 1 - 0.48 / height, 2, {"fontsize": 9.5})
    _write(figure, caption, 0.12 / height, 3, {"va": "bottom", "fontsize": 8, "color": theme.muted})


def _write(figure: Figure, words: str, y: float, lines: int, look: dict[str, Any]) -> None:
    """Text across the figure, wrapped to its width and cut after so many lines."""
    width = figure.get_size_inches()[0]
    text = figure.text(0.2 / width, y, "", **{"va": "top", **look})
    words, room = drawable(words), (width - 0.4) * 72
    text.set_text(words)
    taken = extent(text)
    if taken.x1 - taken.x0 <= room:
        return
    # As many characters as fit on average, then fewer where these happen to be wide.
    for columns in range(int(len(words) * room / (taken.x1 - taken.x0)), 10, -2):
        text.set_text(textwrap.fill(words, columns, max_lines=lines, placeholder=" …"))
        if extent(text).x1 - taken.x0 <= room:
            return


def plate(theme: Theme) -> dict[str, Any]:
    """A pale plate behind text, so that it stays legible across a line."""
    return {"facecolor": theme.face, "alpha": 0.75, "linewidth": 0, "pad": 0.8}


def color_of(kind: str, theme: Theme) -> str:
    """The color of a kind of stage."""
    return dict(theme.kinds).get(kind, theme.other)


def shape_of(kind: str) -> str:
    """The marker of a kind of stage."""
    return _SHAPES.get(kind, _OTHER_SHAPE)


def marker_handle(label: str, marker: str, face: str, edge: str, area: float = 55.0) -> Line2D:
    """A marker for a legend; ``area`` is in square points."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        markersize=math.sqrt(area),
        markerfacecolor=face,
        markeredgecolor=edge,
        label=drawable(label),
    )


def line_handle(label: str, color: str, width: float, dashed: bool = False) -> Line2D:
    """A line for a legend."""
    from matplotlib.lines import Line2D

    line = Line2D([], [], color=color, linewidth=width, label=drawable(label))
    if dashed:
        line.set_dashes((5, 3))
    return line
