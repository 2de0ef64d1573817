"""Reparametrized modules become plain ones that compute the same; the user's stay as they are."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from compress.modules.parametrizations import duplicate, fold_parametrizations, masked_tensors

pytestmark = pytest.mark.fast


def weight_norm(layer, name="weight", dim=0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer, name, dim)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Scaled(nn.Module):
    """A parametrization with a layer of its own, which is reparametrized itself."""

    def __init__(self):
        super().__init__()
        self.factor = weight_norm(nn.Linear(1, 1))

    def forward(self, weight):
        return weight * self.factor.weight.item()


def masked_twice(layer):
    prune.random_unstructured(layer, "weight", 0.3)
    prune.l1_unstructured(layer, "weight", 0.2)
    prune.random_unstructured(layer, "bias", 0.5)


def masked_norm(layer):
    weight_norm(layer)
    prune.l1_unstructured(layer, "weight_v", 0.4)


def stacked(layer):
    parametrizations.weight_norm(layer)
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "bias", Doubled())


def with_a_masked_original(layer):
    parametrizations.weight_norm(layer)
    prune.l1_unstructured(layer.parametrizations.weight, "original1", 0.4)


def global_masks(layer):
    prune.global_unstructured([(layer, "weight")], prune.L1Unstructured, amount=0.5)


KINDS = {
    "weight norm": weight_norm,
    "weight norm of all": lambda layer: weight_norm(layer, dim=None),
    "spectral norm": nn.utils.spectral_norm,
    "mask": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "mask of rows": lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
    "masks on masks": masked_twice,
    "masks over all": global_masks,
    "mask on a norm": masked_norm,
    "new weight norm": parametrizations.weight_norm,
    "new spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "parametrizations on parametrizations": stacked,
    "parametrization with a parameter": lambda layer: parametrize.register_parametrization(
        layer, "weight", Scaled()
    ),
    "mask inside a parametrization": with_a_masked_original,
}
LAYERS = {
    "linear": lambda: nn.Linear(6, 6),
    "conv": lambda: nn.Conv1d(6, 4, 3, padding=1),
    "transposed": lambda: nn.ConvTranspose1d(6, 4, 3, padding=1),
}


class Net(nn.Module):
    """A layer between two others, of which it knows nothing."""

    def __init__(self, layer):
        super().__init__()
        self.norm, self.layer, self.head = nn.BatchNorm1d(6), layer, nn.LazyLinear(3)

    def forward(self, x):
        x = self.norm(x)
        if isinstance(self.layer, nn.Linear):
            x = x.mT
        return self.head(torch.relu(self.layer(x)).flatten(1))


def net_with(kind, layer):
    torch.manual_seed(0)
    inner = LAYERS[layer]()
    KINDS[kind](inner)
    net = Net(inner)
    net(torch.randn(4, 6, 5))
    return net


def trained(net):
    """One step, after which computed weights are results that gradients flow through."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net.train()(torch.randn(4, 6, 5)).square().mean().backward()
    optimizer.step()
    net(torch.randn(4, 6, 5))
    return net


@torch.no_grad()
def outputs(net, x):
    """In inference; the state of the net, its last weights included, is as before."""
    state, training = copy.deepcopy(net.state_dict()), net.training
    result = net.eval()(x)
    net.load_state_dict(state)
    net.train(training)
    return result


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["new", "trained"])
def test_a_reparametrized_net_becomes_a_plain_one_that_computes_the_same(when, kind, layer):
    net = net_with(kind, layer) if when == "new" else trained(net_with(kind, layer))
    x = torch.randn(8, 6, 5)
    names = list(net.state_dict())
    own = duplicate(net)
    expected, still_training = outputs(net, x), net.training
    assert fold_parametrizations(own)

    assert torch.allclose(own.eval()(x), expected, atol=1e-6)
    plain_net = Net(LAYERS[layer]())
    plain_net(x)
    assert set(own.state_dict()) == set(plain_net.state_dict())
    assert {n for n, _ in own.named_parameters()} == {n for n, _ in plain_net.named_parameters()}
    assert type(own.layer) is type(plain_net.layer)
    assert not any(m._forward_pre_hooks or m._state_dict_hooks for m in own.modules())
    assert not any(m._load_state_dict_pre_hooks for m in own.modules())
    plain_net.load_state_dict(own.state_dict())
    own.load_state_dict(plain_net.state_dict())
    assert all(p.is_leaf and p.requires_grad for p in own.parameters())

    again = copy.deepcopy(own)
    again(x).sum().backward()
    assert torch.equal(copy.deepcopy(again)(x), own(x))
    assert fold_parametrizations(again) == []

    # And what the user has is what it was, and goes on training.
    assert list(net.state_dict()) == names
    assert net.training == still_training
    assert torch.equal(outputs(net, x), expected)
    trained(net)


@pytest.mark.parametrize("kind", ["weight norm", "spectral norm", "mask"])
def test_torch_itself_refuses_to_copy_what_a_hook_computed(kind):
    net = trained(net_with(kind, "linear"))
    with pytest.raises(RuntimeError, match="created explicitly by the user"):
        copy.deepcopy(net)
    duplicate(net)


def test_what_a_forward_keeps_is_copied_by_value():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.all = nn.Linear(3, 3), []

        def forward(self, x):
            self.last = self.layer(x)
            self.all = [self.last, {"other": 1}]
            return self.last

    net = Keeps()
    net(torch.randn(2, 3))
    own = duplicate(net)
    assert torch.equal(own.last, net.last)
    assert own.all[0] is own.last
    assert own.last is not net.last
    assert net.last.grad_fn is not None
    assert own.last.grad_fn is None


@pytest.mark.parametrize(
    "norm",
    [
        weight_norm,
        nn.utils.spectral_norm,
        lambda layer, name: prune.l1_unstructured(layer, name, 0.5),
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
    ],
)
def test_recurrent_layers_compute_with_the_folded_weights(norm):
    torch.manual_seed(0)
    net = nn.LSTM(4, 4, batch_first=True)
    for name in ("weight_hh_l0", "weight_ih_l0"):
        norm(net, name)
    x = torch.randn(3, 5, 4)
    net(x)[0].sum().backward()
    own = duplicate(net)
    expected = net.eval()(x)[0]
    (note,) = fold_parametrizations(own)
    assert "'weight_ih_l0'" in note
    assert torch.allclose(own.eval()(x)[0], expected, atol=1e-6)
    assert {n for n, _ in own.named_parameters()} == set(nn.LSTM(4, 4).state_dict())
    # Nothing of the old weights is left: a step changes what is computed.
    with torch.no_grad():
        own.weight_hh_l0.zero_()
    assert not torch.allclose(own(x)[0], expected, atol=1e-3)
    assert torch.equal(copy.deepcopy(own)(x)[0], own(x)[0])


def test_a_buffer_stays_a_buffer():
    layer = nn.BatchNorm1d(3)
    parametrize.register_parametrization(layer, "running_mean", Doubled())
    with torch.no_grad():
        layer.parametrizations.running_mean.original.fill_(1.0)
    fold_parametrizations(layer)
    assert torch.equal(layer.running_mean, torch.full((3,), 2.0))
    assert "running_mean" in dict(layer.named_buffers())


def test_spectral_norm_takes_no_step_while_it_is_folded():
    for norm in (nn.utils.spectral_norm, parametrizations.spectral_norm):
        layer = norm(nn.Linear(5, 5)).train()
        x = torch.randn(2, 5)
        layer(x)
        own = duplicate(layer)
        fold_parametrizations(own)
        assert torch.allclose(own(x), layer.eval()(x), atol=1e-6)


def test_notes_say_what_was_folded_by_kind():
    net = nn.Sequential(*[weight_norm(nn.Linear(2, 2)) for _ in range(5)])
    prune.l1_unstructured(net[4], "bias", 1)
    net.append(nn.utils.spectral_norm(nn.Linear(2, 2)))
    net.append(parametrizations.orthogonal(nn.Linear(2, 2)))
    first, second, third, last = fold_parametrizations(net)
    assert (first, second, third) == (
        "the parametrization of '6.weight' was folded into plain weights",
        "the pruning mask of '4.bias' was folded into plain weights",
        "the spectral norm of '5.weight' was folded into plain weights",
    )
    assert last.startswith("the weight norm of '0.weight', '1.weight', '2.weight' and 2 more was")


def test_a_module_with_nothing_to_fold_is_left_alone():
    net = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))
    net[0].register_forward_pre_hook(lambda *_: None)
    before = dict(net.named_parameters())
    assert fold_parametrizations(net) == []
    assert dict(net.named_parameters()) == before
    assert len(net[0]._forward_pre_hooks) == 1


def test_masked_tensors_are_those_whose_zeros_somebody_wanted():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    masked_twice(net[0])
    masked_norm(net[1])
    with_a_masked_original(net[2])
    assert masked_tensors(net) == ("0.weight", "0.bias")
    own = duplicate(net)
    fold_parametrizations(own)
    assert masked_tensors(own) == ()
    zeros = {name: int((own.get_parameter(name) == 0).sum()) for name in masked_tensors(net)}
    assert zeros == {"0.weight": 7, "0.bias": 2}
