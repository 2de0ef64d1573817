"""The figure of layers as files, for light and dark backgrounds."""

from __future__ import annotations

from pathlib import Path

from compress.io.atomic import write_atomically
from compress.layer_facts import Sensitivity, write_sensitivity
from compress.overwriting import check_layers
from compress.report.figures.layers_data import layers_info

__all__ = ["write_layer_figures"]


def write_layer_figures(found: Sensitivity, folder: Path) -> list[Path]:
    """Write ``layers`` and ``layers-dark`` as PNG and SVG, and the numbers beside them.

    Raises:
        RecipeError: a file of such a name is there that this tool did not write.
        StorageError: the disk refused.
    """
    from compress.report.figures.canvas import DARK, LIGHT, render
    from compress.report.figures.layers import draw_layers

    check_layers(folder)
    info, written = layers_info(found), [write_sensitivity(found, folder)]
    for stem, theme in (("layers", LIGHT), ("layers-dark", DARK)):
        figure = draw_layers(info, theme)
        for name, content in (
            (f"{stem}.png", render(figure, "png")),
            (f"{stem}.svg", render(figure, "svg")),
        ):
            write_atomically(folder / name, content)
            written.append(folder / name)
    return written
