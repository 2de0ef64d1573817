"""The reference is made of the settings: it is whole, as kept, and what ``explain`` prints."""

import re
from pathlib import Path

import pytest

from compress import Recipe, cli
from compress.reference import kept_schema
from compress.reference.entries import Block
from compress.reference.paths import Reference
from tests.tools.reference import files
from tests.tools.reference_examples import EXAMPLES

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
LEAST = 20  # characters of a description that says something


@pytest.fixture(scope="module")
def reference():
    return Reference(kept_schema())


def properties(node, path=""):
    """Every key that a schema describes, with where it is; conditions are about values."""
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "properties":
                yield from ((f"{path}/{key}", value) for key, value in inner.items())
            if name != "if":
                yield from properties(inner, f"{path}/{name}")
    elif isinstance(node, list):
        for place, inner in enumerate(node):
            yield from properties(inner, f"{path}/{place}")


@pytest.mark.parametrize("part", ["", *kept_schema()["$defs"]])
def test_every_key_has_a_description(part):
    schema = kept_schema()
    of_recipe = {key: value for key, value in schema.items() if key != "$defs"}
    node = schema["$defs"][part] if part else of_recipe
    found = dict(properties(node))
    assert found
    for path, key in found.items():
        text = key.get("description", "")
        assert len(text) >= LEAST, path
        assert text.rstrip("`").endswith((".", "?")), path
        assert not re.search(r"``|:[a-z]+:`", text), path
        assert all(key.get("enumDescriptions", ["-"])), path


def test_what_is_kept_is_what_is_made():
    made = files()
    stale = [str(path) for path, text in made.items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `python -m tests.tools.reference`"
    pages = {path for path in made if path.parts[:2] == ("docs", "reference")}
    kept = {path.relative_to(ROOT) for path in (ROOT / "docs" / "reference").glob("*")}
    assert kept == pages


def test_hover_texts_are_the_docstrings_of_fields():
    keys = kept_schema()["$defs"]["PruneStage"]["properties"]
    source = (ROOT / "compress" / "stages" / "prune.py").read_text()
    for key in ("ratio", "scope", "round_to", "finetune"):
        said = re.search(rf'\n    {key}: [^\n]*\n    """(.*?)"""', source, re.DOTALL)[1]
        assert keys[key]["description"].split() == said.replace("``", "`").split()


def test_an_inherited_key_says_what_its_own_class_says_of_it():
    rates = [kept_schema()["$defs"][name]["properties"] for name in ("TrainStage", "FineTune")]
    assert [one["learning_rate"]["default"] for one in rates] == [0.003, 0.001]
    assert "lower than in training from scratch" in rates[1]["learning_rate"]["description"]
    assert rates[0]["epochs"] == rates[1]["epochs"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read(name):
    rest = {"recipe": ""}.get(name, "schema: 1\nname: an-example\n")
    defaults = {"task": "digits", "model": "{arch: resnet}", "stages": "[{kind: quantize}]"}
    for key, value in defaults.items():
        if not re.search(rf"^{key}:", EXAMPLES[name], re.MULTILINE):
            rest += f"{key}: {value}\n"
    assert Recipe.loads(rest + EXAMPLES[name]).stages


EXPLAINED = {
    "prune.importance": ("group-l2", "taylor", "Molchanov et al. 2019", "module:name"),
    "distill": ("distill.losses", "distill.student", "Hinton et al. 2015"),
    "distill.losses.response.temperature": ("number", "above 0", "default 1", "Hinton et al."),
    "budget.accuracy_drop": ("1pt", "at least 0", "not given"),
    "budget.latency_p50_ms": ("milliseconds", "above 0"),
    "task.image-folder.size": ("8 to 1,024", "default 32", "whole number"),
    "targets.ssh": ("targets.ssh.host", "[required]", "targets.ssh.port"),
    "model.resnet": ("He et al. 2016", "model.resnet.blocks"),
    "quantize.weights": ("float8", "Micikevicius"),
    "train.mix": ("train.mix.alpha", "Beyer et al. 2022"),
}


@pytest.mark.parametrize("key", EXPLAINED)
def test_a_key_is_explained(key, capsys):
    assert cli.main(["explain", key]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == key
    for said in EXPLAINED[key]:
        assert said in " ".join(printed.split())


@pytest.mark.parametrize(
    ("short", "meant"),
    [
        ("importance", "prune.importance"),
        ("stages[1].ratio", "prune.ratio"),
        ("stages.prune.ratio", "prune.ratio"),
        ("Prune.Ratio", "prune.ratio"),
        ("prune ratio", "prune.ratio"),
        ("losses.response.temperature", "distill.losses.response.temperature"),
        ("distill.crd", "distill.losses.crd"),
        ("ssh", "targets.ssh"),
        ("taylor", "prune.importance"),
        ("image-folder", "task.image-folder"),
    ],
)
def test_the_end_of_a_path_is_enough(short, meant, reference):
    assert [path for path, _ in reference.find(short)] == [meant]


def test_what_is_in_several_places_is_listed(capsys):
    assert cli.main(["explain", "temperature"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("temperature is in several places\n")
    listed = {"distill.losses.dkd.temperature", "distill.losses.crd.temperature"}
    assert listed <= set(printed.split())


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("prun.importnce", "did you mean prune.importance"),
        ("temprature", "did you mean temperature"),
        ("distill.losses.respons", "distill.losses.response"),
        ("xyzzy", "`compresskit explain` alone lists"),
        ("", "`compresskit explain` alone lists"),
        ("..", "`compresskit explain` alone lists"),
    ],
)
def test_an_unknown_key_gives_the_nearest(wrong, near, capsys):
    assert cli.main(["explain", wrong]) == 2
    said = capsys.readouterr().err
    assert said.startswith("compresskit: explain: there is nothing called ")
    assert near in said
    assert said.count("\n") == 1


def test_alone_it_lists_what_there_is(capsys, reference):
    assert cli.main(["explain"]) == 0
    listed = set(capsys.readouterr().out.split())
    named = {
        p for p, one in reference.entries.items() if isinstance(one, Block) and p.count(".") < 2
    }
    assert named - listed == set()
    assert {"distill.losses.crd", "budget.accuracy_drop", "seed"} <= listed


def test_everything_that_there_is_can_be_explained(reference):
    from compress.cli.explain import explained

    for path in reference.entries:
        for width in (40, 100):
            lines = explained(reference, path, width).splitlines()
            assert lines[0] == path
            assert len(lines) > 1, path
