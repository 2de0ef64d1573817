from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from compress.errors import DataError
from compress.tasks.segmentation import SegmentationLoss
from compress.training.labels import IGNORED

pytestmark = pytest.mark.fast

LABELS = torch.tensor([[[0, 0, 1], [0, IGNORED, 1]]])


def logits(classes, high=30.0):
    return F.one_hot(classes, 4).movedim(-1, 1).float() * high


def test_it_is_zero_where_all_pixels_that_count_are_right():
    found = torch.where(LABELS == IGNORED, 2, LABELS)
    assert float(SegmentationLoss()(logits(found), LABELS)) == pytest.approx(0, abs=1e-6)


def test_it_is_cross_entropy_and_the_overlap_of_classes_that_are_there():
    found = torch.zeros_like(LABELS)
    outputs = logits(found, high=2.0)
    chance = F.softmax(torch.tensor([2.0, 0, 0, 0]), 0)
    # Of class 0 three pixels of five, of class 1 two; the smoothing is one pixel.
    ground = (2 * 3 * chance[0] + 1) / (5 * chance[0] + 3 + 1)
    other = (2 * 2 * chance[1] + 1) / (5 * chance[1] + 2 + 1)
    entropy = F.cross_entropy(outputs, LABELS, ignore_index=IGNORED)
    expected = entropy + 0.5 * (1 - (ground + other) / 2)
    assert float(SegmentationLoss(dice=0.5)(outputs, LABELS)) == pytest.approx(float(expected))


def test_pixels_without_a_label_have_no_gradient():
    outputs = torch.randn(1, 4, 2, 3, requires_grad=True)
    SegmentationLoss()(outputs, LABELS).backward()
    per_pixel = outputs.grad.abs().sum(1)
    assert bool(((per_pixel > 0) == (LABELS != IGNORED)).all())


def test_probabilities_for_labels_are_refused():
    with pytest.raises(DataError, match=r"the class of each pixel.*got torch\.float32"):
        SegmentationLoss()(torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 2, 3))
