"""Markup: templates, elements of drawings, and the policy that keeps a page to itself.

A page is laid out by the templates beside this file, ``*.html``, and everything that they print is
escaped and freed of control characters: a recipe from a stranger may say anything. ``x | line(80)``
cuts a text, ``x | verbatim`` keeps its lines. Only what :func:`element`, :func:`png_image` and
:func:`data_block` made goes in as it is, with our own style sheet and script. A content security
policy allows these two by their hashes, pictures that are in the page itself, and no other, nor any
request, should anything slip through.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from compress.formatting import sanitize

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["DataTable", "Markup", "data_block", "document", "element", "png_image"]
__all__ += ["policy", "render", "style_sheet"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class DataTable:
    """A table of texts; the first cell of each line is its name."""

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str


def document(
    template: str, title: str, content: Mapping[str, object], data: Sequence[Any] = ()
) -> str:
    """A whole page: ``template``, which extends ``document.html``, with its ``content``.

    ``data`` is for the page's script, which is left out where there is none.

    Raises:
        ValueError: a number in ``data`` is not finite, which JSON cannot say.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    frame = {
        "title": title,
        "policy": policy(style, script),
        "style": Markup(style),
        "script": Markup(script),
        "data_block": data_block(data) if data else None,
    }
    return render(template, {**content, **frame})


def render(template: str, content: Mapping[str, object]) -> str:
    """``template``, the name of a file beside this one, with ``content`` as its variables.

    Raises:
        jinja2.UndefinedError: the template prints what ``content`` does not have.
    """
    return _environment().get_template(template).render(content)


def style_sheet(name: str) -> Markup:
    """A style sheet of this folder, which a template prints as it is."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["line"] = _line
    environment.filters["verbatim"] = escape
    return environment


def _printable(value: object) -> object:
    """``value`` without control and format characters; markup stays as it is."""
    if isinstance(value, Markup):
        return value
    shown = str(value)
    return sanitize(shown, max(len(shown), 1))


def _line(value: object, limit: int = 400) -> str:
    """``value`` as one line, cut after ``limit`` characters; templates escape it."""
    return sanitize(value, limit)


def element(name: str, attributes: Mapping[str, object], *inside: str) -> Markup:
    """An element of a drawing; texts in it and its attributes are escaped, markup is not."""
    said = "".join(f' {key}="{escape(_printable(value))}"' for key, value in attributes.items())
    if not inside:
        return Markup(f"<{name}{said}/>")
    return Markup(f"<{name}{said}>{''.join(escape(_printable(each)) for each in inside)}</{name}>")


def png_image(base64: str, alt: str) -> Markup:
    """A picture in the page itself, with what it shows in words.

    Args:
        base64: the bytes of a PNG file, in base64.
        alt: the words.
    """
    return element("img", {"class": "sheet", "src": f"data:image/png;base64,{base64}", "alt": alt})


def policy(style: str, script: str) -> str:
    """A policy under which a page can do nothing but run this script and wear this style."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def data_block(data: Sequence[Any]) -> Markup:
    """``data`` as JSON in an element of its own, in which no character can end the element.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot say.
    """
    shown = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        shown = shown.replace(char, f"\\u{ord(char):04x}")
    return Markup(f'<script type="application/json" id="data">{shown}</script>')
