"""What sentence-transformers notes in a folder: how tokens are pooled, and whether to length 1."""

from __future__ import annotations

import os
from pathlib import Path

from compress.errors import RecipeError
from compress.io.files import named
from compress.models.hub_folder import read_settings
from compress.models.text_encoder import Pooling

__all__ = ["pooling_of"]


def pooling_of(folder: Path) -> tuple[Pooling, bool]:
    """How sentence-transformers pools and whether it normalizes; without it, the mean and no.

    Raises:
        RecipeError: ``modules.json`` has modules that are not known here, or files elsewhere.
    """
    path = folder / "modules.json"
    if not os.path.lexists(path):
        return "mean", False
    modules = read_settings(path)
    pooling: Pooling = "mean"
    normalize = False
    for entry in modules if isinstance(modules, list) else []:
        if not isinstance(entry, dict):
            raise RecipeError(f"{path}: it is no list of modules; say `pooling` and `normalize`.")
        kind = str(entry.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling_of(_within(folder, str(entry.get("path", ""))) / "config.json")
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise RecipeError(
                f"{path}: it has a module {named(kind)}, which is not known here; say what the "
                "model is with `pooling` and `normalize`."
            )
    return pooling, normalize


def _within(folder: Path, name: str) -> Path:
    if ".." in Path(name).parts or Path(name).is_absolute() or "\0" in name:
        raise RecipeError(
            f"{folder / 'modules.json'}: it names {named(name)!r}, which is outside of the folder."
        )
    return folder / name


def _pooling_of(path: Path) -> Pooling:
    stored = read_settings(path, "modules.json names it")
    given = stored if isinstance(stored, dict) else {}
    chosen = [k for k, v in given.items() if k.startswith("pooling_mode_") and v is True]
    modes: dict[str, Pooling] = {"mean": "mean", "mean_tokens": "mean"}
    modes |= {"cls": "cls", "cls_token": "cls"}
    names = chosen or [given.get("pooling_mode")]
    mode = str(names[0]).removeprefix("pooling_mode_")
    if len(names) != 1 or mode not in modes:
        raise RecipeError(
            f"{path}: only pooling by the mean or the first token is known here; say which with "
            "`pooling`."
        )
    return modes[mode]
