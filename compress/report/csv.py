"""The table as CSV: every number of the record's rows, in seconds, bytes and shares.

``p50_s`` is as it was timed; ``p50_paired_s`` is the one of tables and figures.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from compress.formatting import plain
from compress.pareto import chances_on, front_facts, readings, recommend
from compress.record import Measurement, Record, Row

__all__ = ["sheet"]


def sheet(runs: Sequence[tuple[str, Record]]) -> str:
    """Every row of every named run on every target, one line each, unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_NAMES)
    for name, record in runs:
        for target in record.targets:
            ship = recommend(record, target).index
            sure, unbeaten = chances_on(record, target), front_facts(record, target).front
            table = readings(record, target)
            for row in record.rows:
                found = row.on(target)
                if found is not None:
                    values = _values(record, row, found, row.index == ship)
                    values += [row.index in unbeaten, sure.get(row.index)]
                    latency = table[row.index].get("latency_p50_s")
                    values += [latency.value if latency else None]
                    writer.writerow([_safe(value) for value in (name, *values)])
    return stream.getvalue()


_NAMES = [
    *("run", "target", "row", "stage", "kind", "baseline", "ship", "metric", "score"),
    *("score_low", "score_high", "test_samples", "p50_s", "p50_low_s", "p50_high_s"),
    *("p90_s", "p99_s", "speedup", "speedup_low", "speedup_high", "verdict"),
    *("model_peak_bytes", "artifact_bytes", "int8_mac_fraction", "parameters"),
    *("nonzero_parameters", "macs", "fingerprint", "sha256", "on_front", "not_dominated"),
    "p50_paired_s",
]


def _values(record: Record, row: Row, found: Measurement, ship: bool) -> list[object]:
    accuracy, latency, speedup, memory = (
        found.accuracy,
        found.latency,
        found.speedup,
        found.memory,
    )
    blank2, blank3 = (None, None), (None, None, None)
    return [
        *(found.target, row.index, row.stage, row.kind),
        *(row.index == record.baseline, ship, record.task.metric),
        *((accuracy.value, *accuracy.ci95, accuracy.n) if accuracy else (*blank2, *blank2)),
        *((latency.p50_s, *latency.ci95_p50_s) if latency else blank3),
        *((latency.p90_s, latency.p99_s) if latency else blank2),
        *((speedup.value, *speedup.ci95, speedup.verdict) if speedup else (*blank2, *blank2)),
        memory.model_peak_bytes if memory else None,
        *(found.artifact.bytes, found.artifact.int8_mac_fraction),
        *(row.parameters, row.nonzero_parameters, row.macs),
        *(row.fingerprint, found.artifact.sha256),
    ]


def _safe(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
    return "" if value is None else value
