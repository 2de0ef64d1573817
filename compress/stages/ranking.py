"""What a prune stage ranks by beside the weights: gradients of a loss, and inputs of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

from torch import Tensor, nn

from compress.candidate import Candidate
from compress.errors import StageError
from compress.modules.inputs import Inputs, forward
from compress.modules.outputs import Outputs, by_name
from compress.outputs import Implied
from compress.pruning.importance import Criterion
from compress.pruning.weight_scores import snip_scores, wanda_scores
from compress.quantization.fakequant import called_layers
from compress.stage import Context, calibration_inputs
from compress.training.data import read
from compress.training.loop import isolated
from compress.training.supervision import Supervision

__all__ = ["activation_inputs", "gradient_losses", "weight_scores"]

#: Batch and samples of the training data that gradients are taken of.
_OF_BATCHES, _OF_SINGLE = (64, 1024), (1, 256)
_INPUT_SAMPLES = 256


def gradient_losses(
    module: nn.Module, context: Context, criterion: Criterion, implied: Sequence[Implied]
) -> Iterator[Tensor]:
    """The loss of a part of the training data; against the teacher where it has no labels.

    Args:
        module: whose weights are ranked.
        context: of the stage.
        criterion: that reads gradients; of another there are none.
        implied: what the losses of the stage imply that the outputs are.

    Raises:
        StageError: there are no labels, and the teacher has other outputs.
    """
    if not criterion.reads_gradients:
        return
    supervision = None
    size, samples = _OF_SINGLE if criterion.squares_gradients else _OF_BATCHES
    for batch in read(context.task.train, size, samples):
        outputs = forward(module, batch.inputs)
        supervision = supervision or Supervision.of(context.task, outputs, implied)
        if batch.labels is not None:
            yield supervision.loss(outputs, batch.labels)
        else:
            taught = context.teacher(batch.inputs)
            yield _difference(supervision.shipped(outputs), taught)


def activation_inputs(context: Context, criterion: Criterion) -> list[Inputs]:
    """Batches of calibration data for a criterion that reads activations; of another none."""
    wanted = criterion.reads_activations or criterion.compensates
    return calibration_inputs(context.task, _INPUT_SAMPLES) if wanted else []


def weight_scores(
    ranked: nn.Module,
    layers: Sequence[str],
    candidate: Candidate,
    context: Context,
    criterion: Criterion,
    implied: Sequence[Implied],
) -> dict[str, Tensor]:
    """By which the single weights of layers are ranked, by their names.

    Layers that inference never calls meet no inputs, and go by magnitude.

    Args:
        ranked: the module, with weights as it computes with them.
        layers: by path.
        candidate: whose example shows which layers are called.
        context: of the stage.
        criterion: ``wanda``, ``snip``, or one by magnitude; of another the weights as well.
        implied: what the losses of the stage imply that the outputs are.
    """
    scores = {
        f"{name}.weight": ranked.get_parameter(f"{name}.weight").detach().abs() for name in layers
    }
    if not criterion.of_weights or criterion.compensates or criterion.is_learned:
        return scores
    called = called_layers(ranked, candidate.example)
    met = [name for name in layers if name in called]
    with isolated(context.seed):
        if criterion.reads_gradients:
            losses = gradient_losses(ranked, context, criterion, implied)
            return scores | snip_scores(ranked, met, losses)
        inputs = calibration_inputs(context.task, _INPUT_SAMPLES)
        return scores | wanda_scores(ranked, met, inputs)


def _difference(outputs: Outputs, taught: Outputs) -> Tensor:
    """The mean squared difference to a teacher, summed over the outputs that both have."""
    ours, theirs = by_name(outputs), by_name(taught)
    if len(ours) == 1 and len(theirs) == 1:
        theirs = dict(zip(ours, theirs.values(), strict=True))
    shared = [name for name in ours if name in theirs and ours[name].is_floating_point()]
    if not shared:
        raise StageError(
            f"prune: the model gives {', '.join(ours)} and the teacher {', '.join(theirs)}, and "
            "there are no labels; importance by gradients needs labels, or a teacher with outputs "
            "of the same names."
        )
    parts = [nn.functional.mse_loss(ours[name], theirs[name]) for name in shared]
    return reduce(add, parts)
