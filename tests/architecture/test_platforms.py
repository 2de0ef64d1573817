"""What other systems and the oldest Python lack is not needed to import, and said."""

import ast
import math
import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from compress.cli import doctor
from compress.measure.ondevice import machine, memory

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "compress").rglob("*.py"))
# Modules of the standard library that only some systems have.
OF_A_SYSTEM = {"fcntl", "grp", "msvcrt", "pwd", "resource", "syslog", "termios", "tty", "winreg"}
# What Python 3.10, the oldest that is taken, does not have yet.
NEWER = {
    "typing": {"LiteralString", "Never", "NotRequired", "Required", "Self", "TypeVarTuple"}
    | {"Unpack", "assert_never", "assert_type", "override", "reveal_type", "TypeAliasType"},
    "enum": {"EnumCheck", "ReprEnum", "StrEnum", "member", "nonmember", "verify"},
    "datetime": {"UTC"},
    "contextlib": {"chdir"},
    "hashlib": {"file_digest"},
    "itertools": {"batched"},
    "math": {"cbrt", "exp2", "sumprod"},
    "warnings": {"deprecated"},
}


def at_the_top(tree):
    """The statements that are run when a module is imported, less those for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from node.orelse
        else:
            yield node


def imported(statements):
    for node in statements:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.module, alias.name) for alias in node.names)


def test_every_module_can_be_imported_on_every_system_and_by_the_oldest_python():
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text(), str(path), feature_version=(3, 10))
        for module, name in imported(at_the_top(tree)):
            if module in OF_A_SYSTEM | {"tomllib"} or name in NEWER.get(module, ()):
                found.append(f"{path.relative_to(ROOT)}: {module} {name or ''}")
    assert found == []


def test_what_is_no_code_is_in_the_wheel():
    listed = re.search(r"^compress = (\[[^]]*\])", (ROOT / "pyproject.toml").read_text(), re.M)
    kept = ast.literal_eval(listed[1])
    for path in (ROOT / "compress").rglob("*"):
        inside = path.relative_to(ROOT / "compress").as_posix()
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(fnmatch(inside, pattern) for pattern in kept), inside
        if path.suffix == ".py":  # else it is in no package
            assert (path.parent / "__init__.py").is_file() or inside in kept_files(kept)


def kept_files(patterns):
    home = ROOT / "compress"
    return {p.relative_to(home).as_posix() for one in patterns for p in home.glob(one)}


@pytest.fixture(params=["win32", "darwin"])
def elsewhere(request, monkeypatch):
    """A system without /proc, and on Windows without what else POSIX has."""
    monkeypatch.setattr(sys, "platform", request.param)
    name = {"win32": "Windows", "darwin": "Darwin"}[request.param]
    monkeypatch.setattr("platform.system", lambda: name)
    for place in (machine, memory, doctor):
        monkeypatch.setattr(place, "read_file", lambda path: "")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    if request.param == "win32":
        monkeypatch.delattr(os, "getloadavg", raising=False)
        monkeypatch.setitem(sys.modules, "resource", None)
    return name


def test_peak_memory_that_cannot_be_measured_says_so(elsewhere):
    assert memory.measure_memory({}) == {
        "unavailable": "peak memory needs VmHWM in /proc/self/status, which is not here"
    }
    assert memory.bound_memory({}) == math.inf


def test_the_machine_is_described_by_what_there_is(elsewhere):
    facts, state = machine.machine(), machine.machine_state()
    assert facts["system"] == elsewhere
    assert (state["load"] is None) == (elsewhere == "Windows")
    assert machine.cpu_count() == os.cpu_count()


def test_doctor_says_what_is_not_measured_there(elsewhere):
    said = [f.what for check in (doctor._system, doctor._clock) for f in check()]
    assert said[0] == f"the system is {elsewhere}, and releases are tested on Linux"
    assert said[1].startswith("peak memory is not measured here")
    assert ("cannot be read here" in said[2]) == (elsewhere == "Windows")
