"""``compresskit cache``: what the store of results has, whether it is whole, and less of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from compress.cache import Store, StoredResult
from compress.cache.sizes import parse_size
from compress.io.files import named, size_words
from compress.text_table import columns_of, text_lines

_KEY_DIGITS = 12
_HEADS = ("key", "kind", "of", "size", "last use")
_SHOWN_FACTS = ("recipe", "stage", "target")
_AGES = ((86_400, "day"), (3600, "hour"), (60, "minute"))


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 where ``verify`` found damage."""
    return _ACTIONS[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    store = Store.open(arguments.cache, create=False)
    kept = list(store.entries())
    usage = store.usage()
    for note in store.take_notes():
        print(f"note: {note}")
    if kept:
        print(table(kept, time.time()))
    print(
        f"{_count(len(kept))}, {size_words(usage.bytes)} of at most "
        f"{size_words(usage.limit_bytes)}, in {store.place}"
    )
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    store = Store.open(arguments.cache, create=False)
    verified = store.verify(keep=arguments.keep)
    for sentence in verified.damage:
        print(f"damaged: {sentence}")
    print(
        f"{_count(verified.results)} whole, {size_words(verified.bytes)} read, "
        f"{len(verified.damage)} damaged, in {store.place}"
    )
    return int(bool(verified.damage))


def _prune(arguments: argparse.Namespace) -> int:
    size = None if arguments.to is None else parse_size(arguments.to, "--to")
    store = Store.open(arguments.cache, create=False)
    removed = store.prune(0 if arguments.all else size)
    for damaged in removed.damaged:
        print(f"damaged: {named(damaged)}; removed.")
    print(
        f"removed {_count(removed.results)} and {size_words(removed.bytes)}; "
        f"{size_words(store.usage().bytes)} are left in {store.place}"
    )
    return 0


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "ls": _list,
    "verify": _verify,
    "prune": _prune,
}


def table(kept: list[StoredResult], now_s: float) -> str:
    """A line for each result."""
    rows = [_row(one, now_s) for one in kept]
    return "\n".join(text_lines(columns_of(rows, _HEADS, left=range(len(_HEADS)))))


def _row(kept: StoredResult, now_s: float) -> tuple[str, ...]:
    entry = kept.entry
    # What a stranger's store says is shown on one line, and moves no cursor.
    words = [named(fact) for name in _SHOWN_FACTS if isinstance(fact := entry.facts.get(name), str)]
    return (
        entry.key[:_KEY_DIGITS],
        entry.kind,
        " ".join(words) or "-",
        size_words(entry.size_bytes),
        _age(now_s - kept.used_s),
    )


def _age(age_s: float) -> str:
    for unit_s, unit in _AGES:
        if age_s >= unit_s:
            return f"{_count(int(age_s // unit_s), unit)} ago"
    return "just now"


def _count(number: int, what: str = "result") -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
