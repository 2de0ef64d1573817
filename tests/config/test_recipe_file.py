from pathlib import Path

import pytest

from compress.config.recipe_file import located, parse, with_settings
from compress.errors import RecipeError

pytestmark = pytest.mark.fast

TEXT = """\
name: x
stages:
  - kind: train
    epochs: 3
  - {kind: prune, ratio: 0.5}
"""


def test_every_path_knows_its_line():
    document = parse(TEXT, "r.yaml")
    assert document.at(("stages", 0, "epochs")) == "r.yaml:4: stages[0].epochs"
    assert document.at(("stages", 1, "gone")) == "r.yaml:5: stages[1].gone"
    assert document.at(("name",)) == "r.yaml:1: name"


# Each line nests the one before it nine times.
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcd", "bcde", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"r\.yaml:2?.*not valid YAML"),
        ("- 1", r"r\.yaml: a recipe is a mapping of keys; got list"),
        ("", r"a recipe is a mapping of keys; got NoneType"),
        ("a: 1\nb: 2\na: 3", r"r\.yaml:3: a: the key is given twice"),
        ("a: !!python/object/apply:os.system [ls]", r"not valid YAML"),
        ("stages:\n  - {ratio: {choose: [1, 2]}}", r"r\.yaml:2: stages\[0\]\.ratio: .*sweep"),
        ("[" * 3000, r"not valid YAML"),
        ("a: " + "x" * 1_000_001, r"over 1,000,000 characters"),
        (
            BOMB,
            r"unfolds to over 20,000 values",
        ),
        ("a: &a [*a]", r"unfolds to over 20,000 values|not valid YAML"),
    ],
    ids=["open", "list", "empty", "twice", "code", "sweep", "deep", "long", "bomb", "cycle"],
)
def test_what_a_person_cannot_have_meant_is_refused_with_its_place(text, message):
    with pytest.raises(RecipeError, match=message):
        parse(text, "r.yaml")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("stages.1.ratio=0.25", 0.25), ("stages.0.epochs=7", 7), ("stages.0.label=a: b", {"a": "b"})],
)
def test_settings_change_values_and_leave_the_document_alone(setting, value):
    document = parse(TEXT, "r.yaml")
    changed = with_settings(document, [setting])
    _, index, key = setting.partition("=")[0].split(".")
    assert changed.data["stages"][int(index)][key] == value
    assert document.data == parse(TEXT, "r.yaml").data


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages", "give it as path=value"),
        ("=3", "give it as path=value"),
        ("stages.7.epochs=3", r"'7' is not an index; the list has 2 entries"),
        ("stages.first.epochs=3", r"there is no 'first'; known are train, prune"),
        ("stage.0.epochs=3", r"there is no 'stage'; did you mean 'stages'"),
        ("name.x=3", r"'x' is not inside a mapping or a list"),
    ],
)
def test_settings_that_lead_nowhere_are_explained(setting, message):
    with pytest.raises(RecipeError, match=message):
        with_settings(parse(TEXT, "r.yaml"), [setting])


@pytest.mark.parametrize("name", ["", "a b", "a.b", "../x", "1"])
def test_a_package_needs_a_name(name):
    with pytest.raises(RecipeError, match="is no name of a package; write package:NAME/FOLDER"):
        located(Path(f"package:{name}"))


@pytest.mark.parametrize("name", ["__main__", "no_such_package", "json_gone"])
def test_a_package_that_is_not_there_is_one_sentence(name):
    with pytest.raises(RecipeError, match=f"there is no package '{name}' here"):
        located(Path(f"package:{name}/x"))


NAMED = """\
name: x
targets: [{name: board, kind: local}, {kind: ssh}]
stages:
  - {kind: train, epochs: 1}
  - {kind: distill, losses: [{kind: response, weight: 1}, {kind: label}]}
  - {kind: prune, ratio: 0.1}
  - {kind: quantize, label: to.int8}
  - {kind: prune, ratio: 0.2}
  - {kind: "mine:Clip"}
  - {kind: prune, label: last}
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("stages.train.epochs", ("stages", 0, "epochs")),
        ("stages.distill.losses.response.weight", ("stages", 1, "losses", 0, "weight")),
        ("stages.1.losses.label.weight", ("stages", 1, "losses", 1, "weight")),
        ("stages.prune-1.ratio", ("stages", 2, "ratio")),
        ("stages.prune-2.ratio", ("stages", 4, "ratio")),
        ("stages.to.int8.weights", ("stages", 3, "weights")),
        ("stages.quantize.weights", ("stages", 3, "weights")),  # a label hides no kind
        ("stages.Clip.deviations", ("stages", 5, "deviations")),
        ("stages.last.ratio", ("stages", 6, "ratio")),
        ("stages.train", ("stages", 0)),
        ("targets.board.threads", ("targets", 0, "threads")),
        ("targets.ssh.host", ("targets", 1, "host")),
    ],
)
def test_blocks_are_named_by_label_name_or_kind(path, place):
    document = parse(NAMED, "r.yaml")
    changed = with_settings(document, [f"{path}=7"])
    assert list(changed.settings) == [place]
    value = changed.data
    for key in place:
        value = value[key]
    assert value == 7


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "stages.prune.ratio",
            r"--set stages.prune.ratio=7: 'prune' may be 2 entries of the list; write prune-1 or ",
        ),
        ("stages.prune-3.ratio", "there is no 'prune-3'; did you mean 'prune-2'"),
        ("stages.trian.epochs", "there is no 'trian'; did you mean 'train'"),
        ("stages.distill.losses.feature.weight", "there is no 'feature'; known are response, lab"),
        ("stages.prune", r"prune-2, or their places, stages.2, stages.4\."),
        ("stages.to.ratio", "there is no 'to'"),
    ],
)
def test_a_name_that_is_none_or_several_is_explained(path, message):
    with pytest.raises(RecipeError, match=message):
        with_settings(parse(NAMED, "r.yaml"), [f"{path}=7"])
