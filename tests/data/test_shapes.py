"""Every shape of data is planned, trained on for an epoch, and quantized."""

import pytest

from compress.tasks import TaskConfig, make_task

from .shapes import COUNT, FILES, SHAPES

_LIBRARIES = {"Hugging": "datasets", "parquet": "pyarrow", "datasets": "datasets"}


def need(name):
    library = _LIBRARIES.get(name.split()[0] if name in FILES else name.split()[1])
    if library:
        pytest.importorskip(library)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_planned_and_run(name, plan, run):
    need(name)
    make, net = SHAPES[name]
    assert plan(make(), net).scoring.name == "accuracy"
    record = run(make(), net)
    assert len(record.rows) == 3


@pytest.mark.parametrize("name", FILES)
def test_files_are_planned_and_run(name, plan, run, tmp_path):
    need(name)
    save, net = FILES[name]
    config = TaskConfig(**save(tmp_path))
    task = make_task(config)
    sizes = [len(part) for part in (task.train, task.validation, task.test)]
    assert sum(sizes) in (COUNT, 2 * COUNT)
    assert plan(task, net).scoring.name == "accuracy"
    assert len(run(make_task(config), net).rows) == 3
