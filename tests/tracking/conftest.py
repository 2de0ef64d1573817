"""A small run for trackers to be told of, and libraries that only write down what they are told."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from compress import Candidate, QuantizeStage, Recipe, ReplayTarget, TrainStage
from compress.testing.nets import NETS


def small_run(folder, observer):
    """Trains and quantizes a small net, and returns the record."""
    case = NETS["mlp"]
    stages = (TrainStage(epochs=2, batch_size=64, learning_rate=1e-2), QuantizeStage())
    recipe = Recipe(name="tracked", stages=stages)
    candidate, task = Candidate.of(case.build(), case.example()), case.make_task()
    options = {"targets": [ReplayTarget()], "workdir": folder, "observer": observer}
    return recipe.run(candidate, task, **options, report=False)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder, the records and the events of a run and of its repetition."""
    folder, records, events = tmp_path_factory.mktemp("runs") / "run", [], []
    for _ in range(2):
        events.append([])
        records.append(small_run(folder, events[-1].append))
    return SimpleNamespace(folder=folder, records=records, events=events)


@pytest.fixture
def run(runs):
    """Tells an observer of the run (or with 1, of its repetition); returns its record."""

    def call(observer, number=0):
        for event in runs.events[number]:
            observer(event)
        return runs.records[number]

    return call


@pytest.fixture
def new_run(tmp_path):
    """The run for real, in a folder of its own."""
    return lambda observer: small_run(tmp_path / "run", observer)


class Calls(list):
    """What a library was told, in order, as (function, arguments)."""

    def note(self, name, answer=None):
        def function(*arguments, **keywords):
            self.append((name, arguments, keywords))
            return answer

        return function

    def of(self, name):
        return [(arguments, keywords) for called, arguments, keywords in self if called == name]


def fake_mlflow(calls):
    client = SimpleNamespace(
        get_experiment_by_name=calls.note("get_experiment_by_name"),
        create_experiment=calls.note("create_experiment", "7"),
        create_run=calls.note("create_run", SimpleNamespace(info=SimpleNamespace(run_id="r1"))),
        log_batch=calls.note("log_batch"),
        set_terminated=calls.note("set_terminated"),
    )
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient = calls.note("MlflowClient", client)
    module.entities = entities
    entities.Param = lambda key, value: (key, value)
    entities.Metric = lambda key, value, timestamp, step: (key, value, step)
    return {"mlflow": module, "mlflow.entities": entities}


def fake_tensorboard(calls):
    writer = SimpleNamespace(
        **{name: calls.note(name) for name in ("add_text", "add_scalar", "flush", "close")}
    )
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = calls.note("SummaryWriter", writer)
    return {"torch.utils.tensorboard": module}


def fake_wandb(calls):
    run = SimpleNamespace(**{name: calls.note(name) for name in ("define_metric", "log", "finish")})
    module = ModuleType("wandb")
    module.init = calls.note("init", run)
    module.Settings = lambda **settings: settings
    return {"wandb": module}


FAKES = {"mlflow": fake_mlflow, "tensorboard": fake_tensorboard, "wandb": fake_wandb}


@pytest.fixture
def pretend(monkeypatch):
    """Puts a library that only writes down its calls in the place of a tracker's own."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    # What a tracker sets for its library must not reach other tests.
    for name in (
        *("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"),
        "WANDB_ERROR_REPORTING",
    ):
        monkeypatch.setenv(name, "set by the test")

    def install(kind):
        calls = Calls()
        for name, module in FAKES[kind](calls).items():
            monkeypatch.setitem(sys.modules, name, module)
        return calls

    return install


@pytest.fixture
def absent(monkeypatch):
    """Makes a tracker's library one that is not installed."""

    def remove(kind):
        for name in FAKES[kind](Calls()):
            monkeypatch.setitem(sys.modules, name, None)

    return remove
