"""Markup: the frame of a page, escaping, tables, and the policy that keeps a page to itself.

Everything that comes from a record passes through :func:`text`, or through :func:`data_block` on
its way to the page's script: a recipe from a stranger may say anything. A content security policy
allows our own style sheet and script by their hashes, and no other, nor any request, should
anything slip through.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from compress.formatting import sanitize

__all__ = ["data_block", "data_table", "document", "policy", "scroller", "text"]

_STYLE = Path(__file__).with_name("page.css")
_SCRIPT = Path(__file__).with_name("page.js")


def document(title: str, body: Iterable[str], data: Sequence[Any] = ()) -> str:
    """A whole page around ``body``, which is HTML already; ``data`` is for the page's script."""
    style, script = (path.read_text(encoding="utf-8") for path in (_STYLE, _SCRIPT))
    scripts = [data_block(data), f"<script>{script}</script>"] if data else []
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{text(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            *body,
            *scripts,
            "</body>",
            "</html>",
            "",
        ]
    )


def policy(style: str, script: str) -> str:
    """A policy under which a page can do nothing but run this script and wear this style."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def data_block(data: Sequence[Any]) -> str:
    """``data`` as JSON in an element of its own, in which no character can end the element.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot say.
    """
    shown = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        shown = shown.replace(char, f"\\u{ord(char):04x}")
    return f'<script type="application/json" id="data">{shown}</script>'


def text(value: object, limit: int = 400) -> str:
    """``value`` as one escaped line, cut after ``limit`` characters."""
    return escape(sanitize(value, limit))


def scroller(what: str) -> str:
    """A box that scrolls sideways on narrow screens, and that a keyboard can reach."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{what}, scrolls sideways">'


def data_table(heads: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    """A table of texts; the first cell of each line is its name."""
    tops = "".join(f'<th scope="col">{text(head, 60)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{text(line[0], 120)}</th>'
        f"{''.join(f'<td>{text(cell, 120)}</td>' for cell in line[1:])}</tr>"
        for line in lines
    )
    return (
        f"{scroller('Table')}<table><caption>{text(caption, 400)}</caption>"
        f"<thead><tr>{tops}</tr></thead><tbody>{body}</tbody></table></div>"
    )
