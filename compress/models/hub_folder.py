"""Folders in the form of the Hugging Face hub: their JSON files and their weights.

A folder is a stranger's. Its index may name its own safetensors files and nothing else: no pickle
and no file of another folder. What is a link must stay in the folder, or lead to where the hub's
cache keeps the files of folders. Knows nothing of models.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.errors import CheckpointError, RecipeError
from compress.io.files import named, read_json
from compress.io.weights import read_safetensors

__all__ = [
    "check_dtypes",
    "has_weights",
    "inside",
    "out_of_bounds",
    "read_settings",
    "read_tensors",
]

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_JSON_BYTES = 64 << 20
_MOST_SHARDS = 1_000
# A configuration makes a list as long as these before there is any model to count.
_MOST_LAYERS, _MOST_LABELS, _MOST_NUMBER = 1_000, 1_000_000, 2**40
_MOST_NESTED = 20
_AT_LEAST_ONE = {"hidden_size", "dim", "d_model", "n_embd", "vocab_size", "num_hidden_layers"}
_AT_LEAST_ONE |= {"n_layers", "n_layer", "num_attention_heads", "n_heads", "n_head"}
_AT_LEAST_ONE |= {"intermediate_size", "max_position_embeddings"}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_settings(path: Path, why: str = "") -> Any:
    """The value in one of a folder's JSON files.

    Args:
        path: the file.
        why: who says that it should be there, for the sentence that it is not.

    Raises:
        RecipeError: no such file, or it is no JSON of a size that such files have.
    """
    if why and not os.path.lexists(path):
        raise RecipeError(f"{named(path)}: there is no such file, and {why}.")
    return read_json(path, _MOST_JSON_BYTES, RecipeError, finite=False)


def out_of_bounds(config: Mapping[str, Any], place: str = "") -> str:
    """What of a configuration no model has, in words; what remains is for its class to judge."""
    for key, value in config.items():
        name = f"{place}{key}"
        if isinstance(value, dict):
            if name.count(".") >= _MOST_NESTED:
                return "too much: its mappings are nested too deeply"
            if inner := out_of_bounds(value, f"{name}."):
                return inner
        if isinstance(value, (int, float)) and (limit := _limit_broken(str(key), value)):
            return f"{named(name)}: {value!r:.40}, which {limit}"
    return ""


def _limit_broken(key: str, value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "is no finite number"
    if key in _AT_LEAST_ONE and (isinstance(value, bool) or value < 1):
        return "must be at least 1"
    if "layers" in key or key == "n_layer":
        return f"is more than {_MOST_LAYERS:,}" if value > _MOST_LAYERS else ""
    if key == "num_labels":
        return f"is more than {_MOST_LABELS:,}" if value > _MOST_LABELS else ""
    return "is beyond any size" if isinstance(value, int) and abs(value) > _MOST_NUMBER else ""


def has_weights(folder: Path) -> bool:
    """Whether there is a file of weights, or an index of several."""
    return any(os.path.lexists(folder / name) for name in (_WEIGHTS, _INDEX))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by name, mapped from its safetensors files.

    Raises:
        CheckpointError: a file is missing, damaged, or one that the folder may not name.
    """
    if os.path.lexists(folder / _WEIGHTS) or not os.path.lexists(folder / _INDEX):
        return read_safetensors(inside(folder, _WEIGHTS))
    places = _weight_map(folder)
    found: dict[str, Tensor] = {}
    for shard in dict.fromkeys(places.values()):
        path = inside(folder, shard)
        tensors = read_safetensors(path)
        for name in (name for name, file in places.items() if file == shard):
            if name not in tensors:
                raise CheckpointError(
                    f"{named(path)}: the index says that {named(name)!r} is in it, and it is not; "
                    "copy the folder again."
                )
            found[name] = tensors[name]
    return found


def check_dtypes(folder: Path, tensors: Mapping[str, Tensor], parameters: Iterable[str]) -> None:
    """Hold the tensors of a folder to what parameters can be made of.

    Args:
        folder: for the sentence.
        tensors: under the folder's names, which may have a part more or less in front.
        parameters: names of the model's.

    Raises:
        CheckpointError: one is no tensor of floats of 16, 32 or 64 bits.
    """
    others = {name: t.dtype for name, t in tensors.items() if t.dtype not in _FLOATS}
    if not others:
        return
    own = {*parameters}
    ends = {end for name in own for end in _ends(name)}
    for name, dtype in others.items():
        if name in ends or any(end in own for end in _ends(name)):
            raise CheckpointError(
                f"{named(folder)}: {named(name)!r} is {str(dtype).removeprefix('torch.')}, and the "
                "model has float32, which it cannot become; save the folder in float32."
            )


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[place:]) for place in range(len(parts))]


def _weight_map(folder: Path) -> dict[str, str]:
    path = folder / _INDEX
    content = read_json(path, _MOST_JSON_BYTES, CheckpointError)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(f, str) for f in places.values()):
        raise CheckpointError(
            f"{named(path)}: it has no weight_map of the names of tensors to those of files; copy "
            "it again."
        )
    files = {*places.values()}
    if len(files) > _MOST_SHARDS or not files:
        raise CheckpointError(
            f"{named(path)}: it names {len(files):,} files, and 1 to {_MOST_SHARDS:,} are taken."
        )
    for file in files:
        if not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{named(path)}: it names {named(file)!r}, and only .safetensors files are opened, "
                "since pickled weights can run code; save it with save_pretrained of transformers."
            )
    return places


def inside(folder: Path, name: str) -> Path:
    """The path of a file that lies in the folder, or in the cache that a link of it leads to.

    Raises:
        CheckpointError: it lies elsewhere.
    """
    path = folder / name
    if Path(name).name != name or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"{named(folder)}: its index names {named(name)!r}, which is another folder's; only "
            "files that lie in the folder itself are read."
        )
    try:
        target, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{named(path)}: it is a link that leads nowhere.") from error
    in_cache = target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")
    if path.is_symlink() and home not in target.parents and not in_cache:
        raise CheckpointError(
            f"{named(path)}: it is a link to {named(target)}, outside of the folder; put the file "
            "in its place."
        )
    return path
