"""Continuations against every text that there is, and what they may depend on."""

from itertools import product

import numpy as np
import pytest
import torch

from compress.distillation.decoding import beam_search, padded, sample
from compress.testing.nets import NETS

CASE = NETS["causal-lm"]
START, COUNT = 4, 3


@pytest.fixture
def net():
    return CASE.build(seed=3)


@pytest.fixture
def windows():
    return CASE.example(3)


@torch.no_grad()
def likelihoods(net, window):
    """The log-likelihood of every continuation of one window, each worked out by itself."""
    found = {}
    for tokens in product(range(CASE.classes), repeat=COUNT):
        text = torch.cat([window[:START], torch.tensor(tokens), window[START + COUNT :]])
        chances = net(text[None])[0].log_softmax(0)
        found[tokens] = sum(float(chances[t, START - 1 + i]) for i, t in enumerate(tokens))
    return found


def test_a_wide_enough_beam_finds_the_likeliest_text_of_all(net, windows):
    found = beam_search(net, windows, START, COUNT, beams=CASE.classes**COUNT)
    for window, tokens in zip(windows, found.tolist(), strict=True):
        every = likelihoods(net, window)
        assert tuple(tokens) == max(every, key=every.get)


def test_one_beam_takes_the_likeliest_token_each_time(net, windows):
    texts = windows.clone()
    for place in range(START, START + COUNT):
        with torch.no_grad():
            texts[:, place] = net(texts[:, :place])[:, :, -1].argmax(1)
    assert torch.equal(beam_search(net, windows, START, COUNT), texts[:, START : START + COUNT])


def test_more_beams_never_find_a_less_likely_text_than_greed_did_here(net, windows):
    greedy, wide = (beam_search(net, windows, START, COUNT, beams).tolist() for beams in (1, 4))
    for window, few, many in zip(windows, greedy, wide, strict=True):
        every = likelihoods(net, window)
        assert every[tuple(many)] >= every[tuple(few)]


@pytest.mark.parametrize("decode", [beam_search, sample])
def test_what_stands_behind_the_prompt_does_not_matter_and_stays(decode, net, windows):
    other = windows.clone()
    other[:, START:] = 0
    before = other.clone()
    torch.manual_seed(0)
    expected = decode(net, windows, START, COUNT)
    torch.manual_seed(0)
    assert torch.equal(decode(net, other, START, COUNT), expected)
    assert torch.equal(other, before)
    assert expected.shape == (3, COUNT)


@pytest.mark.parametrize("decode", [beam_search, sample])
def test_a_net_of_one_length_gets_that_length(decode, net, windows):
    asked = []

    def fixed(texts):
        asked.append(texts.shape[1])
        return net(texts)

    torch.manual_seed(0)
    expected = decode(net, windows, START, COUNT)
    torch.manual_seed(0)
    length = windows.shape[1]
    assert torch.equal(decode(padded(fixed, length), windows, START, COUNT), expected)
    assert asked == [length] * COUNT
    asked.clear()
    decode(fixed, windows, START, COUNT)
    assert asked == [START, START + 1, START + 2]


def test_samples_are_drawn_as_likely_as_they_are(net, windows):
    torch.manual_seed(0)
    drawn = sample(net, windows[:1].expand(4000, -1), START, COUNT)
    every = likelihoods(net, windows[0])
    assert sum(map(np.exp, every.values())) == pytest.approx(1, abs=1e-5)
    counts = dict.fromkeys(every, 0)
    for tokens in drawn.tolist():
        counts[tuple(tokens)] += 1
    for tokens, chance in every.items():
        p = float(np.exp(chance))
        # Five standard deviations, and one for what is rare.
        assert abs(counts[tokens] - 4000 * p) < 5 * np.sqrt(4000 * p * (1 - p)) + 1


def test_a_seed_draws_the_same_text_again_and_another_one_another(net, windows):
    def drawn(seed):
        torch.manual_seed(seed)
        return sample(net, windows.repeat(8, 1), START, COUNT)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
