"""A small net of numbers, and what a stage is given with it."""

from dataclasses import replace

import pytest

from compress.candidate import Candidate
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context

CASE = NETS["mlp"]


@pytest.fixture
def start():
    return Candidate.of(CASE.build(), CASE.example())


@pytest.fixture
def context(start, tmp_path):
    return replace(bench_context(start, tmp_path), task=CASE.make_task())
