"""Labels find places of their own."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from compress.report.figures.labels import Box, Label, place

FRAME = Box(0, 0, 500, 360)


def boxes_overlap(placements):
    boxes = [p.box for p in placements]
    return [(a, b) for k, a in enumerate(boxes) for b in boxes[k + 1 :] if a.overlap(b) > 0]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(60, 440), st.floats(60, 300), st.floats(20, 90)), min_size=1, max_size=8
    )
)
def test_labels_overlap_neither_one_another_nor_the_marks_nor_the_frame(given_labels):
    labels = [Label((x, y), 5, width, 10) for x, y, width in given_labels]
    found = place(labels, [], FRAME)
    marks = [Box(*label.at, *label.at).grown(5) for label in labels]
    assert not boxes_overlap(found)
    assert all(FRAME.holds(p.box) for p in found)
    assert not any(p.box.overlap(mark) for p in found for mark in marks)


def test_a_crowd_of_fifteen_is_told_apart():
    rng = random.Random(1)
    labels = [
        Label((250 + rng.uniform(-9, 9), 180 + rng.uniform(-9, 9)), 6, 85, 10) for _ in range(15)
    ]
    found = place(labels, [], FRAME)
    assert not boxes_overlap(found)
    assert all(FRAME.holds(p.box) for p in found)


def test_a_lonely_label_stands_right_of_its_point_without_a_leader():
    [found] = place([Label((100, 100), 5, 40, 10)], [], FRAME)
    assert found.box.x0 == 108
    assert found.leader is None


def test_a_label_far_from_its_point_gets_a_leader_that_ends_at_it():
    wall = Box(60, 60, 300, 140)
    [found] = place([Label((100, 100), 5, 40, 10)], [wall], FRAME)
    assert found.leader is not None
    start, end = found.leader
    assert start == (100, 100)
    assert found.box.nearest(start) == end


def test_lines_are_left_uncovered_where_that_costs_little():
    across = Box(100, 99.5, 500, 100.5)
    [found] = place([Label((100, 100), 5, 40, 10)], [], FRAME, lines=[across])
    assert found.box.overlap(across) == 0


def test_places_do_not_change_from_call_to_call():
    labels = [Label((100 + k, 100 - k), 5, 60, 10) for k in range(6)]
    assert place(labels, [], FRAME) == place(labels, [], FRAME)


def test_without_room_the_least_bad_place_is_taken():
    tiny = Box(0, 0, 30, 12)
    [found] = place([Label((15, 6), 4, 100, 10)], [], tiny)
    assert found.box.x1 - found.box.x0 == 100
