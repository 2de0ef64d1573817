"""The profile on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from compress.formatting import duration, sanitize, size
from compress.measure.input_sizes import words
from compress.measure.outcomes import blocks
from compress.measure.profile.facts import (
    KINDS,
    Island,
    OperatorGroup,
    Profile,
    SessionSetting,
    Time,
)
from compress.measure.target import Failure
from compress.text_table import columns_of, text_lines

__all__ = ["text"]

_MODULES, _OPERATORS, _CHANGES, _ISLANDS = 12, 8, 5, 8
_OPERATOR_NAMES = 3
_LEAST = 0.0005

Rows = list[tuple[str, ...]]


def text(found: Sequence[tuple[str, Profile | Failure]]) -> str:
    """Each model's times in tables, its islands, its settings; then a sentence for each model."""
    sentences = [each.summary for _, each in found if isinstance(each, Profile)]
    return "\n".join([*blocks(found, _model), *sentences]) + "\n"


def _model(own: Profile) -> str:
    return "\n".join(
        [
            own.name,
            *_indented(_headline(own)),
            *_section("by kind of work", _kinds(own)),
            *_section("by module", _parts(own.modules, _MODULES)),
            *_section("by operator", _parts(own.operators, _OPERATORS)),
            *_section("modules that take longer than in the first model", _changes(own)),
            *_islands(own.islands),
            *_section("session", _settings(own.settings)),
            *_indented(f"note: {note}" for note in own.notes),
            "",
        ]
    )


def _headline(own: Profile) -> list[str]:
    lo, hi = (duration(end) for end in own.ci95_latency_s)
    batch = f" of {own.batch} samples" if own.batch > 1 else ""
    macs = (
        "it has no products"
        if own.int8_mac_fraction is None
        else f"{_percent(own.int8_mac_fraction)} of multiply-accumulates in int8"
    )
    interval = f"95 % interval {lo} to {hi}, {own.processes} processes"
    return [
        f"{duration(own.latency_s)} a run{batch}, {interval}; {macs}",
        f"inputs: {words(own.shapes)}" if own.shapes else "no inputs",
    ]


def _section(title: str, rows: Rows) -> list[str]:
    if not rows:
        return []
    lines = text_lines(columns_of(rows, left=(0, -1)))
    return _indented([title, *_indented(lines)])


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _time_cells(time: Time) -> tuple[str, str, str]:
    lo, hi = time.ci95
    return duration(time.seconds), _percent(time.share), f"({100 * lo:.1f} to {100 * hi:.1f})"


def _kinds(own: Profile) -> Rows:
    present = [(kind, own.kinds[kind]) for kind in KINDS if own.kinds[kind].share >= _LEAST]
    return [(kind, *_time_cells(time)) for kind, time in present]


def _parts(parts: Sequence[OperatorGroup], most: int) -> Rows:
    rows: Rows = [
        (sanitize(part.name, 60), *_time_cells(part.time), _operators(part))
        for part in parts[:most]
    ]
    if rest := parts[most:]:
        seconds = sum(part.time.seconds for part in rest)
        share = sum(part.time.share for part in rest)
        rows.append((f"{len(rest)} more", duration(seconds), _percent(share), "", ""))
    return rows


def _operators(part: OperatorGroup) -> str:
    if list(part.operators) == [part.name]:
        return f"{part.operators[part.name]} of them"
    shown = [f"{number} {name}" for name, number in [*part.operators.items()][:_OPERATOR_NAMES]]
    return ", ".join(shown) + (", …" if len(part.operators) > _OPERATOR_NAMES else "")


def _changes(own: Profile) -> Rows:
    slower = [change for change in own.changes if change.ci95[0] > 0]
    return [
        (
            sanitize(change.module, 60),
            f"+{duration(change.seconds)}",
            f"({duration(change.ci95[0])} to {duration(change.ci95[1])})",
        )
        for change in slower[:_CHANGES]
    ]


def _islands(islands: Sequence[Island]) -> Iterator[str]:
    if not islands:
        return
    yield "  islands"
    for island in islands[:_ISLANDS]:
        where = f" in {', '.join(island.modules[:4])}" if island.modules else ""
        place = "between int8 operators" if island.place == "between" else f"at the {island.place}"
        share = f"{duration(island.time.seconds)}, {_percent(island.time.share)} of the time"
        yield f"    {', '.join(island.operators[:5])}{where}, {place}: {share}"
        for remedy in island.remedies:
            yield f"      why: {remedy.cause}"
            yield f"      do: {remedy.cure}"
    if len(islands) > _ISLANDS:
        rest = sum(island.time.share for island in islands[_ISLANDS:])
        yield f"    {len(islands) - _ISLANDS} more: {_percent(rest)} of the time"


def _settings(settings: Sequence[SessionSetting]) -> Rows:
    return [
        (
            setting.name,
            f"{duration(setting.create_s)} to open",
            f"{duration(setting.run_s)} a run",
            "peak memory unknown"
            if setting.model_peak_bytes is None
            else f"{size(setting.model_peak_bytes)} peak above the runtime's",
        )
        for setting in settings
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
