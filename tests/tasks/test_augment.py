from __future__ import annotations

import pytest
import torch

from compress.tasks.augment import ShiftFlip

pytestmark = pytest.mark.fast

FILL = -9.0


def images(count: int = 64, channels: int = 2, height: int = 6, width: int = 5) -> torch.Tensor:
    return (
        torch.arange(count * channels * height * width).float().view(count, channels, height, width)
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def placed(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """``image`` moved, by plain indexing."""
    _, height, width = image.shape
    moved = torch.full_like(image, FILL)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


@pytest.mark.parametrize("flip", [True, False])
def test_every_image_is_shifted_within_bounds_and_perhaps_mirrored(flip):
    given = images()
    result = ShiftFlip(shift=1, fill=FILL, flip=flip)(given, generator())
    seen = set()
    for before, after in zip(given, result, strict=True):
        outcomes = {
            (down, right, side): placed(before, down, right).flip(2)
            if side
            else placed(before, down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            for side in ((False, True) if flip else (False,))
        }
        matching = [key for key, image in outcomes.items() if torch.equal(image, after)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert len(seen) > (12 if flip else 7)


def test_the_same_generator_state_gives_the_same_batch():
    augment = ShiftFlip(shift=2, fill=FILL, flip=True)
    assert torch.equal(augment(images(), generator(1)), augment(images(), generator(1)))
    assert not torch.equal(augment(images(), generator(1)), augment(images(), generator(2)))


def test_the_input_and_the_global_generator_are_left_alone():
    given, before = images(), torch.get_rng_state()
    ShiftFlip(shift=2, fill=FILL, flip=True)(given, generator())
    assert torch.equal(given, images())
    assert torch.equal(before, torch.get_rng_state())


def test_flips_do_not_move_the_shifts():
    bare = ShiftFlip(shift=2, fill=FILL, flip=False)(images(), generator())
    mirrored = ShiftFlip(shift=2, fill=FILL, flip=True)(images(), generator())
    same = (bare == mirrored).flatten(1).all(1)
    assert 0 < int(same.sum()) < len(same)
    assert torch.equal(bare[~same].flip(3), mirrored[~same])
