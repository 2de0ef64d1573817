"""What measuring may load: no torch anywhere, and a worker that stands alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import compress.measure
from compress.measure.process import WORKER

MODULES = sorted(path.stem for path in Path(compress.measure.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("heavy", ["torch", "onnx", "onnxruntime", "openvino"])
def test_measuring_loads_nothing_heavy(heavy):
    names = ", ".join(f"compress.measure.{name}" for name in MODULES if name != "__init__")
    code = f"import sys, {names}; sys.exit({heavy!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=WORKER.parents[2])


def test_the_worker_needs_only_numpy_and_a_runtime():
    tree = ast.parse(WORKER.read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "openvino"}


def test_the_worker_keeps_to_the_grammar_of_python_3_9():
    source = WORKER.read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    # Not grammar, but not in 3.9 either.
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [c for c in calls if any(k.arg == "strict" for k in c.keywords)]
    assert "from __future__ import annotations" in source
