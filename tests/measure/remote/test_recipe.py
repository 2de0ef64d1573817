"""Target blocks of recipes: what a stranger's file may say of a device, and what it may not."""

import pytest

from compress import AdbTarget, LocalTarget, Recipe, SshTarget
from compress.cli.schema import recipe_schema
from compress.errors import RecipeError
from compress.measure.recipe_targets import KINDS, spelled

pytestmark = pytest.mark.fast


KNOWN = spelled([kind.kind_name() for kind in KINDS])


def recipe(targets):
    return f"name: r\ntargets: {targets}\nstages: [{{kind: quantize}}]\n"


def targets_of(text):
    return [settings.target() for settings in Recipe.loads(recipe(text)).targets]


def test_blocks_become_targets():
    assert targets_of("[{kind: ssh, host: pi, name: pi, threads: 4}]") == [
        SshTarget(host="pi", name="pi", threads=4)
    ]
    assert targets_of(
        "[{kind: ssh, host: me@10.0.0.7, port: 8022, python: ~/env/bin/python3}]"
    ) == [SshTarget(host="me@10.0.0.7", port=8022, python="~/env/bin/python3")]
    assert targets_of("[{kind: adb, serial: R58M, batch: 2}, {name: laptop}, {kind: local}]") == [
        AdbTarget(serial="R58M", batch=2),
        LocalTarget(name="laptop"),
        LocalTarget(),
    ]


def test_a_recipe_with_targets_comes_back_from_what_it_dumps():
    made = Recipe.loads(recipe("[{kind: ssh, host: pi}, {kind: adb}, {name: laptop}]"))
    assert Recipe.loads(made.dumps()).targets == made.targets


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name())
def test_every_kind_is_the_same_in_a_recipe_and_on_the_command_line(kind):
    name = kind.kind_name()
    place, key = ("7", f", {kind.place_key}: '7'") if kind.place else ("", "")
    [target] = targets_of(f"[{{kind: {name}{key}}}]")
    assert target == kind.from_command_line(place, {})
    assert isinstance(target, kind.target_type())
    assert kind.spelling().startswith(name)
    if kind.place and kind.is_place_needed:
        with pytest.raises(RecipeError, match=f"the key '{kind.place_key}' is missing"):
            targets_of(f"[{{kind: {name}}}]")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{kind: ssh}", r"r?ecipe:2: targets\[0\]: the key 'host' is missing"),
        ("{kind: serial}", rf"targets\[0\].*: kind is {KNOWN}, or module:name"),
        ("{kind: [ssh]}", rf"targets\[0\].*: kind is {KNOWN}, or module:name"),
        ("{kind: ssh, host: '-oProxyCommand=id'}", r"targets\[0\]\.host: .*pattern"),
        ("{kind: ssh, host: pi, config: evil}", r"targets\[0\]\.config: unknown key"),
        ("{kind: ssh, host: pi, options: [ProxyCommand=id]}", r"targets\[0\]\.options: unknown"),
        ("{kind: ssh, host: pi, python: /sbin/reboot}", r"targets\[0\]\.python: .*pattern"),
        ("{kind: ssh, host: pi, python: 'python3;id'}", r"targets\[0\]\.python: .*pattern"),
        ("{kind: ssh, host: pi, python: -python3}", r"targets\[0\]\.python: .*pattern"),
        ("{kind: ssh, host: pi, folder: ../up}", r"targets\[0\]\.folder: .*pattern"),
        ("{kind: ssh, host: pi, folder: ~/../root}", r"targets\[0\]\.folder: .*pattern"),
        ("{kind: ssh, host: pi, port: 0}", r"targets\[0\]\.port: should be greater"),
        ("{kind: ssh, host: pi, threads: 0}", r"targets\[0\]\.threads: should be greater"),
        ("{kind: adb, serial: '-s x'}", r"targets\[0\]\.serial: .*pattern"),
        ("{kind: local, host: pi}", r"targets\[0\]\.host: unknown key"),
        ("{kind: ssh, host: a}, {kind: ssh, host: b}", r"each target needs a name of its own"),
    ],
)
def test_blocks_that_are_refused(block, said):
    with pytest.raises(RecipeError, match=said):
        Recipe.loads(recipe(f"[{block}]"))


def test_the_schema_knows_each_kind():
    branches = recipe_schema()["properties"]["targets"]["items"]["oneOf"]
    names = [branch["$ref"].rpartition("/")[2] for branch in branches]
    assert names == [*(kind.__name__ for kind in KINDS), "OwnTargetSettings"]
    assert names[:3] == ["LocalSettings", "SshSettings", "AdbSettings"]
    for name in names[1:]:
        assert "kind" in recipe_schema()["$defs"][name]["required"]
