"""The tiny BERT, a copy for each test, and recipes on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.candidate import Candidate
from compress.recipe import Recipe
from compress.task import Task
from compress.testing.tiny_bert import WORDS, write_lines, write_model, write_tokenizer
from compress.training.data import is_labeled

pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def _bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "tiny-bert"
    write_model(folder)
    return folder


@pytest.fixture
def bert(_bert: Path, tmp_path: Path) -> Path:
    """A copy of the folder that may be damaged."""
    return Path(shutil.copytree(_bert, tmp_path / "tiny-bert"))


@pytest.fixture
def other_words(tmp_path: Path) -> Path:
    """A folder whose tokenizer knows other words."""
    write_tokenizer(tmp_path / "other", WORDS[::-1])
    return tmp_path / "other"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file with 120 different lines of known words."""
    path = tmp_path / "lines.txt"
    write_lines(path, 120)
    return path


@pytest.fixture
def recipe_of(bert: Path, texts: Path) -> Callable[..., Recipe]:
    """A recipe on the tiny BERT and the lines, of the stages given in YAML."""

    def make(*stages: str) -> Recipe:
        blocks = "".join(f"  - {{{stage}}}\n" for stage in stages)
        return Recipe.loads(
            f"task: {{name: text, path: {texts}, tokenizer: {bert}, max_length: 12}}\n"
            f"model: {{hf: {bert}}}\n"
            f"stages:\n{blocks}"
        )

    return make


@pytest.fixture
def start(recipe_of: Callable[..., Recipe]) -> tuple[Candidate, Task]:
    """The tiny BERT as a candidate, and its task."""
    recipe = recipe_of("kind: quantize")
    task = recipe.make_task()
    assert not is_labeled(task.train)
    return recipe.make_candidate(task), task
