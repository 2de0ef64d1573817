"""Teachers of images: a built-in effect or code of one's own, and checks of what it returns."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, to_jsonable_python

from compress.config.descriptions import with_variants
from compress.config.docstrings import (
    argument_docs,
    attribute_docs,
    before_sections,
    in_markdown,
)
from compress.config.fields import Name
from compress.config.own_parts import OwnPart, Role
from compress.config.own_settings import OwnSettings, refused
from compress.config.references import CodeReferences, is_reference
from compress.effects import EFFECTS
from compress.errors import CompressError, DataError, in_words
from compress.fingerprints.code import code_fingerprint
from compress.fingerprints.content_walk import Unstable
from compress.fingerprints.named import named_files
from compress.quoting import clipped, shown

__all__ = ["ImageTeacher", "ImageTeacherSettings"]

Array = np.ndarray[Any, Any]

# How far beyond 0 and 1 arithmetic may take a pixel.
_SLACK = 1e-3


class ImageTeacherSettings(OwnSettings):
    """What makes the images that a net learns to make; further keys are its options.

    It is run before the training, once for each pair, and changes nothing in the student.
    """

    role: ClassVar[Role] = Role("teacher of images", ("image", "controls"), ("name",))
    named_by: ClassVar[str] = "name"

    name: Name
    """The effect: ``diffusion``, ``oil-paint``, ``style-transfer``, or code of your own as
    ``module:name``."""

    @model_validator(mode="after")
    def _is_known(self, info: ValidationInfo) -> ImageTeacherSettings:
        if is_reference(self.name):
            return self
        if self.name not in EFFECTS:
            raise ValueError(
                f"there is no effect {shown(self.name)}; built in are {', '.join(EFFECTS)}, and "
                "one of your own is written module:name"
            )
        folder = (info.context or {}).get("folder")
        values, problems = _built_in(self.name).checked(self.options, folder)
        if problems:
            raise refused(self, problems)
        self.take(values)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema, with the options of an effect where the name is that one."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        about = {key: in_markdown(text) for key, text in attribute_docs(cls).items()}
        keys = {
            key: {**one, "description": about[key]} for key, one in schema["properties"].items()
        }
        variants = {name: _options_schema(name) for name in EFFECTS}
        return with_variants({**schema, "properties": keys}, "name", variants)

    def build(self, references: CodeReferences) -> ImageTeacher:
        """The teacher, ready to be called.

        Raises:
            CodeReferenceError: code of one's own that was not allowed, is not there, or failed.
            RecipeError: options that it does not take.
            DataError: what it computes cannot be told from what something else does.
        """
        where = "task.teacher"
        is_own = is_reference(self.name)
        part = self.part(references, where) if is_own else _built_in(self.name)
        return ImageTeacher(self.described, part.bound(self.options, where), self._identity(part))

    def _identity(self, part: OwnPart) -> str:
        # What is in a file counts, and not where it lies: a recipe may be moved.
        placeless = {k: v.name if isinstance(v, Path) else v for k, v in self.options.items()}
        options = json.dumps(to_jsonable_python(placeless), sort_keys=True)
        paths = [one for one in self.options.values() if isinstance(one, Path)]
        try:
            code = code_fingerprint(part.found, "the teacher")
        except Unstable as problem:
            raise DataError(
                f"task.teacher: images by {self.name} cannot be kept for later, since it is not "
                f"known when they would be others ({problem})."
            ) from problem
        return f"{self.name} {options} {named_files(paths)} {code}"


def _built_in(name: str) -> OwnPart:
    module, _, made_by = EFFECTS[name].partition(":")
    found = getattr(importlib.import_module(module), made_by)
    return OwnPart(f"the effect {name!r}", found, ImageTeacherSettings.role)


def _options_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of an effect's options, as its class describes them."""
    part = _built_in(name)
    about = argument_docs(part.found)
    keys = part.keys.values()
    properties = {
        key.name: {
            **key.json_schema(),
            **({} if key.is_required else {"default": key.default}),
            "description": about[key.name],
        }
        for key in keys
    }
    what = before_sections(inspect.getdoc(part.found) or "")
    found = {"description": in_markdown(what), "properties": properties}
    required = [key.name for key in keys if key.is_required]
    return found | ({"required": required} if required else {})


@dataclass(frozen=True)
class ImageTeacher:
    """A teacher of images.

    Args:
        name: with its options, for sentences.
        call: makes an image of an image and controls (:mod:`compress.effects`).
        identity: all that distinguishes what it computes.
    """

    name: str
    call: Callable[[Array, Mapping[str, float]], Any]
    identity: str

    def __call__(self, image: Array, controls: Mapping[str, float]) -> Array:
        """What it makes of an image, ``(height, width, 3)`` in bytes.

        Args:
            image: ``(height, width, 3)`` in bytes.
            controls: by name.

        Raises:
            DataError: it failed, or returns no image of that size.
        """
        try:
            # Copies: it may write to what it is given.
            made = self.call(image.copy(), dict(controls))
        except CompressError:
            raise
        except Exception as error:
            raise DataError(f"the teacher {self.name} failed with {in_words(error)}.") from error
        return self._in_bytes(made, image.shape)

    def _in_bytes(self, made: Any, shape: tuple[int, ...]) -> Array:
        if hasattr(made, "detach"):
            made = made.detach().cpu().numpy()
        if not isinstance(made, np.ndarray):
            raise self._refusal(f"returned a {type(made).__name__}, which is no array", shape)
        if made.shape != shape:
            raise self._refusal(f"returned an image of the shape {made.shape}", shape)
        if made.dtype == np.uint8:
            return made
        if made.dtype.kind != "f":
            raise self._refusal(f"returned pixels of {made.dtype}", shape)
        if not np.isfinite(made).all():
            raise self._refusal("returned pixels that are not finite", shape)
        low, high = float(made.min()), float(made.max())
        if low < -_SLACK or high > 1 + _SLACK:
            raise self._refusal(f"returned pixels from {low:.3g} to {high:.3g}", shape)
        found: Array = np.rint(made.clip(0, 1) * 255).astype(np.uint8)
        return found

    def _refusal(self, problem: str, shape: tuple[int, ...]) -> DataError:
        return DataError(
            f"the teacher {clipped(self.name)} {problem}; it must return {shape}, the size of what "
            "it was given, in bytes (uint8) or in floating-point numbers from 0 to 1."
        )
