"""Built-in tasks, by name.

A recipe's ``task:`` is a name, or a mapping of a name and options; :class:`TaskConfig` is either.
Adding a task is one file and one line of ``TASKS``: its options are the keyword arguments of its
function, whose annotations say their types and bounds. Importing this imports no torch.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from compress.config.descriptions import with_variants
from compress.config.docstrings import argument_docs, before_sections, in_markdown
from compress.config.fields import Flag, Name, Whole
from compress.config.own_parts import OwnPart, Role
from compress.config.own_settings import OwnSettings, refused
from compress.config.recipe_file import RecipePath, beside_recipe
from compress.config.references import CodeReferences, is_reference
from compress.config.settings import Settings
from compress.data.fields import Fields
from compress.errors import RecipeError
from compress.metrics import METRICS, MetricName, MetricOn
from compress.outputs import OUTPUT_KINDS, OutputKind
from compress.quoting import clipped, shown
from compress.task import SLICE_NAME, Task

__all__ = [
    "TASKS",
    "MetricConfig",
    "TaskConfig",
    "adjusted",
    "limited",
    "make_own_task",
    "make_task",
    "without_labels",
]

#: Name -> ``module:function``; the function's keyword arguments are the task's options.
TASKS: Mapping[str, str] = MappingProxyType(
    {
        "coco-folder": "compress.tasks.coco_folder:make_task",
        "datasets-folder": "compress.tasks.datasets_folder:make_task",
        "digit-scenes": "compress.tasks.digit_scenes:make_task",
        "digits": "compress.tasks.digits:make_task",
        "fashion-mnist": "compress.tasks.fashion_mnist:make_task",
        "image-folder": "compress.tasks.image_folder:make_task",
        "image-to-image": "compress.tasks.image_to_image:make_task",
        "language": "compress.tasks.language:make_task",
        "mask-folder": "compress.tasks.mask_folder:make_task",
        "npz": "compress.tasks.npz:make_task",
        "parquet": "compress.tasks.parquet:make_task",
        "text": "compress.tasks.text:make_task",
        "wordnet": "compress.tasks.wordnet:make_task",
    }
)

_LARGEST_LIMIT = 1_000_000_000
_MOST_SLICES = 20
#: Options that every task takes.
_OF_EVERY_TASK = ("limit", "inputs_only", "outputs", "metric", "fields", "serving", "slices")
#: Options of one's own task that are paths from the recipe's folder, whatever is annotated.
_PATHS = ("folder", "path", "tokenizer")


#: What a slice may be called.
SliceName = Annotated[str, Field(pattern=f"^(?:{SLICE_NAME})$")]


class MetricConfig(Settings):
    """A metric on one output of a model that has several: ``{name: f1, on: scores}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: MetricName
    """The metric, one of those that are built in."""
    on: Name
    """The output that it scores, by name."""

    @property
    def metric(self) -> MetricOn:
        """The metric itself."""
        return MetricOn(self.name, self.on)


_Metric = MetricName | MetricConfig


class TaskConfig(OwnSettings):
    """A task as a recipe writes it: ``fashion-mnist``, or ``{name: fashion-mnist, limit: 1000}``.

    The options that are not listed here are those of the task that is named.
    """

    role: ClassVar[Role] = Role("task", reserved=("name", *_OF_EVERY_TASK), makes=True)
    named_by: ClassVar[str] = "name"

    name: Name
    """The task: built in, or a function or class of your own as ``module:name``."""
    limit: Whole | None = Field(default=None, ge=1, le=_LARGEST_LIMIT)
    """Training sees the first so many samples only: for smoke runs, and for experiments with little
    data. Where not given, all of them."""
    inputs_only: Flag = False
    """Whether no split has labels, as in distillation on unlabeled data."""
    outputs: OutputKind | Annotated[dict[Name, OutputKind], Field(min_length=1)] | None = None
    """What the model's outputs are, where the task does not say: ``class-scores`` are logits of one
    class for each sample or position, ``values`` numbers, ``independent-logits`` a yes or no for
    each output, ``image`` values of pixels, ``tokens`` logits of a token at every place. Of a model
    with several outputs, what each is that ships, by its name."""
    metric: _Metric | Annotated[tuple[_Metric, ...], Field(min_length=1)] | None = None
    """How outputs are scored, where the task does not say, or in its place. Of several the first
    one leads, and the others are recorded beside it; of a model with several outputs each says
    which it is on: ``{name: f1, on: scores}``."""
    fields: Fields | None = None
    """Which parts of a sample are its inputs and its label, and what is padded."""
    serving: RecipePath | None = None
    """A folder or file with a sample of what the device will see, in the form of the task's own
    data, with labels or without. Every row is scored on it beside the test split, and the report
    says whether the model tells it from validation data. It is never used for training, calibration
    or any choice."""
    slices: Annotated[dict[SliceName, RecipePath], Field(max_length=_MOST_SLICES)] | None = None
    """Further samples of the same form, by names of your own, such as ``dark`` and ``night``: every
    row is scored on each."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASKS and not is_reference(name):
            raise ValueError(_unknown(name))
        return name

    @field_validator("outputs", mode="before")
    @classmethod
    def _outputs_are_kinds(cls, given: Any) -> Any:
        for name, kind in given.items() if isinstance(given, Mapping) else ():
            if kind not in OUTPUT_KINDS:
                raise ValueError(
                    f"the output {shown(name)} is one of {', '.join(OUTPUT_KINDS)}; got "
                    f"{shown(kind)}"
                )
        if isinstance(given, Mapping) and not given:
            raise ValueError("give each output that ships by name, with what it is; got none")
        return given

    @field_validator("metric", mode="before")
    @classmethod
    def _metrics_are_built_in(cls, given: Any) -> Any:
        for one in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(one, Mapping) and (problem := _metric_problem(one)):
                raise ValueError(problem)
        return given

    @model_validator(mode="after")
    def _options_are_read(self, info: ValidationInfo) -> TaskConfig:
        folder = (info.context or {}).get("folder")
        if self.name not in TASKS:
            self.take({name: _path(name, value, info) for name, value in self.options.items()})
            return self
        # As for other keys of a recipe, null stands for the default.
        given = {name: value for name, value in self.options.items() if value is not None}
        values, problems = _built_in(self.name).checked(given, folder)
        # A missing key is reported when the task is made: options may be added in Python.
        problems = [one for one in problems if one.path]
        if problems:
            raise refused(self, problems)
        self.take(values)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema, with the options of a built-in task where the name is that one."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        variants = {name: _options_schema(name) for name in TASKS}
        return with_variants(schema, "name", variants)


def make_task(config: TaskConfig | str, references: CodeReferences | None = None) -> Task:
    """The built-in task that ``config`` names, with its options.

    Args:
        config: its name, or that with options.
        references: the code that a task may follow where an option of it names some.

    Raises:
        RecipeError: no built-in task of this name, or an option that it needs and was not given.
        DataError: its data are missing or damaged.
    """
    name = config if isinstance(config, str) else config.name
    if name not in TASKS:
        raise RecipeError(_unknown(name))
    config = TaskConfig(name=name) if isinstance(config, str) else config
    part = _built_in(name)
    for key in part.keys.values():
        if key.is_required and key.name not in config.options:
            raise RecipeError(
                f"task.{key.name}: the task {name!r} needs it; write `task: {{name: {name}, "
                f"{key.name}: ...}}`."
            )
    follows = "references" in inspect.signature(part.found).parameters
    given = {"references": references} if follows else {}
    made: Task = part.found(**config.options, **given)
    return adjusted(made, config)


def make_own_task(config: TaskConfig, references: CodeReferences) -> Task:
    """The user's task that ``config`` names, with its options.

    Raises:
        RecipeError: options that it does not take, or it makes no task.
        CodeReferenceError: code that was not allowed, is not there, or failed.
    """
    where = f"task {config.name!r}"
    made = config.part(references, where).product(config.options, Task, where)
    if not isinstance(made, Task):
        raise RecipeError(
            f"task: {config.name} must return a compress.Task; got {type(made).__name__}."
        )
    return adjusted(made, config)


def adjusted(task: Task, config: TaskConfig) -> Task:
    """``task`` with those options of ``config`` that every task takes."""
    changes: dict[str, Any] = {} if config.outputs is None else {"outputs": config.outputs}
    if config.fields is not None:
        changes["fields"] = config.fields
    if config.serving is not None or config.slices:
        from compress.tasks.serving import with_served

        changes |= with_served(task, config.serving, config.slices or {}, config.options)
    if config.metric is not None:
        given = config.metric if isinstance(config.metric, tuple) else (config.metric,)
        leading, *further = (one if isinstance(one, str) else one.metric for one in given)
        # A built-in metric has its own direction.
        changes |= {
            "metric": leading,
            "further_metrics": tuple(further),
            "higher_is_better": None,
        }
    task = limited(replace(task, **changes), config.limit)
    return without_labels(task) if config.inputs_only else task


def limited(task: Task, limit: int | None) -> Task:
    """``task`` with its first ``limit`` training samples only; ``None`` keeps all of them."""
    from compress.tasks.arrays import first

    return task if limit is None else replace(task, train=first(task.train, limit))


def without_labels(task: Task) -> Task:
    """``task`` with the inputs of all its splits, and nothing else."""
    from compress.tasks.arrays import inputs_of

    return replace(
        task,
        train=inputs_of(task.train),
        validation=inputs_of(task.validation),
        test=inputs_of(task.test),
        serving=None if task.serving is None else inputs_of(task.serving),
        slices={name: inputs_of(split) for name, split in task.slices.items()},
    )


def _built_in(name: str) -> OwnPart:
    """A built-in task, whose function is looked at as one's own is."""
    module, _, function = TASKS[name].partition(":")
    found: Callable[..., Task] = getattr(importlib.import_module(module), function)
    # No key of a recipe: whoever makes the task gives it.
    role = replace(TaskConfig.role, reserved=(*TaskConfig.role.reserved, "references"))
    return OwnPart(f"the task {name!r}", found, role)


def _metric_problem(given: Mapping[Any, Any]) -> str:
    """Why a mapping is no metric on an output, as a clause; empty where it is one."""
    if not (given.keys() == {"name", "on"} and all(isinstance(v, str) for v in given.values())):
        return f"a metric on one output is {{name: f1, on: OUTPUT}}; got {shown(dict(given))}"
    if given["name"] not in METRICS:
        return f"there is no metric {shown(given['name'])}; built in are {', '.join(METRICS)}"
    return ""


def _path(name: str, value: Any, info: ValidationInfo) -> Any:
    is_path = name in _PATHS and isinstance(value, str)
    return beside_recipe(Path(value), info) if is_path else value


def _options_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a built-in task's options, as its function describes them."""
    part = _built_in(name)
    keys, described_by = part.keys.values(), argument_docs(part.found)
    module = inspect.getdoc(sys.modules[part.found.__module__]) or ""
    what = in_markdown(module.removeprefix(f"The task ``{name}``: "))
    how = before_sections(inspect.getdoc(part.found) or "").partition("The task: ")[2]
    properties = {}
    for key in keys:
        default = {} if key.is_required else {"default": key.default}
        described = {"description": described_by.get(key.name, "")}
        values = key.json_schema()
        # As for other keys of a recipe, null stands for the default.
        values = values if "anyOf" in values else {"anyOf": [values, {"type": "null"}]}
        properties[key.name] = {**values, **default, **described}
    return {
        "description": "\n\n".join(one[:1].upper() + one[1:] for one in (what, how) if one),
        "properties": properties,
        "required": [key.name for key in keys if key.is_required],
    }


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(clipped(name), TASKS, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"there is no built-in task {shown(name)}; {meant}built in are {', '.join(TASKS)}, and a "
        "task of your own is written module:function."
    )
