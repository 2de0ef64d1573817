"""Digests of functions, objects and modules' definitions."""

from __future__ import annotations

import platform
from itertools import chain
from typing import Any

from torch import nn

from compress.fingerprints import classes, functions, values
from compress.fingerprints.arrays import FreshArrays
from compress.fingerprints.content_walk import ArrayDigests, ContentWalk, WalkConfig, in_a_clause
from compress.fingerprints.files import FileDigestCache

__all__ = ["begin", "code_fingerprint", "module_definition"]

_HANDLERS = (*values.HANDLERS, *functions.HANDLERS, *classes.HANDLERS)


def code_fingerprint(
    value: Any, what: str = "the value", files: FileDigestCache | None = None
) -> str:
    """The digest of a function, a class, an object or plain data, in 32 hex digits.

    Code counts by what it does, with all of the user's own that it refers to and what it closes
    over; comments, docstrings, lines and names do not. Code of libraries counts by version.

    Args:
        value: of any kind.
        what: what it is, to begin the clause with, such as "the metric".
        files: checksums of files that are known already.

    Raises:
        Unstable: something in it cannot be compared between runs; the clause says what and where.
    """
    walk = begin(what, files=files)
    with in_a_clause(what):
        walk.visit(value)
        return walk.finish()


def module_definition(
    module: nn.Module, what: str = "the model", files: FileDigestCache | None = None
) -> str:
    """The digest of a model less its tensors: its layers' names, classes and other attributes.

    Parameters and buffers are left out; tensors that are plain attributes count.

    Args:
        module: the model.
        what: what it is, to begin the clause with.
        files: checksums of files that are known already.

    Raises:
        Unstable: a layer holds something that cannot be compared between runs.
    """
    walk = begin(what, files=files)
    # Attributes that are tensors or layers of this model, too, count by their number.
    own = (module.named_parameters(), module.named_buffers(), module.named_modules())
    for name, each in chain.from_iterable(own):
        walk.again(each)
        walk.put("own", name)
    with in_a_clause(what):
        for name, layer in module.named_modules():
            _put_layer(walk, name, layer)
        return walk.finish()


def _put_layer(walk: ContentWalk, name: str, layer: nn.Module) -> None:
    walk.put("layer", name)
    walk.step("has the layer", name or "itself", type(layer))
    for child, inner in layer._modules.items():
        walk.put("child", child)
        walk.visit(inner)  # its number: a layer may stand in several places
    for attribute, value in classes.module_attributes(layer):
        walk.put("attribute", attribute)
        walk.step("holds", f"{name}.{attribute}" if name else attribute, value)


def begin(
    what: str, arrays: ArrayDigests | None = None, files: FileDigestCache | None = None
) -> ContentWalk:
    """A walk that has taken in the version of Python, whose bytecode changes with it."""
    known = FileDigestCache() if files is None else files
    walk = ContentWalk(
        what, WalkConfig(_HANDLERS, FreshArrays() if arrays is None else arrays, known)
    )
    walk.put("python", platform.python_version())
    return walk
