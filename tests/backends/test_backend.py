"""The contract of backends, and that what measures and runs asks it."""

import ast
from pathlib import Path

import pytest

import compress
from compress import Candidate, ReplayTarget
from compress.artifact import Lowering
from compress.backends import BACKENDS, ONNX, Backend, backend_of_file, files_beside
from compress.measure.target import backend_of
from compress.testing.nets import NETS

PACKAGE = Path(compress.__file__).parent


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request):
    return request.param


def test_a_backend_keeps_the_contract(backend, tmp_path):
    case = NETS["mlp"]
    candidate = Candidate.of(case.build(), case.example())
    path = tmp_path / f"model{backend.suffix}"
    artifact = backend.lower(candidate, Lowering(), calibration=[], check=case.example(), path=path)
    assert isinstance(backend, Backend)
    assert artifact.path == path
    assert artifact.parity is not None
    assert backend.census(path).macs == artifact.census.macs > 0
    assert path.resolve() in backend.files(path)
    assert backend_of_file(path) is backend
    beside = files_beside(backend, path)
    assert beside[0] == path
    assert set(beside) == {p for p in tmp_path.iterdir() if p.is_file()}


def test_a_target_has_the_backend_that_it_names(backend):
    class Own(ReplayTarget):
        @property
        def backend(self):
            return backend

    assert backend_of(Own()) is backend
    assert backend_of(ReplayTarget()) is ONNX


@pytest.mark.parametrize("room", ["running", "suite", "device", "pareto", "report", "tracking"])
def test_rooms_above_know_no_format_of_files(room):
    for path in (PACKAGE / room).rglob("*.py"):
        names = [
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
        ]
        known = [name for name in names if name == "onnx" or "backends.onnx" in name]
        assert not known, f"{path} imports {known}"
