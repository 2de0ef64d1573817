"""Controls and pictures on the page of a run: from the record and the files of its folder alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from compress.effects.contact_sheet import Strip, drawn_sheet
from compress.record import Accuracy
from compress.record_images import CONTACT_SHEET, ContactSheet, ControlValue
from compress.report.figures.controls_data import controls_info
from compress.report.page.page import page


def value_of(value, to_teacher, to_input):
    def scored(db):
        return Accuracy(value=db, ci95=(db - 1, db + 1), n=8)

    return ControlValue(
        value=value,
        to_teacher=scored(to_teacher),
        to_input=scored(to_input),
        teacher_to_input=to_input + 1,
    )


@pytest.fixture
def record(chain):
    found = chain.model_copy(deep=True)
    for row in found.rows:
        row.measurements[0].controls = {
            "strength": [
                value_of(0, 50, 55),
                value_of(0.5, 33, 30 - row.index),
                value_of(1, 31, 20),
            ]
        }
    found.rows[-1].measurements[0].controls["strength"][2] = value_of(1, 31, 40)
    return found


def test_the_rows_from_the_baseline_on_are_lines_over_each_control(record):
    info = controls_info(record, record.targets[0])
    names = [f"{row.index} {row.stage}" for row in record.rows if row.index >= record.baseline]
    assert list(info.names) == names
    nearer, farther = info.panels
    assert [line.name for line in farther.lines] == [*names, "teacher"]
    assert nearer.lines[0].points == ((0, 50), (0.5, 33), (1, 31))
    assert f"does not grow or fall steadily in {names[-1]} (strength)." in info.caption
    assert nearer.ends[0] < 30 < 51 < nearer.ends[1]
    shown = page(record)
    assert "How the rows follow strength" in shown
    assert f"{names[0]}: 50.0 dB at 0, 33.0 dB at 0.5, 31.0 dB at 1" in shown
    assert '<th scope="col">to input, strength 0.5</th>' in shown


def test_a_record_without_controls_and_pictures_says_nothing_of_them(chain, tmp_path):
    assert controls_info(chain, chain.targets[0]) is None
    content = chain.model_dump(mode="json", by_alias=True)
    assert "contact_sheet" not in content
    assert "controls" not in content["rows"][0]["measurements"][0]
    assert "What the rows make" not in page(chain, folder=tmp_path)


def test_a_contact_sheet_is_in_the_page_if_it_is_the_records(record, tmp_path):
    image = np.full((32, 48, 3), 128, np.uint8)
    strips = [Strip([image, image]), Strip([None, image], ["difference", "x 4"])]
    content = drawn_sheet([["input", "strength 1"], ["net" * 30]], strips, 1 << 20)
    sheet = ContactSheet(
        sha256=hashlib.sha256(content).hexdigest(),
        target=record.targets[0],
        rows=[record.rows[-1].index],
        images=1,
        controls={"strength": 1},
        amplification=4,
        made_from="",
    )
    record = record.model_copy(update={"contact_sheet": sheet})
    shown = page(record, folder=tmp_path)
    assert f"{CONTACT_SHEET}: there is no such file; run the recipe again" in shown
    (tmp_path / CONTACT_SHEET).write_bytes(content)
    shown = page(record, folder=tmp_path)
    assert 'src="data:image/png;base64,iVBOR' in shown
    assert 'alt="Contact sheet of 1 test images. Columns: input, teacher, row' in shown
    assert "1 images of the test split at strength 1" in shown
    (tmp_path / CONTACT_SHEET).write_bytes(content + b"more")
    assert f"{CONTACT_SHEET} is not the picture of this record" in page(record, folder=tmp_path)


def test_a_sheet_keeps_its_size_by_smaller_images():
    noise = np.random.RandomState(0).randint(0, 256, (256, 256, 3)).astype(np.uint8)
    most = 100_000
    content = drawn_sheet([["a"], ["b"]], [Strip([noise, noise])], most)
    assert most / 3 < len(content) <= most
