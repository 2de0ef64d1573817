"""Numbers on the command line are written in digits from 0 to 9."""

from __future__ import annotations

import argparse

import pytest

from compress.cli.numbers import number, whole

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("-1", -1), ("+7", 7), ("007", 7)])
def test_a_whole_number_is_taken(text, value):
    assert whole(text) == value


@pytest.mark.parametrize(
    "text", ["²", "٣", "1_0", " 3", "3\n", "", "3.0", "1e3", "x", "nan", "9" * 19, "9" * 99_999]
)
def test_what_is_no_whole_number_is_refused_in_one_sentence(text):
    with pytest.raises(argparse.ArgumentTypeError, match="give a whole number in digits; got") as e:
        whole(text)
    assert len(str(e.value)) < 120
    assert str(e.value).isascii()


@pytest.mark.parametrize(("text", "value"), [("2.5", 2.5), ("1e3", 1000.0), ("inf", float("inf"))])
def test_a_number_is_taken(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["²", "٣.5", "1_0", " 3", "", "x", "1e", "9" * 99_999])
def test_what_is_no_number_is_refused_in_one_sentence(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"give a number such as 2\.5; got") as e:
        number(text)
    assert len(str(e.value)) < 120
