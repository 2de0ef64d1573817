"""Changes between two deployed models as text for a terminal, as Markdown, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compress.formatting import (
    duration,
    interval,
    sanitize,
    score,
    score_cell,
    score_change,
    score_interval,
    size,
    times,
)
from compress.overwriting import CHANGES_MARK
from compress.record import Accuracy
from compress.releases.changes import Changes, SplitChange
from compress.releases.deployed import Deployed
from compress.report.provenance import device_id, device_name
from compress.text_table import (
    Column,
    columns_of,
    markdown_list,
    markdown_table,
    text_lines,
    wrapped,
)

__all__ = ["changes_json", "changes_markdown", "changes_text"]

_PROSE, _MOST_KEYS = 100, 40
_CLASSES = 12


def changes_text(found: Changes) -> str:
    """What changed, as lines for a terminal."""
    lines = [title_of(found), ""]
    for heading, columns, sentences in _blocks(found):
        lines += [heading, ""] if heading else []
        lines += text_lines(columns) if columns else []
        for sentence in sentences:
            lines += wrapped(sentence, _PROSE)
        lines.append("")
    return "\n".join(lines)


def changes_markdown(found: Changes) -> str:
    """The same as GitHub Markdown."""
    parts = [f"# {title_of(found)}\n"]
    for heading, columns, sentences in _blocks(found):
        parts += [f"## {heading}\n"] if heading else []
        parts += [markdown_table(columns)] if columns else []
        parts += [markdown_list(sentences)] if sentences else []
    return "\n".join([*parts, f"{CHANGES_MARK}\n"])


def title_of(found: Changes) -> str:
    """Which two models these are."""
    return f"{_called(found.old)} against {_called(found.new)}, on {sanitize(found.new.target, 40)}"


def _called(deployed: Deployed) -> str:
    stage = sanitize(deployed.row.stage, 40)
    ships = ", to ship" if deployed.is_advised else ""
    return f"{sanitize(deployed.folder, 60)} (row {deployed.row.index}, {stage}{ships})"


_Block = tuple[str, Sequence[Column], Sequence[str]]


def _blocks(found: Changes) -> Iterator[_Block]:
    """Headings, each with a table and sentences; either may be empty."""
    yield "", _summary(found), [*_score_words(found), *_time_words(found), *_notes(found)]
    if found.classes:
        more = len(found.classes) - _CLASSES
        words = [f"and {more} more classes, in --json."] if more > 0 else []
        yield "Classes whose samples changed", _class_columns(found), words
    if found.slices:
        words = [
            f"{sanitize(name, 40)} has no labels: scored against {sanitize(each.against, 80)}."
            for name, each in found.slices.items()
            if each.against
        ]
        yield "Samples of what is served", _slice_columns(found), words
    if found.moved:
        yield "Test samples that changed most", _moved_columns(found), []
    yield "What else changed", _difference_columns(found), _difference_words(found)


def _notes(found: Changes) -> list[str]:
    return [f"Note: {note}." for note in found.notes]


# -- the two models -------------------------------------------------------------------------------


def _summary(found: Changes) -> list[Column]:
    old, new = found.old, found.new
    metric = found.metric
    percent = score(metric, 1.0).endswith("%")
    cells = [_score_cell(metric, each) for each in (found.test.old, found.test.new)]
    rows = [
        (f"{sanitize(metric, 40)}{', %' if percent else ''}", *cells, _change(metric, found.test)),
        ("file", *_sizes(old, new)),
    ]
    latencies = [each.found.latency for each in (old, new)]
    if latencies[0] is not None and latencies[1] is not None:
        p50 = [each.p50_s for each in latencies if each is not None]
        rows.append(("p50, as each run timed it", *map(duration, p50), times(p50[1] / p50[0])))
    timed = [each.latency for each in found.timed]
    if len(timed) == 2 and timed[0] is not None and timed[1] is not None:
        ratio = found.timed[1].speedup
        words = "" if ratio is None else f"{times(1 / ratio.value)}"
        rows.append(("p50, in turns", duration(timed[0].p50_s), duration(timed[1].p50_s), words))
    peaks = [each.found.memory for each in (old, new)]
    if peaks[0] is not None and peaks[1] is not None:
        pair = [each.model_peak_bytes for each in peaks if each is not None]
        ratio_of_peaks = times(pair[1] / pair[0]) if pair[0] else "-"
        rows.append(("peak memory", *map(size, pair), ratio_of_peaks))
    counts = (old.row.parameters, new.row.parameters)
    rows.append(("parameters", *(f"{each:,}" for each in counts), _ratio(*counts)))
    return columns_of(rows, ("", "old", "new", "change"))


def _sizes(old: Deployed, new: Deployed) -> tuple[str, str, str]:
    both = (old.found.artifact.bytes, new.found.artifact.bytes)
    return size(both[0]), size(both[1]), _ratio(*both)


def _ratio(old: float, new: float) -> str:
    return times(new / old) if old else "-"


def _score_cell(metric: str, found: Accuracy) -> str:
    return score_cell(metric, found.value, *found.ci95)


def _change(metric: str, change: SplitChange) -> str:
    versus = change.new.versus_baseline or {}
    if "delta" not in versus:
        return "-"
    ends = score_interval(metric, versus["delta_ci_lo"], versus["delta_ci_hi"])
    return f"{score_change(metric, versus['delta'])} {ends}"


def _score_words(found: Changes) -> Iterator[str]:
    change, versus = found.test, found.test.new.versus_baseline or {}
    text = f"{sanitize(found.metric, 40).capitalize()} changed by {_change(found.metric, change)}"
    text += f" on the same {change.new.n:,} test samples"
    if found.against:
        text += f", scored against {sanitize(found.against, 80)}"
    if change.gained is not None and change.lost is not None:
        exact = _is_exact(change)
        was = ("wrong -> right", "right -> wrong") if exact else ("better", "worse")
        text += f": {change.gained} {was[0]}, {change.lost} {was[1]}"
        test = "exact McNemar test" if exact else "sign-flip test"
    else:
        test = "bootstrap"
    text += f" ({test}, p = {versus.get('p_value', 1.0):.2g})"
    yield f"{text}; {_shown(versus)}."
    if change.differing is not None:
        yield f"The predicted class is another on {change.differing:,} of them."


def _is_exact(change: SplitChange) -> bool:
    """Whether every sample is right or wrong: the scores then changed by whole samples alone."""
    delta = (change.new.versus_baseline or {}).get("delta", 0.0)
    flips = (change.gained or 0) - (change.lost or 0)
    return abs(abs(delta) * change.new.n - abs(flips)) < 1e-6 * change.new.n


def _shown(versus: dict[str, float]) -> str:
    lo, hi = versus.get("delta_ci_lo", 0.0), versus.get("delta_ci_hi", 0.0)
    return "a change is shown" if lo > 0 or hi < 0 else "no change is shown"


def _time_words(found: Changes) -> Iterator[str]:
    if found.timed:
        new = found.timed[1]
        if new.speedup is None:
            failed = next((each.error for each in found.timed if each.error), "") or ""
            yield f"Time: there is no ratio of a fresh session. {sanitize(failed, 200)}".rstrip()
            return
        ends = interval(*new.speedup.ci95)
        verdict = sanitize(new.speedup.verdict, 30)
        yield (
            f"Time: the new file is {times(new.speedup.value)} {ends} as fast as the old one, in "
            f"{new.latency.processes if new.latency else 0} fresh processes each that took turns: "
            f"{verdict}."
        )
        return
    if None in (found.old.found.latency, found.new.found.latency):
        return
    ids = [device_id(each.record, each.target) for each in (found.old, found.new)]
    names = [device_name(each.record, each.target) for each in (found.old, found.new)]
    where = "" if ids[0] == ids[1] else f" and on other devices ({', '.join(names)})"
    yield (
        f"Time: each run timed its file by itself{where}, so that a ratio of the two says little; "
        "--time times both in turns here."
    )


# -- tables ---------------------------------------------------------------------------------------


def _class_columns(found: Changes) -> list[Column]:
    rows = [
        (
            sanitize(each.name, 40),
            f"{each.samples:,}",
            f"{each.old_right:,}",
            f"{each.new_right:,}",
            f"{each.gained:,}",
            f"{each.lost:,}",
        )
        for each in found.classes[:_CLASSES]
    ]
    heads = ("class", "samples", "old right", "new right", "wrong -> right", "right -> wrong")
    return columns_of(rows, heads)


def _slice_columns(found: Changes) -> list[Column]:
    rows = [
        (
            sanitize(name, 40),
            f"{each.new.n:,}",
            _score_cell(found.metric, each.old),
            _score_cell(found.metric, each.new),
            _change(found.metric, each),
            *("-" if count is None else f"{count:,}" for count in (each.gained, each.lost)),
        )
        for name, each in found.slices.items()
    ]
    return columns_of(rows, ("slice", "samples", "old", "new", "change", "better", "worse"))


def _moved_columns(found: Changes) -> list[Column]:
    rows = [
        (
            f"{each.place:,}",
            f"{each.old:.4g}",
            f"{each.new:.4g}",
            f"{each.new - each.old:+.3g}",
        )
        for each in found.moved
    ]
    return columns_of(rows, ("test sample", "old", "new", "change"))


def _difference_columns(found: Changes) -> list[Column]:
    shown = found.differences[:_MOST_KEYS]
    if not shown:
        return []
    rows = [(each.key, *each.values) for each in shown]
    return columns_of(rows, ("differs", "old", "new"), left=(0, 1, 2))


def _difference_words(found: Changes) -> list[str]:
    words = []
    if not found.differences:
        words.append("The recipes are equal, and what they were done with.")
    if found.data:
        words.append(f"Data whose content differs: {', '.join(found.data)}.")
    elif {"train", "test"} <= found.old.data.keys() & found.new.data.keys():
        words.append("Training, validation and test data are the same, sample by sample.")
    else:
        words.append("Whether the data are the same is not known: a run kept no digests of them.")
    return words


# -- plain data -----------------------------------------------------------------------------------


def changes_json(found: Changes) -> dict[str, object]:
    """All of it for scripts."""
    return {
        "command": "compare",
        "status": "done",
        "error": None,
        "metric": found.metric,
        "against": found.against,
        "old": _deployed_json(found.old),
        "new": _deployed_json(found.new),
        "test": _split_json(found.test),
        "classes": [vars(each) for each in found.classes],
        "slices": {name: _split_json(each) for name, each in found.slices.items()},
        "moved": [vars(each) for each in found.moved],
        "differences": {each.key: list(each.values) for each in found.differences},
        "data": list(found.data),
        "notes": list(found.notes),
        "timed": _timed_json(found),
    }


def _deployed_json(deployed: Deployed) -> dict[str, object]:
    latency = deployed.found.latency
    return {
        "folder": str(deployed.folder),
        "row": deployed.row.index,
        "stage": deployed.row.stage,
        "target": deployed.target,
        "file": str(deployed.model),
        "sha256": deployed.found.artifact.sha256,
        "bytes": deployed.found.artifact.bytes,
        "p50_s": None if latency is None else latency.p50_s,
    }


def _split_json(change: SplitChange) -> dict[str, object]:
    return {
        "samples": change.new.n,
        "old": {"value": change.old.value, "ci95": list(change.old.ci95)},
        "new": {"value": change.new.value, "ci95": list(change.new.ci95)},
        "change": change.new.versus_baseline,
        "predictions_that_differ": change.differing,
    }


def _timed_json(found: Changes) -> dict[str, object] | None:
    if not found.timed:
        return None
    speedup = found.timed[1].speedup
    return {
        "p50_s": [None if one.latency is None else one.latency.p50_s for one in found.timed],
        "speedup": None if speedup is None else speedup.value,
        "speedup_ci95": None if speedup is None else list(speedup.ci95),
        "verdict": None if speedup is None else speedup.verdict,
        "errors": [one.error for one in found.timed],
    }
