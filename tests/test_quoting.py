"""Names as recipes have them."""

import pytest
import yaml

from compress.quoting import in_yaml

pytestmark = pytest.mark.fast

WORDS = ["boxes", "aux_logits1", "features.0", "pred-boxes"]
OTHERS = ["0", "0.1", "1e3", "on", "Yes", "null", "a b", "a: b", "[x]", "", "~", ".5", "it's", "y"]


@pytest.mark.parametrize("name", WORDS)
def test_words_are_written_as_they_are(name):
    assert in_yaml(name) == name


@pytest.mark.parametrize("name", [*WORDS, *OTHERS])
def test_what_is_written_is_read_as_the_name(name):
    assert yaml.safe_load(f"on_: {in_yaml(name)}")["on_"] == name
    assert (in_yaml(name) == name) == (name in WORDS)
