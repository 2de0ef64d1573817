import pytest

from compress.config.selectors import matches, select
from compress.errors import SelectorError

pytestmark = pytest.mark.fast

LAYERS = {"stem": "Conv2d", "blocks.0.conv": "Conv2d", "blocks.1.conv": "Conv2d", "head": "Linear"}


@pytest.mark.parametrize(
    ("patterns", "exclude", "expected"),
    [
        (["*"], [], list(LAYERS)),
        (["head"], [], ["head"]),
        (["blocks"], [], ["blocks.0.conv", "blocks.1.conv"]),
        (["blocks.*.conv"], ["blocks.1.conv"], ["blocks.0.conv"]),
        (["type:Linear"], [], ["head"]),
        (["type:Conv?d"], ["stem"], ["blocks.0.conv", "blocks.1.conv"]),
        (["*"], ["type:Linear", "blocks"], ["stem"]),
    ],
)
def test_select_names_layers_in_model_order(patterns, exclude, expected):
    assert select(patterns, LAYERS, exclude=exclude) == expected


def test_a_path_does_not_select_a_longer_name_with_the_same_start():
    assert not matches("head", "header", "Linear")


@pytest.mark.parametrize(
    ("patterns", "exclude", "message"),
    [
        (["haed"], [], r"select: the pattern 'haed' matches no layer; nearest are 'head'"),
        (["type:Lineer"], [], r"nearest are 'type:Linear'"),
        (["*"], ["hed"], r"select exclude: the pattern 'hed' matches no layer"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_that_names_the_nearest(
    patterns, exclude, message
):
    with pytest.raises(SelectorError, match=message):
        select(patterns, LAYERS, exclude=exclude)
