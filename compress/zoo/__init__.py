"""Built-in architectures, by name.

A recipe's ``arch:`` is one of these names; the other keys beside it are keyword arguments of the
class. Adding an architecture is one file and one line of ``ARCHITECTURES``. Importing this
imports no torch.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

from compress.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURES", "build", "fitting_options"]

#: Name -> ``module:Class``.
ARCHITECTURES: Mapping[str, str] = MappingProxyType(
    {
        "attention": "compress.zoo.attention:Transformer",
        "autoencoder": "compress.zoo.autoencoder:Autoencoder",
        "causal-lm": "compress.zoo.causal_lm:CausalLM",
        "conv1d": "compress.zoo.conv1d:Conv1dNet",
        "dscnn": "compress.zoo.dscnn:DSCNN",
        "dscnn-kws": "compress.zoo.dscnn_kws:KeywordDSCNN",
        "efficientnet-lite0": "compress.zoo.efficientnet_lite:EfficientNetLite0",
        "functional": "compress.zoo.functional:FunctionalNet",
        "mlp": "compress.zoo.mlp:MLP",
        "mobilenet-v1": "compress.zoo.mobilenet_v1:MobileNetV1",
        "mobilenet-v2": "compress.zoo.mobilenet_v2:MobileNetV2",
        "mobilenet-v3": "compress.zoo.mobilenet_v3:MobileNetV3Small",
        "resnet": "compress.zoo.resnet:ResNet",
        "unet": "compress.zoo.unet:UNet",
    }
)


def build(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A built-in architecture with fresh weights, drawn from torch's global generator.

    Args:
        name: a key of ``ARCHITECTURES``.
        options: keyword arguments of its class; each is a whole number of at least 1.

    Raises:
        RecipeError: an unknown name or option, or a value that the architecture cannot take.
    """
    if name not in ARCHITECTURES:
        raise RecipeError(
            f"there is no built-in architecture {name!r}; {_meant(name, ARCHITECTURES)}built in "
            f"are {', '.join(ARCHITECTURES)}, and one of your own is written module:Class."
        )
    architecture = _resolve(ARCHITECTURES[name])
    given = dict(options or {})
    _check(name, architecture, given)
    try:
        return architecture(**given)
    except ValueError as error:
        raise RecipeError(f"the architecture {name!r}: {error}.") from error


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
    known = inspect.signature(_resolve(ARCHITECTURES[name])).parameters
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
                f"the architecture {name!r} has no option {option!r}; {_meant(option, known)}it "
                f"has {', '.join(known)}."
            )
        if hints[option] is int and (type(value) is not int or value < 1):
            raise RecipeError(
                f"the architecture {name!r}: {option} must be a whole number of at least 1; got "
                f"{value!r}."
            )


def _meant(given: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _resolve(reference: str) -> type[nn.Module]:
    module, _, name = reference.partition(":")
    found: type[nn.Module] = getattr(importlib.import_module(module), name)
    return found
