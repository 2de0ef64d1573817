"""How one step is taken, and how a module lies in memory while it is trained."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from compress.modules.memory_format import arrange, layout_of
from compress.tasks.arrays import ArrayDataset
from compress.training import state as train_state
from compress.training.data import Batch, SeededEpochs
from compress.training.distributed import SINGLE_PROCESS
from compress.training.loop import train
from compress.training.optim import Optimization
from compress.training.state import AuxiliaryModules, TrainState

pytestmark = pytest.mark.fast

OPTIMIZATION = Optimization(epochs=1, learning_rate=0.01, clip_norm=0.5)


def _state(scaler: torch.amp.GradScaler | None, monkeypatch: pytest.MonkeyPatch) -> TrainState:
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        scaler=scaler,
        mixed_precision="no" if scaler is None else "fp16",
    )
    monkeypatch.setattr(train_state, "make_accelerator", lambda: accelerator)
    torch.manual_seed(0)
    return TrainState(
        nn.Linear(3, 2), OPTIMIZATION, 4, AuxiliaryModules(), SINGLE_PROCESS, torch.zeros(2, 3)
    )


def _loss(state: TrainState, scale: float = 1.0) -> Tensor:
    return (state.module(torch.arange(6.0).view(2, 3)) * scale).square().mean()


def test_a_scaled_loss_takes_the_step_of_a_plain_one(monkeypatch):
    plain, scaled = (_state(scaler, monkeypatch) for scaler in (None, torch.amp.GradScaler("cpu")))
    for one in (plain, scaled):
        before = one.module.weight.detach().clone()
        one.optimizer_step(_loss(one), 1.0, 0)
        assert not torch.equal(one.module.weight, before)
    torch.testing.assert_close(scaled.module.weight, plain.module.weight)


def test_before_a_step_gradients_are_there_and_not_yet_clipped(monkeypatch):
    state, norms = _state(None, monkeypatch), []

    def look():
        grads = [p.grad for p in state.module.parameters()]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        for grad in grads:
            grad.zero_()

    before = state.module.bias.detach().clone()
    state.optimizer_step(_loss(state, scale=10.0), 1.0, 0, look)
    assert norms[0] > OPTIMIZATION.clip_norm
    assert torch.equal(state.module.bias, before)


def test_a_step_whose_scaled_gradient_overflows_is_left_out_and_the_scale_is_lowered(monkeypatch):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    state = _state(scaler, monkeypatch)
    before = state.module.weight.detach().clone()
    state.optimizer_step(_loss(state, scale=1e3), 1.0, 0)
    assert torch.equal(state.module.weight, before)
    assert scaler.get_scale() == 2.0**119


NETS = {
    "several channels": lambda: nn.Conv2d(8, 16, 3),
    "one channel": lambda: nn.Conv2d(1, 8, 3),
    "one pixel": lambda: nn.Conv2d(8, 16, 1),
    "depthwise": lambda: nn.Conv2d(8, 8, 3, groups=8),
    "odd width": lambda: nn.Conv2d(8, 7, 3),
    "linear": lambda: nn.Linear(4, 4),
}


@pytest.mark.parametrize("name", NETS)
def test_weights_are_laid_out_as_torch_itself_lays_them_out(name):
    ours = NETS[name]()
    example = torch.zeros(2, getattr(ours, "in_channels", 4), 4, 4)
    layout = layout_of(ours, example)
    theirs = NETS[name]().to(memory_format=layout)
    values = ours.weight.detach().clone()
    arrange(ours, layout)
    assert ours.weight.stride() == theirs.weight.stride()
    assert torch.equal(ours.weight, values)
    arrange(ours, torch.contiguous_format)
    assert ours.weight.stride() == NETS[name]().weight.stride()


class Viewing(nn.Module):
    """A net that takes its maps for a row of channels, as many published ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(72, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        out: Tensor = self.head(self.conv(x).view(len(x), -1))
        return out


def test_a_net_that_views_its_maps_stays_as_it_is_and_can_be_trained():
    net = Viewing()
    assert layout_of(net, torch.zeros(2, 3, 5, 5)) == torch.contiguous_format
    assert net.training
    assert net.conv.weight.stride() == nn.Conv2d(3, 8, 3).weight.stride()
    data = ArrayDataset(torch.randn(16, 3, 5, 5), torch.arange(16) % 2)

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(module(batch.inputs), batch.labels)

    before = net.conv.weight.detach().clone()
    train(net, SeededEpochs(data, 8, seed=0), objective, OPTIMIZATION)
    assert not torch.equal(net.conv.weight, before)
