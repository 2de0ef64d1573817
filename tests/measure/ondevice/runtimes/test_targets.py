"""One recipe on two runtimes: one record, two fronts, a plot for each."""

from dataclasses import replace

import pytest

from compress import Recipe
from compress.cli import main
from compress.cli.doctor import CHECKS
from compress.errors import RecipeError
from compress.measure.modes import PLANS
from compress.record import Record
from compress.report import write_report

RECIPE = """\
schema: 1
name: two
task: digits
model: {arch: mlp, in_features: 64, width: 16}
targets:
  - {name: ort, runtime: onnxruntime}
  - {name: ov, runtime: openvino}
stages:
  - {kind: quantize}
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.yaml").write_text(RECIPE)
    command = ["run", str(folder / "two.yaml"), "--out", str(folder / "run"), "--quick"]
    with pytest.MonkeyPatch.context() as patch:
        quick = replace(PLANS["quick"], min_rounds=2, max_rounds=2)
        patch.setattr("compress.measure.rounds.PLANS", {"quick": quick})
        assert main(command) == 0
    return Record.load(folder / "run")


@pytest.mark.exhaustive
def test_one_record_has_both_runtimes_in_every_row(record):
    assert record.targets == ["ort", "ov"]
    for row in record.rows:
        for name, runtime in (("ort", "onnxruntime"), ("ov", "openvino")):
            found = row.on(name)
            assert found.runtime == runtime
            assert found.latency.p50_s > 0
            assert found.accuracy.n == record.task.test_samples
    quantized = record.rows[-1]
    executed = quantized.on("ov").executed  # None where OpenVINO shows no product: see its tests
    assert executed is None or executed.int8_mac_fraction > 0.9
    assert quantized.on("ort").executed is None
    assert not any("of its products in int8" in w for w in quantized.on("ov").warnings)


def test_each_runtime_has_a_front_of_its_own(record):
    assert set(record.pareto) == {"ort", "ov"}
    assert all(facts.front for facts in record.pareto.values())
    known = record.environment["targets"]
    assert known["ort"]["device_id"] != known["ov"]["device_id"]


def test_each_runtime_has_a_plot_of_its_own(record, tmp_path):
    names = {path.name for path in write_report(record, tmp_path)}
    for kind in ("pareto", "stages"):
        assert {f"{kind}-ort.png", f"{kind}-ov.png"} <= names
    page = (tmp_path / "report.html").read_text()
    assert "onnxruntime" in page
    assert "openvino" in page


def test_two_targets_of_one_name_are_refused():
    with pytest.raises(RecipeError, match="each target needs a name of its own; got ort, ort"):
        Recipe.loads(RECIPE.replace("name: ov", "name: ort"))


def test_a_provider_of_another_runtime_is_refused_where_it_is_written():
    text = RECIPE.replace("runtime: openvino", "runtime: openvino, provider: cuda")
    with pytest.raises(RecipeError, match="the runtime openvino runs models on cpu; got provider"):
        Recipe.loads(text)


def test_bench_measures_with_the_runtime_it_is_given(model, capsys, hasty):
    assert main(["bench", str(model), "--runtime", "openvino", "--quick"]) == 0
    assert "linear.onnx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runtime", "abacus"], r"runtime: should be 'onnxruntime'"),
        (["--provider", "rocket"], r"provider: should be 'cpu', 'cuda'"),
        (["--runtime", "openvino", "--provider", "cuda"], r"provider cuda, which onnxruntime has"),
    ],
)
def test_bench_says_what_it_does_not_know(model, capsys, arguments, said):
    assert main(["bench", str(model), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_doctor_lists_runtimes_and_providers():
    text = "\n".join(finding.what for check in CHECKS for finding in check())
    assert "runs on cpu" in text
    assert "openvino 20" in text
