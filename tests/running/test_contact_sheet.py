"""The contact sheet of a run: made once, of images alone, and no reason to fail."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compress.errors import MeasurementError
from compress.record_images import CONTACT_SHEET
from compress.running.contact_sheet import add_contact_sheet

pytestmark = pytest.mark.fast


class Evaluator:
    """Rows make images darker, the later the darker."""

    def __init__(self, target, makes_images=True):
        self.targets, self.makes_images, self.calls = (
            [SimpleNamespace(name=target)],
            makes_images,
            0,
        )
        self.error = None

    def images(self, row, inputs):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return inputs["image"] * (1 - 0.1 * row.index)


@pytest.fixture
def run(chain, tmp_path):
    random, notices = torch.Generator().manual_seed(0), []
    pixels = torch.rand(10, 3, 32, 32, generator=random)
    test = [
        ({"image": image, "strength": torch.tensor([k % 5 / 4])}, image)
        for k, image in enumerate(pixels)
    ]
    job = SimpleNamespace(
        task=SimpleNamespace(test=test),
        folder=SimpleNamespace(root=tmp_path),
        emit_and_log=notices.append,
    )
    inputs = [SimpleNamespace(index=row.index) for row in chain.rows]
    return SimpleNamespace(
        job=job,
        record=chain,
        earlier=None,
        inputs=inputs,
        evaluator=Evaluator(chain.targets[0]),
        notices=notices,
    )


def test_rows_from_the_baseline_on_are_shown_at_the_highest_control(run, tmp_path):
    add_contact_sheet(run)
    found, content = run.record.contact_sheet, (tmp_path / CONTACT_SHEET).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert found.rows == [row.index for row in run.record.rows if row.index >= run.record.baseline]
    assert (found.images, found.controls, found.amplification) == (2, {"strength": 1}, 4)
    assert run.evaluator.calls == len(found.rows)


def test_a_sheet_that_is_there_is_kept_and_another_is_made_again(run, tmp_path):
    add_contact_sheet(run)
    calls, content = run.evaluator.calls, (tmp_path / CONTACT_SHEET).read_bytes()
    run.earlier = run.record.model_copy(deep=True)
    run.record.contact_sheet = None
    add_contact_sheet(run)
    assert run.evaluator.calls == calls
    assert run.record.contact_sheet == run.earlier.contact_sheet
    (tmp_path / CONTACT_SHEET).write_bytes(b"damaged")
    add_contact_sheet(run)
    assert (tmp_path / CONTACT_SHEET).read_bytes() == content
    run.record.rows[-1].measurements[0].artifact.sha256 = "1" * 64
    add_contact_sheet(run)
    assert run.evaluator.calls == 3 * calls


def test_a_target_that_fails_is_a_notice(run, tmp_path):
    run.evaluator.error = MeasurementError("the device is gone.")
    add_contact_sheet(run)
    assert [notice.text for notice in run.notices] == [
        "there is no contact sheet: the device is gone."
    ]
    assert run.record.contact_sheet is None
    assert not (tmp_path / CONTACT_SHEET).exists()


@pytest.mark.parametrize("change", ["kind", "range", "channels", "labels"])
def test_nothing_is_shown_where_rows_make_no_images_of_images(change, run, tmp_path):
    test = run.job.task.test
    if change == "kind":
        run.evaluator.makes_images = False
    for place, (inputs, label) in enumerate(test):
        if change == "range":
            test[place] = ({**inputs, "image": 2 * inputs["image"]}, label)
        if change == "channels":
            test[place] = ({**inputs, "image": inputs["image"][:2]}, label[:2])
        if change == "labels":
            test[place] = (inputs, label[:, :16])
    add_contact_sheet(run)
    assert run.record.contact_sheet is None
    assert not list(tmp_path.iterdir())
    assert run.evaluator.calls == 0


def test_of_many_rows_the_first_and_the_last_are_shown(run):
    last = run.record.rows[-1]
    more = [last.model_copy(update={"index": last.index + k}, deep=True) for k in range(1, 7)]
    run.record.rows += more
    run.inputs += [SimpleNamespace(index=row.index) for row in more]
    add_contact_sheet(run)
    first = run.record.baseline
    assert run.record.contact_sheet.rows == [first, *(row.index for row in more[1:])]
    assert np.all(np.diff(run.record.contact_sheet.rows) > 0)
