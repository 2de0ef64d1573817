import numpy as np
import pytest
import torch

from compress.algorithms import losses
from compress.errors import DataError

STUDENT = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64)
TEACHER = torch.tensor([[0.5, 2.5, 0.0], [1.0, 0.0, 2.0]], dtype=torch.float64)


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_response_is_the_kl_divergence_worked_out_in_numpy(temperature):
    p = softmax(TEACHER.numpy() / temperature)
    q = softmax(STUDENT.numpy() / temperature)
    expected = (p * np.log(p / q)).sum(axis=1).mean() * temperature**2
    assert float(losses.response(STUDENT, TEACHER, temperature)) == pytest.approx(expected)


def test_logits_mse_is_the_mean_squared_difference():
    expected = ((STUDENT - TEACHER).numpy() ** 2).mean()
    assert float(losses.logits_mse(STUDENT, TEACHER)) == pytest.approx(expected)


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_is_zero_between_equals_and_averages_over_positions(name):
    loss = getattr(losses, name)
    assert float(loss(TEACHER, TEACHER)) == pytest.approx(0, abs=1e-12)
    dense = [t.view(2, 3, 1, 1).expand(2, 3, 4, 5) for t in (STUDENT, TEACHER)]
    assert float(loss(*dense)) == pytest.approx(float(loss(STUDENT, TEACHER)))


@pytest.mark.parametrize("name", losses.__all__)
def test_the_gradient_of_every_loss_is_right(name):
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: getattr(losses, name)(s, TEACHER), (student,))


@pytest.mark.parametrize("name", losses.__all__)
def test_outputs_that_do_not_match_are_explained(name):
    with pytest.raises(DataError, match=r"\(2, 3\) and the teacher's are \(2, 2\); both must"):
        getattr(losses, name)(STUDENT, TEACHER[:, :2])
