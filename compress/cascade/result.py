"""What is found of a cascade: plain data, and the file that says it. No torch.

The file lies in the folder that a cascade is written to, beside the models; it may be a stranger's:
what is read is checked, and bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from compress.cascade.curve import Point
from compress.cascade.detection import Auroc
from compress.config.clauses import first_clause
from compress.errors import RecordError
from compress.io.files import named, read_bounded
from compress.overwriting import CASCADE, CASCADE_NAME

__all__ = ["Cascade", "ForeignFacts", "ModelFacts", "ScoreFacts", "Timed", "read_cascade"]

_MOST_BYTES = 16 << 20
_MOST = 1_000

Text = Annotated[str, Field(max_length=4_000)]


@dataclass(frozen=True)
class ModelFacts:
    """One of the two models.

    Args:
        row: its number in the record.
        stage: the label of its stage.
        file: in the folder.
        bytes: of the measured file.
        measured_sha256: of the file that the record describes.
        accuracy: on the test split.
    """

    row: int
    stage: Text
    file: Text
    bytes: int
    measured_sha256: Text
    accuracy: float


@dataclass(frozen=True)
class ScoreFacts:
    """A score, with the threshold that is chosen for what is wanted.

    Args:
        score: its name.
        point: what the threshold does on the test split; ``None`` where none reaches it.
        curve: accuracies and shares of all thresholds on the test split.
        missed: why there is no such threshold.
    """

    score: Text
    point: Point | None
    curve: Annotated[tuple[Point, ...], Field(max_length=_MOST)]
    missed: Text = ""


@dataclass(frozen=True)
class ForeignFacts:
    """Other samples than the test split's.

    Args:
        name: of them.
        samples: how many.
        auroc: by score, how well it tells the test split's samples from these.
        point: what the chosen threshold does on them, where they have labels of the task's classes.
        share: of them that goes back.
        student: accuracy of the student alone, and ``larger`` of the larger model, with labels.
        fixed: with labels, accuracy by the share of these samples that is sent back.
    """

    name: Text
    samples: int
    auroc: Annotated[dict[Text, Auroc], Field(max_length=_MOST)]
    share: float
    point: Point | None = None
    student: float | None = None
    larger: float | None = None
    fixed: Annotated[dict[Text, float], Field(max_length=_MOST)] = field(default_factory=dict)


@dataclass(frozen=True)
class Timed:
    """The session that both models were timed in, in turns.

    Args:
        student_s: mean seconds of one inference.
        larger_s: likewise.
        score_s: seconds of the score of one sample, in numpy, on this machine.
        processes: fresh ones of each model.
        mode: how hard it was tried.
        student_bytes: peak memory above the runtime's; ``None`` where it was not measured.
        larger_bytes: likewise. Both models stay loaded: what they take together is at most the sum.
        warnings: of the session.
    """

    student_s: float
    larger_s: float
    score_s: float
    processes: int
    mode: Text
    student_bytes: int | None
    larger_bytes: int | None
    warnings: Annotated[tuple[Text, ...], Field(max_length=_MOST)] = ()


@dataclass(frozen=True)
class Cascade:
    """A student, and a larger model for what it is not sure of.

    Args:
        run: the name of the recipe.
        task: its name.
        target: that both rows were measured on, and are timed on.
        student: the first to answer.
        larger: what is sent back to it.
        wanted: what the threshold was chosen for, in words.
        score: that decides.
        threshold: samples that are less sure go back; ``None`` where all do.
        validation_samples: that it was chosen on.
        validation_share: of these that went back.
        point: what it does on the test split.
        scores: the scores that were tried, the deciding one first, each with its curve.
        test_samples: in the test split.
        foreign: other samples.
        timed: both models; ``None`` where nothing was timed.
        model: what a runner needs of the student's file: ``inputs``, ``output``, ``features``.
        larger_output: the larger model's output that is meant.
        classes: their names.
        preprocessing: how a file becomes an input, as the task says it.
        notes: what is to be known.
        files: beside this one, with their checksums.
    """

    run: Text
    task: Text
    target: Text
    student: ModelFacts
    larger: ModelFacts
    wanted: Text
    score: Text
    threshold: float | None
    validation_samples: int
    validation_share: float
    point: Point
    scores: Annotated[tuple[ScoreFacts, ...], Field(max_length=_MOST)]
    test_samples: int
    foreign: Annotated[tuple[ForeignFacts, ...], Field(max_length=_MOST)]
    timed: Timed | None
    model: dict[str, Any]
    larger_output: Text
    classes: Annotated[tuple[Text, ...], Field(max_length=100_000)]
    preprocessing: dict[str, Any]
    notes: Annotated[tuple[Text, ...], Field(max_length=_MOST)] = ()
    files: dict[str, str] = field(default_factory=dict)

    @property
    def curve(self) -> tuple[Point, ...]:
        """Of the score that decides."""
        return self.scores[0].curve


@dataclass(frozen=True)
class _File:
    kind: Literal["compresskit-cascade"]
    schema: Literal[1]
    files: dict[str, str]
    cascade: Cascade


_FORM = TypeAdapter(_File)


def cascade_bytes(found: Cascade) -> bytes:
    """The content of ``cascade.json``."""
    return _FORM.dump_json(_File(CASCADE, 1, found.files, found), indent=1) + b"\n"


def read_cascade(folder: Path) -> Cascade:
    """What a folder says of the cascade in it.

    Raises:
        RecordError: there is no such file, or it is damaged or none of ours.
    """
    path = folder / CASCADE_NAME
    content = read_bounded(path, _MOST_BYTES, RecordError)
    try:
        return _FORM.validate_json(content).cascade
    except ValidationError as error:
        raise RecordError(
            f"{named(path)}: {first_clause(error)}; have compresskit cascade write it anew."
        ) from error
