"""Small IDX files, right and wrong, and a server that hands them out on loopback."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from compress.tasks.idx import IdxFile

Writer = Callable[..., IdxFile]


@pytest.fixture
def write_idx() -> Writer:
    """Writes random items of a shape to a folder, and says what the file must be."""

    def write(folder: Path, shape: tuple[int, ...] = (6, 4, 4), name: str = "items.gz") -> IdxFile:
        items = np.random.default_rng(0).integers(0, 10, shape, dtype=np.uint8)
        sizes = b"".join(size.to_bytes(4, "big") for size in shape)
        payload = bytes([0, 0, 8, len(shape)]) + sizes + items.tobytes()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(payload))
        return IdxFile(name, shape, hashlib.sha256(payload).hexdigest())

    return write


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the loopback address at which its files are served."""
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
