"""A walk over a value: every part of it goes into one digest, in an order that no process changes.

Owns what walks of all kinds share: tokens, cycles, things that are held several times, and the
words for where something was found. What each kind of value consists of is given by *handlers*.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from compress.errors import CompressError, in_words
from compress.fingerprints.libraries import library_identity

if TYPE_CHECKING:
    from compress.fingerprints.files import FileDigestCache

__all__ = ["ArrayDigests", "ContentWalk", "Unstable", "WalkConfig", "in_a_clause", "plain_token"]

_DIGEST_BYTES = 16
_MOST_VALUES = 2_000_000
_DOUBLE = struct.Struct("<d")


class Unstable(Exception):
    """There is no digest of something; the text is a clause that says why."""


class ArrayDigests(Protocol):
    """Gives the digest of an array; one that remembers need not read it all again."""

    def of(self, array: Any) -> str:
        """The digest of dtype, shape and content."""
        ...


_Pending = tuple[Callable[["ContentWalk", Any], None], Any, tuple[tuple[str, str], ...]]

#: Whether it took the value; ``False`` leaves it to the next.
Handler = Callable[["ContentWalk", Any], bool]


@dataclass(frozen=True)
class WalkConfig:
    """What a walk works with: handlers in the order they are asked, arrays, and known files."""

    handlers: Sequence[Handler]
    arrays: ArrayDigests
    files: FileDigestCache
    _identities: dict[str, str | None] = field(default_factory=dict)

    def identity(self, module: str) -> str | None:
        """What identifies a library's module; ``None`` of the user's own."""
        if module not in self._identities:
            self._identities[module] = library_identity(module)
        return self._identities[module]


@dataclass
class _ContentBudget:
    """How many values may still be visited; a walk and its parts share it."""

    left: int


class ContentWalk:
    """One digest in the making.

    Args:
        what: is walked over, for sentences, such as "the metric".
        config: how.
        outer: the walk that this one is a part of.
    """

    def __init__(self, what: str, config: WalkConfig, outer: ContentWalk | None = None) -> None:
        self.what = what
        self.config = config
        self._outer = outer
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._budget: _ContentBudget = (
            _ContentBudget(_MOST_VALUES) if outer is None else outer._budget
        )
        # By id; what is in here is kept, since a new value might get the id of one that is gone.
        self._numbers: dict[int, tuple[int, Any]] = {}
        self._open: dict[int, int] = {}
        self._trail: list[tuple[str, str]] = [] if outer is None else list(outer._trail)
        self._pending: deque[_Pending] = deque()

    def put(self, kind: str, content: str | bytes = b"") -> None:
        """One token; no two sequences of them read alike."""
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        self._digest.update(f"{kind}:{len(data)}:".encode())
        self._digest.update(data)

    def visit(self, value: Any) -> None:
        """Take in a value, and all that it holds.

        Raises:
            Unstable: it cannot be known.
        """
        self._budget.left -= 1
        if self._budget.left < 0:
            raise Unstable(f"{self.what} holds over {_MOST_VALUES:,} values, too many to compare")
        token = plain_token(value)
        if token is not None:
            self.put("plain", token)
            return
        for handler in self.config.handlers:
            if handler(self, value):
                return
        self.refuse(value)

    def step(self, how: str, name: str, value: Any) -> None:
        """Visit something that what is visited now ``holds``, ``uses`` or ``closes over``."""
        self._trail.append((how, name))
        self.visit(value)
        self._trail.pop()

    def entered(self, container: Any) -> bool:
        """Whether a container is begun; one that is open already is not, and ends a cycle."""
        key = id(container)
        if self._is_above(key):
            return False
        if key in self._open:
            self.put("cycle", str(len(self._open) - self._open[key]))
            return False
        self._open[key] = len(self._open)
        return True

    def left(self, container: Any) -> None:
        """The container that was begun last is done."""
        del self._open[id(container)]

    def later(self, value: Any, body: Callable[[ContentWalk, Any], None]) -> None:
        """Take in what may be held in several places: once, and when all before it is done.

        So long chains of functions and objects need no deep stack.
        """
        if not self.again(value):
            self._pending.append((body, value, tuple(self._trail)))

    def again(self, value: Any) -> bool:
        """Whether this very object was met before; either way it counts by its number."""
        key = id(value)
        if self._is_above(key):
            return True
        is_known = key in self._numbers
        if not is_known:
            self._numbers[key] = (len(self._numbers), value)
        self.put("object", str(self._numbers[key][0]))
        return is_known

    def met(self, value: Any) -> bool:
        """Whether this very object was met before, and so counts by its number."""
        return id(value) in self._numbers and self.again(value)

    def alone(self, value: Any) -> bytes:
        """The digest of a part by itself: what puts things without an order into one."""
        token = plain_token(value)
        if token is not None:
            return token
        part = ContentWalk(self.what, self.config, self)
        part.visit(value)
        return part.finish().encode()

    def part(self, how: str, name: str, value: Any) -> bytes:
        """The same of one of many parts, each of which may be large."""
        self._trail.append((how, name))
        self._budget.left = _MOST_VALUES
        token = self.alone(value)
        self._trail.pop()
        return token

    def in_any_order(self, kind: str, values: Iterable[Any]) -> None:
        """Take in values that have no order."""
        tokens = sorted(self.alone(value) for value in values)
        self.put(kind, str(len(tokens)))
        for token in tokens:
            self.put("element", token)

    def finish(self) -> str:
        """Take in what was left for later; the digest, in 32 hex digits.

        Raises:
            Unstable: it cannot be known.
        """
        while self._pending:
            body, value, trail = self._pending.popleft()
            self._trail = list(trail)
            self.put("body")
            body(self, value)
        return self._digest.hexdigest()

    def _is_above(self, key: int) -> bool:
        """Whether an outer walk has met it, which then says which it is."""
        outer, level = self._outer, 0
        while outer is not None:
            if key in outer._open or key in outer._numbers:
                place = outer._open.get(key, outer._numbers.get(key, (None,))[0])
                self.put("above", f"{level} {key in outer._open} {place}")
                return True
            outer, level = outer._outer, level + 1
        return False

    def refuse(self, value: Any, kind: str = "") -> NoReturn:
        """Raise that ``value`` cannot be known, with where it was found."""
        kind = kind or kind_words(value)
        self.refuse_because(kind, "whose content cannot be compared between runs")

    def refuse_because(self, kind: str, why: str, how: str = "") -> NoReturn:
        """Raise that what was found, in words, is no basis for re-use."""
        if not self._trail:
            raise Unstable(f"{self.what} {how or 'is'} {kind}, {why}")
        names = ".".join(name for _, name in self._trail)
        raise Unstable(f"{self.what} {how or self._trail[-1][0]} {kind} ({names}), {why}")


@contextmanager
def in_a_clause(what: str) -> Iterator[None]:
    """Turns what the code of somebody's objects raises into a clause.

    Raises:
        Unstable: it raised something, or is nested beyond Python's stack.
    """
    try:
        yield
    except (Unstable, CompressError):
        raise
    except RecursionError:
        raise Unstable(f"{what} is nested too deeply to be compared") from None
    except Exception as error:
        raise Unstable(f"{what} cannot be compared ({in_words(error)})") from error


def kind_words(value: Any) -> str:
    """What kind of thing a value is, with an article."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name} object"


def plain_token(value: Any) -> bytes | None:
    """The whole of a plain value; ``None`` for any other."""
    kind = type(value)
    if kind is str:
        return b"s" + str.encode(value, "utf-8", "surrogatepass")
    if kind is int:
        return b"i" + hex(value).encode()
    if kind is bool:
        return b"b1" if value else b"b0"
    if value is None:
        return b"n"
    if kind is float:
        return b"f" + _DOUBLE.pack(value if value == value else math.nan)
    if kind is bytes:
        return b"".join((b"y", value))
    if kind is complex:
        return b"c" + _DOUBLE.pack(value.real) + _DOUBLE.pack(value.imag)
    if value is Ellipsis or value is NotImplemented:
        return b"e" + repr(value).encode()
    return None
