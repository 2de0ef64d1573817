from __future__ import annotations

import pytest
import torch

from compress.tasks import digits

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def task():
    return digits.make_task(augment=True)


def test_every_image_is_in_one_split(task):
    splits = [task.train, task.validation, task.test]
    assert [len(split) for split in splits] == [1077, 270, 450]
    every = torch.cat([split.inputs for split in splits]).flatten(1)
    assert len(torch.unique(every, dim=0)) == 1797


def test_every_class_is_in_every_split_in_proportion(task):
    for split in (task.train, task.validation, task.test):
        counts = torch.bincount(split.labels, minlength=10)
        assert int(counts.max() - counts.min()) <= 0.05 * len(split) / 5 + 3


def test_images_are_normalized(task):
    assert task.train.inputs.shape[1:] == (1, 8, 8)
    assert task.train.inputs.dtype == torch.float32
    std, mean = torch.std_mean(task.train.inputs)
    assert abs(float(mean)) < 0.02
    assert abs(float(std) - 1) < 0.02


def test_two_calls_give_the_same_split(task):
    again = digits.make_task()
    assert torch.equal(task.test.inputs, again.test.inputs)
    assert torch.equal(task.validation.labels, again.validation.labels)


def test_augmentation_is_a_choice(task):
    assert digits.make_task().augment is None
    shifted = task.augment(task.test.inputs, torch.Generator().manual_seed(0))
    assert shifted.shape == task.test.inputs.shape
    assert float(shifted.min()) == pytest.approx(float(task.test.inputs.min()), abs=1e-6)
