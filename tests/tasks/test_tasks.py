from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from compress.errors import RecipeError, SettingsError
from compress.task import Task
from compress.tasks import TASKS, TaskConfig, limited, make_task, without_labels
from compress.tasks.arrays import ArrayDataset, inputs_of

pytestmark = pytest.mark.fast


def test_a_recipe_names_a_task_or_maps_its_options():
    read = TypeAdapter(TaskConfig).validate_python
    assert read("digits") == TaskConfig(name="digits")
    assert read({"name": "fashion-mnist", "folder": "/data", "limit": 5}) == TaskConfig(
        name="fashion-mnist", folder=Path("/data"), limit=5
    )
    assert read("my_module:make_task").name == "my_module:make_task"


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion-mnits"])
def test_an_unknown_name_is_refused_with_the_nearest(name):
    message = f"no built-in task '{name}'; did you mean 'fashion-mnist'.*built in are .*digits"
    with pytest.raises(SettingsError, match=message):
        TaskConfig(name=name)
    with pytest.raises(RecipeError, match=message):
        make_task(name)


@pytest.mark.parametrize("given", [{"limit": 0}, {"limits": 5}, {"download": "perhaps"}])
def test_a_wrong_option_is_refused(given):
    with pytest.raises(SettingsError, match=next(iter(given))):
        TaskConfig(name="digits", **given)


def test_an_option_of_another_task_is_refused():
    message = "folder: the task 'digits' does not take 'folder'; it takes augment"
    with pytest.raises(SettingsError, match=message):
        TaskConfig(name="digits", folder=Path("/data"))


def test_a_config_makes_the_task_with_its_options():
    plain = make_task("digits")
    task = make_task(TaskConfig(name="digits", augment=True, limit=7))
    assert plain.augment is None
    assert task.augment is not None
    assert torch.equal(task.train.inputs, plain.train.inputs[:7])
    assert len(task.test) == len(plain.test)


def test_a_limit_holds_for_any_data_set():
    pairs = [(torch.zeros(2), 0)] * 9
    task = Task(name="own", train=pairs, validation=pairs, test=pairs)
    assert len(limited(task, 4).train) == 4
    assert limited(task, None) is task


def test_inputs_only_leaves_no_label_anywhere():
    task = make_task(TaskConfig(name="digits", limit=7, inputs_only=True))
    for split in (task.train, task.validation, task.test):
        assert split[0].shape == (1, 8, 8)
        assert split.__getitems__([0, 1]).shape == (2, 1, 8, 8)
    assert len(task.train) == 7


def test_inputs_only_holds_for_any_data_set():
    pairs = [(torch.zeros(2), 0)] * 9
    task = without_labels(Task(name="own", train=pairs, validation=pairs, test=[torch.ones(2)]))
    assert len(task.train) == 9
    assert torch.equal(task.validation[3], torch.zeros(2))
    assert torch.equal(task.test[0], torch.ones(2))
    with pytest.raises(IndexError):
        task.train[9]


def test_a_data_set_leaves_its_labels_out_in_its_own_way():
    data = ArrayDataset(torch.zeros(3, 2), torch.arange(3))
    assert isinstance(inputs_of(data), ArrayDataset)
    assert inputs_of(data).inputs is data.inputs


def test_every_name_leads_to_a_function():
    for name, reference in TASKS.items():
        module, _, function = reference.partition(":")
        __import__(module)
        assert callable(getattr(sys.modules[module], function)), name


@pytest.mark.parametrize("package", ["compress.tasks", "compress.zoo"])
def test_importing_the_package_imports_no_torch(package):
    code = f"import sys, {package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
