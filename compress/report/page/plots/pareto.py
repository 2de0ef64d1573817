"""The section with the plot of a target's rows, or of several runs'."""

from __future__ import annotations

from compress.formatting import size
from compress.report.page.markers import legend
from compress.report.page.plots.pareto_svg import Plot, plot_svg
from compress.report.page.target import TargetReport

__all__ = ["figure_data", "pareto_data"]


def pareto_data(target: TargetReport) -> dict[str, object]:
    """The plot of a target's rows."""
    return figure_data(target.plot, with_choice=target.choice is not None)


def figure_data(plot: Plot | None, *, with_choice: bool) -> dict[str, object]:
    """A plot, its legend and how to read it; a plot of ``None`` where there is nothing to plot.

    ``with_choice``: whether there are sliders.
    """
    if plot is None:
        return {"plot": None}
    info = plot.info
    return {
        "plot": plot_svg(plot),
        "legend": legend(info, with_choice=with_choice),
        "largest": size(max(point.bytes for point in info.points)),
        "how_to_read": info.legend,
        "caption": info.caption,
        "missing": " ".join(f"{words[0].upper()}{words[1:]}." for words in info.missing),
    }
