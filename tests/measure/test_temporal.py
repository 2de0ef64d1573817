"""Temporal stability: a filter that does the same to the same picture, wherever it stands."""

from __future__ import annotations

import numpy as np
import pytest

from compress.measure.temporal import STEPS, temporal_stability

pytestmark = pytest.mark.fast


@pytest.fixture
def picture():
    return np.random.RandomState(0).randint(20, 200, (40 + STEPS, 40 + STEPS, 3)).astype(np.uint8)


def test_what_moves_with_the_picture_has_60_db(picture):
    calls = []

    def inverted(pixels):
        calls.append(pixels.shape)
        return 255 - pixels

    assert temporal_stability(inverted, picture, 40) == 60
    assert calls == [(40, 40, 3)] * (STEPS + 1)


def test_what_stands_on_the_screen_while_the_picture_moves_has_less(picture):
    grid = np.zeros((40, 40, 1), np.uint8)
    grid[::4] = 20
    strong = temporal_stability(lambda pixels: pixels + 2 * grid, picture, 40)
    weak = temporal_stability(lambda pixels: pixels + grid, picture, 40)
    # Of 30 rows compared about half have a line of the grid in one of both.
    assert strong < weak < 30
    assert weak - strong == pytest.approx(20 * np.log10(2), abs=0.01)


def test_the_edge_which_sees_itself_move_does_not_count(picture):
    def framed(pixels):
        made = pixels.copy()
        made[:4], made[-4:], made[:, :4], made[:, -4:] = 0, 0, 0, 0
        return made

    assert temporal_stability(framed, picture, 40) == 60
