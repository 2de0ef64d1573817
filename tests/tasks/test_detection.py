"""Boxes of cells, the loss of a detector, and its mean average precision beside pycocotools'."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch

from compress.errors import DataError
from compress.measure.ondevice.dataset_metrics import evaluate, resampled
from compress.tasks.detection import Cells, DetectionLoss, MeanAveragePrecision, detections

pytestmark = pytest.mark.fast

SIZE, CLASSES = 64, 5


def as_distances(corners, centers, stride):
    """Boxes as a net returns them."""
    low, high = centers - corners[:2], corners[2:] - centers
    return np.concatenate([low, high], axis=-1) / stride


def scenes(count, seed, classes=CLASSES, noise=0.15):
    """Outputs that are partly right, and labels."""
    random = np.random.default_rng(seed)
    cells = Cells.of(SIZE, SIZE, 64)
    centers = cells.centers()
    boxes = np.full((count, 4, 4), np.nan, np.float32)
    labels = np.full((count, 4), -1)
    found = np.abs(random.normal(1, 0.5, (count, 64, 4))).astype(np.float32)
    scores = random.normal(-5, 1.5, (count, 64, classes)).astype(np.float32)
    for image in range(count):
        for place in range(random.integers(0, 5)):
            side = random.uniform(8, 30, 2)
            first = random.uniform(0, SIZE - side)
            boxes[image, place] = *first, *(first + side)
            labels[image, place] = random.integers(classes)
            near = np.abs(centers - first - side / 2).sum(1).argsort()[: random.integers(1, 4)]
            for cell in near:
                true = as_distances(boxes[image, place], centers[cell], cells.stride)
                found[image, cell] = true + random.normal(0, noise, 4)
                is_right = random.random() < 0.8
                named = labels[image, place] if is_right else random.integers(classes)
                scores[image, cell, named] = random.normal(1, 1.5)
    return {"boxes": found, "scores": scores}, {"boxes": boxes, "scores": labels}


# -- boxes --------------------------------------------------------------------------------------


def test_an_image_is_divided_into_cells_in_the_order_of_rows():
    cells = Cells.of(16, 24, 6)
    assert (cells.rows, cells.columns, cells.stride) == (2, 3, 8)
    assert cells.centers()[:4].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12]]
    distances = np.array([[0.5, 0.5, 1, 2]] * 6, np.float32)
    assert cells.corners(distances)[4].tolist() == [8, 8, 20, 28]


def test_cells_that_divide_no_image_are_refused():
    with pytest.raises(DataError, match="7 cells do not divide an image of 16 by 24 pixels"):
        Cells.of(16, 24, 7)


def test_of_boxes_that_overlap_the_surest_of_a_class_is_kept():
    cells = Cells.of(32, 32, 16)
    corners = np.tile(np.array([0, 0, 1, 1], np.float32), (16, 1))
    corners[:3] = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 1, 10, 11]]
    boxes = np.stack([as_distances(c, m, 8) for c, m in zip(corners, cells.centers(), strict=True)])
    scores = np.full((16, 2), -9.0)
    scores[0, 0], scores[1, 0], scores[2, 1] = 1.0, 2.0, 0.5
    [found] = detections(boxes[None], scores[None], cells)
    assert found.classes.tolist() == [0, 1]
    assert found.boxes.tolist() == [[1, 0, 11, 10], [0, 1, 10, 11]]
    assert found.scores == pytest.approx(1 / (1 + np.exp([-2, -0.5])))


def test_what_is_not_finite_is_found_nowhere():
    outputs, labels = scenes(8, 0)
    outputs["scores"][0, 3] = np.nan
    outputs["boxes"][1, 5, 2] = np.inf
    found = detections(outputs["boxes"], outputs["scores"], Cells.of(SIZE, SIZE, 64))
    assert all(np.isfinite(one.boxes).all() and np.isfinite(one.scores).all() for one in found)
    assert 0 < MeanAveragePrecision(SIZE, SIZE)(outputs, labels) < 1


# -- mean average precision -----------------------------------------------------------------------


def of_coco(outputs, labels, counts):
    """AP, AP50 and AP75 by pycocotools, where images count as often as they say."""
    coco = pytest.importorskip("pycocotools.coco").COCO()
    from pycocotools.cocoeval import COCOeval

    found = detections(outputs["boxes"], outputs["scores"], Cells.of(SIZE, SIZE, 64))
    drawn = np.repeat(np.arange(len(found)), counts)
    true, said = [], []
    for place, image in enumerate(drawn):
        for box, label in zip(labels["boxes"][image], labels["scores"][image], strict=True):
            if label >= 0:
                true.append(entry(place, box, label, len(true) + 1))
        one = found[image]
        for box, score, label in zip(one.boxes, one.scores, one.classes, strict=True):
            said.append({**entry(place, box, label), "score": float(score)})
    coco.dataset = {
        "info": {},
        "images": [{"id": place + 1} for place in range(len(drawn))],
        "categories": [{"id": number} for number in range(CLASSES)],
        "annotations": true,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(said), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:3]


def entry(place, box, label, number=0):
    x0, y0, x1, y1 = map(float, box)
    sides = [x1 - x0, y1 - y0]
    return {
        "id": number,
        "image_id": place + 1,
        "category_id": int(label),
        "bbox": [x0, y0, *sides],
        "area": sides[0] * sides[1],
        "iscrowd": 0,
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_resampled", [False, True])
def test_the_numbers_are_those_of_pycocotools(seed, is_resampled):
    outputs, labels = scenes(50, seed)
    counts = np.ones(50, int)
    if is_resampled:
        drawn = np.random.default_rng(seed).integers(0, 50, 50)
        counts = np.bincount(drawn, minlength=50)
    ours = [
        MeanAveragePrecision(SIZE, SIZE, overlap).by_counts(outputs, labels)(counts[None])[0]
        for overlap in (None, 0.5, 0.75)
    ]
    assert 0.3 < ours[0] < ours[1] < 0.9
    assert ours == pytest.approx(list(of_coco(outputs, labels, counts)), abs=1e-12)


@pytest.mark.parametrize(("noise", "value"), [(0.0, 1.0), (30.0, 0.0)])
def test_it_is_one_of_what_is_right_and_zero_of_what_is_wrong(noise, value):
    outputs, labels = scenes(20, 1)
    cells = Cells.of(SIZE, SIZE, 64)
    outputs["scores"][:] = -9
    for image in range(20):
        for box, label in zip(labels["boxes"][image], labels["scores"][image], strict=True):
            if label >= 0:
                free = np.flatnonzero((outputs["scores"][image] < 0).all(1))[0]
                center = cells.centers()[free]
                outputs["boxes"][image, free] = as_distances(box + noise, center, 8)
                outputs["scores"][image, free, label] = 3
    assert MeanAveragePrecision(SIZE, SIZE)(outputs, labels) == pytest.approx(value, abs=1e-9)


def test_a_net_that_finds_nothing_has_zero_and_no_boxes_have_no_value():
    outputs, labels = scenes(6, 0)
    outputs["scores"][:] = -20
    metric = MeanAveragePrecision(SIZE, SIZE)
    assert metric(outputs, labels) == 0
    labels["scores"][:] = -1
    assert np.isnan(metric(outputs, labels))


def test_resamples_are_of_images_that_were_matched_once():
    outputs, labels = scenes(40, 2)
    metric = MeanAveragePrecision(SIZE, SIZE, overlap=0.5)
    quick = resampled(evaluate(metric, outputs, labels), 40, resamples=100)
    drawn = np.random.default_rng(0).integers(0, 40, (50, 40))

    def at(places):
        return metric(
            {name: part[places] for name, part in outputs.items()},
            {name: part[places] for name, part in labels.items()},
        )

    by_hand = [at(np.sort(places)) for places in drawn]
    assert quick.draws[:50] == pytest.approx(by_hand, abs=1e-12)


def test_resamples_of_many_images_are_quick():
    outputs, labels = scenes(500, 3, classes=10)
    score = resampled(evaluate(MeanAveragePrecision(SIZE, SIZE), outputs, labels), 500)
    assert len(score.draws) >= 200


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (0, None, "metric map: outputs must be boxes .*; got ndarray"),
        (None, {"boxes": np.zeros((2, 3))}, r"labels must be boxes \(n, most, 4\).*boxes \(2, 3\)"),
    ],
)
def test_what_is_no_detector_is_said(outputs, labels, message):
    given, known = scenes(2, 0)
    with pytest.raises(DataError, match=message):
        MeanAveragePrecision(SIZE, SIZE)(
            given if outputs is None else given["boxes"], known if labels is None else labels
        )


def test_metrics_are_named_after_the_overlap_that_they_need():
    names = [MeanAveragePrecision(8, 8, overlap).__name__ for overlap in (None, 0.5, 0.75)]
    assert names == ["map", "map-50", "map-75"]


# -- loss ----------------------------------------------------------------------------------------


def labels_of(*boxes, most=3):
    """Of one image: boxes as (class, corners)."""
    corners = torch.full((1, most, 4), torch.nan)
    classes = torch.full((1, most), -1)
    for place, (label, box) in enumerate(boxes):
        corners[0, place], classes[0, place] = torch.tensor(box, dtype=torch.float32), label
    return {"boxes": corners, "scores": classes}


def outputs_for(labels, cell_of, classes=CLASSES):
    """Outputs that are as they should be, where boxes are those of some cells."""
    centers = torch.from_numpy(Cells.of(SIZE, SIZE, 64).centers())
    boxes, scores = torch.zeros(1, 64, 4), torch.full((1, 64, classes), -20.0)
    for place, cells in cell_of.items():
        for cell in cells:
            box = labels["boxes"][0, place]
            boxes[0, cell] = torch.cat((centers[cell] - box[:2], box[2:] - centers[cell])) / 8
            scores[0, cell, labels["scores"][0, place]] = 20.0
    return {"boxes": boxes.requires_grad_(), "scores": scores.requires_grad_()}


# A box around the corner that four cells share, and a small one within a cell.
LABELS = labels_of((2, (6, 6, 26, 26)), (4, (41, 41, 46, 46)))
ANSWERS = {0: (9, 10, 17, 18), 1: (45,)}


def test_the_loss_of_outputs_that_are_right_is_zero():
    loss = DetectionLoss(SIZE, SIZE)(outputs_for(LABELS, ANSWERS), LABELS)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)


def test_each_part_of_the_loss_is_the_mean_over_the_cells_that_answer():
    loss = DetectionLoss(SIZE, SIZE)
    outputs = outputs_for(LABELS, ANSWERS)
    moved = {**outputs, "boxes": outputs["boxes"].detach().clone()}
    moved["boxes"][0, 45, 2] += (
        1.0  # the right edge, by the width of a cell: 5 by 5 becomes 13 by 5
    )
    giou = 25 / 65
    assert float(loss(moved, LABELS).detach()) == pytest.approx((1 / 4 + 1 - giou) / 5, abs=1e-4)
    missed = {**outputs, "scores": outputs["scores"].detach().clone()}
    missed["scores"][0, 45, 4] = 0.0
    focal = 0.25 * 0.5**2 * np.log(2)
    assert float(loss(missed, LABELS).detach()) == pytest.approx(focal / 5, abs=1e-5)


def test_generalized_overlap_of_boxes_apart_is_below_zero():
    loss, labels = DetectionLoss(SIZE, SIZE), labels_of((0, (40, 40, 48, 48)))
    outputs = outputs_for(labels, {0: (45,)})
    boxes = outputs["boxes"].detach().clone()
    # From 52 to 60 in x: the box around both is 20 wide, 4 of them in neither.
    boxes[0, 45] += torch.tensor([-1.5, 0, 1.5, 0])
    found = float(loss({**outputs, "boxes": boxes}, labels).detach())
    assert found == pytest.approx(3 / 4 + 1 + 4 / 20, abs=1e-4)


def test_of_boxes_that_share_a_cell_the_smaller_one_has_it():
    labels = labels_of((1, (0, 0, 64, 64)), (3, (26, 26, 38, 38)))
    loss = DetectionLoss(SIZE, SIZE)
    small = {1: (27, 28, 35, 36)}
    assert float(loss(outputs_for(labels, small), labels).detach()) == pytest.approx(0, abs=1e-5)


def test_images_without_boxes_have_a_loss_on_scores_alone():
    empty = labels_of()
    outputs = outputs_for(empty, {})
    outputs["scores"].data[0, 7, 1] = 0.0
    loss = DetectionLoss(SIZE, SIZE)(outputs, empty)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.75 * 0.25 * np.log(2), abs=1e-5)
    assert float(outputs["boxes"].grad.abs().sum()) == 0
    assert float(outputs["scores"].grad[0, 7, 1]) > 0


def test_the_loss_of_boxes_whose_edges_have_changed_places_has_a_gradient():
    outputs = outputs_for(LABELS, ANSWERS)
    outputs["boxes"].data[0, 45] = -1.0
    loss = DetectionLoss(SIZE, SIZE)(outputs, LABELS)
    loss.backward()
    assert bool((outputs["boxes"].grad[0, 45] < 0).all())
    assert bool(torch.isfinite(loss))


def test_the_loss_says_which_outputs_it_needs():
    with pytest.raises(DataError, match="outputs must be boxes and scores, by name; got Tensor"):
        DetectionLoss(SIZE, SIZE)(torch.zeros(1, 64, 4), LABELS)
    with pytest.raises(DataError, match="labels must be boxes and scores, by name; got boxes"):
        DetectionLoss(SIZE, SIZE)(outputs_for(LABELS, ANSWERS), {"boxes": LABELS["boxes"]})
