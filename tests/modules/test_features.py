"""What modules inside a net give: caught, named, and laid over each other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.distillation.attention import attention_source
from compress.errors import DataError
from compress.modules.features import (
    Adapter,
    aligned,
    capture,
    channels_first,
    first_tensor,
    matching,
    module_outputs,
    norm_axis,
    own_axis,
    pooled,
    uniform_map,
)
from compress.quantization.fakequant import fake_quantized_copy, quantizable_layers, simulate
from compress.quantization.numerics import LayerFormat
from compress.testing.nets import NETS
from compress.testing.several_outputs import SEVERAL, Heads, Prediction

pytestmark = pytest.mark.fast


def hooks_of(net):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]


class Shared(nn.Module):
    """One activation used twice, in place; one layer that gives a tuple, one a mapping."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pair, self.named, self.nothing = Pair(), Named(), Nothing()

    def forward(self, x):
        x = self.relu(self.first(x))
        self.nothing(x)
        return self.relu(self.named(self.pair(self.second(x))[0])["out"])


class Pair(nn.Module):
    def forward(self, x):
        return x, None


class Named(nn.Module):
    def forward(self, x):
        return {"mask": None, "out": x}


class Nothing(nn.Module):
    def forward(self, x):
        return len(x)


def test_a_survey_lists_what_gives_a_tensor_for_each_sample():
    net = Shared().train()
    found = module_outputs(net, torch.randn(2, 4))
    assert {name: feature.shape for name, feature in found.items()} == {
        "first": (4,),
        "second": (3,),
        "relu": (3,),
        "pair": (3,),
        "named": (3,),
    }
    assert found["relu"].calls == 2
    assert net.training
    assert not any(hooks_of(net))


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_features_and_computes_the_same_while_they_are_caught(name):
    case = NETS[name]
    net, example = case.build(), case.example()
    found = module_outputs(net, example)
    names = [n for n, feature in found.items() if feature.calls == 1]
    expected = net(example)
    with capture(net, names) as seen:
        outputs = net(example)
    assert torch.equal(outputs, expected)
    assert {n: tuple(t.shape[1:]) for n, t in seen.items()} == {n: found[n].shape for n in names}
    last = channels_first(seen["head"], found["head"].axis).clone()
    given = last
    if name == "mobile-unet":  # whose head has four pixels at each place
        given = nn.functional.pixel_shuffle(last, 2)
    elif last.shape != outputs.shape:  # of the segmentation net, which enlarges its logits
        given = nn.functional.interpolate(last, outputs.shape[2:])
    assert torch.equal(given, outputs)
    assert not any(hooks_of(net))
    net(torch.zeros_like(example))
    again = channels_first(seen["head"], found["head"].axis)
    assert torch.equal(again, last)  # closed: no longer followed


def test_hooks_are_gone_after_an_error():
    net = Shared()
    with pytest.raises(RuntimeError), capture(net, ["first"]):
        net(torch.randn(2, 5))
    assert not any(hooks_of(net))


def test_what_is_caught_has_gradients_and_is_not_overwritten_in_place():
    net, x = Shared(), torch.randn(2, 4)
    with capture(net, ["first"]) as seen:
        net(x)
    assert torch.equal(seen["first"], F.linear(x, net.first.weight, net.first.bias))
    seen["first"].sum().backward()
    assert net.first.weight.grad is not None


def test_under_fake_quantization_the_features_are_the_quantized_ones():
    case = NETS["resnet"]
    net, example = case.build(), case.example()
    formats = dict.fromkeys(
        quantizable_layers(net), LayerFormat(weights="int2", activations="float32")
    )
    with simulate(net, formats, {}), capture(net, ["blocks.1"]) as seen:
        net(example)
    snapped = fake_quantized_copy(net, formats)
    with capture(snapped, ["blocks.1"]) as wanted:
        snapped(example)
    assert torch.allclose(seen["blocks.1"], wanted["blocks.1"], atol=1e-6)
    assert not any(hooks_of(net))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("stem", ["stem"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("blocks.*.conv?", ["blocks.0.conv1", "blocks.1.conv2"]),
        ("*", ["stem", "blocks"]),
        ("blocks.2", []),
    ],
)
def test_a_glob_stays_on_its_level(pattern, expected):
    names = ["stem", "blocks", "blocks.0", "blocks.0.conv1", "blocks.1", "blocks.1.conv2"]
    assert matching(pattern, names) == expected


@pytest.mark.parametrize(
    ("students", "teachers", "expected"),
    [(3, 3, [0, 1, 2]), (4, 12, [2, 5, 8, 11]), (1, 5, [4]), (2, 3, [0, 2])],
)
def test_layers_are_spread_evenly_and_the_last_learns_from_the_last(students, teachers, expected):
    assert uniform_map(students, teachers) == expected


def test_a_teacher_with_fewer_layers_is_explained():
    with pytest.raises(ValueError, match="3 layers of the student have only 2 of the teacher's"):
        uniform_map(3, 2)


class SameLength(nn.Conv1d):
    """Channels last around a convolution: derived from it, and another thing."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(
    ("layer", "rank", "axis"),
    [
        (nn.Linear(3, 2), 2, 1),
        (nn.ReLU(), 2, 1),
        (nn.Linear(3, 2), 4, 3),
        (nn.Embedding(3, 2), 3, 2),
        (nn.GRU(3, 2, batch_first=True), 3, 2),
        (nn.LSTM(3, 4, batch_first=True, bidirectional=True, proj_size=2), 3, 2),
        (nn.MultiheadAttention(4, 2, batch_first=True), 3, 2),
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 3, 2),
        (nn.Conv1d(3, 2, 1), 3, 1),
        (nn.BatchNorm2d(3), 4, 1),
        (nn.GroupNorm(1, 3), 3, 1),
        (nn.PixelShuffle(2), 4, 1),
        (SameLength(3, 2, 1), 3, None),
        (nn.ReLU(), 3, None),
        (nn.Sequential(nn.Linear(3, 2)), 3, None),
        (nn.LayerNorm(3), 3, None),
    ],
)
def test_a_layer_says_where_its_channels_are_only_where_its_definition_does(layer, rank, axis):
    assert own_axis(layer, rank) == axis


def test_a_norm_over_one_axis_is_mostly_over_channels():
    assert norm_axis(nn.LayerNorm(3), 4) == 3
    assert norm_axis(nn.RMSNorm(3), 3) == 2
    assert norm_axis(nn.LayerNorm([2, 3]), 4) is None
    assert norm_axis(nn.BatchNorm1d(3), 3) is None


class StepsFirst(nn.Module):
    """Time is on axis 0 between the two transposes, and samples on axis 1."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.rnn(x.transpose(0, 1))[0][-1])


@pytest.mark.parametrize("steps", [2, 5])
def test_steps_in_time_are_no_samples_even_where_there_are_as_many(steps):
    assert list(module_outputs(StepsFirst(), torch.randn(2, steps, 3))) == ["head"]


class Skips(nn.Module):
    """A layer that training runs not at all, or twice."""

    def __init__(self, times):
        super().__init__()
        self.inner, self.times = nn.Linear(4, 4), times

    def forward(self, x):
        for _ in range(self.times if self.training else 1):
            x = self.inner(x)
        return x


def test_a_layer_that_did_not_run_in_the_last_pass_is_not_there():
    net, x = Skips(0).eval(), torch.randn(2, 4)
    with capture(net, ["inner"]) as seen:
        net(x)
        assert torch.equal(seen["inner"], net(x))
        net.train()(x)
        assert seen == {}
    assert not any(hooks_of(net))


def test_a_layer_that_runs_several_times_in_training_alone_is_refused():
    net = Skips(2).train()
    with (
        pytest.raises(DataError) as caught,
        capture(net, ["inner"]),
    ):
        net(torch.randn(2, 4))
    assert str(caught.value) == (
        "'inner' runs several times in one pass in training, so that it has no one output for a "
        "loss to look at; name a module around or before it."
    )
    assert not any(hooks_of(net))


def test_channels_come_first_and_are_pooled():
    tokens = torch.randn(2, 5, 3)
    assert channels_first(tokens, 2).shape == (2, 3, 5)
    assert torch.allclose(pooled(channels_first(tokens, 2)), tokens.mean(1), atol=1e-6)
    vector = torch.randn(2, 3)
    assert torch.equal(pooled(channels_first(vector, 1)), vector)


@pytest.mark.parametrize(
    ("student", "teacher", "positions"),
    [
        ((2, 3, 4, 4), (2, 5, 8, 8), (4, 4)),
        ((2, 3, 8, 2), (2, 5, 4, 4), (4, 2)),
        ((2, 3, 9), (2, 3, 6), (6,)),
        ((2, 3, 4, 4), (2, 7), ()),
        ((2, 3), (2, 7), ()),
        ((2, 3, 4, 4), (2, 5, 9), (3, 3)),
        ((2, 5, 10), (2, 3, 4, 4), (3, 3)),
        ((2, 3, 2, 2, 2), (2, 3, 4, 4, 4), (2, 2, 2)),
    ],
)
def test_the_finer_map_is_averaged_down_to_the_coarser(student, teacher, positions):
    a, b = aligned(torch.randn(student), torch.randn(teacher))
    assert a.shape == (2, student[1], *positions)
    assert b.shape == (2, teacher[1], *positions)


def test_averaging_down_takes_means_of_whole_blocks():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    _, coarse = aligned(torch.zeros(1, 1, 2, 2), fine)
    assert coarse.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_tokens_are_laid_out_as_the_image_that_they_were_cut_from():
    image = torch.randn(1, 2, 3, 3)
    tokens = image.flatten(2)
    with_class = torch.cat([torch.full((1, 2, 1), 9.0), tokens], dim=2)
    for form in (tokens, with_class):
        assert torch.equal(aligned(image, form)[1], image)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((2, 3, 4, 4), (2, 5, 7), "7 tokens, with or without a class token, are not a square"),
        ((2, 3, 4, 4, 4), (2, 5, 4, 4), r"3 and of 2 axes .* cannot be laid over each other"),
        ((2, 3), (3, 3), "features of 2 and of 3 samples do not pair"),
    ],
)
def test_positions_without_a_relation_are_explained(student, teacher, message):
    with pytest.raises(DataError, match=message):
        aligned(torch.randn(student), torch.randn(teacher))


@pytest.mark.parametrize("positions", [(), (4,), (4, 5), (2, 3, 4)])
def test_an_adapter_is_a_1x1_convolution(positions):
    adapter = Adapter(3, 6)
    x = torch.randn(2, 3, *positions)
    out = adapter(x)
    assert out.shape == (2, 6, *positions)
    flat = F.conv1d(x.flatten(2) if positions else x[..., None], adapter.linear.weight[..., None])
    flat = flat + adapter.linear.bias[:, None]
    assert torch.allclose(out.reshape(2, 6, -1), flat, atol=1e-6)


class Attention(nn.Module):
    """Queries and keys under given names; a softmax that is a module or not."""

    def __init__(self, names, heads_name, heads=2, width=8):
        super().__init__()
        self.names, self.softmax = names, nn.Softmax(dim=-1)
        for name in names:
            setattr(self, name, nn.Linear(width, width))
        setattr(self, heads_name, heads)
        self._heads = heads

    def forward(self, x):
        query, key = (getattr(self, name)(x) for name in self.names)
        query, key = (t.view(*t.shape[:2], self._heads, -1).transpose(1, 2) for t in (query, key))
        maps = self.softmax(query @ key.transpose(-2, -1) / 2.0)  # width of a head: 4
        return (maps @ x.unsqueeze(1)).mean(1)


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        (("query", "key"), "num_attention_heads"),
        (("q_proj", "k_proj"), "num_heads"),
        (("q_lin", "k_lin"), "n_heads"),
        (("q", "k"), "heads"),
    ],
)
def test_scores_from_queries_and_keys_are_those_that_the_net_works_with(names, heads):
    net, x = nn.Sequential(Attention(names, heads)), torch.randn(3, 5, 8)
    found = module_outputs(net, x)
    source = attention_source(net, "0", found)
    own = attention_source(net, "0.softmax", found)
    assert source.has_scores
    assert not own.has_scores
    with capture(net, (*source.layers, *own.layers)) as seen:
        net(x)
    maps = own.maps(seen, softmax=True)
    assert maps.shape == (3, 2, 5, 5)
    assert torch.allclose(source.maps(seen, softmax=True), maps, atol=1e-6)
    assert torch.allclose(source.maps(seen, softmax=False).softmax(-1), maps, atol=1e-6)


def test_the_zoos_attention_gives_its_scores():
    case = NETS["attention"]
    net = case.build()
    source = attention_source(net, "blocks.1.attention", module_outputs(net, case.example()))
    assert source.layers == ("blocks.1.attention.query", "blocks.1.attention.key")
    assert source.heads == 2
    assert source.scale == pytest.approx(net.blocks[1].attention.scale)


def test_scores_of_half_precision_are_worked_out_in_float32():
    net, x = nn.Sequential(Attention(("q", "k"), "heads")), torch.randn(3, 5, 8)
    source = attention_source(net, "0", module_outputs(net, x))
    with capture(net, source.layers) as seen:
        net(x)
    half = {name: (100 * feature).half() for name, feature in seen.items()}
    exact = source.maps({name: feature.float() for name, feature in half.items()}, softmax=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(source.maps(half, softmax=False), exact)


@pytest.mark.parametrize("name", ["norm", "blocks.0.expand"])
def test_a_layer_without_attention_has_no_source(name):
    case = NETS["attention"]
    net = case.build()
    assert attention_source(net, name, module_outputs(net, case.example())) is None


@pytest.mark.parametrize("name", SEVERAL)
def test_nets_with_several_outputs_show_what_their_layers_give(name):
    case = SEVERAL[name]
    found = module_outputs(case.build(), case.inputs(3))
    assert len(found) >= 3
    heads = {"boxes": (4,), "box": (4,), "score": (3,)} if "first" in found else {}
    assert all(found[head].shape == shape for head, shape in heads.items() if head in found)


def test_an_output_without_samples_does_not_say_how_many_there_are():
    net = Heads(lambda m: {"prior": m.prior, "scale": m.prior.sum(), "scores": m.scores})
    assert {"first", "second", "box", "score"} <= module_outputs(net, torch.randn(3, 6)).keys()


def test_the_first_tensor_of_a_data_class_is_what_counts():
    assert first_tensor(Prediction(None, (), None)) is None
    tensor = torch.ones(2)
    assert first_tensor(Prediction(tensor, ())) is tensor
