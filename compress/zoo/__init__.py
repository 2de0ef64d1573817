"""Built-in architectures, by name.

A recipe's ``arch:`` is one of these names; the other keys beside it are keyword arguments of the
class. Adding an architecture is one file and one line of ``ARCHITECTURES``. Importing this
imports no torch.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

from compress.config.docstrings import argument_docs, before_sections, in_markdown
from compress.errors import RecipeError
from compress.quoting import clipped, shown

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "ARCHITECTURES",
    "LARGEST_OPTIONS",
    "architecture_class",
    "build",
    "check_options",
    "fitting_options",
    "options_schema",
]

#: Name -> ``module:Class``.
ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        "attention": "compress.zoo.attention:Transformer",
        "autoencoder": "compress.zoo.autoencoder:Autoencoder",
        "causal-lm": "compress.zoo.causal_lm:CausalLM",
        "conv1d": "compress.zoo.conv1d:Conv1dNet",
        "detector": "compress.zoo.detector:Detector",
        "dscnn": "compress.zoo.dscnn:DSCNN",
        "dscnn-kws": "compress.zoo.dscnn_kws:KeywordDSCNN",
        "efficientnet-lite0": "compress.zoo.efficientnet_lite:EfficientNetLite0",
        "functional": "compress.zoo.functional:FunctionalNet",
        "mlp": "compress.zoo.mlp:MLP",
        "mobile-unet": "compress.zoo.mobile_unet:MobileUNet",
        "mobilenet-v1": "compress.zoo.mobilenet_v1:MobileNetV1",
        "mobilenet-v2": "compress.zoo.mobilenet_v2:MobileNetV2",
        "mobilenet-v3": "compress.zoo.mobilenet_v3:MobileNetV3Small",
        "multi-head": "compress.zoo.multi_head:MultiHead",
        "plain-cnn": "compress.zoo.plain_cnn:PlainCNN",
        "resnet": "compress.zoo.resnet:ResNet",
        "segmenter": "compress.zoo.segmenter:Segmenter",
        "unet": "compress.zoo.unet:UNet",
    }
)

#: The largest value of each option: far beyond what these nets are for; within it, the memory that
#: weights take is the bound.
LARGEST_OPTIONS: Mapping[str, int] = MappingProxyType(
    {
        "depth": 128,
        "blocks": 64,
        "stem_stride": 64,
        "heads": 1024,
        "patch": 1024,
        "image_size": 2048,
        "in_channels": 16_384,
        "width": 65_536,
        "bottleneck": 65_536,
        "classes": 300_000,
        "context": 300_000,
        "in_features": 4_000_000,
        "outputs": 65_536,
        "controls": 1024,
    }
)


def build(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A built-in architecture with fresh weights, drawn from torch's global generator.

    Args:
        name: a key of ``ARCHITECTURES``.
        options: keyword arguments of its class; each is a whole number of at least 1, or of
            several heads one for each by its name.

    Raises:
        RecipeError: an unknown name or option, a value that the architecture cannot take, or
            weights that would not fit into memory.
    """
    from compress.zoo.memory import check_buildable, within_memory

    given, what = dict(options or {}), f"the architecture {name!r}"
    check_options(name, given)
    architecture = architecture_class(name)
    try:
        check_buildable(lambda: architecture(**given), what)
        with within_memory(what):
            return architecture(**given)
    except ValueError as error:
        raise RecipeError(f"{what}: {error}.") from error


def architecture_class(name: str) -> type[nn.Module]:
    """The class of a built-in architecture; ``name`` is a key of ``ARCHITECTURES``."""
    module, _, found = ARCHITECTURES[name].partition(":")
    architecture: type[nn.Module] = getattr(importlib.import_module(module), found)
    return architecture


def options_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of an architecture's options, as its class describes them.

    Args:
        name: a key of ``ARCHITECTURES``.
    """
    architecture = architecture_class(name)
    hints, about = get_type_hints(architecture.__init__), argument_docs(architecture)
    properties = {}
    for option, parameter in inspect.signature(architecture).parameters.items():
        size = {"type": "integer", "minimum": 1, "maximum": LARGEST_OPTIONS[option]}
        kind = size if hints[option] is int else {"type": "object", "additionalProperties": size}
        given = parameter.default
        default = {"default": dict(given) if isinstance(given, Mapping) else given}
        properties[option] = {**kind, **default, "description": about.get(option, "")}
    module = inspect.getdoc(sys.modules[architecture.__module__]) or ""
    what, _, further = module.partition("\n\n")
    takes = before_sections(inspect.getdoc(architecture) or "")
    source = re.search(r"^Topology: (.+?)(?:\n\n|\Z)", further, re.DOTALL | re.MULTILINE)
    parts = [what, takes, f"Source: {source[1]}" if source else ""]
    text = in_markdown("\n\n".join(part for part in parts if part))
    return {"description": text, "properties": properties}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """See that a built-in architecture has these options, each a number that it may be.

    Raises:
        RecipeError: an unknown name or option, or no whole number from 1 to the option's largest,
            of ``outputs`` for each name.
    """
    if name not in ARCHITECTURES:
        raise RecipeError(
            f"there is no built-in architecture {shown(name)}; {_meant(name, ARCHITECTURES)}built "
            f"in are {', '.join(ARCHITECTURES)}, and one of your own is written module:Class."
        )
    _check(name, architecture_class(name), options)


def fitting_options(
    name: str, given: Mapping[str, Any], wanted: Mapping[str, int]
) -> dict[str, Any]:
    """The options with those of a task that the architecture takes and that were not given.

    Only where its default is another one: what a recipe leaves out stays out where it fits.

    Args:
        name: a key of ``ARCHITECTURES``.
        given: what a recipe says.
        wanted: what would fit the task, such as ``in_channels`` and ``classes``.
    """
    known = inspect.signature(architecture_class(name)).parameters
    fitting = {
        option: value
        for option, value in wanted.items()
        if option in known and option not in given and known[option].default != value
    }
    return {**given, **fitting}


def _check(name: str, architecture: type[nn.Module], given: Mapping[str, Any]) -> None:
    known = inspect.signature(architecture).parameters
    hints = get_type_hints(architecture.__init__)
    for option, value in given.items():
        if option not in known:
            raise RecipeError(
                f"the architecture {name!r} has no option {shown(option)}; "
                f"{_meant(option, known)}it "
                f"has {', '.join(known)}."
            )
        if hints[option] is int:
            _check_size(name, option, option, value)
            continue
        if not isinstance(value, Mapping) or not value:
            raise RecipeError(
                f"the architecture {name!r}: {option} must map names to whole numbers; got "
                f"{shown(value)}."
            )
        for key, size in value.items():
            _check_size(name, f"{option}.{clipped(str(key))}", option, size)


def _check_size(name: str, what: str, option: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise RecipeError(
            f"the architecture {name!r}: {what} must be a whole number of at least 1; got "
            f"{shown(value)}."
        )
    if value > (most := LARGEST_OPTIONS[option]):
        raise RecipeError(
            f"the architecture {name!r}: {what} must be at most {most:,}; got {shown(value)}."
        )


def _meant(given: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(clipped(given), known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""
