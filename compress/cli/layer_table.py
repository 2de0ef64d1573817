"""The table of ``compresskit sensitivity``, with selectors and stages to paste."""

from __future__ import annotations

from collections.abc import Sequence

from compress.formatting import sanitize
from compress.layer_facts import Change, LayerSensitivity, Sensitivity
from compress.text_table import Column, text_lines

__all__ = ["described"]

_BAR = 12
_MOST_OF_ALL = 0.9
_FEW = 0.34


def described(found: Sensitivity, width: int | None = None) -> list[str]:
    """The table, the largest error of the first format first, and selectors to paste."""
    names = list(found.layers[0].formats)
    ordered = sorted(found.layers, key=lambda one: one.formats[names[0]].error, reverse=True)
    columns = [
        Column("layer", "", tuple(sanitize(one.layer, 60) for one in ordered), left=True),
        Column("class", "", tuple(one.kind for one in ordered), left=True, spare=3),
        Column("parameters", "", tuple(f"{one.parameters:,}" for one in ordered), spare=2),
    ]
    for name in names:
        columns += _columns(name, [one.formats[name] for one in ordered], bars=name == names[0])
        if found.timed is not None:
            columns.append(_times([one.formats[name] for one in ordered]))
    columns += _columns("a tenth cut", [one.cut for one in ordered], bars=False)
    metric = sanitize(found.metric, 40)
    lines = [*text_lines(columns, width=width), ""]
    lines.append(
        f"{found.samples} validation samples, on which the model has {metric} {found.score:.4g}. "
        "Each layer is changed by itself, in simulation."
    )
    lines.append(
        "error: mean squared error of the outputs over their variance, of class scores as "
        f"probabilities; loss: of {metric}; KiB: saved of the weights."
    )
    lines += _about_times(found)
    lines += _selectors(ordered, names[0])
    for choice in found.choices:
        lines += ["", f"{choice.asked}: {choice.said}", *choice.stages]
    return lines


def _times(changes: Sequence[Change]) -> Column:
    cells = []
    for change in changes:
        if change.saved_s is None or change.saved_s_ci95 is None:
            cells.append("-")
            continue
        low, high = (1e3 * end for end in change.saved_s_ci95)
        cells.append(f"{1e3 * change.saved_s:+.3f} [{low:+.3f}, {high:+.3f}]")
    return Column("", "ms", tuple(cells))


def _about_times(found: Sensitivity) -> list[str]:
    if found.timed is None:
        return []
    whole = ", ".join(
        f"{1e3 * seconds:.3g} ms {f'in {name}' if name else 'as it is'}"
        for name, seconds in found.timed.seconds.items()
    )
    said = (
        f"ms: won on {sanitize(found.timed.target, 60)} with the 95 % interval, by the runtime's "
        f"profile of whole files in {found.timed.processes} processes each ({whole}). A layer is "
        "timed among its neighbors in the same format: alone in it, it would convert more."
    )
    return [said]


def _columns(heading: str, changes: Sequence[Change | None], *, bars: bool) -> list[Column]:
    most = max((change.error for change in changes if change), default=0.0)
    columns = [
        Column(heading, "error", tuple(_cell(c.error if c else None, ".2g") for c in changes)),
        Column("", "loss", tuple(_cell(c.lost if c else None, "+.4f") for c in changes), spare=1),
        Column(
            "",
            "KiB",
            tuple(_cell(c.saved_bytes / 1024 if c else None, ",.1f") for c in changes),
            spare=1,
        ),
    ]
    if bars:
        cells = tuple(
            "#" * round(_BAR * (c.error / most) ** 0.5) if c and most else "" for c in changes
        )
        columns.insert(0, Column("", "", cells, left=True, spare=4))
    return columns


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _selectors(ordered: Sequence[LayerSensitivity], name: str) -> list[str]:
    """What to paste where few layers make most of the error."""
    lines = []
    quantized = _most_of({one.layer: one.formats[name].error for one in ordered})
    if quantized:
        lines.append(f"quantize ({name}): exclude: [{', '.join(quantized)}]")
    cut = _most_of({one.layer: one.cut.error for one in ordered if one.cut})
    if cut:
        lines.append(f"prune: ignore: [{', '.join(cut)}]")
    return ["", "Few layers make most of the error; to leave them out:", *lines] if lines else []


def _most_of(errors: dict[str, float]) -> list[str]:
    """The layers that make most of all errors, where these are few; else none."""
    total, taken, chosen = sum(errors.values()), 0.0, list[str]()
    for layer, error in sorted(errors.items(), key=lambda one: one[1], reverse=True):
        if taken >= _MOST_OF_ALL * total:
            break
        taken += error
        chosen.append(layer)
    return chosen if total and len(chosen) <= _FEW * len(errors) else []
