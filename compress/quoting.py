"""What a person gave, for a sentence: on one line, and short."""

from __future__ import annotations

TYPE_CHECKING = False  # the command line begins here too, and typing takes long to import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["clipped", "in_yaml", "on_one_line", "shown"]

_MOST_CHARACTERS = 80
# What YAML takes for something else than a word.
_OTHER_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def shown(value: Any, most: int = _MOST_CHARACTERS) -> str:
    """The value as Python writes it, with its middle left out where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * most:
        return f"a whole number of {value.bit_length():,} bits"
    if isinstance(value, str) and len(value) > most:
        return repr(clipped(value, most))
    # No more of a container is written than is shown, whatever it holds.
    if isinstance(value, (list, tuple)) and len(value) > most:
        return f"a list of {len(value):,} entries"
    if isinstance(value, dict) and len(value) > most:
        return f"a mapping of {len(value):,} keys"
    return clipped(repr(value), most)


def in_yaml(name: str) -> str:
    """A name as a recipe has it: in quotes where it is no word, as places in a tuple are none."""
    is_word = name[:1].isalpha() and name.replace(".", "_").replace("-", "_").isidentifier()
    return name if is_word and name.lower() not in _OTHER_WORDS else repr(name)


def clipped(text: str, most: int = _MOST_CHARACTERS) -> str:
    """The text on one line, with its middle left out where it is over ``most`` characters long."""
    if len(text) > most:
        front = most // 2
        text = f"{text[:front]}...{text[len(text) - (most - front) + 3 :]}"
    return on_one_line(text)


def on_one_line(text: str, keep: str = "") -> str:
    """The text with escapes for line ends, control characters and stray bytes, but for ``keep``."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)
