"""The two models of a cascade: rows of one run with their files, run here by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.backends.onnx.features import expose_features
from compress.cascade.program.scores import OF_FEATURES, pooled
from compress.errors import LoweringError, RecipeError, RecordError
from compress.formatting import sanitize
from compress.io.files import named
from compress.measure.named_arrays import Array, Arrays
from compress.outputs import kind_of_metric
from compress.pareto import readings
from compress.record import Record
from compress.releases import Deployed
from compress.running.scoring import Scoring
from compress.running.split_arrays import SplitArrays
from compress.ship.model_file import ModelFile
from compress.task import Task

__all__ = ["CascadeModel", "check_kind", "check_metric", "check_same", "chosen_rows"]

# Of the outputs' variance: fused otherwise, integers may round otherwise.
_CHECKED, _MOST_ERROR = 64, 1e-3
_NEEDED = "how sure a model is is told of one class, or one yes or no, for each sample"


def chosen_rows(
    record: Record, folder: Path, row: int | None, larger: int | None, target: str | None
) -> tuple[Deployed, Deployed]:
    """The student and the larger model: by default the quickest row and the baseline.

    Raises:
        RecordError: nothing was measured, no such row, or one whose file is gone or was changed.
        RecipeError: no such target, or no two rows.
    """
    back = Deployed.of(record, folder, record.baseline if larger is None else larger, target)
    first = Deployed.of(record, folder, _quickest(record, back) if row is None else row, target)
    if first.is_same_row(back):
        raise RecipeError(
            f"row {back.row.index} of the run {named(record.name)} would be both the student and "
            "what it is sent back to; give a smaller one (--row N) or a larger one (--larger N)."
        )
    for each in (first, back):
        sizes = each.found.sizes
        batch = ModelFile(each.model, sizes[0].batch if sizes else 1)
        if not batch.is_open and batch.batch != 1:
            raise RecipeError(
                f"row {each.row.index} ({sanitize(each.row.stage, 40)}): its file takes "
                f"{batch.batch} samples at once, and a cascade decides on each by itself; run the "
                "recipe for a target with batch: 1 or batch: any."
            )
    return first, back


def _quickest(record: Record, larger: Deployed) -> int:
    """The row after the baseline that takes the least time, or of untimed ones the least space."""
    table = readings(record, larger.target)
    rows = [row for row in table if row > record.baseline and row != larger.row.index]
    if not rows:
        raise RecipeError(
            f"the run {named(record.name)} has no row beside the larger model (row "
            f"{larger.row.index}) that could be the student; give two rows (--row N --larger N), "
            "or a run that distills, quantizes or prunes."
        )
    for name in ("latency_p50_s", "artifact_bytes"):
        known = [row for row in rows if name in table[row]]
        if known:
            return min(known, key=lambda row: table[row][name].value)
    return rows[-1]


def check_kind(scoring: Scoring, task: str) -> None:
    """Check that a task's models answer with one class, or a yes or no, for each sample.

    Raises:
        RecipeError: they do not, or there are no labels.
    """
    kind, output = scoring.leading.kind, scoring.leading.output
    known = scoring.outputs.get(output or "")
    shapes = known.outputs if known is not None else ()
    one = kind == "class-scores" and len(shapes) in (0, 2)
    if not one and not (kind == "independent-logits" and int(np.prod(shapes[1:])) == 1):
        raise RecipeError(
            f"cascade: the outputs of the task {named(task)} are {kind or 'not known'}"
            f"{f' of shape {tuple(shapes)}' if shapes else ''}, and {_NEEDED}."
        )
    if not scoring.has_labels:
        raise RecipeError(
            f"cascade: the task {named(task)} has no labels in its test split, and without them "
            "nothing says which answers are right."
        )


def check_metric(metric: str, task: str) -> None:
    """Check, by what a record has alone, that models may answer with a class.

    Raises:
        RecipeError: the metric is of something else.
    """
    kind = kind_of_metric(metric)
    if kind not in (None, "class-scores", "independent-logits"):
        raise RecipeError(
            f"cascade: the task {named(task)} is scored by {metric}, which is of {kind}, and "
            f"{_NEEDED}."
        )


def check_same(model: CascadeModel, task: Task) -> None:
    """Check that a file with features answers as the measured one.

    Raises:
        LoweringError: it does not.
    """
    if model.features is None:
        return
    inputs = SplitArrays.spread(task.validation, _CHECKED).inputs
    found, wanted = (each.run(inputs)[0] for each in (model, model.without_features()))
    error = float(((found - wanted) ** 2).mean())
    if error > _MOST_ERROR * float(wanted.var()):
        raise LoweringError(
            f"row {model.deployed.row.index}: with its features as one more output its file "
            f"answers otherwise (a mean squared error of {error:.3g}); give a --score of outputs, "
            "such as probability."
        )


@dataclass(frozen=True)
class CascadeModel:
    """One of the two models.

    Args:
        deployed: the row.
        path: of its file, or of that with features.
        features: the name of the output that has features; ``None`` without.
        scoring: of the run, which says which output is meant.
    """

    deployed: Deployed
    path: Path
    scoring: Scoring
    features: str | None = None

    @classmethod
    def of(
        cls,
        deployed: Deployed,
        scoring: Scoring,
        scores: tuple[str, ...] = (),
        draft: Path = Path(),
    ) -> CascadeModel:
        """The model of a row; for scores of features its file gets one more output, in ``draft``.

        Raises:
            LoweringError: the file has no features.
        """
        if not set(scores) & set(OF_FEATURES):
            return cls(deployed, deployed.model, scoring)
        names = deployed.found.artifact.outputs
        place = draft / "student.onnx"
        opened = ModelFile(deployed.model, 1)
        wanted = scoring.leading.output
        output = opened.outputs[names.index(wanted) if wanted in names else 0].name
        feature = expose_features(deployed.model, place, output)
        return cls(deployed, place, scoring, feature)

    def without_features(self) -> CascadeModel:
        """The measured file itself."""
        return CascadeModel(self.deployed, self.deployed.model, self.scoring)

    def run(self, inputs: Mapping[str, Array]) -> tuple[Array, Array | None]:
        """Outputs ``(n, classes)`` of the leading metric, and features ``(n, width)``.

        Raises:
            RecordError: it takes other inputs.
            LoweringError: onnxruntime cannot run it.
        """
        sizes = self.deployed.found.sizes
        model = ModelFile(self.path, sizes[0].batch if sizes else 1)
        taken = {port.name for port in model.inputs}
        if not taken <= set(inputs) and (list(inputs) != [""] or len(taken) > 1):
            raise RecordError(
                f"{named(self.deployed.folder)}, row {self.deployed.row.index}: its file takes "
                f"{named(', '.join(sorted(taken)))}, and the task gives "
                f"{named(', '.join(inputs) or 'one input')}; run the recipe again."
            )
        found = model.predict(model.fitted(inputs))
        names = [port.name for port in model.outputs]
        features = None if self.features is None else found[names.index(self.features)]
        own = [a for a, name in zip(found, names, strict=True) if name != self.features]
        outputs = self.scoring.named(own, self.deployed.found.artifact.outputs)
        leading: Arrays = self.scoring.leading.outputs_of(outputs)
        assert not isinstance(leading, dict)
        return leading, None if features is None else pooled(features)

    def file_facts(self) -> dict[str, Any]:
        """What a runner needs to know of the file: its inputs, and which output is which."""
        model = ModelFile(self.path, 1)
        names = [port.name for port in model.outputs if port.name != self.features]
        recorded = self.deployed.found.artifact.outputs
        leading = self.scoring.leading.output
        place = recorded.index(leading) if leading in recorded else 0
        return {
            "inputs": [
                {"name": port.name, "type": port.type, "shape": list(port.shape)}
                for port in model.inputs
            ],
            "output": names[place],
            "features": self.features,
        }
