"""Built-in tasks, by name.

A recipe's ``task:`` is a name, or a mapping of a name and options; :class:`TaskConfig` is either.
Adding a task is one file and one line of ``TASKS``. Importing this imports no torch.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from compress.config.fields import Flag, Name, Whole
from compress.config.recipe_file import RecipePath
from compress.config.references import is_reference
from compress.errors import RecipeError
from compress.outputs import OutputKind
from compress.quoting import clipped, shown
from compress.task import MetricName, Task

__all__ = ["TASKS", "TaskConfig", "adjusted", "limited", "make_task", "without_labels"]

#: Name -> ``module:function``; the function's keyword arguments are the task's options.
TASKS: Mapping[str, str] = MappingProxyType(
    {
        "digits": "compress.tasks.digits:make_task",
        "fashion-mnist": "compress.tasks.fashion_mnist:make_task",
        "image-folder": "compress.tasks.image_folder:make_task",
        "language": "compress.tasks.language:make_task",
        "text": "compress.tasks.text:make_task",
        "wordnet": "compress.tasks.wordnet:make_task",
    }
)

#: Options that every task takes.
_OF_EVERY_TASK = ("limit", "inputs_only", "outputs", "metric")
_LONGEST_TEXT, _LARGEST_LIMIT = 65_536, 1_000_000_000


class TaskConfig(BaseModel):
    """A task as a recipe writes it: ``fashion-mnist``, or ``{name: fashion-mnist, limit: 1000}``.

    ``name`` is built in, or ``module:function``. With ``limit`` training sees the first ``limit``
    samples only: for smoke runs, and for questions about few data. With ``inputs_only`` no split
    has labels, as where nobody knows them. ``outputs`` and ``metric`` say what the model's outputs
    are and how they are scored, where the task does not. The other options are keyword arguments of
    the task's own function, which may take more than are named here where it is the user's own.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Name
    folder: RecipePath | None = None
    download: Flag | None = None
    augment: Flag | None = None
    size: Whole | None = Field(default=None, ge=8, le=1024)
    grey: Flag | None = None
    path: RecipePath | None = None
    tokenizer: RecipePath | None = None
    max_length: Whole | None = Field(default=None, ge=1, le=_LONGEST_TEXT)
    length: Whole | None = Field(default=None, ge=2, le=_LONGEST_TEXT)
    labels: Flag | None = None
    limit: Whole | None = Field(default=None, ge=1, le=_LARGEST_LIMIT)
    inputs_only: Flag = False
    outputs: OutputKind | None = None
    metric: MetricName | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What was set for the task's own function."""
        said = self.model_dump(exclude={"name", *_OF_EVERY_TASK}, exclude_none=True)
        return {**said, **(self.model_extra or {})}

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

    @model_validator(mode="after")
    def _built_in_options_are_known(self) -> TaskConfig:
        if self.name not in TASKS:
            return self
        known = [field for field in type(self).model_fields if field != "name"]
        for option in self.model_extra or {}:
            near = difflib.get_close_matches(clipped(option), known, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"there is no option {shown(option)}; {meant}built-in tasks take {', '.join(known)}"
            )
        return self

    @model_serializer(mode="wrap")
    def _with_what_is_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Which is no default of somebody else's function, and must not be left out as one.
        return {**dict.fromkeys(_nulls(self)), **handler(self)}


def make_task(config: TaskConfig | str) -> Task:
    """The built-in task that ``config`` names, with its options.

    Raises:
        RecipeError: no built-in task of this name, or an option that it does not take.
        DataError: its data are missing or damaged.
    """
    name = config if isinstance(config, str) else config.name
    if name not in TASKS:
        raise RecipeError(_unknown(name))
    function = _resolve(TASKS[name])
    config = TaskConfig(name=name) if isinstance(config, str) else config
    taken = inspect.signature(function).parameters
    for option, parameter in taken.items():
        if parameter.default is parameter.empty and option not in config.options:
            raise RecipeError(
                f"task.{option}: the task {name!r} needs it; write `task: {{name: {name}, "
                f"{option}: ...}}`."
            )
    for option in config.options:
        if option not in taken:
            raise RecipeError(
                f"task.{option}: the task {name!r} does not take it; it takes "
                f"{', '.join([*taken, *_OF_EVERY_TASK])}."
            )
    return adjusted(function(**config.options), config)


def adjusted(task: Task, config: TaskConfig) -> Task:
    """``task`` with those options of ``config`` that every task takes."""
    said: dict[str, Any] = {"outputs": config.outputs, "metric": config.metric}
    said = {key: value for key, value in said.items() if value is not None}
    if config.metric is not None:
        said["higher_is_better"] = None  # which the built-in metrics know themselves
    task = limited(replace(task, **said), config.limit)
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
    )


def _resolve(reference: str) -> Callable[..., Task]:
    module, _, function = reference.partition(":")
    found: Callable[..., Task] = getattr(importlib.import_module(module), function)
    return found


def _nulls(config: BaseModel) -> list[str]:
    return [option for option, value in (config.model_extra or {}).items() if value is None]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(clipped(name), TASKS, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"there is no built-in task {shown(name)}; {meant}built in are {', '.join(TASKS)}, and a "
        "task of your own is written module:function."
    )
