"""Several processes on one store at once, and processes that are killed in it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from compress.cache import Store

PREFACE = """
import os, random, signal, sys, time
from pathlib import Path
from compress.cache import CacheEntry, Store

def make(root, number):
    folder = Path(root, f"run-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own").write_bytes(number.to_bytes(8, "big") * 5000)
    (folder / "shared").write_bytes(b"shared" * 5000)
    names = ["own", "shared"]
    entry = CacheEntry.of(f"{number:032x}", "stage", {"n": number}, names, folder.joinpath)
    return entry, folder.joinpath
"""

BUSY = """
place, root, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["COMPRESSKIT_CACHE_LIMIT"] = "200 kB"
draw, store, done = random.Random(seed), Store.open(place), 0
made = {number: make(root, number) for number in range(8)}
there, end = Path(root, "there"), time.monotonic() + 1.0
while time.monotonic() < end or done < 20:
    number = draw.randrange(8)
    entry, path_of = made[number]
    action = draw.random()
    if action < 0.4:
        store.put(entry, path_of)
    elif action < 0.9:
        found = store.find(entry.key, "stage")
        assert found is None or found == entry
        if found and store.fetch(found, there.joinpath):
            assert found.damage(there.joinpath) is None
            done += 1
    elif action < 0.95:
        store.prune(draw.randrange(200_000))
    else:
        store.verify()
# What another one pruned at the same moment may be missed. Nothing else may be said.
odd = [note for note in store.take_notes() if " is missing) and was removed" not in note]
sys.exit("; ".join(odd) if odd else 0)
"""

# Dies in place of the Nth call that changes anything on the disk.
KILLED = """
place, root, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
entry, path_of = make(root, 1)
calls = 0

def deadly(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("mkdir", "open", "fsync", "replace", "rename", "utime"):
    setattr(os, name, deadly(getattr(os, name)))
Store.open(place).put(entry, path_of)
"""


def start(code, *arguments):
    command = [sys.executable, "-c", PREFACE + code, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_several_processes_put_find_and_prune_at_once(place, tmp_path):
    processes = [start(BUSY, place, tmp_path / f"run-{seed}", seed) for seed in range(4)]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 4
    store = Store.open(str(place))
    assert store.verify().damage == ()
    store.prune(0)
    assert list(store.entries()) == []
    assert not list(place.rglob("*.part"))


@pytest.mark.parametrize("count", range(1, 28, 3))
def test_a_process_that_is_killed_in_a_put_leaves_a_whole_store(place, tmp_path, count):
    killed = start(KILLED, place, tmp_path / "runs", count)
    killed.communicate(timeout=60)
    assert killed.returncode in (-signal.SIGKILL, 0)
    store = Store.open(str(place))
    assert store.verify().damage == ()
    found = store.find(f"{1:032x}", "stage")
    if killed.returncode == 0:
        assert found is not None
    if found is not None:
        assert store.fetch(found, (tmp_path / "there").joinpath)
    assert store.take_notes() == []
    then = time.time() - 4000
    for path in place.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
    store.prune(0)
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["compresskit-store-1"]
