"""What a record has of scores: on the test split, on what is served, and on named slices of it.

Blocks of ``record.json`` (:mod:`compress.record`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

__all__ = [
    "BASELINE",
    "Accuracy",
    "AccuracyEstimate",
    "Change",
    "RecordFacts",
    "SampleFacts",
    "ServedScore",
    "SparseFacts",
    "ToldApartFacts",
]


#: What stands for labels of samples that have none, where no teacher is named.
BASELINE = "the baseline row"


class RecordFacts(BaseModel):
    """A block of a record."""

    # Readers of newer files must not fail on names that were added since.
    model_config = ConfigDict(extra="allow")


class SparseFacts(RecordFacts):
    """A block some of whose keys are left out where they hold nothing."""

    # Records of before have no such keys.
    _optional: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {key: value for key, value in content.items() if value or key not in self._optional}


class Accuracy(SparseFacts):
    """A metric on the test split, computed from the artifact's outputs on the target.

    ``versus_baseline`` compares the same samples (exact McNemar for right-or-wrong metrics):
    ``lost`` were right in the baseline only, ``gained`` in this row only. Metrics over a data set
    have neither, and ``resamples`` is how many bootstrap resamples their intervals are from; the
    key is absent for others.
    """

    _optional: ClassVar[tuple[str, ...]] = ("resamples",)

    value: float
    ci95: tuple[float, float]
    n: int
    versus_baseline: dict[str, float] | None = None
    resamples: int | None = None


class Change(RecordFacts):
    """A difference with its 95 % interval; of two samples that have nothing to do with each other.

    The interval is as far from the value as the root of the summed squares of what both scores'
    intervals leave (Zou and Donner 2008; of two rates Newcombe 1998, method 10).
    """

    value: float
    ci95: tuple[float, float]


class ToldApartFacts(RecordFacts):
    """How often a classifier tells serving samples from validation samples (:mod:`.measure.shift`).

    ``share`` of ``held_out`` samples, half of each kind: 0.5 where nothing tells them apart. It
    goes by the outputs of the row. They are shown to differ where ``p_value`` is below ``level``.
    """

    share: float
    ci95: tuple[float, float]
    p_value: float
    level: float
    held_out: int

    @property
    def is_shown(self) -> bool:
        """Whether the two kinds are shown to differ."""
        return self.p_value < self.level


class AccuracyEstimate(RecordFacts):
    """An accuracy on samples without labels, by the model's confidence; ``change`` from the test's.

    ``trials`` is how many changed copies of validation samples its interval has the errors of
    (:mod:`.measure.without_labels`).
    """

    value: float
    ci95: tuple[float, float]
    change: Change
    trials: int


class ServedScore(SparseFacts):
    """How a row does on samples that are not of the test split.

    ``on_test`` is the same metric on the test split, where that is another than the row's
    ``accuracy``: agreement with a reference, where these samples have no labels. ``change`` is the
    score less that of the test split; where it is not known what is to be compared it is absent.
    ``estimate`` is of samples without labels, and ``no_estimate`` says why there is none.
    ``told_apart`` is there for the baseline row. All but ``accuracy`` are absent where empty.
    """

    _optional: ClassVar[tuple[str, ...]] = (
        "on_test",
        "change",
        "estimate",
        "no_estimate",
        "told_apart",
    )

    accuracy: Accuracy
    on_test: Accuracy | None = None
    change: Change | None = None
    estimate: AccuracyEstimate | None = None
    no_estimate: str = ""
    told_apart: ToldApartFacts | None = None


class SampleFacts(RecordFacts):
    """A serving sample or a slice: how many samples, and the metric that rows have on it.

    ``reference``: whose answers stand for labels, where the samples have none.
    """

    samples: int
    metric: str
    reference: str | None = None
