"""A hook of mkdocs: links out of ``docs/`` lead to the repository, and have to lead somewhere."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

__all__ = ["on_page_markdown", "outside"]

_ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]*)((?:#[^)\s]*)?\))")
_log = logging.getLogger("mkdocs.plugins.site")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with links out of the folder of documentation made absolute.

    One that leads to no file is a warning, which ends a strict build.
    """
    name = str(page.file.src_uri)

    def absolute(link: re.Match[str]) -> str:
        target = outside(name, link[2])
        if target is None:
            return link[0]
        if not (_ROOT / target).exists():
            _log.warning("%s: the link %s leads to no file", name, link[2])
        return f"{link[1]}{config.repo_url}/blob/main/{target}{link[3]}"

    return _LINK.sub(absolute, markdown)


def outside(page: str, link: str) -> str | None:
    """Where a link of a page below ``docs/`` leads, from the root; ``None`` where it stays inside.

    Args:
        page: from ``docs/``.
        link: relative, without an anchor.
    """
    docs = _ROOT / "docs"
    target = ((docs / page).parent / link).resolve()
    return None if target.is_relative_to(docs) else target.relative_to(_ROOT).as_posix()
