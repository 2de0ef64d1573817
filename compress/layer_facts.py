"""What was found of each layer of a model: plain data, and its file in the folder of a run.

The file may be a stranger's: what is read is checked, and bounded. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from compress.config.clauses import first_clause
from compress.errors import RecordError
from compress.io.atomic import write_atomically
from compress.io.files import read_bounded

__all__ = [
    "LAYERS_NAME",
    "Change",
    "Choice",
    "LayerSensitivity",
    "Sensitivity",
    "Timed",
    "is_sensitivity",
    "read_sensitivity",
    "write_sensitivity",
]

#: In the folder of a run.
LAYERS_NAME = "sensitivity.json"

_KIND: Literal["compresskit-sensitivity"] = "compresskit-sensitivity"
_MOST_BYTES = 32 << 20
_MOST_LAYERS, _MOST_FORMATS = 20_000, 16

Text = Annotated[str, Field(max_length=500)]
Sentence = Annotated[str, Field(max_length=4000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Interval = tuple[Finite, Finite]


@dataclass(frozen=True)
class Change:
    """What becomes of the model when one layer is changed.

    Args:
        error: mean squared error of the outputs over their variance; of class scores, that of
            the probabilities.
        lost: of the metric, in its unit: below 0 where it is better.
        saved_bytes: of the weights as they are stored.
        saved_s: seconds of one inference that the layer wins, below 0 where it takes longer;
            ``None`` where it was not timed.
        saved_s_ci95: its 95 % interval, likewise.
    """

    error: Finite
    lost: Finite
    saved_bytes: int
    saved_s: Finite | None = None
    saved_s_ci95: Interval | None = None


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer.

    Args:
        layer: its path.
        kind: its class.
        parameters: it has.
        formats: by name of a format, what it does to quantize this layer alone.
        cut: what it does to cut a tenth of its channels; ``None`` where they stay.
    """

    layer: Text
    kind: Text
    parameters: int
    formats: Annotated[Mapping[Text, Change], Field(max_length=_MOST_FORMATS)] = field(
        default_factory=dict
    )
    cut: Change | None = None


@dataclass(frozen=True)
class Timed:
    """Where layers were timed, and what whole files take.

    Args:
        target: its name.
        seconds: of one inference of the model as it is, and by format of that with all layers in
            it; the former under an empty name.
        processes: that each file was profiled in.
    """

    target: Text
    seconds: Annotated[Mapping[Text, Finite], Field(max_length=_MOST_FORMATS + 1)]
    processes: int


@dataclass(frozen=True)
class Choice:
    """What an integer program chose under a budget.

    Args:
        asked: the budget, as it was given.
        stages: to paste into a recipe, a line each.
        said: what it gives, as a sentence.
    """

    asked: Text
    stages: Annotated[tuple[Sentence, ...], Field(max_length=_MOST_FORMATS)]
    said: Sentence


@dataclass(frozen=True)
class Sensitivity:
    """All layers of a model, in its order.

    Args:
        metric: its name.
        score: of the model, on as many validation ``samples``.
        higher_is_better: its direction.
        samples: that it was looked at with.
        layers: each.
        timed: where; ``None`` where nothing was timed.
        choices: under budgets.
        row: of the run whose model it is.
        fingerprint: of the candidate.
    """

    metric: Text
    score: Finite
    higher_is_better: bool
    samples: int
    layers: Annotated[tuple[LayerSensitivity, ...], Field(max_length=_MOST_LAYERS)]
    timed: Timed | None = None
    choices: Annotated[tuple[Choice, ...], Field(max_length=_MOST_FORMATS)] = ()
    row: int = 0
    fingerprint: Text = ""


@dataclass(frozen=True)
class _File:
    """What the file holds."""

    kind: Literal["compresskit-sensitivity"]
    schema: Literal[1]
    found: Sensitivity


_FORM = TypeAdapter(_File)


def write_sensitivity(found: Sensitivity, folder: Path) -> Path:
    """Write what was found into the folder of a run, in place of what was found before.

    Raises:
        StorageError: the disk refused.
    """
    path = folder / LAYERS_NAME
    write_atomically(path, _FORM.dump_json(_File(_KIND, 1, found), indent=1) + b"\n")
    return path


def read_sensitivity(folder: Path) -> Sensitivity | None:
    """What lies in the folder of a run; ``None`` where nothing does.

    Raises:
        RecordError: it is no such file, or a damaged one.
    """
    path = folder / LAYERS_NAME
    if not path.exists():
        return None
    content = read_bounded(path, _MOST_BYTES, RecordError)
    try:
        return _FORM.validate_json(content).found
    except ValidationError as error:
        raise RecordError(
            f"{path}: {first_clause(error)}; it is left as it is: remove it, or "
            "have compresskit sensitivity write it anew."
        ) from error


def is_sensitivity(path: Path) -> bool:
    """Whether a file is one that :func:`write_sensitivity` wrote."""
    try:
        return read_sensitivity(path.parent) is not None
    except RecordError:
        return False
