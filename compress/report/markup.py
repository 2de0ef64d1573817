"""Markup: the frame of a page, escaping, and figures that fit both backgrounds.

Everything that comes from a record passes through :func:`text`: a recipe from a stranger may say
anything. A content security policy in the page forbids scripts and requests, should anything slip
through.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from compress.pareto.words import plain

__all__ = ["Picture", "document", "figure", "scroller", "text"]

_STYLE = Path(__file__).with_name("report.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Picture:
    """One figure as SVG for both backgrounds, what it says in words, and its caption."""

    light: bytes
    dark: bytes
    alt: str
    caption: str


def document(title: str, body: Iterable[str]) -> str:
    """A whole page around ``body``, which is HTML already."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{text(title)}</title>",
            f"<style>{_STYLE.read_text(encoding='utf-8')}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def text(value: object, limit: int = 400) -> str:
    """``value`` as one escaped line, cut after ``limit`` characters."""
    return escape(plain(value, limit))


def scroller(what: str) -> str:
    """A box that scrolls sideways on narrow screens, and that a keyboard can reach."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{what}, scrolls sideways">'


def figure(picture: Picture) -> str:
    """The figure, in the version that fits the reader's background, with its caption."""
    light, dark = (
        f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}"
        for image in (picture.light, picture.dark)
    )
    return (
        f"<figure>{scroller('Figure')}<picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{text(picture.alt, 4000)}"></picture></div>'
        f"<figcaption>{text(picture.caption, 1000)}</figcaption></figure>"
    )
