"""The report of a record: table, figures and page, made from the record alone.

``write_report`` is for one run, ``overlay`` for several, ``render_table`` for the terminal. Drawing
is imported when something is drawn, so that importing this package stays cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.pareto.words import plain
from compress.record import Record, write_atomically
from compress.report.html import Picture, Section, combined_page, page
from compress.report.overlay import combined_columns, groups, overlay_info
from compress.report.pareto_info import ParetoInfo, pareto_info
from compress.report.sheet import sheet
from compress.report.stages_info import StagesInfo, stages_info
from compress.report.table import markdown, render_table, text_table

__all__ = ["markdown", "overlay", "render_table", "text_table", "write_report"]


def write_report(record: Record, folder: Path) -> list[Path]:
    """Write the report of one record into ``folder``; returns the files, the page first.

    ``report.html``, ``table.csv``, ``table.md``; per target ``pareto`` and ``stages`` figures,
    with the target in the name where there are several. Each file is replaced in one step.

    Raises:
        StorageError: the disk refused.
    """
    pictures: dict[str, list[Picture]] = {}
    files: dict[str, str | bytes] = {}
    for target, slug in _slugs(record.targets).items():
        shown = (("pareto", pareto_info(record, target)), ("stages", stages_info(record, target)))
        pictures[target] = [_draw(info, f"{name}{slug}", files) for name, info in shown]
    files["table.csv"] = sheet([(plain(record.name), record)])
    files["table.md"] = "\n".join(markdown(record, target) for target in record.targets)
    return _write(folder, {"report.html": page(record, pictures), **files})


def overlay(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write one figure and one table of several runs; returns the files, the page first.

    Rows measured on different devices, or scored on different tasks, are never put on one front:
    each gets a figure of its own, with a number and the target in its name.

    Raises:
        StorageError: the disk refused.
    """
    files: dict[str, str | bytes] = {}
    sections = []
    for group in groups(records):
        info = overlay_info(group)
        picture = _draw(info, f"pareto{group.slug}", files)
        shown = tuple(combined_columns(group))
        sections.append(Section(group.heading, info.subtitle, shown, picture))
    files["table.csv"] = sheet([(plain(record.name), record) for record in records])
    title = f"{len(records)} runs side by side"
    return _write(folder, {"report.html": combined_page(title, sections), **files})


def _slugs(targets: Sequence[str]) -> dict[str, str]:
    """A file-name ending for each target: none for a single one, unique otherwise."""
    if len(targets) == 1:
        return {targets[0]: ""}
    slugs: dict[str, str] = {}
    for number, target in enumerate(targets, start=1):
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in target)
        slug = f"-{safe[:40].strip('-') or number}"
        slugs[target] = f"{slug}-{number}" if slug in slugs.values() else slug
    return slugs


def _draw(info: ParetoInfo | StagesInfo, stem: str, files: dict[str, str | bytes]) -> Picture:
    """Draw one figure, add its files to ``files``, and return it for the page."""
    from compress.report.pareto_figure import draw_pareto
    from compress.report.plots import DARK, LIGHT, render
    from compress.report.stages_figure import draw_stages

    light, dark = (
        draw_pareto(info, theme) if isinstance(info, ParetoInfo) else draw_stages(info, theme)
        for theme in (LIGHT, DARK)
    )
    files[f"{stem}.png"] = render(light, "png")
    files[f"{stem}.svg"] = svg = render(light, "svg")
    return Picture(svg, render(dark, "svg"), info.alt, info.legend)


def _write(folder: Path, files: dict[str, str | bytes]) -> list[Path]:
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]
