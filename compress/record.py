"""Record: what a recipe did and what each stage bought; the content of ``record.json``.

The names are fixed (schema 1): reports, merges and other people's scripts read them. Times are in
seconds, sizes in bytes, shares between 0 and 1. Reports are made from this file alone. No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from compress.budget import Budget
from compress.config.clauses import clauses
from compress.errors import RecordError
from compress.io.atomic import write_atomically
from compress.io.files import read_json
from compress.record_images import ContactSheet, ControlValue
from compress.record_scores import Accuracy, RecordFacts, SampleFacts, ServedScore, SparseFacts
from compress.record_times import Latency, SizeTiming, Speedup

__all__ = [
    "Accuracy",
    "ArtifactFacts",
    "Energy",
    "Executed",
    "FrontFacts",
    "Latency",
    "LayerWidth",
    "MeasuredQuantity",
    "Measurement",
    "Memory",
    "ParityFacts",
    "Record",
    "Row",
    "SizeTiming",
    "Speedup",
    "TaskFacts",
    "write_atomically",
]

RECORD_NAME = "record.json"
_MOST_BYTES = 256 << 20


# Of models, by the name that checkers of default values know.
class _RecordFacts(RecordFacts, BaseModel):
    pass


class _SparseFacts(SparseFacts, BaseModel):
    pass


class ArtifactFacts(_SparseFacts):
    """``path`` is relative to the run folder.

    ``float_macs`` are the multiply-accumulates of one sample that are not computed in int8, by
    operator. ``outputs`` names several outputs in the file's order, and ``open`` the axes that the
    file leaves open; the keys are absent without any.
    """

    _optional: ClassVar[tuple[str, ...]] = ("outputs", "open")

    path: str
    sha256: str
    bytes: int
    int8_mac_fraction: float
    operators: dict[str, int] = {}
    weight_bytes: dict[str, int] = {}
    graph_bytes: int = 0
    nonzero_weights: int = 0
    float_islands: list[str] = []
    float_macs: dict[str, int] = {}
    outputs: list[str] = []
    open: list[str] = []


class Memory(_RecordFacts):
    """Peak resident memory of a fresh process that loads and runs the artifact.

    ``runtime_bytes`` is the runtime's own footprint before the model is loaded;
    ``model_peak_bytes`` is the peak above it.
    """

    peak_rss_bytes: int
    model_peak_bytes: int
    runtime_bytes: int


class Energy(_RecordFacts):
    """Of one inference, from the device's own ``source``: nothing is estimated.

    What all that the sensor covers took while the model ran back to back, over the inferences: the
    median of some windows of time, and the least and most of them. ``above_idle_j`` is that less
    what was taken while nothing ran.
    """

    inference_j: float
    range_j: tuple[float, float]
    above_idle_j: float
    source: str
    inferences: int


class MeasuredQuantity(_RecordFacts):
    """A quantity without a block of its own: its median over ``samples`` fresh processes.

    In the unit of its name's ending; :mod:`compress.measure.quantities` says what the names are.
    """

    value: float
    ci95: tuple[float, float]
    samples: int


class ParityFacts(_SparseFacts):
    """Artifact against the (simulated) module it was made from.

    Of several outputs the numbers are those of the worst, and ``outputs`` has each by its name; the
    key is absent for one.
    """

    _optional: ClassVar[tuple[str, ...]] = ("outputs", "open")

    agreement: float | None = None
    max_error: float
    sqnr_db: float | None = None
    samples: int = 0
    r_squared: float | None = None
    outputs: dict[str, ParityFacts] = {}


class Executed(_RecordFacts):
    """What the runtime says it made of the artifact; ``None`` where it does not say.

    ``int8_mac_fraction`` is the share of multiply-accumulates that it computes in int8: the
    artifact's own is what onnxruntime's CPU would. ``provider_fraction`` is the share of operators
    that ran on the target's provider, and not on what it falls back to.
    """

    int8_mac_fraction: float | None = None
    provider_fraction: float | None = None


class Measurement(_SparseFacts):
    """One artifact on one target. ``latency`` etc. are ``None`` where they were not measured.

    ``metrics`` has the task's further metrics by name, and ``quantities`` what was measured beyond
    these. ``sizes`` has what was timed at each size of a file that leaves some open, that of
    ``latency`` first. ``serving`` and ``slices`` (by name) have the leading metric on samples of
    what will be served. ``controls`` (by name) has how a net that makes images follows each value.
    The keys are absent without any.
    """

    _optional: ClassVar[tuple[str, ...]] = (
        *("metrics", "quantities", "sizes", "serving", "slices", "controls"),
    )

    target: str
    runtime: str
    artifact: ArtifactFacts
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    speedup: Speedup | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    executed: Executed | None = None
    parity: ParityFacts | None = None
    warnings: list[str] = []
    metrics: dict[str, Accuracy] = {}
    quantities: dict[str, MeasuredQuantity] = {}
    sizes: list[SizeTiming] = []
    serving: ServedScore | None = None
    slices: dict[str, ServedScore] = {}
    controls: dict[str, list[ControlValue]] = {}


class LayerWidth(_RecordFacts):
    """Channels of one layer before and after a cut.

    ``reason`` is why some of them could not be removed; ``is_output`` is of layers that make the
    model's outputs, or that were to be ignored.
    """

    layer: str
    before: int
    after: int
    reason: str = ""
    is_output: bool = False


class Row(_RecordFacts):
    """One stage's result. Row 0 is the model that came in. ``stage`` is the stage's label.

    ``history`` holds what the stage reported while it trained, one entry for each epoch;
    ``widths`` has every layer of a model whose channels the stage cut;
    ``measured_with`` identifies what the measurements depend on, so that they can be re-used;
    ``reason`` is why the stage was run again, where an earlier result of it was there.
    """

    index: int
    stage: str
    kind: str
    seconds: float
    cached: bool
    fingerprint: str
    parent: str | None
    parameters: int
    nonzero_parameters: int
    macs: int
    measurements: list[Measurement] = []
    notes: list[str] = []
    history: list[dict[str, Any]] = []
    widths: list[LayerWidth] = []
    measured_with: str = ""
    reason: str = ""

    def on(self, target: str) -> Measurement | None:
        """The measurement on ``target``, if there is one."""
        return next((m for m in self.measurements if m.target == target), None)


class TaskFacts(_SparseFacts):
    """What the numbers in the record are about.

    ``reference``: whose answers stand for labels, where the test split has none. ``metric`` is the
    leading metric; ``metrics`` are further ones in the order given, by name with whether more is
    better. ``serving`` and ``slices`` (by name) are samples of what will be served. The keys are
    absent without any.
    """

    _optional: ClassVar[tuple[str, ...]] = ("metrics", "serving", "slices")

    name: str
    metric: str
    higher_is_better: bool
    test_samples: int
    reference: str | None = None
    metrics: dict[str, bool] = {}
    serving: SampleFacts | None = None
    slices: dict[str, SampleFacts] = {}


class FrontFacts(_RecordFacts):
    """The Pareto front on one target: rows that no other row is shown to beat.

    ``ties`` are pairs of rows that the data cannot tell apart in what was measured; ``scales`` says
    on which scale (``linear``, ``log2``) each objective enters the hypervolume.
    """

    objectives: list[str]
    front: list[int]
    hypervolume: float
    reference_point: list[float]
    ties: list[tuple[int, int]] = []
    scales: list[str] = []


class Record(_SparseFacts):
    """Everything that a run leaves behind, less the models themselves.

    ``contact_sheet`` is there where the run folder has pictures of what the rows make.
    """

    _optional: ClassVar[tuple[str, ...]] = ("contact_sheet",)

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    seed: int
    status: Literal["running", "done", "failed", "interrupted"]
    error: str | None = None
    task: TaskFacts
    baseline: int
    rows: list[Row] = []
    pareto: dict[str, FrontFacts] = {}
    contact_sheet: ContactSheet | None = None

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    @field_validator("recipe")
    @classmethod
    def _holds_a_budget_if_any(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        # Read by every report: a wrong one is of the file, and not found by whoever asks first.
        try:
            Budget.model_validate(recipe.get("budget") or {})
        except ValidationError as error:
            place, clause = clauses(error)[0]
            raise ValueError(f"{'.'.join(map(str, ('budget', *place)))}: {clause}") from None
        return recipe

    @property
    def budget(self) -> Budget | None:
        """The recipe's budget, if it has one."""
        given = self.recipe.get("budget")
        return Budget.model_validate(given) if given else None

    @property
    def targets(self) -> list[str]:
        """Names of the targets measured, in order of appearance."""
        return list(dict.fromkeys(m.target for row in self.rows for m in row.measurements))

    def dumps(self) -> str:
        """JSON text with fixed names, a checksum of all of it, and a trailing newline."""
        content = self.model_dump(mode="json", by_alias=True)
        content["checksum"] = _checksum(content)
        return json.dumps(content, indent=1) + "\n"

    def save(self, folder: Path) -> None:
        """Write ``record.json`` so that a reader sees the old or the new one, never a part.

        Raises:
            StorageError: the disk refused; the previous file is intact.
        """
        write_atomically(folder / RECORD_NAME, self.dumps())

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read ``record.json``, given it or its folder.

        Raises:
            RecordError: no such file, not JSON, not a record of schema 1, or not as it was written.
        """
        given = Path(path)
        file = given / RECORD_NAME if given.is_dir() else given
        if not file.exists() and not file.is_symlink():
            raise RecordError(
                f"{file}: there is no record here; give a folder that `compresskit run` wrote."
            )
        if file.suffix in (".yaml", ".yml"):
            raise RecordError(f"{file}: this is a recipe; give the folder of a run of it.")
        try:
            content = read_json(file, _MOST_BYTES, RecordError)
        except RecordError as error:
            if not isinstance(error.__cause__, ValueError):  # it cannot be read, as it may be well
                raise
            raise RecordError(
                f"{str(error).rstrip('.')}; running the recipe again mends its record."
            ) from error
        try:
            if not isinstance(content, dict):
                raise RecordError(f"{file}: not a record of schema 1: it holds no mapping.")
            checksum = content.pop("checksum", None)
            record = cls.model_validate(content)
        except ValidationError as error:
            place, clause = clauses(error)[0]
            where = ".".join(str(part) for part in place) or "the file"
            raise RecordError(f"{file}: not a record of schema 1: {where}: {clause}.") from error
        # Records of earlier versions have no checksum.
        if checksum not in (None, _checksum(content)):
            raise RecordError(
                f"{file}: the record was changed or damaged since it was written (its checksum is "
                "another); repeat the run, which makes it again from what it kept."
            )
        return record


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
