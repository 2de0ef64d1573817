"""The schema and the pages of the reference, made from the settings: run as a module, writes them.

``python -m tests.tools.reference`` writes ``compress/reference/recipe.schema.json``, its copy
beside the recipes, ``docs/reference/``, and the tables of kept rows on other pages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import compress
from compress.config.docstrings import summary
from compress.reference.entries import Block, Key, top_block
from compress.reference.paths import Reference
from compress.reference.schema import schema_text
from tests.tools.kept_rows import PAGES, with_tables
from tests.tools.reference_examples import EXAMPLES, INTRODUCTIONS

__all__ = ["files", "pages"]

ROOT = Path(__file__).parents[2]
_MADE = "<!-- Made by `python -m tests.tools.reference`; what it says stands in compress/. -->"
_PAGES = ("recipe", "train", "distill", "quantize", "prune", "tasks", "models", "targets", "budget")


def files() -> dict[Path, str]:
    """Every file that is made, by its path from the root of the repository."""
    schema = schema_text()
    kept = {Path(f"{folder}/recipe.schema.json"): schema for folder in _SCHEMAS}
    made = pages(Reference(json.loads(schema)))
    kept |= {Path(f"docs/reference/{name}.md"): text for name, text in made.items()}
    for name in PAGES:
        written = (ROOT / "docs" / name).read_text(encoding="utf-8")
        kept[Path("docs") / name] = with_tables(written, ROOT / "benchmarks" / "results")
    return kept


_SCHEMAS = ("compress/reference", "recipes")


def pages(reference: Reference) -> dict[str, str]:
    """The pages by name."""
    writer = _Pages(reference)
    made = {name: "\n\n".join([*_head(name), *getattr(writer, name)()]) + "\n" for name in _PAGES}
    return {"index": _index(), **made, "python": _python()}


def _index() -> str:
    names = (*_PAGES, "python")
    text = "\n".join(f"- [{name}]({name}.md): {summary(INTRODUCTIONS[name])}." for name in names)
    return f"# Reference\n\n{_MADE}\n\n{INTRODUCTIONS['index']}\n\n{text}\n"


def _python() -> str:
    """The page of the public names, which mkdocstrings fills in when the site is built."""
    parts = ["# Python", _MADE, INTRODUCTIONS["python"]]
    for name in compress.__all__:
        home = getattr(compress, name).__module__
        parts.append(f"::: {home}.{name}")
    return "\n\n".join(parts) + "\n"


def _head(name: str) -> Iterator[str]:
    yield f"# {name.capitalize()}"
    yield _MADE
    yield INTRODUCTIONS[name]
    if name in EXAMPLES:
        yield f"```yaml\n{EXAMPLES[name].strip()}\n```"


@dataclass(frozen=True)
class _Pages:
    """Each page as its parts, which blank lines divide."""

    reference: Reference

    def recipe(self) -> Iterator[str]:
        """The keys on top."""
        yield "## Keys"
        yield _keys_table(top_block(self.reference.schema).keys)

    def train(self) -> Iterator[str]:
        """The stage, and what all that train share."""
        stage = self._block("train")
        yield from self._section("Keys", stage)
        yield from self._section("cache", self._only("train.cache"), code=True)
        yield from self._section("mix", self._only("train.mix"), code=True)

    def distill(self) -> Iterator[str]:
        """The stage, teachers and every loss."""
        shared = self._block("train")
        link = "[train](train.md#keys)"
        yield from self._section("Keys", self._block("distill"), less=shared, link=link)
        yield from self._teacher()
        losses = [one for one in self._key("distill.losses").blocks if one.name]
        yield "## Losses"
        yield "Each is an entry of `losses`; its `kind` is the name here."
        yield _table(
            ("loss", "what it does"), [(f"[`{b.name}`](#{b.name})", b.summary) for b in losses]
        )
        common = next(one for one in losses if one.name == "label")
        yield "### Keys of every loss"
        yield _keys_table([key for key in common.keys if not key.names_its_block])
        yield from self._section("weight", self._only("distill.losses.label.weight"), 4, code=True)
        for loss in losses:
            yield from self._section(
                loss.name, loss, 3, less=common, link="[every loss](#keys-of-every-loss)", code=True
            )
        yield from self._section("axis", self._only("distill.losses.hint.axis"), 3, code=True)

    def _teacher(self) -> Iterator[str]:
        one, member = self._key("distill.teacher").blocks
        yield from self._section("teacher", one, code=True)
        yield "Of a list of several teachers each has one key more:"
        yield _keys_table([key for key in member.keys if key.name == "weight"])

    def quantize(self) -> Iterator[str]:
        """The stage, formats and calibration."""
        yield from self._section("Keys", self._block("quantize"))
        yield from self._choices("Formats of weights", "quantize.weights")
        yield from self._choices("Formats of activations", "quantize.activations")
        yield from self._section("calibration", self._only("quantize.calibration"), code=True)

    def prune(self) -> Iterator[str]:
        """The stage, importance and training after the cut."""
        yield from self._section("Keys", self._block("prune"))
        yield from self._choices("Importance", "prune.importance")
        yield from self._section("goal", self._only("prune.goal"), code=True)
        yield from self._section("schedule", self._only("prune.schedule"), code=True)
        yield from self._section("sparsify", self._only("prune.sparsify"), code=True)
        yield from self._section(
            "finetune",
            self._only("prune.finetune"),
            less=self._block("train"),
            link="[train](train.md#keys)",
            code=True,
        )

    def tasks(self) -> Iterator[str]:
        """What every task takes, and each task."""
        task = self._only("task")
        yield from self._section("Keys of every task", task)
        yield from self._section("metric", self._only("task.metric"), code=True)
        yield from self._section("fields", self._only("task.fields"), code=True)
        yield "## Built-in tasks"
        for one in task.variants:
            yield from self._section(one.name, one, 3, code=True)

    def models(self) -> Iterator[str]:
        """Models by architecture, by folder, by blocks, and each architecture."""
        arch, folder, blocks = self._key("distill.student").blocks
        yield from self._section("A model by its architecture", arch)
        yield from self._section("A model from a folder", folder)
        yield from self._section("A student of some blocks", blocks)
        yield "## Built-in architectures"
        for one in arch.variants:
            yield from self._section(one.name, one, 3, code=True)

    def targets(self) -> Iterator[str]:
        """Each kind of target."""
        for one in self._key("targets").blocks:
            if one.name:
                yield from self._section(one.name, one, code=True)
            else:
                yield from self._section("One of your own", one)

    def budget(self) -> Iterator[str]:
        """The limits."""
        yield from self._section("Keys", self._only("budget"))

    def _block(self, path: str) -> Block:
        found = self.reference.entries[path]
        assert isinstance(found, Block)
        return found

    def _key(self, path: str) -> Key:
        found = self.reference.entries[path]
        assert isinstance(found, Key)
        return found

    def _only(self, path: str) -> Block:
        """The block that a key holds, which has no kind of its own."""
        (block,) = [one for one in self._key(path).blocks if not one.name]
        return block

    def _choices(self, title: str, path: str) -> Iterator[str]:
        yield f"## {title}"
        choices = self._key(path).choices
        yield _table(
            (path.partition(".")[2], "what it is"), [(f"`{c.value}`", c.about) for c in choices]
        )

    def _section(
        self,
        title: str,
        block: Block,
        level: int = 2,
        *,
        less: Block | None = None,
        link: str = "",
        code: bool = False,
    ) -> Iterator[str]:
        yield f"{'#' * level} {f'`{title}`' if code else title}"
        yield block.description
        if block.source:
            yield f"Source: {block.source}."
        known = {key.name: key.node for key in less.keys} if less is not None else {}
        own = [
            key for key in block.keys if known.get(key.name) != key.node and not key.names_its_block
        ]
        if own:
            yield _keys_table(own)
        shared = [f"`{key.name}`" for key in block.keys if known.get(key.name) == key.node]
        if shared:
            yield f"{'And' if own else 'It has'} the keys of {link}: {', '.join(shared)}."


def _keys_table(keys: Iterable[Key]) -> str:
    rows = [(f"`{key.name}`", _values(key), _default(key), _words(key)) for key in keys]
    return _table(("key", "values", "default", "what it is"), rows)


def _values(key: Key) -> str:
    named = [f"`{choice.value}`" for choice in key.choices]
    kinds = [f"`{kind}`" if ":" in kind else kind for kind in key.types if kind != "any"]
    linked = [kind.replace("block", _LINKS.get(key.name, "block")) for kind in kinds]
    ranges = [part for part in (key.range, key.unit) if part]
    text = ", ".join([*named, *linked])
    return f"{text}: {', '.join(ranges)}" if ranges and text else text or ", ".join(ranges)


_LINKS = {
    "task": "[block](tasks.md)",
    "model": "[block](models.md)",
    "student": "[block](models.md)",
    "network": "[block](models.md)",
    "teacher": "[block](distill.md#teacher)",
    "losses": "[block](distill.md#losses)",
    "targets": "[block](targets.md)",
    "stages": "[block](index.md)",
    "budget": "[block](budget.md)",
    "cache": "[block](train.md#cache)",
    "mix": "[block](train.md#mix)",
    "weight": "[block](distill.md#weight)",
    "axis": "[block](distill.md#axis)",
    "goal": "[block](prune.md#goal)",
    "schedule": "[block](prune.md#schedule)",
    "sparsify": "[block](prune.md#sparsify)",
    "finetune": "[block](prune.md#finetune)",
    "calibration": "[block](quantize.md#calibration)",
    "metric": "[block](tasks.md#metric)",
    "fields": "[block](tasks.md#fields)",
}


def _default(key: Key) -> str:
    plain = key.default in ("required", "not given", "none")
    return key.default if plain else f"`{key.default}`"


def _words(key: Key) -> str:
    source = f" Source: {key.source}." if key.source else ""
    return " ".join(key.description.split()) + source


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


if __name__ == "__main__":
    made = files()
    for path, text in made.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {', '.join(map(str, made))}\n")
