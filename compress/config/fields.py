"""Numbers in recipes, as pydantic takes them: what is written, and nothing that is merely like it.

``true`` is no number and ``1`` no yes or no, text is neither, and what is not finite is no value of
any option. Every number has a largest value: far beyond what is of use, and where a machine still
ends with a sentence in place of running out of memory or time.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = [
    "LARGEST_BATCH",
    "LARGEST_COUNT",
    "LARGEST_FACTOR",
    "LARGEST_RATE",
    "LARGEST_SEED",
    "LONGEST_S",
    "MOST_THREADS",
    "Flag",
    "Name",
    "Names",
    "Number",
    "Pattern",
    "Whole",
]

Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
#: Of an architecture, a loss, a function: it stands in sentences.
Name = Annotated[str, Field(max_length=200)]
#: Of columns or classes, one at least.
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
#: Of layers.
Pattern = Annotated[str, Field(max_length=500)]

#: Of epochs, samples, views.
LARGEST_COUNT = 1_000_000
#: Of weights and temperatures.
LARGEST_FACTOR = 1e6
#: Of learning; one that is absurd ends in a training that says so.
LARGEST_RATE = 1e38
#: The largest that every generator takes, with room for the seeds of a repeated run.
LARGEST_SEED = 2**32 - 1
#: Of a target.
LARGEST_BATCH, MOST_THREADS = 16_384, 1_024
#: Of any wait, in seconds: some hundred days.
LONGEST_S = 10_000_000
