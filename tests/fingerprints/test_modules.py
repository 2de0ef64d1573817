"""The definition of a model: all but its tensors."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.fingerprints import Unstable, module_definition
from compress.testing.nets import NETS

pytestmark = pytest.mark.fast


class Net(nn.Module):
    def __init__(self, slope=0.1, activation=F.relu, padding="zeros", scale=2.0, table=None):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1, padding_mode=padding)
        self.act = nn.LeakyReLU(slope)
        self.activation = activation
        self._scale = scale
        self.table = torch.zeros(2) if table is None else table

    def forward(self, x):
        return self.activation(self.act(self.first(x))) * self._scale


def relu_of_mine(x):
    return x.clamp(min=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"slope": 0.2},
        {"activation": F.gelu},
        {"activation": relu_of_mine},
        {"padding": "reflect"},
        {"scale": 3.0},
        {"table": torch.ones(2)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_attribute_is_a_part_of_the_definition(changed):
    assert module_definition(Net()) == module_definition(Net())
    assert module_definition(Net(**changed)) != module_definition(Net())


def test_weights_and_how_the_model_is_used_are_none():
    net = Net()
    before = module_definition(net)
    with torch.no_grad():
        net.first.weight += 1
    net.eval().requires_grad_(False)
    net(torch.zeros(1, 1, 4, 4))
    assert module_definition(net) == before


def test_names_order_and_classes_of_layers_are_parts():
    plain = nn.Sequential(nn.ReLU(), nn.Tanh())
    other = nn.Sequential(nn.Tanh(), nn.ReLU())
    named = nn.Sequential()
    named.add_module("a", nn.ReLU())
    named.add_module("b", nn.Tanh())
    assert len({module_definition(net) for net in (plain, other, named)}) == 3


def test_code_of_the_users_own_is_a_part(made):
    source = (
        "from torch import nn\nclass A(nn.Module):\n def forward(self, x): return x * SCALE\n"
        "f = nn.Sequential(A())"
    )
    one, other = (
        module_definition(made(source.replace("SCALE", scale))["f"]) for scale in ("2", "3")
    )
    assert one != other


def test_a_layer_that_is_held_twice_is_another_model():
    shared, tied = nn.ReLU(), nn.Sequential()
    tied.add_module("0", shared)
    tied.held = [shared]
    apart = nn.Sequential(nn.ReLU())
    apart.held = [nn.ReLU()]
    assert module_definition(tied) != module_definition(apart)
    assert module_definition(tied) == module_definition(tied)


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_a_definition_that_building_it_again_does_not_change(name):
    net = NETS[name].build(0)
    assert module_definition(net) == module_definition(NETS[name].build(1))
    net(NETS[name].example())
    assert module_definition(net) == module_definition(NETS[name].build(0))


def test_how_often_a_layer_is_called_is_a_part():
    relu = nn.ReLU()
    nets = [nn.Sequential(relu), nn.Sequential(relu, relu), nn.Sequential(nn.ReLU(), nn.ReLU())]
    nets.append(nn.Sequential(relu))
    nets[-1].register_module("1", None)
    assert len({module_definition(net) for net in nets}) == 4


@pytest.mark.parametrize("make", [lambda: nn.LSTM(2, 3), lambda: nn.GRU(2, 3, 2)])
def test_a_recurrent_layer_holds_its_weights_twice(make):
    assert module_definition(make()) == module_definition(make())
    assert module_definition(make()) != module_definition(nn.LSTM(2, 3, bidirectional=True))


def test_what_cannot_be_known_is_named_with_its_layer():
    net = nn.Sequential(Net())
    net[0].lock = threading.Lock()
    with pytest.raises(Unstable, match=r"^the model holds a lock \(0\.lock\), whose content"):
        module_definition(net)
    with pytest.raises(Unstable, match=r"^the teacher holds a lock"):
        module_definition(net, "the teacher")


def test_a_deep_attribute_is_refused_in_words():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    net = nn.ReLU()
    net.deep = deep
    with pytest.raises(Unstable, match="the model is nested too deeply to be compared"):
        module_definition(net)
