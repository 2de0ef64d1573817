import os
import time

import pytest

from compress.cache import CacheEntry, Store
from compress.cache.location import backend_at

WEIGHTS = "candidate/weights.safetensors"
CANDIDATE = "candidate/candidate.json"


class Results:
    """Results of a run folder, and two kinds of stores for them."""

    def __init__(self, root):
        self.root = root

    def make(self, number=1, *, shared=b"shared" * 100, kind="stage", bytes_=1000):
        """An entry with a file of its own and one that all have; where its files are."""
        folder = self.root / f"run-{number}"
        (folder / "candidate").mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(number.to_bytes(8, "big") * (bytes_ // 8))
        (folder / CANDIDATE).write_bytes(shared)
        facts = {"recipe": "mine", "stage": f"{number} train", "losses": [0.5, 1e-9]}
        path_of = folder.joinpath
        return CacheEntry.of(f"{number:032x}", kind, facts, [WEIGHTS, CANDIDATE], path_of), path_of


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "runs")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "store"


@pytest.fixture(params=["folder", "memory"])
def any_place(request, tmp_path):
    """A folder, and what fsspec keeps in memory."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    import fsspec

    yield f"memory://{tmp_path.name}/store"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(place):
    return Store.open(str(place))


@pytest.fixture
def age():
    """Makes files of a store in a folder look as if they were last used so long ago."""

    def call(place, names, age_s):
        then = time.time() - age_s
        for path in sorted(place.glob(names)):
            os.utime(path, (then, then), follow_symlinks=False)

    return call


@pytest.fixture
def backend(place):
    return backend_at(str(place))
