"""Bad recipes, made by walking what a recipe may hold: each is one sentence with its place."""

from __future__ import annotations

import importlib
import json
import re
import time
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from compress import Recipe
from compress.budget import Budget
from compress.config.own_parts import OwnPart
from compress.config.recipe_file import parse, with_settings
from compress.distillation.losses import BUILT_IN
from compress.distillation.teacher_settings import EnsembleMember
from compress.errors import CompressError
from compress.measure.recipe_targets import KINDS
from compress.quantization.numerics import Calibration
from compress.stages import STAGES
from compress.tasks import TASKS, TaskConfig
from compress.zoo import ARCHITECTURES, architecture_class

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))

HERE = "@@"
NO_NUMBER = [
    ".nan",
    ".inf",
    "-.inf",
    "true",
    "x",
    "'3'",
    "[]",
    "{}",
    "1:30",
    "010",
    "1_0",
    "²",
    "٣",
]
TOO_LARGE = [str(10**40), "1" * 5000, "1e400"]
NO_FLAG = ["1", "0", "yes", "'true'", "1.5", "[]", "{}", ".nan"]

NEEDED: dict[str, Any] = {"student": "a", "teacher": "b", "layers": "c"}


def block(cls: type[BaseModel], **more: Any) -> dict[str, Any]:
    """The least that a model takes."""
    needed = {n: NEEDED[n] for n, f in cls.model_fields.items() if f.is_required() and n in NEEDED}
    kind = cls.model_fields.get("kind")
    named = {} if kind is None or kind.is_required() else {"kind": kind.default}
    return {**named, **needed, **more}


def recipe(**more: Any) -> dict[str, Any]:
    start = {"schema": 1, "name": "odd", "task": {"name": "digits"}, "model": {"arch": "dscnn"}}
    return {**start, "stages": [{"kind": "quantize"}], **more}


def places() -> dict[str, tuple[type[BaseModel], Any]]:
    """Every block of a recipe that has numbers, and a recipe around a block of that kind."""
    found: dict[str, tuple[type[BaseModel], Any]] = {
        "recipe": (Recipe, lambda b: {**recipe(), **b}),
        "task": (TaskConfig, lambda b: recipe(task={"name": "digits", **b})),
        "budget": (Budget, lambda b: recipe(budget=b)),
        "calibration": (Calibration, lambda b: staged("quantize", calibration=b)),
        "member": (EnsembleMember, lambda b: staged("distill", teacher=[{"onnx": "t.onnx", **b}])),
    }
    for target in KINDS:
        kind = target.kind_name()
        least = {"kind": kind, **({target.place_key: "7"} if target.place_key else {})}
        found[kind] = (target, lambda b, least=least: recipe(targets=[{**least, **b}]))
    for stage in STAGES:
        kind = stage.model_fields["kind"].default
        found[kind] = (stage, lambda b, kind=kind: staged(kind, **b))
        for name, field in stage.model_fields.items():
            for cls in models_in(field.annotation):
                if name in ("finetune", "mix", "cache", "schedule", "sparsify"):
                    more = {"views": 2} if name == "cache" else {}
                    if name in ("schedule", "sparsify"):
                        more = {"finetune": {}}
                    key = f"{kind}.{name}"
                    found[key] = (cls, lambda b, k=kind, n=name, m=more: staged(k, **m, **{n: b}))
    for kind, loss in BUILT_IN.items():
        found[f"loss {kind}"] = (
            loss,
            lambda b, loss=loss: staged("distill", losses=[{**block(loss), **b}]),
        )
    return found


def staged(kind: str, **keys: Any) -> dict[str, Any]:
    return recipe(stages=[{"kind": kind, **keys}])


def leaves(annotation: Any) -> set[Any]:
    """The plain types in an annotation."""
    if get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        return set().union(*(leaves(one) for one in get_args(annotation) if one is not None))
    return {annotation}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    return [t for t in leaves(annotation) if isinstance(t, type) and issubclass(t, BaseModel)]


def refused(text: str, *names: str) -> str:
    """The one sentence that a recipe ends in."""
    start = time.perf_counter()
    with pytest.raises(CompressError) as caught:
        Recipe.loads(text)
    message = str(caught.value)
    assert time.perf_counter() - start < 8, text[:200]
    assert caught.value.exit_code == 2, message
    assert "\n" not in message
    assert len(message) <= 500, message
    assert any(name in message for name in names), (message, text[:300])
    return message


def fill(data: Any, raw: str) -> str:
    return json.dumps(data).replace(f'"{HERE}"', raw)


PLACES = places()


@pytest.mark.parametrize("place", PLACES)
def test_no_number_of_a_recipe_takes_what_is_none(place):
    cls, around = PLACES[place]
    tried = 0
    for name, field in cls.model_fields.items():
        key = field.alias or name
        kinds = leaves(field.annotation)
        if kinds.isdisjoint({int, float, bool}):
            continue
        raws = NO_FLAG if bool in kinds else [*NO_NUMBER, *TOO_LARGE]
        if key in ("accuracy_drop", "max_drop"):  # which may be in words
            raws = [raw for raw in raws if raw != "'3'"]
        if int in kinds:
            raws = [*raws, "1.5", "1e0"]
        if float in kinds or (int in kinds and key != "axis"):
            raws = [*raws, "-1"]
        if type(None) not in kinds:
            raws = [*raws, "null"]
        for raw in raws:
            refused(fill(around(block_of(cls, key)), raw), key, "weight", "keys", "from")
            tried += 1
    assert tried or place.startswith(("loss", "quantize"))


def block_of(cls: type[BaseModel], key: str) -> dict[str, Any]:
    return {key: HERE}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_size_of_a_built_in_net_takes_what_is_none(arch):
    options = architecture_class(arch).__init__.__kwdefaults__
    for option in options:
        for raw in [*NO_NUMBER, *TOO_LARGE, "-1", "0", "1.5", "null"]:
            refused(fill(recipe(model={"arch": arch, option: HERE}), raw), option)
        for raw in ["true", ".nan"]:
            model = {"arch": arch, option: HERE, "weights": "w.safetensors"}
            refused(fill(staged("distill", student=model), raw), option)
            refused(fill(staged("distill", teacher=model), raw), option)


@pytest.mark.parametrize("name", TASKS)
def test_no_option_of_a_built_in_task_takes_what_is_none(name):
    module, _, function = TASKS[name].partition(":")
    part = OwnPart(name, getattr(importlib.import_module(module), function), TaskConfig.role)
    assert part.keys
    for key in part.keys.values():
        kinds = leaves(key.annotation)
        raws = ["3", "true", "[]", "{}"] if {Path, str} & set(kinds) else NO_FLAG
        if int in kinds:
            raws = [*NO_NUMBER, *TOO_LARGE, "1.5", "-1", "0"]
        elif float in kinds:
            raws = [*NO_NUMBER, *TOO_LARGE]
        for raw in raws:
            refused(fill(recipe(task={"name": name, key.name: HERE}), raw), key.name)
        data = recipe(task={"name": name, key.name: HERE})
        assert key.name not in Recipe.loads(fill(data, "null")).task.options


TEXTS = {
    "an alias that holds itself": ("me: &a [*a]", "alias that holds itself"),
    "aliases in a circle": ("me: &a {b: &b {c: *a, d: *b}}", "alias that holds itself"),
    "no such alias": ("me: *a", "undefined alias"),
    "a list as a key": ("? [a, b]\n: 1", "keys are words"),
    "a mapping as a key": ("{a: 1}: 1", "keys are words"),
    "a number as a key": ("1: 2", "keys are words; got 1"),
    "a float as a key": ("1.5: 2", "keys are words; got 1.5"),
    "nothing as a key": ("~: 2", "keys are words; got None"),
    "true as a key": ("true: 2", "keys are words; got True"),
    "a repeated key": ("seed: 1\nseed: 2", "seed: the key is given twice"),
    "a repeated merge": ("a: &a {x: 1}\n<<: *a\n<<: *a", "given twice"),
    "a merge of a number": ("<<: 3", "<< takes in a mapping"),
    "python": ("x: !!python/object/apply:os.system [ls]", "the tag !!python/object"),
    "a set": ("x: !!set {a, b}", "the tag !!set"),
    "bytes": ("x: !!binary aGVsbG8=", "the tag !!binary"),
    "a time": ("x: !!timestamp 2001-01-01", "the tag !!timestamp"),
    "an own tag": ("x: !mine 3", "the tag !mine"),
    "two documents": ("x: 1\n---\ny: 2", "not valid YAML"),
    "a tab": ("x:\n\t- 1", "not valid YAML"),
    "NUL": ("x: a\0b", "U\\+0000"),
    "an escaped NUL": ('x: "a\\0b"', "none of a text"),
    "half a character": ('x: "\\ud800"', "none of a text"),
    "an escape": ("x: \x1b[31m", "U\\+001B"),
    "a long key": ("k" * 3000 + ": 1", "not valid YAML|a key of over 200"),
    "a long text": ("x: " + "a" * 20_000, "a text of over 10,000"),
    "a long number": ("seed: " + "1" * 200_000, "a number of 200,000 characters"),
    "base 60": ("seed: 1:30:00", "'1:30:00' means one thing in YAML 1.1"),
    "octal": ("seed: 010", "'010' means one thing"),
    "octal of 1.2": ("seed: 0o17", "'0o17' means"),
    "binary": ("seed: 0b11", "'0b11' means"),
    "underscores": ("seed: 1_000", "'1_000' means .*without _"),
    "yes": ("description: yes", "'yes' means one thing .*write true or false, or put it in quotes"),
    "off as a key": ("off: 1", "'off' means one thing"),
    "off": ("description: Off", "'Off' means"),
    "on": ("description: on", "'on' means"),
    "yes for a key": ("yes: 1", "'yes' means"),
    "beyond floats": ("seed: 1e999", "1e999 is beyond"),
    "below floats": ("seed: 1e-999", "1e-999 is beyond"),
    "a seed beyond": ("seed: 18446744073709551616", "seed: should be less than or equal to"),
    "deep lists": ("x: " + "[" * 5000, "nested over 64 deep"),
    "deep mappings": ("x: " + "{a: " * 5000, "nested over 64 deep"),
    "deep blocks": ("x:\n" + "".join(" " * i + "-\n" for i in range(1, 300)), "nested over 64"),
    "many values": ("x: [" + "1," * 25_000 + "]", "unfolds to over 20,000 values"),
    "a directive": ("%YAML 9.9\n---\nx: 1", "not valid YAML"),
    "an open text": ('x: "abc', "not valid YAML"),
    "an unknown key": ("color: red", "color: unknown key"),
    "an unknown key of 150 letters": ("k" * 150 + ": red", "unknown key"),
    "a name of 300 letters": ("name: " + "n" * 300, "name: "),
    "a name with a slash": ("name: a/b", "name: "),
    "another alphabet": ("name: имя", "name: "),
    "the folder above": ("name: ..", "name: "),
    "a dash": ("name: -rf", "name: "),
    "a second schema": ("schema: 2", "schema: should be 1"),
    "schema as a flag": ("schema: true", "schema: should be 1"),
    "the word none": ("stages: null", "stages must be a list"),
    "stages by number": ("stages: 3", "stages must be a list"),
    "a stage of null": ("stages: [null]", r"stages\[0\]: a stage is a mapping"),
    "a kind of list": ("stages: [{kind: [a]}]", r"stages\[0\]: a stage is a mapping"),
    "a long kind": (f"stages: [{{kind: {'k' * 5000}}}]", "there is no stage"),
    "many stages": ("stages: [" + "{kind: quantize}," * 1500 + "]", "stages: .*at most 1000"),
    "targets by name": ("targets: local", "targets"),
    "a target of another kind": ("targets: [{kind: usb}]", "kind is local, ssh.* or "),
    "two targets of one name": ("targets: [{}, {}]", "each target needs a name"),
    "a choice": ("seed: {choose: [1, 2]}", "this is a sweep value .* replace it by one of"),
    "a task of null options": ("task: {name: null}", "task.name"),
    "an unknown option": ("task: {name: digits, lim: 3}", "take 'lim'; did you mean 'limit'"),
    "a task of list": ("task: [digits]", "task"),
    "a task of 5,000 letters": ("task: " + "t" * 5000, "task"),
    "a model of 5,000 letters": (f"model: {{arch: {'m' * 5000}}}", "arch"),
    "a model of blocks": ("model: {layers: [0]}", "layers is for a student; a model is arch or hf"),
    "a net of no name": ("model: {arch: ''}", "no built-in architecture ''"),
    "a file of 300 letters": (f"model: {{arch: mlp, weights: {'w' * 300}}}", "over 255 bytes"),
    "a number as a file": ("model: {arch: mlp, weights: 3}", "weights"),
    "other digits": ("stages: [{kind: prune, granularity: '٢:٤'}]", "granularity"),
    "many digits": (f"stages: [{{kind: prune, granularity: '1:{'9' * 99}'}}]", "granularity"),
    "a drop of other digits": ("budget: {accuracy_drop: ١%}", "neither a number nor points"),
    "a reference that is none": ("stages: [{kind: 'm:x.y'}]", "there is no stage 'm:x.y'"),
    "an unnamed module": ("stages: [{kind: 'm:X'}]", "add `--import m`"),
}  # fmt: skip


@pytest.mark.parametrize("what", TEXTS)
def test_what_no_recipe_can_mean_is_one_sentence(what):
    text, message = TEXTS[what]
    key = text.partition(":")[0]
    base = {name: value for name, value in recipe().items() if name != key}
    whole = text if key in ("x", "%YAML 9.9\n---\nx") else text + "\n" + "\n".join(
        f"{name}: {json.dumps(value)}" for name, value in base.items()
    )  # fmt: skip
    found = refused(whole, "")
    assert re.search(message, found), found


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize("text", [BOMB, MERGES], ids=["lists", "merges"])
def test_what_unfolds_without_end_is_counted(text):
    refused(text, "unfolds to over 20,000 values")


def test_anchors_and_merges_give_what_they_say_and_share_nothing():
    document = parse("a: &a {x: 1, y: [1]}\nb: {<<: *a, x: 2}\nc: {<<: [{z: 3}, *a]}\nd: *a", "r")
    assert document.data["b"] == {"x": 2, "y": [1]}
    assert document.data["c"] == {"z": 3, "x": 1, "y": [1]}
    changed = with_settings(document, ["a.y.0=5"]).data
    assert (changed["a"]["y"], changed["b"]["y"], changed["d"]["y"]) == ([5], [1], [1])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("+7", 7),
        ("-0.0", 0.0),
        ("0x1F", 31),
        ("True", True),
        ("~", None),
        ("", None),
        ("'yes'", "yes"),
        ("y", "y"),
        ("'010'", "010"),
        ("2001-01-01", "2001-01-01"),
        ("!!str 3", "3"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("a_b", "a_b"),
        ("_", "_"),
        ("dead_beef", "dead_beef"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ("\ufeffa", "a"),
        ("1:a", "1:a"),
        ("inf", "inf"),
    ],
)
def test_what_has_one_meaning_is_read(text, value):
    found = parse(f"x: {text}".replace("x: \ufeff", "\ufeffx: "), "r").data["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "word", ["1e3", "010", "yes", "0x1F", "null", "1_000", "1:30", "3", ".inf"]
)
def test_a_word_that_looks_like_a_number_comes_back_as_a_word(word):
    data = recipe(description=word, name="1e3")
    loaded = Recipe.loads(json.dumps(data))
    assert loaded.description == word
    assert Recipe.loads(loaded.dumps()).resolved() == loaded.resolved()


SETTINGS = {
    "x=[1": "--set x=\\[1: not valid YAML",
    "x==*a": "--set x==\\*a: x: unknown key",
    "x=*a": "--set x=\\*a: not valid YAML: found undefined alias",
    "x==": "x: unknown key",
    "=1": "give it as path=value",
    "": "give it as path=value",
    "a..b=1": "there is no 'a'",
    "stages..kind=1": "'' is not an index",
    "stages.=1": "'' is not an index",
    "model.=1": "ends in a dot",
    "stages.-1.kind=1": "'-1' is not an index",
    "stages.99.kind=1": "'99' is not an index; the list has 1 entries",
    "stages.².kind=1": "'²' is not an index",
    "stages.٠.kind=train": "is not an index",
    "stages." + "9" * 10_000 + "=1": "is not an index",
    "stages.0x0.kind=1": "is not an index",
    "stages=3": "stages must be a list",
    "stages=[]": "stages: ",
    "stages.0=5": "a stage is a mapping",
    "stages.0.kind.x=5": "'x' is not inside",
    "name.x=5": "'x' is not inside a mapping",
    "seed=18446744073709551616": "--set seed=18446744073709551616: seed: should be less",
    "seed=-1": "--set seed=-1: seed: should be greater",
    "seed=1\0": "U\\+0000",
    "seed=\udcff": "U\\+DCFF",
    "seed=" + "1" * 1_000_000: "a number of 1,000,000 characters",
    "seed=" + "x" * 1_000_000: "a text of over|over 1,000,000",
    "x" * 1_000_000 + "=1": "unknown key|there is no",
    ".".join("x" * 100_000) + "=1": "there is no 'x'",
    "seed=&a [*a]": "alias that holds itself",
    "seed=!!python/name:os.system": "the tag !!python",
    "model.width=true": "model: .*width must be a whole number",
    "model.width=[1]": "width must be a whole number",
    "model.depth=1000000000": "depth must be at most 128; got 1000000000",
    "model.blocks=3": "has no option 'blocks'",
    "model=3": "a model is a block",
    "task=3": "task",
    "targets=[]": "targets",
    "targets.0.threads=100000000": "there is no 'targets'",
    "targets=[{threads: 100000000}]": "threads: should be less than or equal to 1024",
    "targets=[{batch: 1000000000}]": "batch: should be less",
    "name=" + "n" * 300: "name: ",
    "name=a\nb": "name: ",
}


@pytest.mark.parametrize(
    "setting", SETTINGS, ids=lambda s: s[:30].encode("ascii", "replace").decode()
)
def test_a_setting_that_says_nothing_is_one_sentence(setting, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(recipe()))
    start = time.perf_counter()
    with pytest.raises(CompressError) as caught:
        Recipe.load(file, settings=[setting])
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert re.search(SETTINGS[setting], message), message[:300]
    assert len(message) <= 500
    assert "\n" not in message


def test_thousands_of_settings_are_applied_in_their_order(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(recipe()))
    assert Recipe.load(file, settings=[f"seed={n}" for n in range(3000)]).seed == 2999


def files_that_are_no_recipe(folder: Path) -> dict[str, tuple[Path, str]]:
    import os

    os.mkfifo(folder / "pipe")
    (folder / "utf16").write_text("name: x", encoding="utf-16")
    (folder / "latin").write_bytes(b"name: \xe9")
    with (folder / "large").open("wb") as stream:
        stream.truncate(100 << 20)
    (folder / "round").symlink_to(folder / "round")
    return {
        "folder": (folder, "folder"),
        "pipe": (folder / "pipe", "pipe"),
        "device": (Path("/dev/zero"), "device"),
        "utf-16": (folder / "utf16", "is in UTF-16; save it in UTF-8"),
        "latin": (folder / "latin", "its byte 6 is not of a text in UTF-8"),
        "large": (folder / "large", "at most"),
        "circle": (folder / "round", "leads back to itself"),
        "below a file": (folder / "latin" / "x", "there is no such"),
        "nul": (Path("a\0b"), "there is no such"),
        "long": (folder / ("n" * 300), "longer|there is no such"),
    }


def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path):
    for what, (file, message) in files_that_are_no_recipe(tmp_path).items():
        with pytest.raises(CompressError) as caught:
            Recipe.load(file)
        assert re.search(message, str(caught.value)), (what, str(caught.value))
        assert caught.value.exit_code == 2


def test_a_mark_of_byte_order_is_no_part_of_a_recipe(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(recipe()), encoding="utf-8-sig")
    assert Recipe.load(file).name == "odd"


EDITS = st.tuples(
    st.integers(0, 10**6),
    st.integers(0, 12),
    st.sampled_from(
        [
            *":-[]{}&*!|>'\"%@`#,? \n\t\0\ufeff\ud83d٣",
            *("<<: ", "&a ", "*a", "!!", "---\n", "null", "true", "1e999", ".nan", "0x", "1:30"),
            *("{" * 80, "[" * 80, "9" * 99, "- " * 99),
        ]
    ),
)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.sampled_from(RECIPES), st.lists(EDITS, min_size=1, max_size=4))
def test_a_recipe_with_typos_is_loaded_or_refused_in_one_sentence(path, edits):
    text = path.read_text()
    for place, length, new in edits:
        place %= len(text) + 1
        text = text[:place] + new + text[place + length :]
    loads_or_says(lambda: Recipe.loads(text))


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    st.lists(
        st.sampled_from(["stages", "model", "task", "budget", "0", "1", "-1", "²", "", "kind", "x"])
        | st.text(max_size=5),
        max_size=4,
    ),
    st.sampled_from(["3", "null", "[1", "*a", "&a [*a]", "{choose: [1]}", "1:30", "a:b"])
    | st.text(max_size=12),
)
def test_any_setting_is_applied_or_refused_in_one_sentence(path, value):
    document = parse((ROOT / "recipes" / "quickstart.yaml").read_text(), "r.yaml")
    setting = f"{'.'.join(path)}={value}"

    def load():
        changed = with_settings(document, [setting])
        Recipe.loads(json.dumps(changed.data))

    loads_or_says(load)


def loads_or_says(load: Any) -> None:
    said = ""
    try:
        load()
    except CompressError as error:
        said = f"{error.exit_code}{error}"
    assert not said or said[0] == "2", said
    assert "\n" not in said
    assert len(said) <= 600, said
