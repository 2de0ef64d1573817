import pytest

from compress import Candidate, ReplayTarget
from compress.testing.nets import NETS


@pytest.fixture
def case():
    return NETS["mlp"]


@pytest.fixture
def candidate(case):
    return Candidate.of(case.build(), case.example())


@pytest.fixture
def task(case):
    return case.make_task()


@pytest.fixture
def target():
    return ReplayTarget()
