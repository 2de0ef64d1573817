"""A figure of small drawings side by side, with the table of the same numbers: ``panels.html``.

Whatever draws fills one in, so that a plot more needs no template of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.report.page.markup import DataTable, Markup

__all__ = ["DrawnPanel", "PanelFigure"]


@dataclass(frozen=True)
class DrawnPanel:
    """One quantity's panel; ``arrow`` says which side is the better one."""

    title: str
    arrow: str
    drawing: Markup


@dataclass(frozen=True)
class PanelFigure:
    """``heading`` stands above the panels, ``how_to_read`` and ``table`` below."""

    heading: str
    panels: Sequence[DrawnPanel]
    how_to_read: str
    table: DataTable
