import importlib
import sys
import textwrap

import pytest


def run(source, **names):
    """The namespace that some source makes: of a module that has no file."""
    scope = {"__name__": "made", **names}
    exec(textwrap.dedent(source), scope)
    return scope


@pytest.fixture
def made():
    return run


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of the user's and imports it; again with another source takes its place."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = set()

    def write(name, source, *, imported=True):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        names.add(name)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(name) if imported else path

    yield write
    for name in names:
        sys.modules.pop(name, None)
