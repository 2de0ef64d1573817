"""Suites: nets that are built, lowered and measured as one table."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.backends.onnx import take_census
from compress.backends.onnx.backend import OnnxBackend
from compress.cli import main
from compress.errors import LoweringError, MeasurementError, RecipeError
from compress.measure.replay import ReplayTarget
from compress.suite import FORMATS, SUITES, Net, Suite, measure_suite, suite_of
from compress.zoo import build

TINY = suite_of("tiny")
# Encoders are in folders of their own: test_encoders.py.
NETS = {net.name: net for suite in SUITES.values() for net in suite.nets if not net.is_encoder}
each_net = pytest.mark.parametrize("net", NETS.values(), ids=list(NETS))
SMALL = Net("small", "mlp", {"in_features": 12, "width": 16}, (12,))
OTHER = Net("other", "dscnn", {"width": 8}, (1, 9, 9))
FASTER_IN_INT8 = {"small-fp32.onnx": 2e-4, "small-int8.onnx": 1e-4, "other-fp32.onnx": 3e-4}
FASTER_IN_INT8["other-int8.onnx"] = 4e-4


@pytest.fixture
def replay():
    return ReplayTarget(latency_s=FASTER_IN_INT8)


@each_net
def test_every_net_takes_its_inputs(net):
    module = build(net.arch, net.options).eval()
    with torch.no_grad():
        outputs = module(torch.zeros(2, *net.shape))
    classes = net.options.get("classes", module.head.weight.shape[0])
    assert outputs.shape[:2] == (2, classes)


@each_net
def test_the_page_about_the_suite_has_every_net_with_its_size(net):
    page = (Path(__file__).parents[2] / "docs" / "suite.md").read_text()
    parameters = sum(p.numel() for p in build(net.arch, net.options).parameters())
    shape = " x ".join(map(str, net.shape))
    assert f"| {net.name} | {shape} | {parameters:,} |" in page


def test_the_reference_topologies_are_there_and_the_table_is_not_called_theirs():
    shapes = {net.name: net.shape for net in TINY.nets}
    assert shapes["resnet-8"] == (3, 32, 32)
    assert shapes["ds-cnn"] == (1, 49, 10)
    assert shapes["mobilenet-v1-0.25"] == (3, 96, 96)
    assert shapes["autoencoder"] == (640,)
    assert len(shapes) == len(TINY.nets)
    assert "not MLPerf results" in TINY.about
    assert "random" in TINY.about


@pytest.mark.exhaustive
def test_each_int8_file_is_paired_with_its_own_float32_one(replay, tmp_path):
    results = measure_suite([SMALL, OTHER], replay, "quick", folder=tmp_path)
    rows = [row for result in results for row in result.rows]
    assert [row.name for row in rows] == ["small fp32", "small int8", "other fp32", "other int8"]
    verdicts = [row.speedup.verdict for row in rows]
    assert verdicts == ["baseline", "faster", "baseline", "slower"]
    assert rows[1].speedup.value == pytest.approx(2)
    assert rows[3].speedup.value == pytest.approx(3 / 4)
    assert rows[1].bytes < rows[0].bytes
    assert not any(row.warnings for row in rows)
    assert [result.parameters for result in results] == [
        sum(p.numel() for p in build(net.arch, net.options).parameters()) for net in (SMALL, OTHER)
    ]
    assert all(result.macs > 0 and result.int8_mac_fraction > 0.9 for result in results)


def test_files_hold_what_they_are_named_and_come_from_the_seed(replay, tmp_path):
    digests = []
    for place, seed in (("one", 0), ("again", 0), ("two", 1)):
        measure_suite([OTHER], replay, "quick", folder=tmp_path / place, seed=seed)
        files = sorted((tmp_path / place).glob("*.onnx"))
        assert [file.name for file in files] == ["other-fp32.onnx", "other-int8.onnx"]
        digests.append([file.read_bytes() for file in files])
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    fp32, int8 = (take_census(file) for file in sorted((tmp_path / "one").glob("*.onnx")))
    assert fp32.int8_mac_fraction == 0
    assert int8.int8_mac_fraction > 0.9


def outputs_of(file, batches):
    session = onnxruntime.InferenceSession(file)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def test_a_net_whose_weights_are_given_has_them_and_another_says_how_to_get_them(replay, tmp_path):
    trained = build(OTHER.arch, OTHER.options).eval()
    for parameter in trained.parameters():
        nn.init.normal_(parameter, std=0.5)
    (tmp_path / "weights").mkdir()
    save_file(trained.state_dict(), tmp_path / "weights" / "other.safetensors")
    nets = [replace(net, converter="scripts/convert.py") for net in (SMALL, OTHER)]
    small, other = measure_suite(
        nets, replay, "quick", folder=tmp_path, weights=tmp_path / "weights"
    )
    assert small.weights == "random"
    note = r"its weights are random; scripts/convert\.py makes small\.safetensors .* --weights .*"
    assert all(re.fullmatch(note, row.warnings[0]) for row in small.rows)
    assert other.weights == str(tmp_path / "weights" / "other.safetensors")
    assert not any(row.warnings for row in other.rows)
    images = torch.randn(8, *OTHER.shape, generator=torch.Generator().manual_seed(3))
    given = outputs_of(tmp_path / "other-fp32.onnx", [image[None].numpy() for image in images])
    with torch.no_grad():
        assert np.allclose(given, trained(images), atol=1e-4)


def test_a_folder_without_weights_for_any_net_is_refused(replay, tmp_path):
    (tmp_path / "smal.safetensors").touch()
    with pytest.raises(RecipeError, match=r"no NET\.safetensors.*can have one are small, other"):
        measure_suite([SMALL, OTHER], replay, "quick", folder=tmp_path, weights=tmp_path)


def test_weights_that_do_not_fit_are_a_row_that_says_so(replay, tmp_path):
    save_file({"head.weight": torch.zeros(2)}, tmp_path / "small.safetensors")
    small, other = measure_suite([SMALL, OTHER], replay, "quick", folder=tmp_path, weights=tmp_path)
    assert (small.parameters, small.weights, small.macs) == (None, None, None)
    assert [row.name for row in small.rows] == ["small fp32", "small int8"]
    assert all("the weights do not fit the model" in row.error for row in small.rows)
    assert all(row.error is None for row in other.rows)


def test_the_target_decides_the_batch(replay, tmp_path):
    target = replace(replay, encoding=replace(replay.encoding, batch=3))
    measure_suite([SMALL], target, "quick", folder=tmp_path)
    for format in FORMATS:
        (port,) = onnx.load(tmp_path / f"small-{format}.onnx").graph.input
        assert port.type.tensor_type.shape.dim[0].dim_value == 3


def test_random_numbers_outside_are_left_alone(replay, tmp_path):
    before = torch.get_rng_state()
    measure_suite([SMALL], replay, "quick", folder=tmp_path)
    assert torch.equal(before, torch.get_rng_state())


class Deep(nn.Module):
    """Forty layers: with fresh norms, next to nothing of an input arrives at the end."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(40))
        )
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x):
        return self.head(self.layers(x))


@pytest.mark.exhaustive
def test_activations_of_a_deep_net_neither_vanish_nor_explode(replay, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.suite.building.build", lambda *_: Deep())
    measure_suite([Net("small", "deep", {}, (8,))], replay, "quick", folder=tmp_path)
    draw = np.random.default_rng(0)
    inputs = [draw.standard_normal((1, 8), "float32") for _ in range(50)]
    outputs = outputs_of(tmp_path / "small-fp32.onnx", inputs)
    assert 0.05 < outputs.std(axis=0).max() < 5


def test_a_net_that_fails_is_a_row_that_says_why_and_the_others_are_measured(tmp_path):
    target = ReplayTarget(latency_s=FASTER_IN_INT8, errors={"small-int8.onnx": "no such operator."})
    small, other = measure_suite([SMALL, OTHER], target, "quick", folder=tmp_path)
    assert small.rows[0].error is None
    assert small.rows[1].error == "no such operator."
    assert all(row.error is None for row in other.rows)


@pytest.mark.parametrize(
    ("fails", "errors"),
    [
        ("int8", [None, "int8: not this one."]),
        ("fp32", ["fp32: not this one.", "there is nothing to compare it with."]),
    ],
)
def test_a_net_that_cannot_be_lowered_says_why(fails, errors, replay, tmp_path, monkeypatch):
    class Sometimes(OnnxBackend):
        def lower(self, candidate, lowering, *, calibration, check, path):
            if fails in path.name:
                raise LoweringError(f"{fails}: not this one.")
            return super().lower(
                candidate, lowering, calibration=calibration, check=check, path=path
            )

    monkeypatch.setattr(type(replay), "backend", Sometimes(), raising=False)
    (result,) = measure_suite([SMALL], replay, "quick", folder=tmp_path)
    assert [row.error for row in result.rows] == errors
    assert (result.macs is None) == (fails == "fp32")
    assert (result.int8_mac_fraction is None) == (fails == "int8")


class Breaking(ReplayTarget):
    """Measures some sessions, and then the device is gone."""

    def measure(self, models, config, raw=None):
        if any(name in str(models[0]) for name in self.errors):
            raise MeasurementError("the device does not answer.")
        return super().measure(models, config, raw)


def test_a_device_that_is_lost_on_the_way_keeps_what_was_measured(tmp_path):
    target = Breaking(latency_s=FASTER_IN_INT8, errors={"other": ""})
    small, other = measure_suite([SMALL, OTHER], target, "quick", folder=tmp_path)
    assert all(row.error is None for row in small.rows)
    assert [row.error for row in other.rows] == ["the device does not answer."] * 2


def test_a_device_that_measures_nothing_ends_it_at_once(tmp_path):
    target = Breaking(latency_s=FASTER_IN_INT8, errors={"small": ""})
    unbuilt = replace(OTHER, name="unbuilt", arch="nonsense")
    with pytest.raises(MeasurementError, match="the device does not answer"):
        measure_suite([unbuilt, SMALL, OTHER], target, "quick", folder=tmp_path)
    assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("tinny", "there is no suite 'tinny'; did you mean 'tiny'[?] known are tiny"),
        ("imagenet", "there is no suite 'imagenet'; known are tiny"),
    ],
)
def test_an_unknown_suite_is_refused(name, match):
    with pytest.raises(RecipeError, match=match):
        suite_of(name)


@pytest.fixture
def bench(replay, monkeypatch, capsys):
    """``compresskit bench`` with a suite of two small nets and declared times."""
    pair = Suite("pair", "Two small nets. Not a result of anyone's.", (SMALL, OTHER))
    monkeypatch.setattr("compress.suite.nets.SUITES", {**SUITES, "pair": pair})
    monkeypatch.setattr("compress.cli.bench.target_of", lambda _: replay)

    def call(*arguments):
        code = main(["bench", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def test_bench_prints_one_table_and_says_what_it_is(bench, tmp_path):
    path, raw = tmp_path / "suite.json", tmp_path / "raw.jsonl"
    code, out, err = bench("--suite", "pair", "--quick", "--json", path, "--raw", raw)
    assert code == 0
    head, _, *rows = out.splitlines()
    assert head.split()[:2] == ["model", "KiB"]
    for line, words in zip(
        rows, ("small fp32.*baseline", "small int8.*faster", "other fp32.*baseline",
               "other int8.*slower"), strict=False
    ):  # fmt: skip
        assert re.match(words, line)
    assert out.rstrip().endswith("Not a result of anyone's.")
    assert "[1/2] small" in err
    assert "[2/2] other: measuring" in err

    facts = json.loads(path.read_text())
    assert (facts["schema"], facts["suite"], facts["mode"]) == (1, "pair", "quick")
    assert facts["environment"]["device_id"] == "replay"
    assert [net["name"] for net in facts["nets"]] == ["small", "other"]
    assert facts["nets"][0]["options"] == SMALL.options
    assert facts["nets"][0]["weights"] == "random"
    assert [model["name"] for model in facts["models"]][:2] == ["small fp32", "small int8"]
    assert all(json.loads(line) for line in raw.read_text().splitlines())


@pytest.mark.exhaustive
def test_bench_keeps_the_files_where_it_is_told_to(bench, tmp_path):
    assert bench("--suite", "pair", "--quick", "--keep", tmp_path / "kept")[0] == 0
    kept = sorted(path.stem for path in (tmp_path / "kept").glob("*.onnx"))
    assert kept == ["other-fp32", "other-int8", "small-fp32", "small-int8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "bench takes ONNX files or --suite NAME; got neither"),
        (["a.onnx", "--suite", "tiny"], "bench takes ONNX files or --suite NAME; got both"),
        (["a.onnx", "--keep", "k"], "--keep is for the files of a suite; add --suite NAME"),
        (["a.onnx", "--weights", "w"], "--weights is for the nets of a suite; add --suite NAME"),
        (["--suite", "tiny", "--weights", "w"], "w: there is no NET.safetensors in it for a net"),
        (
            ["--suite", "tiny", "--profile"],
            "--profile is for ONNX files; --keep those of the suite",
        ),
        (["--suite", "tinny"], "there is no suite 'tinny'; did you mean 'tiny'"),
        (["--suite", "tiny", "--quick", "--strict"], "--quick and --strict exclude each other"),
        (["--suite", "tiny", "--threads", "0"], "--threads must be at least 1; got 0"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message, bench):
    code, _, err = bench(*arguments)
    assert code == 2
    assert message in err


def test_a_net_that_failed_is_exit_code_1(bench, replay, monkeypatch):
    failing = replace(replay, errors={"small-int8.onnx": "no such operator."})
    monkeypatch.setattr("compress.cli.bench.target_of", lambda _: failing)
    code, out, _ = bench("--suite", "pair", "--quick")
    assert code == 1
    assert re.search(r"small int8 .*failed", out)
    assert "small int8: no such operator." in out
