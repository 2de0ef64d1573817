"""What holds for all tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tests run side by side; threads that wait for each other across them would take turns.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _exporter_reads_its_library_once() -> Iterator[None]:
    # The exporter parses the source of 500 operators each time: most of a small net's export.
    with pytest.MonkeyPatch.context() as patch:
        read_once = functools.cache(ONNXRegistry.from_torchlib)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(read_once))
        yield
