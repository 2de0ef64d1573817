"""`compresskit new` for a user's own net and data: the recipe that it writes, what it refuses."""

import importlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compress import Recipe
from compress.cli import main
from compress.errors import CodeReferenceError
from compress.starters import images, recipe
from compress.starters.code import reference_of

pytestmark = pytest.mark.fast

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, {arguments}):
        super().__init__()
        self.inner = nn.Sequential({layers})
        self.head = nn.Linear({wide}, {classes})

    def forward(self, x):
        return self.head(self.inner(x))
"""
POOLED = "nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()"


def source(arguments="width=4", layers=POOLED, wide=4, classes=2):
    return NET.format(arguments=arguments, layers=layers, wide=wide, classes=classes)


def flat(size, channels=3):
    return source(layers="nn.Flatten()", wide=channels * size * size)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new current folder, from which modules are imported anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr(images, "_SIZES", (16, 12))
    importlib.invalidate_caches()
    yield tmp_path
    for name in ("net", "data"):
        sys.modules.pop(name, None)


def photos(folder, count=10, classes=("cat", "dog"), size=(20, 14), mode="RGB"):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            color = (40 + 150 * number, 3 * i, 90)
            Image.new("RGB", size, color).convert(mode).save(folder / name / f"{i}.png")


def weights(folder, text, name="net.pt"):
    made: dict = {}
    exec(text, made)
    torch.manual_seed(0)
    torch.save(made["Net"]().state_dict(), folder / name)


def new(capsys, *arguments):
    code = main(["new", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


OF_NET = ("--model", "net.py:Net", "--weights", "net.pt", "--data", "photos")


def test_a_net_with_weights_and_photographs_is_a_recipe_of_them(folder, capsys):
    text = source()
    (folder / "net.py").write_text(text)
    weights(folder, text)
    photos(folder / "photos")
    assert new(capsys, *OF_NET)[0] == 0
    recipe = Recipe.load("recipe.yaml", imports=["net"])
    assert [stage.kind for stage in recipe.stages] == ["prune", "quantize"]
    task = recipe.make_task()
    assert task.classes == ("cat", "dog")
    assert recipe.make_candidate(task).module(task.test[0][0][None]).shape == (1, 2)


def test_the_next_command_stands_there_with_what_it_needs(folder, capsys):
    (folder / "net.py").write_text(source())
    photos(folder / "photos")
    _, out, _ = new(capsys, "my recipe.yaml", "--model", "net.py", "--data", "photos")
    assert out.splitlines()[-1].endswith("compresskit plan 'my recipe.yaml' --import net")
    assert "kind: train" in (folder / "my recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("net", "given", "said"),
    [
        (flat(12), {}, "size: 12}"),
        (flat(24), {}, "size: 24}"),
        (flat(14), {"size": (14, 14)}, "size: 14}"),
        (flat(12, 1), {"mode": "L"}, "size: 12, grey: true}"),
        (source("num_classes", classes="num_classes"), {}, "model: {arch: net:Net, num_classes: 2"),
    ],
)
def test_what_the_net_takes_is_found(net, given, said, folder, capsys):
    (folder / "net.py").write_text(net)
    photos(folder / "photos", **given)
    assert new(capsys, "--model", "net.py:Net", "--data", "photos")[0] == 0
    assert said in (folder / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("count", "train", "finetune"),
    [
        (10, "epochs: 400, batch_size: 16", "epochs: 100, batch_size: 16"),
        (100, "epochs: 40, batch_size: 16", "epochs: 10, batch_size: 16"),
        (700, "epochs: 45", "epochs: 12"),
    ],
)
def test_few_images_are_trained_on_in_smaller_batches_and_more_epochs(
    count, train, finetune, folder, capsys
):
    (folder / "net.py").write_text(source())
    photos(folder / "photos", count)
    assert new(capsys, "--model", "net.py:Net", "--data", "photos")[0] == 0
    text = (folder / "recipe.yaml").read_text()
    assert f"{{kind: train, {train}}}" in text
    assert f"finetune: {{{finetune}, learning_rate: 0.0005}}" in text
    stages = Recipe.load("recipe.yaml", imports=["net"]).stages
    assert stages[0].epochs * count >= 400


class Brightness(nn.Module):
    """Right only where pixels are from 0 to 1: dark ones are class 0."""

    def forward(self, x):
        bright = x.mean((1, 2, 3))
        return torch.stack([0.35 - bright, bright - 0.35], 1)


def test_the_numbers_that_pixels_become_are_those_in_which_it_is_right(folder):
    photos(folder / "photos")
    found = images.labeled_files(folder / "photos")
    forms = images.form_for(Brightness(), found, 16, is_trained=True)
    assert [form.options for form in forms] == [{"size": 16, "mean": [0.0], "std": [1.0]}]
    assert forms[0].right == 20
    assert images.form_for(Brightness(), found, 16, is_trained=False)[0].right is None


class Others(nn.Module):
    """As above, with the classes the other way round."""

    def forward(self, x):
        return Brightness()(x).flip(1)


def test_an_order_of_classes_that_is_not_that_of_folders_is_found(folder):
    photos(folder / "photos")
    found = images.labeled_files(folder / "photos")
    (form,) = images.form_for(Others(), found, 16, is_trained=True)
    assert (form.right, form.order) == (20, ("dog", "cat"))
    assert form.options["classes"] == ["dog", "cat"]
    assert "in the order dog, cat, which is not that of the folders" in recipe._note([form], found)


class Constant(nn.Module):
    def forward(self, x):
        return torch.eye(2)[torch.zeros(len(x), dtype=torch.long)]


def test_no_order_is_made_up_for_a_net_that_guesses(folder):
    photos(folder / "photos")
    found = images.labeled_files(folder / "photos")
    forms = images.form_for(Constant(), found, 16, is_trained=True)
    assert {(form.right, form.order) for form in forms} == {(10, ())}
    assert "hardly more than by guessing" in recipe._note(forms, found)


DATA = """
import torch
from torch.utils.data import TensorDataset
from compress import Task


def make_task():
    rows = TensorDataset(torch.randn(50, 3), torch.arange(50) % 2)
    return Task(name="own", train=rows, validation=rows, test=rows)
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def make_task(): ...", "make_task"),
        ("def make_task():\n    return nothing", "NameError"),
    ],
)
def test_code_that_makes_no_task_is_told_at_once(text, said, folder, capsys):
    (folder / "data.py").write_text(text)
    code, _, err = new(capsys, "--data", "data.py:make_task", "--model", "mlp")
    assert (code != 0, said in err, err.count("\n")) == (True, True, 1)
    assert not (folder / "recipe.yaml").exists()


def test_data_that_need_more_keys_are_noted(folder, capsys):
    np.savez(folder / "d.npz", a=np.zeros((4, 3)), b=np.arange(5))
    code, out, _ = new(capsys, "--data", "d.npz", "--model", "mlp")
    assert (code, "note: the data cannot be read as they are: " in out) == (0, True)


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (lambda d: np.savez(d / "d.npz", x=np.zeros((9, 3)), y=np.arange(9)), "d.npz", "npz, path"),
        (
            lambda d: (d / "data.py").write_text(DATA),
            "data.py:make_task",
            "finetune: {epochs: 25, batch_size: 16,",  # of 50 samples
        ),
        (lambda d: (d / "saved").mkdir(), "digits", "{name: digits}"),
    ],
)
def test_other_data_are_the_task_that_reads_them(make, arguments, said, folder, capsys):
    make(folder)
    assert new(capsys, "--data", arguments, "--model", "mlp")[0] == 0
    assert said in (folder / "recipe.yaml").read_text()


def test_parts_beside_train_are_its_validation_and_its_test(folder, capsys):
    photos(folder / "photos" / "train")
    photos(folder / "photos" / "val", 3)
    assert new(capsys, "--data", "photos")[0] == 0
    task = Recipe.load("recipe.yaml").make_task()
    assert [len(part) for part in (task.train, task.validation, task.test)] == [18, 6, 2]


def pickled(folder):
    sys.path.insert(0, str(folder))
    torch.save(importlib.import_module("net").Net(), folder / "net.pt")
    del sys.modules["net"]


WRONG = {
    "no such data": (
        lambda d: None,
        r"--data photos: there is no such file or folder; --data is a",
    ),
    "one class": (lambda d: photos(d / "photos", classes=("cat",)), r"holds the one class 'cat'"),
    "nested": (
        lambda d: photos(d / "photos" / "sets"),
        r"holds no images itself, but 'sets' holds folders of them",
    ),
    "few": (
        lambda d: photos(d / "photos", 2),
        r"photos holds 4 images, too few to set a tenth apart for the test; give 20 at least",
    ),
    "damaged": (
        lambda d: (photos(d / "photos"), (d / "photos/cat/0.png").write_bytes(b"\x89PNG")),
        r"0\.png: cannot be read as an image \(it is in no format of images that is known\)",
    ),
    "of another net": (
        lambda d: (photos(d / "photos"), weights(d, source(classes=3))),
        r"net\.pt: the weights do not fit the model: shape head\.weight is \(3, 4\)",
    ),
    "pickled": (
        lambda d: (photos(d / "photos"), pickled(d)),
        r"it holds objects of Python .* convert it: python -c .* net\.pt net\.safetensors$",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_a_sentence_and_writes_nothing(name, folder, capsys):
    (folder / "net.py").write_text(source())
    weights(folder, source())
    make, said = WRONG[name]
    make(folder)
    code, _, err = new(capsys, *OF_NET)
    assert code in (1, 2)
    assert err.count("\n") == 1
    assert_matches(said, err)
    assert not (folder / "recipe.yaml").exists()


def assert_matches(pattern, text):
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


@pytest.mark.parametrize(
    ("file", "text", "given", "said"),
    [
        ("net.py", source("depth"), "net.py:Net", r"Net needs depth, .* `def make\(\): return Net"),
        ("net.py", source(), "net.py:Nt", r"the module 'net' has no 'Nt'; did you mean 'Net'\."),
        ("net.py", f"{source()}class B(Net): ...", "net.py", r"such as net\.py:B; it has Net, B\."),
        ("net.py", "x = 1", "net.py", r"it has no class below torch\.nn\.Module"),
        ("net.py", "import nothing_there", "net.py", r"importing it failed with ModuleNotFound"),
        ("net.py", f"{source()}net = Net()", "net.py:net", r"is a Net which is made already; name"),
        ("my-net.py", source(), "my-net.py:Net", r"'my-net' is no name that Python imports"),
        ("net.py", source(), "../net.py:Net", r"there is no such file"),
        ("net.py", source(), "what is this", r"--model is net\.py:Net for a class or a function"),
        ("net.py", flat(9), "net.py:Net", r"runs on no square images of any usual size .*--size"),
    ],
)
def test_a_model_that_is_none_is_a_sentence(file, text, given, said, folder, capsys):
    (folder / file).write_text(text)
    photos(folder / "photos")
    code, _, err = new(capsys, "--model", given, "--data", "photos")
    assert code == 2
    assert_matches(said, err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "net.py:Net"], r"--model: give the data as well, such as --data photos"),
        (["--weights", "a.pt", "--data", "digits"], r"give the net that they are of as well"),
        (["--size", "8", "--data", "digits"], r"--size 8: it is for a folder of images"),
        (["--data", "bare"], r"these images have no labels, and a net without weights learns"),
        (["--size", "3000", "--data", "bare"], r"--size 3000: the side of images is a number of"),
        (["--data", "d.txt"], r"no task reads such a file; --data is a folder of images"),
        (["--data", "d.csv"], r"as Parquet: pandas\.read_csv\('d\.csv'\)\.to_parquet\('d\.parq"),
        (["--data", "data.py"], r"say which function makes the task, such as data\.py:make_task"),
    ],
)
def test_options_that_need_another_say_which(arguments, said, folder, capsys):
    for name in ("d.csv", "d.txt", "data.py"):
        (folder / name).write_text("")
    photos(folder, classes=("bare",), count=30)
    code, _, err = new(capsys, *arguments)
    assert code in (1, 2)
    assert_matches(said, err)


def test_arguments_do_not_stand_behind_the_name_of_a_net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("class Net: ...\n")
    with pytest.raises(CodeReferenceError, match=r"'Net,width=12' is none; arguments go"):
        reference_of("net.py:Net,width=12")
