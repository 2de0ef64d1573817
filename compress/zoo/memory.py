"""What a net would take, known before it is built: its shapes alone are made, and they are counted.

Options come from recipes and from folders of strangers: a width of a million asks for terabytes,
and a billion blocks never end. Both are found here in a moment, with no memory but that of shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from compress.errors import RecipeError
from compress.io.files import size_words
from compress.measure.ondevice.machine import free_memory_bytes

__all__ = ["check_buildable", "within_memory"]

#: Modules that one net may have: several times as many as the deepest nets in use.
_MOST_MODULES = 10_000
#: A net is copied, and trained with a gradient and two moments, or written to a file.
_TIMES_IN_USE = 4
_DRAWS = frozenset({"normal_", "uniform_", "bernoulli_", "exponential_", "trunc_normal_"})
# What torch says of a shape whose bytes no whole number of 64 bits can count.
_OF_SIZE = ("overflow", "too large", "too big")


class _WithoutValues(TorchFunctionMode):
    """Draws no numbers: shapes have none, and torch would load its compiler to draw them."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class _TooLarge(Exception):
    """Ends a building as soon as it is known to be too much; says what it came to."""


def check_buildable(
    make: Callable[[], nn.Module],
    what: str,
    free_bytes: float | None = None,
    most_modules: int = _MOST_MODULES,
) -> None:
    """See that a net would fit into memory; its shapes are made, and no weight.

    Whatever else ``make`` raises is passed on.

    Args:
        make: builds the net, as often as it is called; without side effects.
        what: the net in words, which begin the sentence.
        free_bytes: what may be taken; the machine's free memory where not given.
        most_modules: how many modules the net may have.

    Raises:
        RecipeError: the weights would take more, or there would be no end of modules.
    """
    free = free_memory_bytes() if free_bytes is None else free_bytes
    try:
        with torch.device("meta"), _WithoutValues(), _counted(free, most_modules):
            make()
    except _TooLarge as error:
        raise RecipeError(f"{what}: {error}; give smaller options.") from None
    except (RuntimeError, OverflowError, TypeError) as error:
        if not any(part in str(error).lower() for part in _OF_SIZE):
            raise
        raise RecipeError(
            f"{what}: one of its tensors would be larger than any memory; give smaller options."
        ) from error


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Around the building itself: a machine that has no more memory is a sentence.

    Raises:
        RecipeError: there was less memory than was thought to be free.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise RecipeError(
            f"{what}: there is not enough memory for its weights; give smaller options."
        ) from error


@contextmanager
def _counted(free: float, most_modules: int) -> Iterator[None]:
    """Ends what is built within as soon as it has too many modules or parameters."""
    sizes: dict[int, tuple[nn.Parameter, int]] = {}
    seen = [0, 0]  # modules, bytes

    def count_module(*_: object) -> None:
        seen[0] += 1
        if seen[0] > most_modules:
            raise _TooLarge(f"it would have over {most_modules:,} layers")

    def count_parameter(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or id(parameter) in sizes:
            return
        taken = math.prod(parameter.shape) * parameter.element_size()
        sizes[id(parameter)] = parameter, taken  # which keeps the identity in use
        seen[1] += taken
        if seen[1] * _TIMES_IN_USE > free:
            raise _TooLarge(
                f"its weights would take over {size_words(seen[1])}, in use some {_TIMES_IN_USE} "
                f"times as much, and {size_words(free)} of memory are free"
            )

    hooks = (
        register_module_module_registration_hook(count_module),
        register_module_parameter_registration_hook(count_parameter),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
