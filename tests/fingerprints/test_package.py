"""The source of the package itself."""

import shutil
from pathlib import Path

import pytest

import compress
from compress.fingerprints import package, package_source

pytestmark = pytest.mark.fast


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of a part of the package, and its digest."""
    root = tmp_path / "compress"
    for room in ("distillation", "stages", "report", "fingerprints"):
        shutil.copytree(Path(compress.__file__).parent / room, root / room)
    (root / "errors.py").write_text("")
    monkeypatch.setattr(package, "__file__", str(root / "fingerprints" / "package.py"))

    def digest():
        package_source.cache_clear()
        return package_source()

    yield root, digest
    package_source.cache_clear()


def test_it_is_of_the_source_of_what_makes_results(copied):
    root, digest = copied
    before = digest()
    assert before == digest()
    with (root / "report" / "html.py").open("a") as stream:
        stream.write("# shows results\n")
    assert digest() == before
    seen = {before}
    for path in ("stages/train.py", "errors.py", "distillation/losses/base.py"):
        with (root / path).open("a") as stream:
            stream.write("# makes results\n")
        assert digest() not in seen
        seen.add(digest())
    (root / "stages" / "train.py").rename(root / "stages" / "trained.py")
    assert digest() not in seen


def test_it_is_worked_out_once():
    assert package_source() is package_source()
