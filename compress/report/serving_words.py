"""How rows do on samples of what will be served, in words: below the table, and row by row."""

from __future__ import annotations

from collections.abc import Iterator

from compress.formatting import sanitize, score, score_change, score_interval
from compress.pareto import recommend
from compress.record import Accuracy, Measurement, Record
from compress.record_scores import BASELINE, Change, SampleFacts, ServedScore, ToldApartFacts

__all__ = ["served_facts", "serving_words"]


def serving_words(record: Record, target: str) -> Iterator[str]:
    """Whether the serving sample is of other data, and how the row to ship does on all samples."""
    baseline = _found(record, target, record.baseline)
    told = baseline.serving.told_apart if baseline is not None and baseline.serving else None
    if told is not None and told.is_shown:
        yield (
            "Serving: the serving sample differs from validation data: by the outputs of row "
            f"{record.baseline}, {_told(told)}."
        )
    chosen = recommend(record, target).index
    found = None if chosen is None else _found(record, target, chosen)
    if found is None or chosen is None:
        return
    if found.serving is not None and record.task.serving is not None:
        # A row agrees with itself.
        if record.task.serving.reference != BASELINE or chosen != record.baseline:
            yield _serving(record.task.serving, found.serving, chosen)
        yield from _without_labels(record, found.serving, chosen)
    yield from _slices(record, found, chosen)


def served_facts(record: Record, found: Measurement) -> Iterator[tuple[str, str]]:
    """Label and text of a row's scores on the serving sample and on each slice."""
    task = record.task
    if found.serving is not None and task.serving is not None:
        yield "On the serving sample", _score_words(task.serving, found.serving)
        estimate = found.serving.estimate
        if estimate is not None:
            change = _change(task.metric, estimate.change)
            ends = " to ".join(score(task.metric, end) for end in estimate.ci95)
            how = f"with the errors on {estimate.trials} changed copies of validation samples"
            value = f"{score(task.metric, estimate.value)}, 95 % interval {ends}"
            name = f"Estimated {sanitize(task.metric, 40)} there"
            yield name, f"{value}; {change}; from confidence, {how}"
        if found.serving.no_estimate:
            why = sanitize(found.serving.no_estimate, 200)
            yield f"Estimated {sanitize(task.metric, 40)} there", f"not known: {why}"
        if found.serving.told_apart is not None:
            yield "Serving against validation", _told(found.serving.told_apart)
    for name, served in found.slices.items():
        if name in task.slices:
            yield f"On {sanitize(name, 40)}", _score_words(task.slices[name], served)


def _found(record: Record, target: str, index: int) -> Measurement | None:
    row = next((row for row in record.rows if row.index == index), None)
    return None if row is None else row.on(target)


def _told(told: ToldApartFacts) -> str:
    low, high = (f"{100 * end:.1f}" for end in told.ci95)
    test = f"p = {told.p_value:.2g}, tested at {100 * told.level:g} %"
    return (
        f"a classifier tells the two apart in {100 * told.share:.1f} % [{low}, {high}] of "
        f"{told.held_out:,} samples, where 50 % is chance ({test})"
    )


def _serving(facts: SampleFacts, served: ServedScore, row: int) -> str:
    metric = sanitize(facts.metric, 40)
    text = (
        f"Serving: row {row} has {metric} {_value(facts.metric, served.accuracy)} on "
        f"{served.accuracy.n:,} serving samples{_against(facts)}"
    )
    if served.on_test is not None:
        text += f"; on the test split {_value(facts.metric, served.on_test)}"
    if served.change is not None:
        text += f"; {_change(facts.metric, served.change)}"
    return f"{text}."


def _without_labels(record: Record, served: ServedScore, row: int) -> Iterator[str]:
    metric = record.task.metric
    name = sanitize(metric, 40)
    if served.estimate is not None:
        ends = ", ".join(score(metric, end) for end in served.estimate.ci95)
        yield (
            f"Serving: without labels, the {name} of row {row} there is estimated as "
            f"{score(metric, served.estimate.value)} [{ends}] from its confidence; "
            f"{_change(metric, served.estimate.change)}."
        )
    elif served.no_estimate:
        why = sanitize(served.no_estimate, 200)
        yield f"Serving: the {name} of row {row} there cannot be known without labels: {why}."


def _slices(record: Record, found: Measurement, row: int) -> Iterator[str]:
    """The slices on which the row is shown to be worse than on the test split, the worst first."""
    sign = 1 if record.task.higher_is_better else -1
    worse: list[tuple[float, str]] = []
    for name, served in found.slices.items():
        facts, change = record.task.slices.get(name), served.change
        if facts is None or change is None or not _is_worse(change, sign):
            continue
        words = _change_alone(facts.metric, change)
        worse.append((sign * change.value, f"{sanitize(name, 40)} {words}"))
    if worse:
        listed = ", ".join(words for _, words in sorted(worse))
        yield f"Slices: row {row} is worse than on the test split on {listed}."


def _is_worse(change: Change, sign: int) -> bool:
    return max(sign * end for end in change.ci95) < 0


def _score_words(facts: SampleFacts, served: ServedScore) -> str:
    accuracy, metric = served.accuracy, facts.metric
    ends = " to ".join(score(metric, end) for end in accuracy.ci95)
    text = f"{sanitize(metric, 40)} {score(metric, accuracy.value)}, 95 % interval {ends}"
    text += f", {accuracy.n:,} samples{_against(facts)}"
    if served.on_test is not None:
        text += f"; on the test split {_value(metric, served.on_test)}"
    if served.change is not None:
        text += f"; {_change(metric, served.change)}"
    return text


def _against(facts: SampleFacts) -> str:
    return f", scored against {sanitize(facts.reference, 80)}" if facts.reference else ""


def _value(metric: str, accuracy: Accuracy) -> str:
    ends = ", ".join(score(metric, end) for end in accuracy.ci95)
    return f"{score(metric, accuracy.value)} [{ends}]"


def _change(metric: str, change: Change) -> str:
    return f"{_change_alone(metric, change)} against the test split"


def _change_alone(metric: str, change: Change) -> str:
    return f"{score_change(metric, change.value)} {score_interval(metric, *change.ci95)}"
