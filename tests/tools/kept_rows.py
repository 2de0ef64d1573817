"""Tables of what stages did in the kept runs, for the pages that say what to choose when.

They stand between ``<!-- begin: NAME -->`` and ``<!-- end -->`` in pages below ``docs/``, and are
written by ``python -m tests.tools.reference``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress import Record
from compress.record import Measurement
from compress.report.provenance import device_name, target_environment

__all__ = ["PAGES", "with_tables"]

#: Pages with a table, and the kind of stage that it is about.
PAGES: Mapping[str, str] = {"quantizing.md": "quantize", "pruning.md": "prune"}
_SETTINGS = {
    "quantize": ("weights", "activations"),
    "prune": ("ratio", "granularity", "round_to"),
}
_HEADINGS = (
    "run, row",
    "settings",
    "metric before",
    "after",
    "speedup before",
    "after",
    "KiB before",
    "after",
    "CPU",
)
_TABLE = re.compile(r"(<!-- begin: rows of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str, results: Path) -> str:
    """A page with its tables as the kept records have them.

    Args:
        text: of the page.
        results: the folder of kept results.
    """
    return _TABLE.sub(lambda found: f"{found[1]}{_table(found[2], results)}\n{found[3]}", text)


def _table(kind: str, results: Path) -> str:
    rows = [row for path in sorted(results.glob("*/record.json")) for row in _rows(kind, path)]
    lines = [_HEADINGS, [":---", ":---", *["---:"] * 6, ":---"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(kind: str, path: Path) -> Iterator[list[str]]:
    record = Record.load(path)
    target = record.targets[0]
    for before, after in zip(record.rows, record.rows[1:], strict=False):
        first, second = before.on(target), after.on(target)
        if after.kind == kind and first is not None and second is not None:
            stage = record.recipe["stages"][after.index - 1]
            trains = ", trained after" if stage.get("finetune") else ""
            yield [
                f"{record.name}, {after.index}",
                _settings(kind, stage) + trains,
                f"{record.task.metric} {_metric(first)}",
                _metric(second),
                _speedup(first),
                _speedup(second),
                _kib(first),
                _kib(second),
                _cpu(record, target),
            ]


def _cpu(record: Record, target: str) -> str:
    facts = target_environment(record, target)["device"]
    return f"{device_name(record, target)} ({', '.join(facts['isa'])})"


def _settings(kind: str, stage: Mapping[str, Any]) -> str:
    given = {key: stage[key] for key in _SETTINGS[kind] if stage.get(key) not in (None, 1)}
    return ", ".join(f"{key}: {value}" for key, value in given.items())


def _metric(measured: Measurement) -> str:
    assert measured.accuracy is not None
    low, high = measured.accuracy.ci95
    return f"{measured.accuracy.value:.4f} \\[{low:.4f}, {high:.4f}\\]"


def _speedup(measured: Measurement) -> str:
    assert measured.speedup is not None
    low, high = measured.speedup.ci95
    return f"{measured.speedup.value:.2f}x \\[{low:.2f}, {high:.2f}\\]"


def _kib(measured: Measurement) -> str:
    return f"{measured.artifact.bytes / 1024:,.1f}"
