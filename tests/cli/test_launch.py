"""Several processes that train one recipe, and the launcher that starts only one of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env
from safetensors.torch import load_file

from compress import ReplayTarget
from compress.cli.launch import missing_processes
from compress.errors import RecipeError
from compress.recipe import Recipe
from compress.record import Record

RECIPE = """\
schema: 1
name: together
task: digits
model: {arch: mlp, in_features: 64, width: 16}
stages:
  - {kind: train, epochs: 6, batch_size: 100, optimizer: sgd, learning_rate: 0.1, ema: 0.9}
"""


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("python accelerate launch --cpu --num_processes 2 -m compress run r.yaml", 2),
        ("python accelerate launch --cpu --num_processes=12 -m compress run r.yaml", 12),
        ("accelerate launch --num-processes 3 --num_machines 1 --cpu r.py", 3),
    ],
)
def test_the_number_that_was_asked_for_is_found(command, count):
    assert missing_processes(command.split()) == count


@pytest.mark.parametrize(
    "command",
    [
        "",
        "accelerate launch --cpu --config_file c.yaml -m compress",
        "accelerate launch --num_processes",
        "accelerate launch --num_processes 4 --num_machines 2 -m compress",
    ],
)
def test_where_it_cannot_be_found_the_way_out_is_named(command):
    with pytest.raises(RecipeError, match=r"starts only one process .* `torchrun --nproc-per-node"):
        missing_processes(command.split())


def test_accelerate_tells_nobody_how_many_processes_were_asked_for():
    # Were it in the environment, nothing of another process's command line would have to be read.
    asked = ["--cpu", "--num_processes", "7193", "--num_machines", "1", "run.py"]
    arguments = launch_command_parser().parse_args(asked)
    arguments.use_cpu, arguments.mixed_precision, arguments.dynamo_backend = True, "no", "no"
    arguments.num_cpu_threads_per_process = 1
    command, environment = prepare_simple_launcher_cmd_env(arguments)
    assert "MASTER_ADDR" in environment
    assert not [text for text in (*command, *environment.values()) if "7193" in text]


def launch(folder, *arguments):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK")}
    return subprocess.run(
        [*command, "-m", "compress", *arguments],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.exhaustive
def test_two_processes_train_what_one_does_at_the_same_total_batch(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE)
    done = launch(tmp_path, "run", "r.yaml", "--quick", "--out", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report:") == 1
    assert len(re.findall(r"epoch 6/6", done.stderr)) == 1
    two = Record.load(tmp_path / "two")
    assert two.status == "done"
    check_against_one_process(recipe, two, tmp_path)


@pytest.mark.exhaustive  # tests/running/test_processes.py tells how a failure is agreed on
def test_a_failure_of_all_processes_is_said_once(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE)
    assert launch(tmp_path, "run", "r.yaml", "--quick", "--out", "two").returncode == 0
    # Another stage, in which all fail: the first is found by all, and the failure is said once.
    wild = RECIPE + "  - {kind: train, learning_rate: 1.0e+30, clip_norm: null, optimizer: sgd}\n"
    recipe.write_text(wild)
    done = launch(tmp_path, "run", "r.yaml", "--quick", "--out", "two")
    assert done.returncode != 0
    assert "epoch 6/6" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("compresskit:")]
    assert len(said) == 1, done.stderr
    wanted = r"stages\[1\] \(train-2\): the training loss became .* \(its batch is saved in"
    assert re.search(wanted, said[0])
    failed = Record.load(tmp_path / "two")
    assert failed.status == "failed"
    assert failed.rows[1].cached


def check_against_one_process(path, two, folder):
    recipe = Recipe.load(path)
    task, out = recipe.make_task(), folder / "one"
    start = recipe.make_candidate(task)
    one = recipe.run(start, task, workdir=out, targets=[ReplayTarget()], report=False)
    place = Path("stages/01-train/candidate/weights.safetensors")
    mine, theirs = load_file(out / place), load_file(folder / "two" / place)
    for name, tensor in start.module.state_dict().items():
        moved = float((mine[name] - tensor).norm())
        assert float((mine[name] - theirs[name]).norm()) < 0.02 * moved, name
    assert len(two.rows[1].history) == len(one.rows[1].history) == 6
    for ours, other in zip(one.rows[1].history, two.rows[1].history, strict=True):
        assert other["loss"] == pytest.approx(ours["loss"], rel=1e-2)
        assert other["validation_loss"] == pytest.approx(ours["validation_loss"], rel=1e-2)
    scores = [record.rows[1].measurements[0].accuracy.value for record in (one, two)]
    assert abs(scores[0] - scores[1]) < 0.02
    # Each had half of every batch: one process in the place of two would be the same bit for bit.
    assert any(not torch.equal(mine[name], theirs[name]) for name in mine)
