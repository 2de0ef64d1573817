"""Every loss against its value in numpy, its gradient, and what it says of bad input."""

import inspect
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compress.distillation.loss_function import ModelOutputs
from compress.distillation.losses import BUILT_IN
from compress.distillation.losses.adversarial import Adversary
from compress.distillation.losses.contrastive import Embedding
from compress.errors import DataError

from . import loss_cases
from .loss_cases import (
    ATTENTION,
    CASES,
    FUNCTIONS,
    MAPS,
    PICTURES,
    SCORES,
    STATES,
    TARGET,
    dkd,
    drawn,
    gkd,
    huber,
    kl,
    mean_square,
    softmax,
)

pytestmark = pytest.mark.fast

FAMILIES = {sys.modules[loss.__module__] for loss in BUILT_IN.values()}
#: Every function that a family exports, by name.
EXPORTED = {
    name: getattr(family, name)
    for family in FAMILIES
    for name in family.__all__
    if inspect.isfunction(getattr(family, name))
}
losses = SimpleNamespace(**EXPORTED)


def test_every_loss_is_in_the_table():
    assert CASES.keys() == BUILT_IN.keys()
    assert list(CASES) == sorted(CASES)
    assert {case.function.__name__ for case in FUNCTIONS.values()} == {*EXPORTED, "label"}


def test_every_loss_names_its_paper():
    for name, function in EXPORTED.items():
        words = inspect.getdoc(function)
        assert re.search(r"\b(et al\.|and \w+|Lee) 20[012]\d", words), name


def test_every_function_says_what_comes_in():
    for name, function in EXPORTED.items():
        words = inspect.getdoc(function)
        assert "Args:" in words, name
        assert all(f"\n    {given}: " in words for given in inspect.signature(function).parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_loss_is_what_is_computed_in_numpy(name):
    case = FUNCTIONS[name]
    student, teacher = case.tensors
    assert float(case.value(student, teacher)) == pytest.approx(
        case.reference(student.numpy(), teacher.numpy(), **case.arguments), rel=1e-6
    )


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.on_outputs])
def test_settings_reach_the_function(kind):
    case = CASES[kind]
    student, teacher = case.tensors
    loss = BUILT_IN[kind](**case.arguments).loss_function(SimpleNamespace(supervision=None))
    value = loss.compute(ModelOutputs(student), ModelOutputs(teacher), None)
    assert float(value) == pytest.approx(
        case.reference(student.numpy(), teacher.numpy(), **case.arguments), rel=1e-6
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
@pytest.mark.parametrize("name", ["response", "dkd", "topk_kl"])
def test_temperature_softens_both_and_the_square_keeps_the_size(name, temperature):
    s, t = SCORES
    extra = {"k": 2} if name == "topk_kl" else {}
    expected = getattr(loss_cases, name)(s.numpy(), t.numpy(), temperature=temperature, **extra)
    value = getattr(losses, name)(s, t, temperature=temperature, **extra)
    assert float(value) == pytest.approx(expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_of_every_loss_is_right(name):
    # All are smooth at these points; L1 and the hinges only have corners elsewhere.
    case = FUNCTIONS[name]
    student, teacher = case.tensors
    student = student.clone().requires_grad_()
    steps = {"eps": 1e-2, "atol": 1e-4} if case.in_float32 else {}
    assert torch.autograd.gradcheck(lambda s: case.value(s, teacher), (student,), **steps)


@pytest.mark.parametrize("name", [n for n, case in FUNCTIONS.items() if case.zero_between_equals])
def test_a_loss_is_zero_between_equals_and_has_a_gradient_there(name):
    teacher = FUNCTIONS[name].tensors[1]
    student = teacher.clone().requires_grad_()
    value = FUNCTIONS[name].value(student, teacher)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-7)
    assert bool(torch.isfinite(student.grad).all())


@pytest.mark.parametrize(
    "name",
    ["response", "logits_mse", "hard", "dkd", "topk_kl", "l1", "gkd", "sequence", "binary_kl"],
)
def test_dense_outputs_are_averaged_over_positions(name):
    plain = (SCORES[0], TARGET) if name == "sequence" else SCORES
    dense = [t.view(*t.shape, 1, 1).expand(*t.shape, 2, 3) for t in plain]
    assert float(getattr(losses, name)(*dense)) == pytest.approx(
        float(getattr(losses, name)(*plain))
    )


SAME_SHAPE = [
    "response",
    "binary_kl",
    "logits_mse",
    "hard",
    "dkd",
    "dist",
    "topk_kl",
    "l1",
    "ssim",
    "gkd",
]


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_outputs_that_do_not_match_are_explained(name):
    student, teacher = SCORES
    with pytest.raises(DataError, match=r"\(5, 4\) and the teacher's are \(5, 3\); both must"):
        getattr(losses, name)(student, teacher[:, :3])


@pytest.mark.parametrize("name", ["response", "hard", "dkd", "dist", "topk_kl", "gkd"])
def test_values_that_are_no_classes_are_explained(name):
    with pytest.raises(
        DataError, match=r"compares scores of classes.*are \(5, 1\): use binary-kl .* logits-mse"
    ):
        getattr(losses, name)(SCORES[0][:, :1], SCORES[1][:, :1])


RELATIONS = ["rkd_distance", "rkd_angle", "similarity", "pkt"]


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_compare_features_of_any_shape(name):
    value = getattr(losses, name)(MAPS[0], STATES[1])
    expected = getattr(loss_cases, name)(MAPS[0].flatten(1).numpy(), STATES[1].flatten(1).numpy())
    assert float(value) == pytest.approx(expected)


@pytest.mark.parametrize("name", [*RELATIONS, "dist", "crd"])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_batch_too_small_for_a_relation_still_trains(name, samples):
    student = SCORES[0][:samples].clone().requires_grad_()
    value = getattr(losses, name)(student, SCORES[1][:samples])
    value.backward()
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(student.grad).all())


@pytest.mark.parametrize("name", ["rkd_distance", "similarity", "attention_maps", "crd"])
def test_different_batches_are_explained(name):
    student, teacher = ATTENTION if name == "attention_maps" else SCORES
    with pytest.raises(DataError, match=rf"gives {len(student)} samples and the teacher 1; both"):
        getattr(losses, name)(student, teacher[:1])


def test_samples_that_coincide_have_no_angle():
    student, teacher = SCORES
    repeated = torch.cat([student, student[:1]]), torch.cat([teacher, teacher[:1]])
    leaf = repeated[0].clone().requires_grad_()
    value = losses.rkd_angle(leaf, repeated[1])
    value.backward()
    assert bool(torch.isfinite(leaf.grad).all())
    assert float(losses.rkd_angle(torch.ones(4, 3), torch.rand(4, 3))) == 0
    # The triples without the repeated pair, each side of it counted.
    n = range(6)
    triples = [
        (i, j, k)
        for i in n
        for j in n
        for k in n
        if len({i, j, k}) == 3 and {i, j} != {0, 5} and {j, k} != {0, 5}
    ]
    cosines = []
    for x in repeated:
        x = x.numpy()
        u = np.array([x[i] - x[j] for i, j, _ in triples])
        v = np.array([x[k] - x[j] for _, j, k in triples])
        cosines.append((u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1))
    expected = np.mean([huber(d) for d in cosines[0] - cosines[1]])
    assert float(value.detach()) == pytest.approx(expected)


def test_dkd_takes_the_label_where_there_is_one_and_the_teachers_choice_elsewhere():
    s, t = SCORES
    expected = dkd(s.numpy(), t.numpy(), TARGET.numpy())
    assert float(losses.dkd(s, t, TARGET)) == pytest.approx(expected)
    some = TARGET.clone()
    some[2] = -100  # what cross-entropy ignores
    mixed = TARGET.clone()
    mixed[2] = t[2].argmax()
    assert float(losses.dkd(s, t, some)) == pytest.approx(float(losses.dkd(s, t, mixed)))


def test_dkd_with_equal_parts_weighted_by_the_teachers_doubt_is_plain_kl():
    # Equation 5 of the paper: KL = TCKD + (1 - p_target) NCKD, sample by sample.
    for s, t in zip(*SCORES, strict=True):
        p = float((t / 4).softmax(0)[t.argmax()])
        apart = losses.dkd(s[None], t[None], alpha=1.0, beta=1 - p)
        assert float(apart) == pytest.approx(float(losses.response(s[None], t[None])))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.rand(5), r"index of a class for each of 5 .* labels are \(5,\) of torch.float32"),
        (torch.zeros(3, dtype=torch.long), r"each of 5 samples .* labels are \(3,\) of"),
        (torch.full((5,), 9), r"the label 9 is beyond the 4 classes"),
    ],
)
def test_labels_that_are_no_classes_are_explained(target, message):
    with pytest.raises(DataError, match=message):
        losses.dkd(*SCORES, target)


def test_topk_never_exceeds_the_whole_divergence_and_ends_there():
    whole = float(losses.response(*SCORES, 1.0))
    values = [float(losses.topk_kl(*SCORES, k)) for k in (1, 2, 3, 100)]
    assert values == sorted(values)
    assert values[0] < whole
    assert values[2:] == pytest.approx([whole, whole])


def test_dist_forgives_a_scale_and_a_shift_of_probabilities():
    probabilities = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], dtype=torch.float64)
    milder = 0.5 * probabilities + 0.5 / 3
    only_samples = losses.dist(milder.log(), probabilities.log(), gamma=0.0)
    assert float(only_samples) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_response_of_texts_is_word_level_distillation(temperature):
    # Kim and Rush 2016, section 3.1: the two distributions over words, at each place of each text.
    student, teacher = drawn(10, 2, 4, 3), drawn(11, 2, 4, 3)
    total = 0.0
    for text in range(2):
        for place in range(3):
            p, q = (
                softmax(x[text : text + 1, :, place].numpy() / temperature)[0]
                for x in (teacher, student)
            )
            total += kl(p, q)
    value = float(losses.response(student, teacher, temperature))
    assert value == pytest.approx(total / 6 * temperature**2)


@pytest.mark.parametrize("beta", [0.1, 0.9])
def test_gkd_weighs_the_teacher_by_beta(beta):
    s, t = SCORES
    expected = gkd(s.numpy(), t.numpy(), beta)
    assert float(losses.gkd(s, t, beta)) == pytest.approx(expected)
    assert float(losses.gkd(t, s, 1 - beta)) == pytest.approx(expected)


@pytest.mark.parametrize(("beta", "near", "share"), [(0, 1e-6, 1e-6), (1, 1 - 1e-6, 1e-6)])
def test_gkd_ends_in_either_divergence(beta, near, share):
    s, t = SCORES
    limit = float(losses.gkd(s, t, near)) / share
    assert float(losses.gkd(s, t, float(beta))) == pytest.approx(limit, rel=1e-4)
    forward = float(losses.response(s, t, 1.0))
    backward = float(losses.response(t, s, 1.0))
    assert float(losses.gkd(s, t, float(beta))) == pytest.approx((forward, backward)[beta])


def test_tokens_of_other_places_than_the_scores_are_explained():
    with pytest.raises(DataError, match=r"scores of \(5, 4\) are not those of tokens \(3,\); scor"):
        losses.sequence(SCORES[0], TARGET[:3])


def test_ssim_knows_the_range_and_shrinks_its_window_to_small_images():
    s, t = (image[:, :, :8, :7] for image in PICTURES)
    assert 0 < float(losses.ssim(s, t)) < 2
    assert float(losses.ssim(255 * s, 255 * t, 255.0)) == pytest.approx(float(losses.ssim(s, t)))
    with pytest.raises(DataError, match=r"ssim compares images.* outputs are \(5, 4\): use l1"):
        losses.ssim(*SCORES)


def test_perceptual_averages_over_layers():
    value = losses.perceptual([MAPS[0], STATES[0]], [MAPS[1], STATES[1]])
    expected = (mean_square(*MAPS) + mean_square(*STATES)) / 2
    assert float(value) == pytest.approx(float(expected))
    leaf = MAPS[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: losses.perceptual([s], [MAPS[1]]), (leaf,))


def test_the_generator_wants_high_scores():
    assert float(losses.hinge_generator(SCORES[0])) == pytest.approx(-float(SCORES[0].mean()))


@pytest.mark.parametrize("shape", [(4,), (2, 9), (2, 8, 9), (1, 4, 8, 8)])
def test_an_adversary_learns_to_tell_apart_what_differs(shape):
    torch.manual_seed(0)
    adversary = Adversary(shape, learning_rate=1e-2, width=8)
    made, real = torch.randn(32, *shape), torch.randn(32, *shape) + 2
    first = float(adversary(made, real))
    for _ in range(30):
        last = float(adversary(made, real))
    assert last > first  # the student's loss: it is found out
    made.requires_grad_()
    adversary(made, real).backward()
    assert float(made.grad.abs().sum()) > 0


def test_an_adversary_takes_outputs_of_one_shape():
    with pytest.raises(DataError, match=r"\(5, 4\) and the teacher's are \(5, 3\)"):
        Adversary((4,), 1e-3)(SCORES[0], SCORES[1][:, :3])
    with pytest.raises(DataError, match="up to three axes of positions"):
        Adversary((1, 2, 2, 2, 2), 1e-3)


def test_attention_of_different_heads_is_averaged_over_heads():
    student, teacher = ATTENTION[0], torch.cat(ATTENTION, dim=1)
    expected = mean_square(student.mean(1), teacher.mean(1))
    assert float(losses.attention_maps(student, teacher)) == pytest.approx(float(expected))


OWN = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()  # the rest pads


def test_hidden_states_of_padding_do_not_count():
    student, teacher = STATES
    rows = [(i, j) for i in range(3) for j in range(5) if OWN[i, j]]
    expected = np.mean([mean_square(student[i, j], teacher[i, j]) for i, j in rows])
    assert float(losses.hidden(student, teacher, OWN)) == pytest.approx(float(expected))
    assert float(losses.hidden(student, teacher, OWN)) != float(losses.hidden(student, teacher))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_from_and_to_padding_does_not_count(heads):
    student, teacher = torch.rand(3, 2, 5, 5), torch.rand(3, 2, 5, 5)[:, :heads]
    ours, theirs = (m.mean(1, keepdim=True) if heads == 1 else m for m in (student, teacher))
    expected = np.mean(
        [
            mean_square(ours[n, h, q, k], theirs[n, h, q, k])
            for n, h, q, k in np.ndindex(*ours.shape)
            if OWN[n, q] and OWN[n, k]
        ]
    )
    assert float(losses.attention_maps(student, teacher, OWN)) == pytest.approx(float(expected))


FEATURES = {
    "hint": (MAPS[0], MAPS[1][:, :1], r"has 2 channels and the teacher's 1; an adapter"),
    "attention_transfer": (SCORES[0], SCORES[1], r"no positions: choose layers before the pooling"),
    "hidden": (STATES[0], STATES[1][:, :2], r"\(3, 5, 4\) and the teacher's \(3, 2, 4\); both"),
    "attention_maps": (
        ATTENTION[0],
        ATTENTION[1][..., :3],
        r"over \(5, 5\) queries and keys and the teacher over \(5, 3\); both must",
    ),
    "crd": (SCORES[0], SCORES[1][:, :2], r"embedding is \(5, 4\) and the teacher's is \(5, 2\)"),
}


@pytest.mark.parametrize("name", FEATURES)
def test_features_that_do_not_fit_are_explained(name):
    student, teacher, message = FEATURES[name]
    with pytest.raises(DataError, match=message):
        getattr(losses, name)(student, teacher)


def test_an_embedding_brings_both_to_one_width():
    student, teacher = Embedding(4, 6, 3)(torch.rand(5, 4), torch.rand(5, 6))
    assert student.shape == teacher.shape == (5, 3)
