"""A cascade in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from compress.cascade.curve import Point
from compress.cascade.result import Cascade, ForeignFacts
from compress.cascade.threshold import NEVER
from compress.formatting import (
    duration,
    interval,
    sanitize,
    score_cell,
    score_change,
    score_interval,
    size,
    times,
)
from compress.text_table import Column, columns_of, text_lines, wrapped

__all__ = ["cascade_text"]

_PROSE = 100
_METRIC = "accuracy"
_SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


def cascade_text(found: Cascade) -> str:
    """All of it, as lines."""
    lines = [_title(found), "", *text_lines(_summary(found))]
    for sentence in _sentences(found):
        lines += wrapped(sentence, _PROSE)
    lines += ["", "The curve on the test split", "", *text_lines(_curve(found)), ""]
    lines += ["Scores", "", *text_lines(_scores(found)), ""]
    if found.foreign:
        lines += ["Other samples", "", *text_lines(_foreign(found)), ""]
        lines += [line for each in _foreign_words(found) for line in wrapped(each, _PROSE)]
    for note in found.notes:
        lines += wrapped(f"Note: {note}.", _PROSE)
    for warning in found.timed.warnings if found.timed else ():
        lines += wrapped(f"Warning: {sanitize(warning, 300)}", _PROSE)
    return "\n".join(lines) + "\n"


def _title(found: Cascade) -> str:
    first, back = (
        f"row {each.row} ({sanitize(each.stage, 30)})" for each in (found.student, found.larger)
    )
    run, target = sanitize(found.run, 40), sanitize(found.target, 30)
    return f"{run} on {target}: {first} answers, {back} where it is not sure"


def _summary(found: Cascade) -> list[Column]:
    ends = found.curve[0], found.point, found.curve[-1]
    names = ("student alone", "cascade", "all sent back")
    rows = [(name, *_cells(point)) for name, point in zip(names, ends, strict=True)]
    return columns_of(rows, ("", *_HEADS))


_HEADS = ("sent back", "accuracy, %", "against larger", "mean", "of larger's", "p99")


def _cells(point: Point) -> tuple[str, ...]:
    ratio = "-"
    if point.ratio is not None and point.ratio_ci95 is not None:
        ratio = f"{times(point.ratio)} {interval(*point.ratio_ci95)}"
    return (
        f"{100 * point.share:.2f} %",
        score_cell(_METRIC, point.accuracy, *point.accuracy_ci95),
        f"{score_change(_METRIC, point.change)} {score_interval(_METRIC, *point.change_ci95)}",
        "-" if point.mean_s is None else duration(point.mean_s),
        ratio,
        "-" if point.p99_s is None else duration(point.p99_s),
    )


def _sentences(found: Cascade) -> Iterator[str]:
    threshold = f", {found.threshold:.6g} of the {found.score},"
    if found.threshold is None or found.threshold == NEVER:
        threshold = f" of the {found.score}"
    yield (
        f"The threshold{threshold} was chosen on "
        f"{found.validation_samples:,} validation samples for {found.wanted}: "
        f"{100 * found.validation_share:.2f} % of them go back. All else is of the "
        f"{found.test_samples:,} test samples, and so is the mix that times are of."
    )
    session = found.timed
    if session is None:
        return
    yield (
        f"Times: means over {session.processes} fresh processes of each model, which took turns: "
        f"student {duration(session.student_s)}, larger {duration(session.larger_s)}, score "
        f"{duration(session.score_s)} in numpy; every sample takes the first and the last, and "
        "those that go back the second, too."
    )
    if session.student_bytes is not None and session.larger_bytes is not None:
        both = session.student_bytes + session.larger_bytes
        yield (
            f"Memory of both, loaded side by side: at most {size(both)} above the runtime's "
            f"({size(session.student_bytes)} and {size(session.larger_bytes)}); files "
            f"{size(found.student.bytes)} and {size(found.larger.bytes)}."
        )


def _curve(found: Cascade) -> list[Column]:
    shown = dict.fromkeys(
        min(found.curve, key=lambda point: abs(point.share - share)) for share in _SHOWN
    )
    return columns_of([_cells(point) for point in shown], _HEADS, left=())


def _scores(found: Cascade) -> list[Column]:
    rows = []
    for each in found.scores:
        decides = f"{each.score} (decides)" if each.score == found.score else each.score
        cells = ("-", "-") if each.point is None else _cells(each.point)[:2]
        areas = [_area(foreign, each.score) for foreign in found.foreign]
        rows.append((decides, *cells, *areas))
    heads = [f"AUROC {sanitize(each.name, 24)}" for each in found.foreign]
    return columns_of(rows, ("score", "sent back", "accuracy, %", *heads))


def _area(foreign: ForeignFacts, score: str) -> str:
    found = foreign.auroc[score]
    return f"{found.value:.3f} [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]"


def _foreign(found: Cascade) -> list[Column]:
    rows = []
    for each in found.foreign:
        accuracies = ["-"] * 3
        if each.point is not None and each.student is not None and each.larger is not None:
            values = (each.student, each.point.accuracy, each.larger)
            accuracies = [f"{100 * value:.2f}" for value in values]
        rows.append(
            (
                sanitize(each.name, 40),
                f"{each.samples:,}",
                f"{100 * each.share:.2f} %",
                *accuracies,
            )
        )
    heads = ("", "samples", "sent back", "student, %", "cascade, %", "larger, %")
    return columns_of(rows, heads)


def _foreign_words(found: Cascade) -> Iterator[str]:
    yield (
        "AUROC: how well a score tells test samples from these; 0.5 is chance. The threshold is "
        "that of validation samples."
    )
    for each in found.foreign:
        if each.fixed:
            text = ", ".join(
                f"{100 * value:.2f} % with {100 * float(share):g} %"
                for share, value in each.fixed.items()
            )
            yield f"{sanitize(each.name, 40)}: accuracy by the share of them sent back: {text}."
