"""Architectures that return tensors by name."""

from __future__ import annotations

import pytest
import torch

from compress.errors import RecipeError
from compress.tasks.detection import Cells, detections
from compress.zoo import build, check_options

pytestmark = pytest.mark.fast


def eval_net(name, **options):
    torch.manual_seed(0)
    return build(name, options).eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 48)])
def test_a_detector_has_boxes_and_scores_for_each_cell(height, width):
    outputs = eval_net("detector", classes=3, in_channels=2)(torch.zeros(5, 2, height, width))
    cells = height * width // 64
    assert list(outputs) == ["boxes", "scores"]
    assert outputs["boxes"].shape == (5, cells, 4)
    assert outputs["scores"].shape == (5, cells, 3)
    assert Cells.of(height, width, cells).stride == 8


def test_a_fresh_detector_finds_nothing():
    outputs = eval_net("detector")(torch.randn(4, 1, 64, 64))
    boxes, scores = (part.detach().numpy() for part in outputs.values())
    found = detections(boxes, scores, Cells.of(64, 64, 64))
    assert sum(len(one.scores) for one in found) == 0
    assert float(outputs["scores"].detach().sigmoid().mean()) == pytest.approx(0.01, rel=0.5)


def test_cells_are_in_the_order_of_rows():
    net = eval_net("detector", width=8, depth=1)
    still, moved = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    moved[..., 8:16, 48:56] = 5.0  # the cell of row 1 and column 6
    with torch.no_grad():
        change = (net(still)["scores"] - net(moved)["scores"]).abs().sum(-1)[0]
    assert int(change.argmax()) in {5, 6, 7, 13, 14, 15, 21, 22, 23}
    assert float(change.view(8, 8)[:, 0].max()) == 0


def test_width_and_depth_are_how_large_it_is():
    def parameters(**options):
        return sum(part.numel() for part in eval_net("detector", **options).parameters())

    assert parameters(width=16, depth=2) > 3 * parameters(width=8, depth=2)
    assert parameters(width=8, depth=1) < parameters(width=8, depth=2)


def test_heads_have_their_names_and_sizes():
    net = eval_net("multi-head", outputs={"position": 2, "angle": 1}, image_size=32, depth=2)
    outputs = net(torch.zeros(3, 1, 32, 32))
    assert {name: tuple(part.shape) for name, part in outputs.items()} == {
        "position": (3, 2),
        "angle": (3, 1),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": {"a": 0}}, r"outputs\.a must be a whole number of at least 1; got 0"),
        ({"outputs": {"a": 70_000}}, r"outputs\.a must be at most 65,536; got 70000"),
        ({"outputs": {}}, "outputs must map names to whole numbers"),
        ({"outputs": 3}, "outputs must map names to whole numbers; got 3"),
        ({"outputs": {"a.b": 1}}, r"'a\.b' cannot name a head; give a word such as position"),
        ({"outputs": {"pop": 1}}, "'pop' cannot name a head"),
        ({"image_size": 4}, "image_size must be at least 8; got 4"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(RecipeError, match=f"the architecture 'multi-head': .*{message}"):
        build("multi-head", options)


def test_an_option_of_sizes_is_one_of_a_recipe_too():
    check_options("multi-head", {"outputs": {"position": 2}, "width": 8})
