"""What every benchmark script leaves behind: its command, environment, raw samples and claims."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.environment import environment
from compress.io.atomic import write_atomically
from compress.measure.ondevice.machine import machine
from compress.measure.stats import student_quantile

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Claim:
    """One statement with its number; ``holds`` is whether ``value`` is within ``bound``."""

    id: str
    statement: str
    value: float
    bound: float
    holds: bool
    ci95: tuple[float, float] | None = None


def at_most(
    id: str, statement: str, value: float, bound: float, ci95: tuple[float, float] | None = None
) -> Claim:
    """A claim that ``value`` does not exceed ``bound``."""
    return Claim(id, statement, value, bound, value <= bound, ci95)


def at_least(
    id: str, statement: str, value: float, bound: float, ci95: tuple[float, float] | None = None
) -> Claim:
    """A claim that ``value`` reaches ``bound``."""
    return Claim(id, statement, value, bound, value >= bound, ci95)


def sizes_within(low: float, high: float) -> tuple[float, float]:
    """The smallest and the largest size, without its sign, of a number from ``low`` to ``high``."""
    smallest, largest = sorted((abs(low), abs(high)))
    return (0.0 if low < 0 < high else smallest), largest


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean of repeats that know nothing of each other, and Student's 95 % interval of it."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = student_quantile(0.975, len(values) - 1) * error
    return mean, (mean - half, mean + half)


def script_parser(
    about: str, *, smoke: str = "seconds; shows that it runs"
) -> argparse.ArgumentParser:
    """The options of a benchmark script.

    Args:
        about: its docstring.
        smoke: what ``--smoke`` does.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help=smoke)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    return parser


def write(
    name: str, raw: Mapping[str, Any], claims: Sequence[Claim], folder: Path, table: str = ""
) -> Path:
    """Write ``folder/<name>.json``; print the claims, and the table where there is one."""
    path = folder / f"{name}.json"
    content = {
        "command": " ".join(["python", *_without_results(sys.argv)]),
        "environment": {**environment(), "isa": machine()["isa"]},
        **({"table": table} if table else {}),
        "raw": raw,
        "claims": [asdict(claim) for claim in claims],
    }
    if table:
        print(table)
    write_atomically(path, json.dumps(content, indent=1) + "\n")
    for claim in claims:
        interval = f" [{claim.ci95[0]:.3g}, {claim.ci95[1]:.3g}]" if claim.ci95 else ""
        verdict = "holds" if claim.holds else "DOES NOT HOLD"
        print(f"{verdict}: {claim.statement}: {claim.value:.4g}{interval} (bound {claim.bound:g})")
    print(f"wrote {path}")
    return path


def _without_results(words: Sequence[str]) -> list[str]:
    # Where the result went says nothing about it.
    if "--results" not in words:
        return list(words)
    at = words.index("--results")
    return [*words[:at], *words[at + 2 :]]
