import pytest
import torch
from torch import nn

from compress.errors import StageError
from compress.pruning.depth import blocks_of, check_blocks, keep_blocks
from compress.testing.nets import NETS

pytestmark = pytest.mark.fast


class Stack(nn.Module):
    """Blocks that have rows of their own inside."""

    def __init__(self):
        super().__init__()
        inner = [nn.Sequential(*(nn.Linear(4, 4) for _ in range(5))) for _ in range(3)]
        self.layers = nn.ModuleList(inner)
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.heads[0](x) + self.heads[1](x)


def test_blocks_are_the_longest_row_and_not_what_is_inside():
    assert blocks_of(Stack()) == "layers"
    assert blocks_of(NETS["attention"].build()) == "blocks"


def test_blocks_that_are_kept_close_ranks():
    stack = Stack()
    first, last = stack.layers[0], stack.layers[2]
    keep_blocks(stack, [0, 2])
    assert list(stack.layers) == [first, last]
    assert set(stack.layers._modules) == {"0", "1"}
    assert stack(torch.randn(2, 4)).shape == (2, 1)


def test_a_sequential_keeps_its_blocks_too():
    net, example = NETS["attention"].build(), NETS["attention"].example()
    keep_blocks(net, [1])
    assert len(net.blocks) == 1
    assert net(example).shape == (2, 4)


@pytest.mark.parametrize("kept", [[], [3], [-1, 0], [1, 0], [0, 0]])
def test_numbers_that_are_refused(kept):
    with pytest.raises(StageError, match=r"has 3 blocks, so layers are some of 0 to 2, each once"):
        keep_blocks(Stack(), kept)


def test_a_net_without_blocks_is_refused():
    with pytest.raises(StageError, match="no ModuleList or Sequential of two or more blocks"):
        keep_blocks(nn.Linear(2, 2), [0])


def test_blocks_that_do_not_fit_together_are_one_sentence():
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 8), nn.Linear(8, 3))
    keep_blocks(net, [0, 2])
    said = (
        r"^student\.layers: the model does not run with its blocks 0, 2 alone "
        r"\(mat1 and mat2 .*\), since a block takes what the one before it gives; keep others, "
        r"or give the student an architecture of its own\.$"
    )
    with pytest.raises(StageError, match=said):
        check_blocks(net, [0, 2], torch.randn(3, 2))
