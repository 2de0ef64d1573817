"""The canvas: a theme, fonts, files and the few things that only matplotlib can make.

The only file that imports matplotlib, and only inside functions. Figures are made without
``pyplot``, so nothing global is left behind, and equal figures give equal bytes. Colors are Okabe
and Ito's (distinct for color-blind readers); shapes say the same as colors.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from compress.report.figures.labels import Box
from compress.report.figures.markers import CIRCLE, RING, LegendBlock, LegendKey, Marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

__all__ = [
    "DARK",
    "LARGEST",
    "LIGHT",
    "POINT",
    "WIDTH_IN",
    "Axes",
    "Figure",
    "Text",
    "Theme",
    "draw_legends",
    "draw_marker",
    "drawable",
    "extent",
    "new_figure",
    "plate",
    "render",
    "style",
    "words_around",
]


@dataclass(frozen=True)
class Theme:
    """Colors of one background; ``colors`` has those of markers, by name."""

    face: str
    ink: str
    muted: str
    grid: str
    colors: Mapping[str, str]


_BLUE, _SKY, _GREEN, _VERMILION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
_ORANGE, _PURPLE, _MUTED = "#E69F00", "#CC79A7", "#5a6572"

LIGHT = Theme(
    face="#ffffff",
    ink="#1b2026",
    muted=_MUTED,
    grid="#e4e8ec",
    colors=MappingProxyType(
        {
            "kind-train": _ORANGE,
            "kind-distill": _BLUE,
            "kind-quantize": _VERMILION,
            "kind-prune": _GREEN,
            "kind-input": _PURPLE,
            "kind-other": _PURPLE,
            "run-0": _BLUE,
            "run-1": _VERMILION,
            "run-2": _GREEN,
            "run-3": _PURPLE,
            "run-4": _ORANGE,
            "run-5": _SKY,
            # Of Paul Tol's muted scheme, for those who compare more than six.
            "run-6": "#332288",
            "run-7": "#882255",
            "run-8": "#999933",
            "run-9": "#44AA99",
            "run-10": "#DDCC77",
            "run-11": "#CC6677",
            "run-shared": "#8b949e",
            "muted": _MUTED,
        }
    ),
)

DARK = Theme(
    face="#15191e",
    ink="#e9edf2",
    muted="#a3aeba",
    grid="#2f3741",
    colors=MappingProxyType(
        {
            **LIGHT.colors,
            "kind-distill": _SKY,
            "run-0": _SKY,
            "run-1": "#ff8a3d",
            "run-2": "#2fc39a",
            "run-3": "#e3a6c6",
            "run-5": _BLUE,
            "run-6": "#9b8cf0",
            "run-7": "#d4719f",
            "muted": "#a3aeba",
        }
    ),
)

_FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same
_DPI = 200  # laid out at the resolution of the PNG, where hinting changes widths of text
POINT = 72 / _DPI  # of a pixel
WIDTH_IN = 10.0
_SHOWN_WIDTH = 860  # in a notebook, in its pixels
LARGEST = 8.7  # the radius of the largest marker, in points


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


@lru_cache(maxsize=1)
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that a notebook shows, also one that has not set up matplotlib."""

        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            return render(self, "png"), {"width": _SHOWN_WIDTH}

    return ShownFigure


def new_figure(theme: Theme, height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure that can measure its texts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure_class()(figsize=(width_in, height_in), dpi=_DPI, facecolor=theme.face)
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


def draw_marker(axes: Axes, at: tuple[float, float], marker: Marker, theme: Theme) -> None:
    """A marker in its ring, at data coordinates."""
    rings = [Marker("muted", (), marker.radius + RING, 0.0)] if marker.ringed else []
    for each in (marker, *rings):
        line = _marker_line(each, theme)
        line.set(xdata=[at[0]], ydata=[at[1]], zorder=4, clip_on=False)
        axes.add_line(line)


def _marker_line(marker: Marker, theme: Theme) -> Line2D:
    """A marker as a line without a point yet."""
    from matplotlib.lines import Line2D
    from matplotlib.markers import MarkerStyle
    from matplotlib.path import Path

    # Matplotlib scales a path so that the farthest of its coordinates is at half the size.
    reach = max((max(abs(x), abs(y)) for x, y in marker.corners), default=CIRCLE)
    path = Path([*((x, -y) for x, y in marker.corners), (0, 0)], closed=True)
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=MarkerStyle(path if marker.corners else "o"),
        markersize=2 * LARGEST * marker.radius * reach,
        markerfacecolor=(theme.colors[marker.color], marker.fill),
        markeredgecolor=theme.ink,
        markeredgewidth=0.9,
    )


def draw_legends(figure: Figure, axes: Axes, blocks: Sequence[LegendBlock], theme: Theme) -> None:
    """Legends in a column right of ``axes``."""
    left, top = axes.get_position().x1 + 0.02, axes.get_position().y1
    for title, keys in blocks:
        legend = figure.legend(
            handles=[_handle(key, theme) for key in keys],
            title=title,
            loc="upper left",
            bbox_to_anchor=(left, top),
            frameon=False,
            fontsize=9,
            title_fontproperties={"weight": "bold", "size": 9},
            alignment="left",
            labelspacing=0.9 if title == "Artifact size" else 0.55,
            handletextpad=0.5,
            borderpad=0.2,
        )
        box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        top -= (box.height + 5 / POINT) / figure.bbox.height


def _handle(key: LegendKey, theme: Theme) -> Line2D:
    from matplotlib.lines import Line2D

    if key.marker is not None:
        wider = RING if key.marker.ringed else 0.0  # a legend has the ring alone
        line = _marker_line(replace(key.marker, radius=key.marker.radius + wider), theme)
    elif key.line == "limit":
        line = Line2D([], [], color=theme.ink, linewidth=1.0, dashes=(5, 3))
    else:
        line = Line2D([], [], color=theme.muted, linewidth=1.3)
    line.set_label(drawable(key.name))
    return line
