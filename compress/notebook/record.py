"""Record: what a run gives back; the data of ``record.json`` with what lies beside it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import PrivateAttr
from torch import nn

from compress import record as facts
from compress.budget import Budget, check_budget
from compress.candidate import Architecture, Candidate
from compress.config.references import CodeReferences
from compress.config.settings import Settings
from compress.errors import CheckpointError, MissingExtra, RecipeError, RecordError
from compress.formatting import sanitize
from compress.models.build import build_module
from compress.pareto import Recommendation, recommend
from compress.quoting import shown
from compress.record import Row
from compress.report import pareto_figure, render_table, write_report
from compress.report.csv import csv_text
from compress.report.page.fragment import fragment
from compress.running.row_candidate import candidate_of
from compress.ship_folder import SHIP

if TYPE_CHECKING:
    import pandas as pd

    from compress.report.figures.canvas import Figure

__all__ = ["Record"]

_ADVISED = "advised"
_PAGE = "report.html"


class Record(Settings, facts.Record):
    """What a run leaves behind, and where: its rows, and the files and models of each.

    Rows are named by their number, by their label (``"quantize"``), or as ``"advised"``, the row to
    ship. A notebook shows the answer, the table and the plot; ``print`` gives the table as text.

    Raises:
        RecordError: of all methods: a row or a target that is not there, or a record that was made
            by hand and has no folder.
    """

    _folder: Path | None = PrivateAttr(default=None)
    _references: CodeReferences = PrivateAttr(default_factory=CodeReferences)
    # The model that came in, which no file says how to build.
    _start: nn.Module | None = PrivateAttr(default=None)

    @classmethod
    def load(cls, path: str | Path, *, imports: Iterable[str] = ()) -> Record:
        """Read the record of a run, given its folder or the ``record.json`` in it.

        Args:
            path: the folder or the file.
            imports: modules of your own that its architectures may be from, for :meth:`module`.

        Raises:
            RecordError: no such file, not JSON, not a record of schema 1, or not as it was written.
            CodeReferenceError: a module of ``imports`` is not there.
        """
        if not isinstance(path, (str, Path)):
            raise RecordError(f"a record is read from a path; got {shown(path)}.")
        record = super().load(path)
        assert isinstance(record, cls)
        given = Path(path)
        record._folder = (given if given.is_dir() else given.parent).absolute()
        record._references = CodeReferences.of(imports)
        return record

    @classmethod
    def of_run(
        cls, record: facts.Record, folder: Path, start: nn.Module, references: CodeReferences
    ) -> Record:
        """The record of a run that just ended in ``folder``, begun with the module ``start``."""
        made = cls.model_construct(**vars(record), **(record.model_extra or {}))
        made._folder, made._start, made._references = folder, start, references
        return made

    @property
    def folder(self) -> Path:
        """The run folder."""
        if self._folder is None:
            raise RecordError(
                f"the record {self.name!r} was not read from a run folder, and has no files; read "
                "it by Record.load(folder)."
            )
        return self._folder

    @property
    def ship(self) -> Path:
        """The folder to ship, with the model of the advised row and what runs it."""
        place = self.folder / SHIP
        if not place.is_dir():
            raise RecordError(
                f"{place}: there is no such folder; `compresskit ship {self.folder}` writes it."
            )
        return place

    def report(self) -> Path:
        """Write the report into the run folder, and return the path of its page.

        Raises:
            RecipeError: a file of such a name is there that is no part of a report.
            StorageError: the disk refused.
        """
        write_report(self, self.folder)
        return self.folder / _PAGE

    def recommend(
        self, budget: Budget | Mapping[str, Any] | None = None, *, target: str | None = None
    ) -> Recommendation:
        """Which row to ship, and why.

        Args:
            budget: in place of the recipe's, as a :class:`~compress.Budget` or its keys.
            target: where; the first that was measured.

        Raises:
            RecipeError: that is no budget; or one that does not fit the metric.
        """
        if budget is None:
            return recommend(self, self._target(target))
        if not isinstance(budget, (Budget, Mapping)):
            raise RecipeError(
                f"a budget is a Budget, or a mapping of its keys; got {shown(budget)}."
            )
        limits = budget if isinstance(budget, Budget) else Budget(**budget)
        check_budget(limits, self.task.metric)
        recipe = {**self.recipe, "budget": limits.model_dump(exclude_none=True)}
        return recommend(self.model_copy(update={"recipe": recipe}), self._target(target))

    def artifact(self, row: int | str = _ADVISED, *, target: str | None = None) -> Path:
        """The file that was measured for a row: the model to deploy."""
        found, name = self._row(row, target), self._target(target)
        measured = found.on(name)
        if measured is None:
            raise RecordError(
                f"row {found.index} ({found.stage}) was not measured on {name!r}, and has no file "
                "for it."
            )
        path = self.folder / measured.artifact.path
        if not path.resolve().is_relative_to(self.folder.resolve()) or not path.is_file():
            raise RecordError(f"{path}: the file of row {found.index} is not there; run it again.")
        return path

    def module(self, row: int | str = _ADVISED, *, like: nn.Module | None = None) -> nn.Module:
        """The model of a row as a module in eval mode, in float32: what stages after it would get.

        Formats that were declared for it are not in it: :meth:`artifact` is what computes in them.

        Args:
            row: the row.
            like: a module of the class that the run began with, with any weights; needed where a
                record was read from disk and its model was given to :meth:`Recipe.run` as an
                object, since no file holds a class.

        Raises:
            CheckpointError: the saved weights are damaged, or ``like`` is of another class.
            CodeReferenceError: an architecture of your own, whose module ``imports`` did not name.
        """
        found = self._row(row, None)
        start = self._start if like is None else like

        def build(architecture: Architecture | None) -> nn.Module:
            if architecture is not None:
                return build_module(architecture, self._references)
            if not isinstance(start, nn.Module):
                raise RecordError(_needs_class(found, like))
            return Candidate.of(start, torch.zeros(1)).module

        try:
            with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and then replaced
                return candidate_of(self.folder, found, torch.zeros(1), build).module
        except CheckpointError as error:
            if like is None:
                raise
            raise CheckpointError(
                f"record.module({found.index}, like=...): {str(error).rstrip('.')}, or `like`, a "
                f"{type(like).__name__}, is not of the class that the run began with."
            ) from error

    def plot(self, target: str | None = None) -> Figure:
        """The trade-offs on a target as a matplotlib figure, which a notebook shows."""
        return pareto_figure(self, self._target(target))

    def to_dataframe(self) -> pd.DataFrame:
        """Every row on every target with all its numbers, as ``table.csv`` has them.

        Times are in seconds, sizes in bytes, shares between 0 and 1.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra("to_dataframe needs pandas: pip install pandas.") from None
        text = csv_text([(sanitize(self.name), self)])
        return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])

    def _target(self, given: str | None) -> str:
        known = self.targets
        if not known:
            raise RecordError(f"the record {self.name!r} has nothing that was measured yet.")
        if given is not None and given not in known:
            raise RecordError(
                f"nothing was measured on {shown(given)}; targets are {', '.join(known)}."
            )
        return given or known[0]

    def _row(self, given: int | str, target: str | None) -> Row:
        if isinstance(given, str) and given == _ADVISED:
            given = recommend(self, self._target(target)).index
        # Numbers of numpy too: they come from the data frame.
        is_number = hasattr(given, "__index__") and not isinstance(given, bool)
        for row in self.rows:
            if given == (row.index if is_number else row.stage):
                return row
        rows = ", ".join(f"{row.index} ({row.stage})" for row in self.rows)
        raise RecordError(f"there is no row {shown(given)}; rows are {rows}, and 'advised'.")

    def __eq__(self, other: object) -> bool:
        # Where it was read from is not what it says.
        return isinstance(other, facts.Record) and self.model_dump() == other.model_dump()

    def __repr__(self) -> str:
        said = [f"{len(self.rows)} rows"]
        if self.targets:
            advice = recommend(self, self.targets[0])
            stage = next(row.stage for row in self.rows if row.index == advice.index)
            said += [f"on {', '.join(self.targets)}", f"ship row {advice.index} ({stage})"]
        place = f" in {self._folder}" if self._folder else ""
        return f"<Record {self.name!r}: {self.status}, {', '.join(said)}{place}>"

    def __str__(self) -> str:
        return render_table(self)

    def _repr_html_(self) -> str:
        places = []
        for what, name in (("report", _PAGE), ("to ship", SHIP)):
            if self._folder is not None and (self._folder / name).exists():
                places.append((what, str(self._folder / name)))
        return fragment(self, places)


def _needs_class(row: Row, like: object) -> str:
    where = f"row {row.index} ({row.stage})"
    if like is not None:
        return f"{where}: like is a module, such as Net(); got {shown(like)}."
    return (
        f"{where}: its model was given to run as an object, and no file holds its class; give a "
        f"module of that class, with any weights: record.module({row.index}, like=Net())."
    )
