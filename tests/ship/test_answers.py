"""What a shipped folder answers, for every kind of output: run as whoever gets it runs it."""

import importlib.util
import json
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compress import (
    Candidate,
    ImagePreprocessing,
    MetricOn,
    QuantizeStage,
    Recipe,
    ReplayTarget,
    Task,
    TextPreprocessing,
)
from compress.errors import DataError
from compress.measure.perplexity import bits_per_token
from compress.measure.score import accuracy_facts, fitted_labels, score
from compress.preprocessing import Control
from compress.ship.request import PROGRAM
from compress.tasks.detection import MeanAveragePrecision
from compress.training.data import head


class Everything(nn.Module):
    """An image in, and out of it an image, a mask, two yes or no, and boxes of cells of 8."""

    def __init__(self):
        super().__init__()
        self.image, self.mask = nn.Conv2d(3, 1, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
        self.scores = nn.Conv2d(3, 2, 8, stride=8)

    def forward(self, x):
        scores = self.scores(x).flatten(2).transpose(1, 2) * 20
        return {
            "boxes": scores[..., :1].expand(-1, -1, 4) * 0 + 0.5,
            "scores": scores,
            "image": self.image(x),
            "mask": self.mask(x),
            "yes": scores.mean(1),
        }


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.angle, self.kind = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, x):
        inner = torch.relu(self.body(x))
        return {"angle": self.angle(inner), "kind": self.kind(inner)}


class Characters(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.out(self.table(x)).transpose(1, 2)


PHOTO = ImagePreprocessing(16, 16, fit="contain", mean=(0.5,), std=(0.5,), upright=False)


class Filter(nn.Module):
    """Darkens an image as far as its control says."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        nn.init.dirac_(self.body.weight)
        nn.init.zeros_(self.body.bias)

    def forward(self, image, strength):
        return self.body(image) * (1 - 0.5 * strength[:, :, None, None])


def filtered():
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rows = [
        ({"image": image, "strength": torch.tensor([k % 2 / 2])}, image * (1 - k % 2 / 4))
        for k, image in enumerate(images)
    ]
    return Task(
        "filter",
        *(rows[:12], rows[12:18], rows[18:]),
        outputs="image",
        metric="psnr",
        preprocessing=ImagePreprocessing(16, 16, controls=(Control("strength", 0, 1, 0.5),)),
    )


def everything():
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = {"boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0]]), "scores": torch.tensor([1])}
    data = [(image, labels) for image in images]
    return Task(
        "everything",
        *(data[:12], data[12:18], data[18:]),
        outputs={
            "boxes": "values",
            "scores": "independent-logits",
            "image": "image",
            "mask": "class-scores",
            "yes": "independent-logits",
        },
        metric=MeanAveragePrecision(16, 16),
        loss=lambda outputs, labels: outputs["scores"].mean(),
        classes=("cat", "dog"),
        preprocessing=PHOTO,
    )


def heads():
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    rows = [
        (x, {"angle": x[:2], "kind": torch.tensor(int(x.argmax()) % 3, dtype=torch.int64)})
        for x in inputs
    ]
    return Task(
        "heads",
        *(rows[:18], rows[18:24], rows[24:]),
        outputs={"angle": "values", "kind": "class-scores"},
        metric=MetricOn("r2", "angle"),
        classes=("low", "middle", "high"),
    )


def characters():
    tokens = torch.randint(0, 4, (30, 9), generator=torch.Generator().manual_seed(0))
    rows = [(window[:-1], window[1:]) for window in tokens]
    form = TextPreprocessing(None, 8, 0, ("<end>", "a", "b", "c"), 1, begin_id=0, keep="last")
    return Task(
        "characters",
        *(rows[:18], rows[18:24], rows[24:]),
        outputs="tokens",
        classes=("<end>", "a", "b", "c"),
        preprocessing=form,
    )


CASES = {
    "everything": (everything, Everything),
    "tokens": (characters, Characters),
    "two outputs": (heads, Heads),
    "filter": (filtered, Filter),
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The folders, by the name of the case: each run once."""
    made = {}

    def ship(name):
        if name not in made:
            make_task, make_net = CASES[name]
            task, root = make_task(), tmp_path_factory.mktemp(name)
            torch.manual_seed(3)
            start = Candidate.of(make_net(), head(task.validation, 6).inputs)
            recipe = Recipe(
                name=name.replace(" ", "-"), stages=[QuantizeStage(activations="float32")]
            )
            recipe.run(start, task, workdir=root, targets=[ReplayTarget()], mode="quick", ship=True)
            made[name] = root / "ship"
        return made[name]

    return ship


def load(folder, monkeypatch):
    """The program of a folder, as Python finds it there."""
    for name in ("reading", "run"):
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def program(monkeypatch):
    return load(PROGRAM, monkeypatch)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the program of a folder, in this process: its exit code and what it printed."""

    def call(folder, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        code = load(folder, monkeypatch).main()
        return code, capsys.readouterr().out

    return call


@pytest.mark.parametrize("name", CASES)
def test_the_check_gives_the_outputs_of_the_record(name, shipped, run):
    code, said = run(shipped(name), "--check", "--json")
    facts, found = json.loads((shipped(name) / "model.json").read_text()), json.loads(said)
    assert code == 0
    assert found["largest_difference"] == 0
    # All six test samples fit: where the program knows the metric, it is the record's.
    assert found["samples"] == found["of"] == 6
    if facts["samples"]["rule"] is not None:
        assert found["here"] == pytest.approx(facts["measured"]["metric"]["value"])
    assert (facts["samples"]["rule"] is None) == (name == "everything")


@pytest.fixture
def photo(tmp_path):
    """Twice as wide as high, bright on the left."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return "photo.png"


def answer(run, folder, *given):
    code, said = run(folder, *given, "--json")
    assert code == 0
    return json.loads(said)


def test_a_mask_has_the_shares_of_classes_and_nothing_that_was_filled(shipped, run, photo):
    (found,) = answer(run, shipped("everything"), photo)
    mask = np.load(found["mask"]["files"][0])
    assert mask.shape == (8, 16)  # the rest of 16 by 16 is around the image
    shares = {name: float((mask == i).mean()) for i, name in enumerate(("cat", "dog"))}
    assert found["mask"]["shares"] == pytest.approx(shares, abs=1e-4)
    with Image.open(found["mask"]["files"][1]) as picture:
        assert (np.asarray(picture) == mask).all()


def test_an_image_is_written_as_numbers_and_as_a_picture(shipped, run, photo):
    (found,) = answer(run, shipped("everything"), photo)
    values = np.load(found["image"]["files"][0])
    with Image.open(found["image"]["files"][1]) as picture:
        assert values.shape[1:] == picture.size[::-1] == (16, 16)
        expected = np.clip((values[0] * 0.5 + 0.5) * 255, 0, 255)
        assert abs(np.asarray(picture) - expected).max() <= 1.01


def test_a_filter_takes_its_controls_as_options_within_their_ranges(shipped, run, photo):
    folder = shipped("filter")
    facts = json.loads((folder / "model.json").read_text())
    control = {"name": "strength", "low": 0, "high": 1, "default": 0.5}
    assert facts["preprocessing"]["controls"] == [control]
    assert facts["outputs"][0]["range"] == [0, 1]
    card = (folder / "README.md").read_text()
    assert "python run.py photo.png --strength 0.5" in card
    assert "Control strength: a number from 0 to 1, and 0.5 where none is given." in card
    assert "pixels from 0 to 1, cut off at these" in card
    for given, bright in (
        ([], 191),
        (["--strength", "1"], 128),
        (["--control-strength", "0"], 255),
    ):
        (found,) = answer(run, folder, photo, *given, "-o", "made")
        path = found["output"]["files"][1]
        assert path.startswith("made")
        with Image.open(path) as picture:
            assert picture.size == (16, 16)
            assert np.asarray(picture)[:, :6].min() == bright
    for wrong in ("1.5", "nan"):
        with pytest.raises(SystemExit) as error:
            run(folder, photo, "--strength", wrong)
        assert str(error.value) == f"--strength {wrong}: strength is from 0 to 1."


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("the strength", 0, 1), "a control has a word for its name"),
        (("strength", 0, float("inf")), "and finite numbers for its range"),
        (("strength", 1, 1), "the control strength is from 1 to 1"),
        (("strength", 0, 1, 2), "and 2 where nobody says another"),
    ],
)
def test_a_control_has_a_name_and_a_range(given, problem):
    with pytest.raises(DataError, match=problem):
        Control(*given)


def test_yes_or_no_is_said_of_each_class_by_name(shipped, run, photo):
    (found,) = answer(run, shipped("everything"), photo)
    chances = found["yes"]["chances"]
    assert list(chances) == ["cat", "dog"]
    assert found["yes"]["yes"] == [name for name, p in chances.items() if p > 0.5]


def test_boxes_are_in_pixels_of_the_image_and_do_not_overlap(shipped, run, photo):
    (found,) = answer(run, shipped("everything"), photo)
    assert found["boxes"]
    for one in found["boxes"]:
        assert one["class"] in ("cat", "dog")
        assert one["probability"] >= 0.25
        # A cell of 8 pixels of the input, of which 16 are the width of 40.
        assert one["box"][2] - one["box"][0] == pytest.approx(20, abs=0.2)
    assert [one["probability"] for one in found["boxes"]] == sorted(
        (one["probability"] for one in found["boxes"]), reverse=True
    )


def test_of_tokens_the_next_one_is_named(shipped, run):
    (short,) = answer(run, shipped("tokens"), "ab")
    assert {one["class"] for one in short["output"]} == {"<end>", "a", "b", "c"}
    assert sum(one["probability"] for one in short["output"]) == pytest.approx(1, abs=1e-3)
    # Only the end of a text that is too long counts, and the net looks at its last token alone.
    (long,) = answer(run, shipped("tokens"), "abcabcabcab")
    assert long["output"] == short["output"]


def test_each_of_several_outputs_is_answered(shipped, run):
    (found,) = answer(run, shipped("two outputs"), "1, 2, 3, -4")
    assert len(found["angle"]) == 2
    assert found["kind"][0]["class"] in ("low", "middle", "high")


def test_several_samples_of_an_array_are_answered_one_by_one(shipped, run, tmp_path):
    np.save(tmp_path / "four.npy", np.eye(4, dtype=np.float32))
    np.save(tmp_path / "one.npy", np.eye(4, dtype=np.float64)[2])
    found = answer(run, shipped("two outputs"), "four.npy", "one.npy")
    assert len(found) == 5
    assert found[4]["angle"] == pytest.approx(found[2]["angle"], rel=1e-5)
    code, said = run(shipped("two outputs"), "four.npy")
    assert code == 0
    assert said.count("four.npy") == 4


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("everything", "none.png", "none.png: cannot be read"),
        ("everything", "note.txt", "note.txt: cannot be read"),
        ("everything", "cut.png", "cut.png: cannot be read"),
        ("everything", "huge.png", "an image of 100000 by 100000 pixels is not read"),
        ("two outputs", "wrong.npy", r"the input x has the shape \(2, 3\) \(it takes x: \[n, 4\]"),
        ("two outputs", "other.npz", "other.npz: the input x is missing"),
        ("two outputs", "1,2", r"the input x has the shape \(1, 2\)"),
        ("two outputs", "a text", "a text: this model takes arrays, in a file .npy or .npz"),
        ("two outputs", "evil.npy", "evil.npy: cannot be read"),
        ("two outputs", "empty.npy", "empty.npy: cannot be read"),
        ("two outputs", "cut.npz", "cut.npz: cannot be read"),
    ],
)
def test_an_input_that_cannot_be_taken_is_a_sentence(name, given, said, shipped, run, tmp_path):
    (tmp_path / "note.txt").write_text("no image")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:50])
    head = whole[12:16] + (100_000).to_bytes(4, "big") * 2 + whole[24:29]
    huge = whole[:12] + head + zlib.crc32(head).to_bytes(4, "big") + whole[33:]
    (tmp_path / "huge.png").write_bytes(huge)
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3)))
    np.savez(tmp_path / "other.npz", y=np.zeros(4), z=np.zeros(4))
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:90])
    np.save(tmp_path / "evil.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(SystemExit, match=said):
        run(shipped(name), given)


def test_other_outputs_than_those_of_the_record_are_a_failed_check(shipped, run, tmp_path):
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in shipped("everything").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with np.load(folder / "samples.npz") as samples:
        arrays = dict(samples)
    arrays["output/mask"] = arrays["output/mask"][::-1]
    np.savez(folder / "samples.npz", **arrays)
    code, said = run(folder, "--check")
    assert code == 1
    assert "outputs NOT as expected" in said


SCORED = {
    "accuracy": ((9, 4), "class-scores", lambda rng: rng.integers(0, 4, 9)),
    "f1": ((9, 4), "class-scores", lambda rng: rng.integers(0, 4, 9)),
    "mean-iou": ((9, 3, 5, 5), "class-scores", lambda rng: rng.integers(-1, 3, (9, 5, 5))),
    "binary-accuracy": ((9, 3), "independent-logits", lambda rng: rng.integers(0, 2, (9, 3))),
    "mse": ((9, 3), "values", lambda rng: rng.normal(size=(9, 3))),
    "r2": ((9, 3), "values", lambda rng: rng.normal(size=(9, 3))),
    bits_per_token: ((9, 4, 6), "tokens", lambda rng: rng.integers(0, 4, (9, 6))),
}


@pytest.mark.parametrize("metric", SCORED, ids=lambda one: getattr(one, "__name__", one))
@pytest.mark.parametrize("holes", [False, True])
def test_the_program_scores_as_the_record_does(metric, holes, program):
    shape, kind, draw = SCORED[metric]
    rng = np.random.default_rng(4)
    outputs, labels = rng.normal(size=shape).astype(np.float32), draw(rng)
    if holes and metric in ("f1", "mean-iou", "binary-accuracy"):
        labels.reshape(-1)[2] = -1
    fitted = fitted_labels(outputs.shape, labels, kind)
    wanted = accuracy_facts(score(outputs, fitted, metric)).value
    name = metric if isinstance(metric, str) else "bits_per_token"
    model = {"samples": {"rule": name, "on": "output"}}
    found = program.score(model, {"output": outputs}, {"label": fitted})
    assert found == pytest.approx(wanted, rel=1e-6)


def test_f1_of_yes_or_no_is_that_of_the_record(program):
    rng = np.random.default_rng(5)
    outputs, labels = rng.normal(size=(20, 3)), rng.integers(-1, 2, (20, 3))
    fitted = fitted_labels(outputs.shape, labels, "independent-logits")
    model = {"samples": {"rule": "f1", "on": "output"}}
    found = program.score(model, {"output": outputs}, {"label": fitted})
    assert found == pytest.approx(score(outputs, fitted, "f1").value)
