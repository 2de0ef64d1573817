"""What holds for all tests."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import random
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._export import utils as operators
from torch.export import exported_program
from torch.onnx._internal.exporter import _decomp as decompositions
from torch.onnx._internal.exporter._registration import ONNXRegistry

from compress.measure import local
from compress.measure.modes import PLANS
from compress.measure.ondevice import worker

from .records import (  # noqa: F401 - fixtures
    adversarial,
    chain,
    clustered,
    failed,
    lower_is_better,
    make,
    one_row,
    perfect,
    two_targets,
)
from .small_net import context, start  # noqa: F401 - fixtures


@pytest.fixture(autouse=True, scope="module")
def short_sessions() -> Iterator[None]:
    """Quick sessions end after two short rounds: what tests ask of them is that they take place."""
    quick = PLANS["quick"]
    timing = {**quick.timing, "warmup_cap_s": 0.05, "sample_s": 0.05, "least": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PLANS, "quick", replace(quick, min_rounds=2, max_rounds=2, timing=timing))
        yield


@pytest.fixture(autouse=True, scope="module")
def scored_here() -> Iterator[None]:
    """onnxruntime scores in this process: starting another takes longer than a small test set."""
    in_processes = local.run_side_by_side

    def scored(jobs: Sequence[Mapping[str, Any]], *, timeout_s: float) -> list[Any]:
        if any((job["kind"], job["runtime"]) != ("predict", "onnxruntime") for job in jobs):
            return in_processes(jobs, timeout_s=timeout_s)
        answers = [worker.answer(json.dumps(job)) for job in jobs]
        if any("error" in answer for answer in answers):  # whose words are those of a process
            return in_processes(jobs, timeout_s=timeout_s)
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run_side_by_side", scored)
        yield


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m fast``, leave out files without such tests: importing all takes a minute."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if config.getoption("markexpr") != "fast" or not is_test:
        return None
    return True if "pytest.mark.fast" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_finish() -> None:
    """Leave out of each collection of garbage what lives as long as the suite: a second of work."""
    gc.collect()
    gc.freeze()


# A test and a fixture draw the same numbers alone, in the whole suite, and whichever process of
# several they run in: what draws from the global generators starts from a seed of its own.
@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    _seed(collector.nodeid)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    _seed(fixturedef.argname)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    _seed("call")
    return (yield)


def _seed(name: str) -> None:
    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)
    # Not torch.manual_seed, which without an accelerator queues a call for each kind of them that
    # might still come, with the stack of its caller: gigabytes in a suite of this size.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tests run side by side; threads that wait for each other across them would take turns.
    torch.set_num_threads(1)


# The exporter parses the source of 500 operators each time, asks torch for all of its operators 30
# times, and takes away from each of them what it does on 20 kinds of devices: that is three
# quarters of a small net's export, and the same each time.
@pytest.fixture(scope="session", autouse=True)
def _exporter_reads_its_library_once() -> Iterator[None]:
    read_once = functools.cache(ONNXRegistry.from_torchlib)
    table_once = functools.cache(decompositions.create_onnx_friendly_decomposition_table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(read_once))
        patch.setattr(
            decompositions,
            "create_onnx_friendly_decomposition_table",
            lambda registered: dict(table_once(frozenset(registered))),
        )
        listed_once = functools.cache(operators._materialize_cpp_cia_ops)
        patch.setattr(operators, "_materialize_cpp_cia_ops", listed_once)
        for name in ("_AUTOGRAD_ALIAS_BACKEND_KEYS_TO_OVERRIDE", "_BACKEND_KEYS_TO_OVERRIDE"):
            keys = getattr(exported_program, name)
            here = [key for key in keys if key.name.endswith(("CPU", "Meta", "CUDA"))]
            patch.setattr(exported_program, name, here)
        yield


@pytest.fixture(scope="session")
def _store_places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    base, numbers = tmp_path_factory.mktemp("stores"), itertools.count()
    return lambda: base / str(next(numbers))


# No test shares results with another, or touches the developer's: not what a test itself runs, and
# not the runs that a fixture makes for a whole module.
@pytest.fixture(scope="session", autouse=True)
def _session_store(_store_places: Callable[[], Path]) -> Iterator[None]:
    yield from _with_store(_store_places())


@pytest.fixture(scope="module", autouse=True)
def _module_store(_session_store: None, _store_places: Callable[[], Path]) -> Iterator[None]:
    yield from _with_store(_store_places())


@pytest.fixture(autouse=True)
def _store(_module_store: None, _store_places: Callable[[], Path]) -> Iterator[None]:
    yield from _with_store(_store_places())


def _with_store(place: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESSKIT_CACHE", str(place))  # processes that a test starts have it too
        patch.delenv("COMPRESSKIT_CACHE_LIMIT", raising=False)
        yield
