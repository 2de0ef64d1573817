"""The curve of a cascade on the Pareto figure of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from compress.cascade.result import Cascade
from compress.formatting import sanitize
from compress.pareto import readings
from compress.record import Record
from compress.report.figures.pareto_data import ParetoInfo, PlotCurve, pareto_info

__all__ = ["figures_of", "info_of"]


def info_of(record: Record, found: Cascade) -> ParetoInfo | None:
    """The run's figure with the curve; ``None`` where the larger row has no latency in the record.

    The curve's times are ratios to the larger model's from the session of the cascade, as the rows'
    are ratios to the baseline's, each times what the record has of it.
    """
    larger = readings(record, found.target).get(found.larger.row, {}).get("latency_p50_s")
    places = [
        (larger.value * point.ratio, point.accuracy)
        for point in found.curve
        if larger is not None and point.ratio is not None
    ]
    if larger is None or found.point.ratio is None or not places:
        return None
    info = pareto_info(record, found.target)
    words = (
        f"row {found.student.row} answers, and goes back to row {found.larger.row} by its "
        f"{found.score}"
    )
    chosen = (larger.value * found.point.ratio, found.point.accuracy)
    label = f"cascade, {100 * found.point.share:.2g} % sent back"
    return replace(
        info,
        title=f"Cascade of {sanitize(info.title, 90)}",
        subtitle=f"{words[0].upper()}{words[1:]}; the line has every share that may go back.",
        caption=f"{info.caption} · line: mean time on the test split over the larger row's",
        curves=(PlotCurve(label, tuple(places), chosen),),
    )


def figures_of(record: Record, found: Cascade) -> Mapping[str, bytes]:
    """The figure as PNG and SVG, light and dark, by file name."""
    from compress.report.figures.canvas import DARK, LIGHT, render
    from compress.report.figures.pareto import draw_pareto

    info = info_of(record, found)
    if info is None:
        return {}
    pictures: dict[str, bytes] = {}
    for stem, theme in (("cascade", LIGHT), ("cascade-dark", DARK)):
        figure = draw_pareto(info, theme)
        pictures[f"{stem}.png"] = render(figure, "png")
        pictures[f"{stem}.svg"] = render(figure, "svg")
    return pictures
