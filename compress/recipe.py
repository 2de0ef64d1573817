"""Recipe: a list of stages with a name and a seed; order and repetition are the point.

::

    Recipe(stages=[DistillStage(...), QuantizeStage(...), PruneStage(...)]).run(module, task)

    Recipe.load("recipes/quickstart.yaml").execute(workdir="runs/quickstart")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    field_validator,
)
from torch import nn

from compress import record as facts
from compress.budget import Budget
from compress.cache import Store
from compress.candidate import Candidate
from compress.config.fields import LARGEST_SEED, Whole
from compress.config.own_settings import validation_context
from compress.config.recipe_file import Document, parse, parse_file, sentence, with_settings
from compress.config.recipe_text import text_of
from compress.config.references import CodeReferences
from compress.config.settings import Settings
from compress.errors import RecipeError
from compress.events import EventCallback
from compress.fingerprints import DataDigestCache, FileDigestCache
from compress.measure.own_target import OwnTargetSettings
from compress.measure.recipe_targets import LocalSettings, TargetSettings, check_blocks
from compress.measure.target import Mode, Target
from compress.models.build import build_module
from compress.models.settings import StartSettings, build_model
from compress.notebook import Record
from compress.notebook.finish import check_place, finish
from compress.progress import progress_for
from compress.quoting import shown
from compress.running.folder import RunFolder
from compress.running.forecast import Forecast, forecast
from compress.running.job import Job
from compress.running.loop import run
from compress.running.scoring import Scoring, scoring_of, supervision_of_job
from compress.running.start import candidate_from, check_run_arguments, example_of
from compress.stages import STAGES, Stage
from compress.stages.blocks import check_references, check_stages, stages_of
from compress.task import Task
from compress.tasks import TaskConfig, make_own_task, make_task

__all__ = ["Recipe", "TargetSettings"]

_MOST_STAGES, _MOST_TARGETS = 1_000, 100


class Recipe(Settings):
    """A list of stages, and what they are run on.

    ``task``, ``model`` and ``targets`` make a recipe runnable from a file; :meth:`run` takes them
    as objects instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    """The version of this format of recipes."""
    name: str = Field(default="recipe", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """What the run is called; its folder is ``runs/NAME`` where ``--out`` does not say."""
    description: str = ""
    """What the recipe is for, in a sentence; the report shows it."""
    seed: Whole = Field(default=0, ge=0, le=LARGEST_SEED)
    """Where all random numbers of the run come from: weights, order, augmentation. ``--repeat N``
    takes this and the next ones."""
    task: TaskConfig | None = None
    """What the model is for: data, metric and loss. A built-in name, a block with its options, or
    ``module:function`` for one of your own."""
    model: StartSettings | None = None
    """The model that enters: a block with ``arch``, or with ``hf`` for a folder."""
    targets: Annotated[
        tuple[TargetSettings, ...],
        Field(min_length=1, max_length=_MOST_TARGETS),
        BeforeValidator(check_blocks),
    ] = (LocalSettings(),)
    """Devices and runtimes that every row is measured on; the first one leads. Where not given,
    this machine with onnxruntime, one thread and batch 1."""
    budget: Budget | None = None
    """What the device allows; drawn in the plots, and what decides which row to ship. Where not
    given, nothing is limited."""
    stages: Annotated[
        tuple[SerializeAsAny[Stage], ...],
        Field(min_length=1, max_length=_MOST_STAGES),
        BeforeValidator(check_stages),
    ]
    """What is done, in this order, any stage any number of times; each is a block with a ``kind``.
    """

    _references: CodeReferences = PrivateAttr(default_factory=CodeReferences)
    _data: DataDigestCache = PrivateAttr(default_factory=DataDigestCache)

    @field_validator("schema_", mode="before")
    @classmethod
    def _is_a_number(cls, schema: Any) -> Any:
        if type(schema) is not int:  # true is 1 to Python
            raise ValueError(f"should be 1; got {shown(schema)}")
        return schema

    @field_validator("targets")
    @classmethod
    def _names_differ(cls, targets: tuple[TargetSettings, ...]) -> tuple[TargetSettings, ...]:
        _check_names([target.name for target in targets if target.name is not None])
        return targets

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        settings: Sequence[str] = (),
        imports: Iterable[str] = (),
        stages: Sequence[type[Stage]] = (),
    ) -> Recipe:
        """Read a recipe file.

        Args:
            path: the file.
            settings: changes such as ``stages.1.epochs=3``.
            imports: modules that ``module:name`` references in the recipe may lead to.
            stages: stage classes of your own, known by their ``kind``.

        Raises:
            RecipeError: the file is missing or wrong; the message says where.
            CodeReferenceError: a module of ``imports`` is not there.
        """
        file = Path(path)
        document = with_settings(parse_file(file), settings)
        allowed = CodeReferences.of(imports).imported().allowed
        return cls._from(document, file.parent, allowed, stages)

    @classmethod
    def loads(
        cls,
        text: str,
        *,
        imports: Iterable[str] = (),
        stages: Sequence[type[Stage]] = (),
    ) -> Recipe:
        """Read a recipe from text; paths in it are relative to the current folder.

        Raises:
            RecipeError: the text is wrong; the message says where.
        """
        return cls._from(parse(text, "recipe"), Path(), imports, stages)

    @classmethod
    def of_record(cls, record: facts.Record, *, imports: Iterable[str] = ()) -> Recipe:
        """The recipe that a record is of, as it was resolved for the run.

        Raises:
            RecipeError: it is none; the message says where.
        """
        document = parse(json.dumps(record.recipe), "the record's recipe")  # JSON is YAML
        return cls._from(replace(document, lines={}), Path(), imports, ())  # all on one line

    def dumps(self) -> str:
        """YAML that :meth:`loads` reads back as an equal recipe."""
        return text_of(self.resolved())

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default written out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def run(
        self,
        model: nn.Module | Candidate,
        task: Task,
        *,
        workdir: str | Path | None = None,
        targets: Sequence[Target] | None = None,
        mode: Mode = "default",
        fresh: bool = False,
        imports: Iterable[str] = (),
        observer: EventCallback = lambda _: None,
        cache: str | Path | None = None,
        report: bool = True,
        progress: bool | None = None,
        ship: bool | None = None,
    ) -> Record:
        """Run the stages on a model, measure the artifact after each, and write the report.

        Args:
            model: what enters, row 0 of the record: a module, of which a copy is used, with the
                first validation samples as its example; or a candidate.
            task: what it is for.
            workdir: the run folder, ``runs/NAME`` by default; an unfinished or finished run of this
                recipe in it is resumed.
            targets: where to measure; the recipe's own where not given.
            mode: ``quick``, ``default`` or ``strict``.
            fresh: start over.
            imports: modules that references in the recipe may lead to.
            observer: called with every stage, epoch and measurement, each a dict
                as ``compress.events`` lists them.
            cache: where results of all runs are kept by what they depend on: a folder, a URL that
                fsspec opens, or ``none``; by default ``COMPRESSKIT_CACHE``, or the user's cache
                folder.
            report: whether the report is written into the run folder at the end.
            progress: whether to show how far it is: a bar in a terminal, one output in a notebook,
                lines elsewhere. ``None`` shows it in the first two alone.
            ship: whether the row that is advised is written to ``ship`` in the run folder
                (docs/ship.md); ``None`` does so where the report is written.

        Raises:
            RecipeError: that is no model, no task or no list of targets, or something in the folder
                is in the way of the report.
            CompressError: with the rows so far on disk.
        """
        check_run_arguments(workdir, targets, mode, imports)
        folder = Path(workdir or Path("runs") / self.name)
        candidate = candidate_from(model, task)
        check_place(folder, report=report)
        with progress_for(progress, observer) as callback:
            job = self.job(
                candidate,
                task,
                workdir=folder,
                targets=targets,
                mode=mode,
                imports=imports,
                observer=callback,
            )
            store = Store.open(None if cache is None else str(cache))
            files = FileDigestCache(store.folder / "files.json" if store.folder else None)
            job = replace(job, store=store, files=files)
            record = run(job, fresh=fresh)
        return finish(record, job, report=report, ship=report if ship is None else ship)

    def execute(
        self,
        *,
        workdir: str | Path | None = None,
        mode: Mode = "default",
        fresh: bool = False,
        observer: EventCallback = lambda _: None,
        cache: str | Path | None = None,
        report: bool = True,
        progress: bool | None = None,
        ship: bool | None = None,
    ) -> Record:
        """Run the recipe on the task, model and targets that it names itself; see :meth:`run`.

        Raises:
            RecipeError: it names no task or no model.
            CompressError: as in :meth:`run`.
        """
        task = self.make_task()
        return self.run(
            self.make_candidate(task),
            task,
            workdir=workdir,
            mode=mode,
            fresh=fresh,
            observer=observer,
            cache=cache,
            report=report,
            progress=progress,
            ship=ship,
        )

    def plan(
        self, *, workdir: str | Path | None = None, mode: Mode = "default", reach: bool = False
    ) -> Forecast:
        """Check all that can be known before running, and forecast what a run would cost.

        ``reach``: note whether quantizing and pruning can keep a budget, by files made for that.

        Raises:
            CompressError: what a run would fail with.
        """
        task, place = self.make_task(), workdir or Path("runs") / self.name
        job = self.job(self.make_candidate(task), task, workdir=place, mode=mode)
        return forecast(job, reach=reach)

    def scoring(self, task: Task) -> Scoring:
        """How the rows of a run of this recipe are scored on ``task``.

        Raises:
            DataError: nothing says what the outputs are, and the metric depends on it.
            CompressError: a model or a teacher that cannot be made.
        """
        job = self.job(self.make_candidate(task), task, workdir=Path())
        return scoring_of(job, supervision_of_job(job))

    def make_task(self) -> Task:
        """The task that the recipe names.

        Raises:
            RecipeError: it names none, or one that is not known.
            DataError: the task's data are missing or damaged.
        """
        if self.task is None:
            raise RecipeError(f"the recipe {self.name!r} names no task; add `task: digits`, say.")
        is_own, code = self.task.own is not None, self._references
        return make_own_task(self.task, code) if is_own else make_task(self.task, code)

    def make_candidate(self, task: Task) -> Candidate:
        """The model that the recipe names, with the first validation samples as its example.

        Raises:
            RecipeError: it names none, or one that is not known.
            CheckpointError: weights that do not fit.
        """
        if self.model is None:
            text = f"the recipe {self.name!r} names no model; add `model: {{arch: resnet}}`, say."
            raise RecipeError(text)
        settings = self.model.for_task(task)
        module = build_model(settings, lambda a: build_module(a, self._references), self.seed)
        return replace(Candidate.of(module, example_of(task)), architecture=settings.architecture)

    def job(
        self,
        candidate: Candidate,
        task: Task,
        *,
        workdir: str | Path,
        targets: Sequence[Target] | None = None,
        mode: Mode = "default",
        imports: Iterable[str] = (),
        observer: EventCallback = lambda _: None,
    ) -> Job:
        """The recipe with everything that :meth:`run` runs it on, whose arguments these are.

        Raises:
            RecipeError: two targets of one name.
            CodeReferenceError: a target of one's own that was not allowed, or failed.
        """
        references = CodeReferences(self._references.allowed | frozenset(imports))
        return Job(
            name=self.name,
            recipe=self.resolved(),
            seed=self.seed,
            stages=self.stages,
            candidate=replace(candidate, outputs=task.ships) if task.ships else candidate,
            task=task,
            targets=self._targets(references) if targets is None else list(targets),
            folder=RunFolder(Path(workdir).absolute()),
            build=lambda architecture: build_module(architecture, references),
            references=references,
            mode=mode,
            callback=observer,
            budget=self.budget,
            data=self._data,
        )

    def _targets(self, references: CodeReferences) -> list[Target]:
        made = [
            one.target(references) if isinstance(one, OwnTargetSettings) else one.target()
            for one in self.targets
        ]
        try:
            _check_names([target.name for target in made])
        except ValueError as error:
            raise RecipeError(f"targets: {error}.") from error
        return made

    @classmethod
    def _from(
        cls,
        document: Document,
        folder: Path,
        imports: Iterable[str],
        own_stages: Sequence[type[Stage]],
    ) -> Recipe:
        references = CodeReferences.of(imports)
        check_references(document, references)
        kinds = {cls.model_fields["kind"].default: cls for cls in (*STAGES, *own_stages)}
        stages = stages_of(document, kinds, references, folder)
        data = {**document.data, "stages": stages}
        try:
            recipe = cls.model_validate(data, context=validation_context(folder, references))
        except ValidationError as error:
            raise RecipeError(sentence(document, error, (), cls)) from error
        recipe._references = references
        return recipe


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"each target needs a name of its own; got {', '.join(names)}")
