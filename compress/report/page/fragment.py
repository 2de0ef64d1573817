"""A record as a piece of HTML for somebody else's page, such as a notebook: no script, no page.

Everything that it prints goes through the templates' escapes, as in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.pareto import recommend
from compress.record import Record
from compress.report.figures.pareto_data import pareto_info
from compress.report.figures.pareto_layout import layout_of
from compress.report.page.markup import render, style_sheet
from compress.report.page.plots.pareto import figure_data
from compress.report.sentences import budget_words, findings, status_words
from compress.report.table import LEGEND, columns, table_rows

__all__ = ["fragment"]


def fragment(record: Record, places: Sequence[tuple[str, str]] = ()) -> str:
    """The answer, table and plot of every target.

    Args:
        record: of a run, which may be still going.
        places: what lies where, to be shown at the end.
    """
    return render(
        "fragment.html",
        {
            "style": style_sheet("fragment.css"),
            "name": record.name,
            "targets": [_target(record, target) for target in record.targets],
            "nothing": []
            if record.targets
            else [*status_words(record), "Nothing has been measured yet."],
            "places": places,
            "legend": LEGEND,
        },
    )


def _target(record: Record, target: str) -> dict[str, Any]:
    advice, info = recommend(record, target), pareto_info(record, target)
    answer = [*status_words(record), advice.reasons, *budget_words(record, target)]
    shown = columns(record, target)
    rows = [
        {"ship": row.row.index == advice.index, "cells": list(zip(shown, cells, strict=True))}
        for row, cells in zip(
            table_rows(record, target), zip(*(c.cells for c in shown), strict=True), strict=True
        )
    ]
    return {
        "name": target,
        "answer": answer,
        "missed": not advice.meets_budget,
        "rest": [words for words in findings(record, target) if words not in answer],
        "columns": shown,
        "rows": rows,
        "figure": figure_data(layout_of(info) if info.points else None, with_sliders=False),
    }
