"""What the words of tables and figures mean, one sentence each: said where they stand.

Tables print those of the columns that they show below; the page has them as a heading's title too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from compress.text_table import Column

__all__ = ["COLUMN_TERMS", "HYPERVOLUME", "heading_of", "term_of", "terms_of"]

#: By the heading of a column as :func:`heading_of` gives it.
COLUMN_TERMS: Mapping[str, str] = MappingProxyType(
    {
        "p50": "the median time of one inference",
        "speedup": "how many times as fast as the baseline, timed in turns with it",
        "verdict": "what the interval of the speedup shows",
        "smaller": "the size of the baseline's file over that of the row's",
        "peak": "the most memory that the model took beyond what the runtime takes by itself",
        "int8 % MACs": "the share of multiply-accumulates that the runtime computes in int8",
        "front % of draws": "in how many of 1,000 draws from the intervals no other row is better "
        "in score, latency and size at once; in brackets where a row is shown to be beaten",
        "serving": "the score on the sample of what will be served, and not on the test split",
        "first": "the first call after loading, in a fresh process",
    }
)
#: Which of them a table says below, where there is room for few.
_SAID_BELOW = ("int8 % MACs", "front % of draws")

HYPERVOLUME = (
    "how much of score, halvings of latency and halvings of size a run's front dominates, up to "
    "the worst of all rows; more is better"
)


def heading_of(column: Column) -> str:
    """A column's heading on one line: ``int8 % MACs``."""
    return f"{column.heading.removesuffix('-')} {column.unit}".strip()


def term_of(column: Column) -> str:
    """What a column shows; empty where its heading says it all."""
    heading = heading_of(column)
    for name in (heading, heading.partition(" ")[0]):
        if name in COLUMN_TERMS:
            return COLUMN_TERMS[name]
    return ""


def terms_of(columns: Iterable[Column], heads: str | None = None) -> list[str]:
    """A sentence for each column that its heading does not explain.

    ``heads`` are the headings as printed, where some columns may have been left out.
    """
    found = [heading_of(each) for each in columns if heads is None or each.unit in heads]
    return [f"{name}: {COLUMN_TERMS[name]}" for name in _SAID_BELOW if name in found]
