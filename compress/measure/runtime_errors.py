"""Runtime errors: why onnxruntime does not take a model, as one sentence for people.

onnxruntime's words name its own source files and functions and often leave out what to do. Here
they become a sentence; words that are not known are passed on, less the places in its source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from compress.formatting import size
from compress.quoting import on_one_line

__all__ = ["is_about_inputs", "readable_error"]

# An error class of Python, onnxruntime's own code, a place in its source with the function's
# signature, a condition that did not hold: all of it before or between the parts of the message.
_CLASS = re.compile(r"^\w+: (?=\[ONNXRuntimeError\])|^(RuntimeException|Fail|InvalidGraph): ")
_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_PLACE = re.compile(
    r"/\S+\.(?:cc|h|cpp|hpp):\d+ .*?\)(?: const)?(?:::<lambda.*?\)>)?(?: \[with [^\]]*\])? (?=\S)"
    r"|\w+\.(?:cc|h):\d+ \w+ "
)
_CONDITION = re.compile(r"(?:^|(?<=: ))\S.*? was false\. ?(?=\S)")
_LOADING = re.compile(r"Load model from .*? failed: ?")
_INVALID = re.compile(
    r"This is an invalid model\. ?|Error No Op registered|Fatal error: |\bError: (?=[A-Z])"
)
_ALLOWED = re.compile(r" \[the process may take (\d+) bytes of memory\]$")
_NODE = re.compile(
    r"Non-zero status code returned while running (\w+) node\. ?Name: ?'([^']*)' "
    r"Status Message: (.*)"
)

_MOST = 300  # characters of words that are passed on


def readable_error(text: str) -> str:
    """One sentence for an error of the worker; other text comes back as it is, on one line."""
    return on_one_line(_sentence(text))


def _sentence(text: str) -> str:
    allowed = _ALLOWED.search(text)
    words = _ALLOWED.sub("", text)
    if _OUT_OF_MEMORY.search(words):
        return _out_of_memory(words, int(allowed[1]) if allowed else None)
    for rule in _RULES:
        if found := rule.pattern.search(words):
            return rule.say(found)
    if node := _innermost(words):
        return _failing(node)
    if words == text and not _CODE.search(words):
        return text
    return f"onnxruntime cannot use it: {_stripped(words)}"


def _stripped(words: str) -> str:
    for noise in (_CLASS, _CODE, _LOADING, _INVALID, _PLACE, _CONDITION):
        words = noise.sub("", words)
    words = " ".join(words.split()).strip(" .").replace(". ", "; ")
    return f"{words[:_MOST]}…" if len(words) > _MOST else f"{words}."


# -- memory -----------------------------------------------------------------------------------

_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|Failed to allocate memory|MemoryError: ?|bad allocation"
    r"|array is too big|Maximum allowed (?:dimension|size) exceeded"
)
_RANK = re.compile(r"[Ii]nvalid (?:rank|dimensions) for input")
_REQUESTED = re.compile(r"requested buffer of size (\d+)")


def is_about_inputs(text: str) -> bool:
    """Whether other inputs may be what a model that fails with this error needs."""
    return bool(_NODE.search(text) or _RANK.search(text)) and not _OUT_OF_MEMORY.search(text)


def _out_of_memory(words: str, allowed_bytes: int | None) -> str:
    node, asks = _innermost(words), _REQUESTED.search(words)
    who = f"its operator {_named(node)}" if node else "it"
    needs = f"{who} needs {size(int(asks[1]))}" if asks else f"{who} needs more"
    room = f"; {size(allowed_bytes)} are free for it" if allowed_bytes is not None else ""
    return f"it does not fit into this machine's memory: {needs}{room}."


# -- a failing operator -----------------------------------------------------------------------

_INDEX = re.compile(r"idx=(-?\d+) must be within the inclusive range \[-?\d+, ?(-?\d+)\]")


def _innermost(words: str) -> re.Match[str] | None:
    """The operator that failed, which may lie in the body of others."""
    found = _NODE.search(words)
    while found and (inner := _NODE.search(found[3])):
        found = inner
    return found


def _failing(node: re.Match[str]) -> str:
    if index := _INDEX.search(node[3]):
        of = f"row {index[1]} of a table of {int(index[2]) + 1}"
        return f"its operator {_named(node)} reads {of}: give ids that are in range."
    return f"its operator {_named(node)} fails on these inputs: {_stripped(node[3])}"


def _named(node: re.Match[str]) -> str:
    return f"{node[1]} ({node[2]!r})" if node[2] else node[1]


# -- what it needs ----------------------------------------------------------------------------


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    say: Callable[[re.Match[str]], str]


_RULES = (
    _Rule(
        re.compile(
            r"invalid dimensions for input: (\S+) .*?index: (\d+) Got: (\d+) Expected: (\d+)"
        ),
        lambda m: f"its input {m[1]!r} takes {m[4]} along axis {m[2]}, and was given {m[3]}.",
    ),
    _Rule(
        re.compile(r"No Op registered for (\w+) with domain_version of (\d+)"),
        lambda m: f"its operator {m[1]} does not exist in opset {m[2]} of this onnxruntime.",
    ),
    _Rule(
        re.compile(r"([\w.]+[:.]\w+)\(-?\d+\) is not a registered function/op"),
        lambda m: (
            f"its operator {m[1]} is unknown to this onnxruntime, and libraries of custom "
            "operators cannot be loaded here."
        ),
    ),
    _Rule(
        re.compile(
            r"(?:Could not find an implementation|Failed to find kernel) for (\w+)\((\d+)\)"
        ),
        lambda m: (
            f"its operator {m[1]} (of opset {m[2]}) has no implementation for these types on the "
            "CPU in this onnxruntime, or none so old: export it in float32, or with a newer opset."
        ),
    ),
    _Rule(
        re.compile(r"No corresponding Numpy type for Tensor Type\. (\w+)"),
        lambda m: (
            f"it has an output of type {m[1].lower().removesuffix('x2')}, which numpy cannot hold; "
            "a Cast to float32 after it would do."
        ),
    ),
    _Rule(
        re.compile(r"OrtValue indexes should have been populated"),
        lambda _: "its graph is empty: it has no inputs, no operators and no outputs.",
    ),
    _Rule(
        re.compile(r"At least one output should be requested"),
        lambda _: "it has no outputs, and without any onnxruntime runs nothing.",
    ),
    _Rule(
        re.compile(r"Failed to construct locale with name: ?([\w.-]+)"),
        lambda m: (
            f"its operator StringNormalizer needs the locale {m[1]}, which this machine lacks: "
            f"install it, as with `locale-gen {m[1]}`."
        ),
    ),
    _Rule(
        re.compile(r"[Ii]nvalid rank for input: (\S+) Got: (\d+) Expected: (\d+)"),
        lambda m: f"its input {m[1]!r} takes {m[3]} axes, and was given {m[2]}.",
    ),
    _Rule(
        re.compile(r"Opset (\d+) is under development.*? is till opset (\d+)"),
        lambda m: (
            f"it needs opset {m[1]}, and this onnxruntime knows up to {m[2]}: export it with an "
            "older opset, or update onnxruntime."
        ),
    ),
    _Rule(
        re.compile(r"External data path does not exist: \"(?:.*[/\\])?([^/\\\"]+)\""),
        lambda m: f"its external data file {m[1]!r} is missing; it has to lie beside the model.",
    ),
    _Rule(
        re.compile(
            r"External data path escapes model directory.*?External data path: \"([^\"]+)\""
        ),
        lambda m: (
            f"its external data {m[1]!r} lies outside of its folder, and is not read; it has to "
            "lie beside the model."
        ),
    ),
    _Rule(
        re.compile(r"Absolute path not allowed for external data"),
        lambda _: (
            "its external data has an absolute path, which is not followed; it has to lie beside "
            "the model."
        ),
    ),
    _Rule(
        re.compile(r"Random-access reads require a regular file: (?:.*[/\\])?([^/\\]+)$"),
        lambda m: f"its external data {m[1].rstrip('.')!r} is no regular file; copy it again.",
    ),
    _Rule(
        re.compile(r"size to read: (\d+) given file_length: (\d+) are out of bounds"),
        lambda m: (
            f"its external data is cut off: the model reads {m[1]} bytes at once, and the file has "
            f"{m[2]}; copy it again."
        ),
    ),
    _Rule(
        re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
        lambda m: (
            f"it is written in IR version {m[1]} of the format, and this onnxruntime reads up to "
            f"{m[2]}: save it with an older onnx, or update onnxruntime."
        ),
    ),
)
