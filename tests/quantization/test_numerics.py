import pytest

from compress.errors import SelectorError, SettingsError
from compress.quantization.numerics import (
    FLOAT32,
    Calibration,
    LayerFormat,
    Numerics,
    QuantRule,
)

pytestmark = pytest.mark.fast

LAYERS = {"stem": "Conv2d", "block.conv": "Conv2d", "head": "Linear"}
INT8 = LayerFormat(weights="int8", activations="int8")
DYNAMIC = LayerFormat(weights="int8", activations="dynamic")


def test_the_default_is_float32_everywhere():
    assert Numerics().resolve(LAYERS) == dict.fromkeys(LAYERS, FLOAT32)


def test_a_later_rule_wins_where_selectors_overlap():
    numerics = Numerics().with_rule(QuantRule(format=INT8))
    numerics = numerics.with_rule(QuantRule(select=("head",), format=DYNAMIC))
    assert numerics.resolve(LAYERS) == {"stem": INT8, "block.conv": INT8, "head": DYNAMIC}


def test_excluded_layers_keep_what_they_had():
    numerics = Numerics((QuantRule(exclude=("head",), format=INT8),))
    assert numerics.resolve(LAYERS)["head"] == FLOAT32


def test_a_rule_that_matches_nothing_says_which_rule():
    numerics = Numerics((QuantRule(format=INT8), QuantRule(select=("tail",), format=INT8)))
    with pytest.raises(SelectorError, match=r"numerics\.rules\[1\].*'tail' matches no layer"):
        numerics.resolve(LAYERS)


def test_rules_carried_to_another_net_drop_only_what_is_not_there():
    numerics = Numerics(
        (
            QuantRule(exclude=("head", "gone"), format=INT8),
            QuantRule(select=("gone",), format=DYNAMIC),
        )
    )
    carried, dropped = numerics.carried_to(LAYERS)
    assert carried.rules == (QuantRule(exclude=("head",), format=INT8),)
    assert dropped == ("gone", "gone")


@pytest.mark.parametrize(
    ("weights", "activations", "message"),
    [
        ("float16", "float32", "float16 is for weights and activations together"),
        ("float32", "float16", "float16 is for weights and activations together"),
        ("float32", "int8", "activations: int8 needs integer weights"),
        ("float32", "dynamic", "activations: dynamic needs integer weights"),
    ],
)
def test_formats_that_do_not_go_together_are_refused(weights, activations, message):
    with pytest.raises(SettingsError, match=message):
        LayerFormat(weights=weights, activations=activations)


@pytest.mark.parametrize("bad", [{"percentile": 30}, {"method": "guess"}, {"samples": 0}])
def test_calibration_refuses_values_out_of_range(bad):
    with pytest.raises(SettingsError):
        Calibration(**bad)
