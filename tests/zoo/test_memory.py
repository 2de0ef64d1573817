"""What a net would take is known before it is built, and no weight is made to know it."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from compress.errors import RecipeError
from compress.zoo import ARCHITECTURES, LARGEST_OPTIONS, architecture_class, build
from compress.zoo.memory import check_buildable, within_memory

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_option_of_a_built_in_net_has_a_largest_value(arch):
    for option in architecture_class(arch).__init__.__kwdefaults__:
        most = LARGEST_OPTIONS[option]
        value, named = most + 1, option
        if option in ("outputs", "controls"):  # sizes by name
            value, named = {"x": most + 1}, f"{option}.x"
        with pytest.raises(RecipeError, match=f"{named} must be at most {most:,}; got {most + 1}"):
            build(arch, {option: value})


@pytest.mark.parametrize("arch", sorted({*ARCHITECTURES} - {"functional", "causal-lm"}))
def test_a_net_that_would_not_fit_says_what_it_would_take(arch):
    start = time.perf_counter()
    with pytest.raises(
        RecipeError,
        match=rf"the architecture '{arch}': its weights would take over [\d,.]+ GiB, in use some 4 "
        r"times as much, and [\d,.]+ .iB of memory are free; give smaller options\.",
    ):
        build(arch, {"width": 65_536})
    assert time.perf_counter() - start < 5


def test_what_fits_is_counted_once_for_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(1000, 1000, bias=False), nn.Linear(1, 1)
            self.other.weight = self.one.weight

    check_buildable(Tied, "net", free_bytes=4 * 4 * 1_000_100)
    with pytest.raises(RecipeError, match=r"net: its weights would take over 3\.8 MiB"):
        check_buildable(Tied, "net", free_bytes=4 * 4 * 999_999)


def test_random_numbers_stay_what_they_were():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    check_buildable(lambda: build("attention"), "net")
    torch.manual_seed(3)
    assert torch.equal(before, torch.random.get_rng_state())
    check_buildable(lambda: nn.Embedding(9, 9), "net")
    assert torch.equal(before, torch.random.get_rng_state())


def test_blocks_without_end_are_ended():
    def make():
        return nn.ModuleList(nn.ReLU() for _ in range(10**9)).append(None)

    with pytest.raises(RecipeError, match=r"net: it would have over 500 layers; give smaller"):
        check_buildable(make, "net", most_modules=500)


def test_a_list_without_end_of_layers_with_weights_is_ended():
    def make():
        return [nn.Sequential(nn.Linear(1, 1)) for _ in range(10**9)]

    with pytest.raises(RecipeError, match="over 500 layers"):
        check_buildable(make, "net", most_modules=500)


@pytest.mark.parametrize("sizes", [(2**40, 2**40), (2**62, 8), (10**30, 1)])
def test_a_tensor_larger_than_any_memory_is_a_sentence(sizes):
    with pytest.raises(RecipeError, match=r"net: (one of its tensors would be larger|its weights)"):
        check_buildable(lambda: nn.Linear(*sizes), "net")


def test_what_is_wrong_otherwise_goes_on_and_leaves_no_hook():
    def make():
        raise ValueError("heads")

    with pytest.raises(ValueError, match="heads"):
        check_buildable(make, "net")
    with pytest.raises(RecipeError):
        check_buildable(lambda: nn.Linear(99, 99), "net", free_bytes=10)
    assert nn.Linear(99, 99).weight.device.type == "cpu"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 9 bytes")])
def test_memory_that_is_not_there_after_all_is_a_sentence(error):
    with (
        pytest.raises(RecipeError, match="net: there is not enough memory for its weights"),
        within_memory("net"),
    ):
        raise error
    with pytest.raises(RuntimeError, match="other"), within_memory("net"):
        raise RuntimeError("other")
