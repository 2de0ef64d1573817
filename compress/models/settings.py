"""Models in recipes: a block that says how to build one, and where its weights are.

Used for the model that enters, for students and for teachers (``compress.distillation.teachers``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, to_jsonable_python
from torch import nn

from compress.candidate import Architecture, load_weights
from compress.config.descriptions import with_variants
from compress.config.fields import Flag, Name, Whole
from compress.config.own_parts import Role
from compress.config.own_settings import OwnSettings
from compress.config.recipe_file import RecipePath, beside_recipe, located
from compress.config.references import is_reference
from compress.config.settings import Settings
from compress.errors import RecipeError
from compress.models.hub_tasks import HUB_TASKS
from compress.models.huggingface import ARCHITECTURE as HUGGING_FACE
from compress.models.huggingface import (
    HubModel,
    HubTask,
    Pooling,
    load_folder,
    read_architecture,
    tokenizer_digest,
)
from compress.models.sizes import sizes_of, takes_classes
from compress.quoting import shown
from compress.task import Task
from compress.training.loop import isolated
from compress.zoo import ARCHITECTURES, check_options, fitting_options, options_schema

__all__ = [
    "BlocksSettings",
    "HubSettings",
    "ModelSettings",
    "StartSettings",
    "StudentSettings",
    "build_model",
    "is_onnx",
    "uses_of_onnx",
]


_LAST_BLOCK = 9_999


def is_onnx(value: Any) -> bool:
    """Whether a value names an ONNX file."""
    return isinstance(value, (str, Path)) and str(value).lower().endswith(".onnx")


def uses_of_onnx(file: Any, place: Any = None) -> str:
    """What can be done with an ONNX file, for a sentence that refuses something else.

    Args:
        file: as a recipe names it.
        place: from the current folder, where that is another path.
    """
    return (
        f"{file} can teach (`teacher: {{onnx: {file}}}` in a distill stage) and be measured "
        f"(`compresskit bench {place or file}`)"
    )


class ModelSettings(OwnSettings):
    """A model by its architecture; further keys are options of that, and reach it.

    Channels, features and classes that are not given are those of the task, where a built-in net
    takes them.
    """

    role: ClassVar[Role] = Role("architecture", reserved=("arch", "weights"), makes=True)
    named_by: ClassVar[str] = "arch"

    arch: Name
    """The architecture: built in, or a class or function of your own as ``module:name``."""
    weights: RecipePath | None = None
    """A safetensors file, or what ``torch.save`` wrote of a state dict; relative to the recipe.
    Where not given, weights are random, from the seed."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema, with the options of a built-in architecture where that is named."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        variants = {name: options_schema(name) for name in ARCHITECTURES}
        return with_variants(schema, "arch", variants)

    @field_validator("arch", "weights", mode="before")
    @classmethod
    def _is_no_onnx(cls, value: Any) -> Any:
        if is_onnx(value):
            problem = "an ONNX file is neither an architecture nor its weights"
            given = "weights are a safetensors file, or a state dict of torch.save"
            raise ValueError(f"{problem}: {uses_of_onnx(value)}; {given}")
        return value

    @model_validator(mode="after")
    def _options_are_known(self) -> ModelSettings:
        if self.arch == HUGGING_FACE or is_reference(self.arch):
            return self
        try:
            check_options(self.arch, self.options)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def architecture(self) -> Architecture:
        """How to build it from nothing."""
        return Architecture(arch=self.arch, options=to_jsonable_python(self.options))

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        return self.arch if self.own is None else self.described

    def fill(self, module: nn.Module) -> None:
        """Load the weights, where there are any."""
        if self.weights is not None:
            load_weights(module, self.weights)

    def for_task(self, task: Task) -> ModelSettings:
        """With the task's channels, features and classes, where a built-in net takes them.

        What the recipe says stays; so does a net of the user's own, which knows best.
        """
        if self.arch not in ARCHITECTURES:
            return self
        given = self.options
        fitting = fitting_options(self.arch, given, sizes_of(task))
        if fitting == given:
            return self
        try:
            return self.model_validate({"arch": self.arch, "weights": self.weights, **fitting})
        except ValidationError as error:
            problem = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise RecipeError(f"task {task.name!r}: {problem}") from error


class HubSettings(Settings):
    """A model from a folder in the form of the Hugging Face hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hf: RecipePath
    """The folder, which has ``config.json``: a path from the recipe, or ``package:NAME/...`` for
    one in an installed package."""
    task: HubTask | Literal["auto"] = "feature-extraction"
    """What the model is used for: sentence embeddings (``feature-extraction``), or the logits of
    its classifier or language model; ``auto`` is what the class that its configuration names is
    for."""
    config: dict[str, Any] = Field(default={})
    """Changes of its configuration, by key, such as ``num_hidden_layers: 3``; what then no longer
    fits its weights needs ``pretrained: false``."""
    pretrained: Flag = True
    """Whether the folder's weights are loaded; ``false`` starts from random ones."""
    pooling: Pooling | None = None
    """How the states of tokens become one embedding. Where not given, as the folder says."""
    normalize: Flag | None = None
    """Whether embeddings are scaled to length 1. Where not given, as the folder says."""
    # The task's choice: whether logits of tokens are (n, classes, tokens).
    _classes_first: bool = PrivateAttr(default=False)

    @property
    def architecture(self) -> Architecture:
        """How to build it from nothing, without the folder.

        Raises:
            RecipeError: no such folder, or none of an encoder.
        """
        return read_architecture(
            located(self.hf),
            self.task,
            changes=self.config,
            pooling=self.pooling,
            normalize=self.normalize,
            classes_first=self._classes_first,
        )

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        return f"model like {self.hf.name}"

    def fill(self, module: nn.Module) -> None:
        """Load the folder's weights, unless it starts from nothing."""
        if self.pretrained:
            assert isinstance(module, HubModel)
            load_folder(module, located(self.hf))

    def for_task(self, task: Task) -> HubSettings:
        """Itself, giving its logits as the task takes them.

        Raises:
            RecipeError: the folder's tokenizer is not that of the task, or the task is to tell the
                next token and the model is for something else.
        """
        own = tokenizer_digest(located(self.hf))
        if task.tokenizer is not None and own is not None and own != task.tokenizer:
            raise RecipeError(
                f"hf: {self.hf}: its tokenizer is not that of task {task.name!r}, so that ids "
                "would mean other words to it; teacher, student and task need one tokenizer."
            )
        if not takes_classes(task):
            return self
        use = self.architecture.options["task"]
        if task.outputs == "tokens" and use != "text-generation":
            raise RecipeError(
                f"hf: {self.hf}: task {task.name!r} is to tell the next token, and the model is "
                f"used for {use}; write `task: text-generation` beside hf, for a causal model."
            )
        fitted = self.model_copy()
        fitted._classes_first = HUB_TASKS[use].for_each_token
        return fitted


class BlocksSettings(Settings):
    """A student that keeps some blocks of the present model, with their weights.

    Source: Sanh et al. 2019, "DistilBERT"; Jiao et al. 2020, "TinyBERT".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Annotated[Whole, Field(ge=0, le=_LAST_BLOCK)], ...] = Field(
        min_length=1, max_length=_LAST_BLOCK + 1
    )
    """The blocks that it keeps, counted from 0, in order."""

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        return f"model of the blocks {', '.join(map(str, self.layers))}"


def _sort_of_model(block: Any) -> str:
    # Tags are no keys of a recipe, so that messages about the keys need not tell them apart.
    if isinstance(block, str):
        return "of-none"

    def has(key: str) -> bool:
        return key in block if isinstance(block, dict) else hasattr(block, key)

    return "of-" + next((key for key in ("arch", "hf", "layers") if has(key)), "arch")


def _start_is_a_block(value: Any, info: ValidationInfo) -> Any:
    if (file := _onnx_of(value)) is not None:
        uses = uses_of_onnx(file, beside_recipe(Path(str(file)), info))
        raise ValueError(
            f"an ONNX file cannot begin a recipe yet: {uses}; begin with arch and weights, or hf"
        )
    if not isinstance(value, (dict, BaseModel)):
        problem = f"a model is a block such as {{arch: resnet}}; got {shown(value)}"
        raise ValueError(problem)  # noqa: TRY004 - which is what pydantic takes
    if _sort_of_model(value) == "of-layers":
        raise ValueError("layers is for a student; a model is arch or hf")
    return value


def _student_is_a_block(value: Any, info: ValidationInfo) -> Any:
    if (file := _onnx_of(value)) is not None:
        uses = uses_of_onnx(file, beside_recipe(Path(str(file)), info))
        raise ValueError(
            f"an ONNX file cannot learn: {uses}; a student is arch, hf, layers or self"
        )
    if value != "self" and not isinstance(value, (dict, BaseModel)):
        raise ValueError(
            "a student is self, or a block such as {arch: resnet}, {arch: module:Class} for code "
            f"of your own, or {{layers: [0, 2]}}; got {shown(value)}"
        )
    return value


def _onnx_of(value: Any) -> Any:
    """The ONNX file that is given in place of a model, if one is."""
    if not isinstance(value, dict):
        return value if is_onnx(value) else None
    if value.keys().isdisjoint(("arch", "hf", "layers")):
        return value.get("onnx")
    return next((value[key] for key in ("arch", "hf") if is_onnx(value.get(key))), None)


_OfArchitecture = Annotated[ModelSettings, Tag("of-arch")]
_OfFolder = Annotated[HubSettings, Tag("of-hf")]
#: A model that a recipe starts from: ``arch`` or ``hf``.
StartSettings = Annotated[
    _OfArchitecture | _OfFolder,
    Discriminator(_sort_of_model),
    BeforeValidator(_start_is_a_block),
]
#: A model that learns: ``arch``, ``hf``, ``layers``, or the present one.
StudentSettings = Annotated[
    _OfArchitecture
    | _OfFolder
    | Annotated[BlocksSettings, Tag("of-layers")]
    | Annotated[Literal["self"], Tag("of-none")],
    Discriminator(_sort_of_model),
    BeforeValidator(_student_is_a_block),
]


def build_model(
    settings: ModelSettings | HubSettings, build: Callable[[Architecture], nn.Module], seed: int
) -> nn.Module:
    """The module with its weights, float32, eval and trainable.

    Raises:
        RecipeError: no such architecture or folder, or options that it does not take.
        CheckpointError: weights that cannot be read or do not fit.
    """
    with isolated(seed):
        module = build(settings.architecture)
    settings.fill(module)
    return module.float().eval().requires_grad_(True)
