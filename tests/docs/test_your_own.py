"""docs/your-own.md: every example does what the page says, in a folder with only its files."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from compress import Candidate, Recipe, Record, ReplayTarget
from compress.cli import _parser, main
from compress.errors import CheckpointError
from compress.running.preflight import preflight
from compress.training.data import head

PAGE = (Path(__file__).parents[2] / "docs" / "your-own.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)
NET, RUN, DATA_FILE, MAKE_FILE = (
    next(block for block in PYTHON if mark in block)
    for mark in ("# net.py\nfrom torch", "recipe.run(", "# data.py", "import torchvision")
)
WAYS = [block for block in PYTHON if block not in (NET, RUN, DATA_FILE, MAKE_FILE)]
[RECIPE] = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
COMMANDS = [line for line in PAGE.splitlines() if re.match(r"(compresskit|python|pip) ", line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page begins with: net.py, net.pt and photos."""
    home = tmp_path_factory.mktemp("own")
    (home / "net.py").write_text(NET)
    for name, color in (("cat", (200, 60, 40)), ("dog", (40, 60, 200))):
        (home / "photos" / name).mkdir(parents=True)
        for i in range(15):
            image = Image.new("RGB", (30 + i, 24), tuple(min(255, one + 2 * i) for one in color))
            image.save(home / "photos" / name / f"{i}.jpg")
    made = net_of(NET)
    torch.manual_seed(0)
    net, x = made(), torch.zeros(2, 3, 8, 8)
    x[0, 0], x[1, 2] = 1, 1  # red cats, blue dogs
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), torch.tensor([0, 1])).backward()
        optimizer.step()
    torch.save(net.state_dict(), home / "net.pt")
    return home


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", list(sys.path))
    yield folder
    for name in ("net", "data"):
        sys.modules.pop(name, None)


def net_of(text, name="Net"):
    made: dict = {}
    exec(compile(text, "your-own.md", "exec", dont_inherit=True), made)
    return made[name]


def test_new_writes_the_recipe_of_the_page_and_plan_takes_it(here, capsys):
    new, plan = (shlex.split(line)[1:] for line in COMMANDS[1:3])
    assert main(new) == 0
    assert (here / "recipe.yaml").read_text() == RECIPE
    assert "right at 64 x 64" in capsys.readouterr().out
    assert main(plan) == 0
    assert "rows are scored by accuracy" in capsys.readouterr().out


def test_there_are_five_commands_which_the_parser_takes():
    assert len(COMMANDS) == 5
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        if program == "compresskit":
            _parser().parse_args(arguments)
    name = Recipe.loads(RECIPE, imports=["net"]).name
    assert COMMANDS[-1].startswith(f"python runs/{name}/ship/run.py ")


def test_every_way_of_bringing_data_has_the_outcome_that_the_page_says(here):
    names = {"Net": net_of(NET)}
    outcomes = []
    for block in WAYS:
        assert len(user_lines(block)) <= 10, block
        exec(compile(block, "your-own.md", "exec", dont_inherit=True), names)
        said = re.search(r"^# (?:(\w+): )?(outputs are .*)$", block, re.M)
        if said is None:
            continue
        found = preflight(job(names[said[1] or "Net"](), names["task"]))
        assert found.scoring.sentence.startswith(said[2])
        outcomes.append(said[2])
    assert len(outcomes) == len(re.findall(r"^# .*rows are scored by", PAGE, re.M)) >= 12


def user_lines(block):
    return [
        line
        for line in block.splitlines()
        if line.strip() and not line.startswith(("#", "import ", "from ", "torch.manual_seed"))
    ]


def job(net, task):
    example = head(task.validation, 4).inputs
    recipe = Recipe.loads("name: r\nstages: [{kind: quantize}]")
    return recipe.job(Candidate.of(net, example), task, workdir="p")


def test_the_run_in_python_gives_a_record(here, monkeypatch):
    names = {"Net": net_of(NET)}
    for block in WAYS[:1] + [one for one in WAYS if "A TensorDataset" in before(one)]:
        exec(block, names)
    monkeypatch.setattr(Recipe, "_targets", lambda self, references: [ReplayTarget()])
    monkeypatch.setenv("COMPRESSKIT_CACHE", "none")
    exec(RUN, names)
    assert isinstance(names["record"], Record)
    assert [row.kind for row in names["record"].rows[1:]] == ["prune", "quantize"]


def before(block):
    """The title of the section of a block."""
    return PAGE[: PAGE.index(block)].rpartition("\n### ")[2].partition("\n")[0]


def test_the_task_of_a_file_is_one_of_a_recipe(here):
    (here / "data.py").write_text(DATA_FILE)
    torch.save(torch.rand(200, 3, 8, 8), "x.pt")
    torch.save(torch.arange(200) % 2, "y.pt")
    assert main(["new", "data.yaml", "--data", "data.py:make_task", "--model", "net.py:Net"]) == 0
    task = Recipe.load("data.yaml", imports=["data", "net"]).make_task()
    assert [len(part) for part in (task.train, task.validation, task.test)] == [160, 20, 20]


# -- weights ----------------------------------------------------------------------------------


def wrapped(state, name):
    torch.save({"epoch": 3, "model": state, "optimizer": {"lr": 0.1}}, name)


WEIGHTS = {
    "net.safetensors": save_file,
    "net2.pt": torch.save,
    "last.ckpt": wrapped,
    "prefix.pt": lambda state, name: torch.save({f"module.{k}": v for k, v in state.items()}, name),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_found_in_every_form_of_the_table(name, here):
    state = torch.load("net.pt")
    WEIGHTS[name](state, name)
    text = RECIPE.replace("net.pt", name)
    recipe = Recipe.loads(text, imports=["net"])
    sys.path.insert(0, str(here))
    loaded = recipe.make_candidate(recipe.make_task()).module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_pickled_module_is_refused_with_a_line_that_converts_it(here, capsys):
    sys.path.insert(0, str(here))
    import net

    whole = net.Net()
    torch.save(whole, "whole.pt")
    recipe = Recipe.loads(RECIPE.replace("net.pt", "whole.pt"), imports=["net"])
    with pytest.raises(CheckpointError, match="convert it: python -c") as caught:
        recipe.make_candidate(recipe.make_task())
    words = shlex.split(str(caught.value).partition("convert it: ")[2].rstrip("."))
    assert words[-1] == "whole.safetensors"
    monkey_argv, sys.argv = sys.argv, ["-c", *words[3:]]
    try:
        exec(words[2], {})
    finally:
        sys.argv = monkey_argv
    recipe = Recipe.loads(RECIPE.replace("net.pt", "whole.safetensors"), imports=["net"])
    loaded = recipe.make_candidate(recipe.make_task()).module.state_dict()
    assert torch.equal(loaded["head.weight"], whole.head.weight)


def test_a_function_that_makes_a_net_is_a_model(here):
    text = MAKE_FILE.replace("import torchvision", "from net import Net").replace(
        "torchvision.models.mobilenet_v2(num_classes=2)", "Net()"
    )
    (here / "made.py").write_text(text)
    arguments = ["--model", "made.py:make", "--weights", "net.pt", "--data", "photos"]
    assert main(["new", "made.yaml", *arguments, "--size", "16"]) == 0
    assert "model: {arch: made:make, weights: net.pt}" in (here / "made.yaml").read_text()
