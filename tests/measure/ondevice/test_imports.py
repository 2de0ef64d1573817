"""What measuring may load: no torch anywhere, and on devices hardly anything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import compress.measure
from compress.measure import ondevice
from compress.measure.process import WORKER

MODULES = sorted(path.stem for path in Path(compress.measure.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("heavy", ["torch", "onnx", "onnxruntime", "openvino"])
def test_measuring_loads_nothing_heavy(heavy):
    names = ", ".join(f"compress.measure.{name}" for name in MODULES if name != "__init__")
    code = f"import sys, {names}; sys.exit({heavy!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=WORKER.parents[2])


ON_DEVICE = sorted(Path(ondevice.__file__).parent.rglob("*.py"))


def names_of(path):
    """What a file imports, for whatever purpose."""
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module


@pytest.mark.parametrize("path", ON_DEVICE, ids=lambda path: path.name)
def test_what_runs_on_devices_imports_itself_numpy_and_runtimes(path):
    own = ondevice.__name__
    names = {name for name in names_of(path) if not f"{name}.".startswith(f"{own}.")}
    others = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert others <= {"numpy"}  # runtimes are imported by their names, in their files


@pytest.mark.parametrize("path", ON_DEVICE, ids=lambda path: path.name)
def test_what_runs_on_devices_keeps_to_python_3_9(path):
    source = path.read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    # Not grammar, but not in 3.9 either.
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [c for c in calls if any(k.arg == "strict" for k in c.keywords)]
    assert "from __future__ import annotations" in source or len(tree.body) == 1
