from __future__ import annotations

import pytest
import torch

from compress.errors import DataError, RecipeError
from compress.tasks.language import VOCABULARY
from compress.zoo import ARCHITECTURES, build
from compress.zoo.mobilenet_v2 import eights

pytestmark = pytest.mark.fast


def parameters(net) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet", {}, 174_970),
        ("dscnn", {"width": 8}, 4_298),
        ("dscnn", {"width": 16}, 13_962),
        ("dscnn", {"width": 32}, 49_418),
        ("autoencoder", {}, 267_928),
        ("causal-lm", {}, 2 * 99 * 64 + 99 + 64 * 64 + 2 * (12 * 64**2 + 13 * 64) + 2 * 64),
        ("dscnn-kws", {}, 23_180),
        ("plain-cnn", {}, 27_834),
        ("efficientnet-lite0", {"in_channels": 3, "classes": 1000}, 4_652_008),
        ("mobilenet-v2", {"in_channels": 3, "classes": 1000}, 3_504_872),
        ("mobilenet-v3", {"in_channels": 3, "classes": 1000}, 2_542_856),
    ],
)
def test_documented_sizes_hold(name, options, count):
    assert parameters(build(name, options)) == count


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_depend_on_the_seed_alone(name):
    def weights(seed):
        torch.manual_seed(seed)
        return build(name).state_dict()

    one, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - {"detector", "multi-head"}))
def test_the_output_layer_is_called_head_and_is_as_wide_as_asked(name):
    pixels = 4 if name == "mobile-unet" else 1  # of each place of its head's map
    assert build(name, {"classes": 7}).head.weight.shape[0] == pixels * 7


@pytest.mark.parametrize("size", [8, 28, 33])
@pytest.mark.parametrize(
    "name",
    ["resnet", "plain-cnn", "dscnn", "dscnn-kws", "efficientnet-lite0"]
    + [f"mobilenet-v{version}" for version in (1, 2, 3)],
)
def test_classifiers_with_global_pooling_take_any_size(name, size):
    net = build(name, {"in_channels": 3, "width": 8}).eval()
    assert net(torch.zeros(2, 3, size, size)).shape == (2, net.head.out_features)


@pytest.mark.parametrize("shape", [(4, 4), (16, 16), (13, 22)])
def test_unet_keeps_the_size_of_its_input(shape):
    assert build("unet").eval()(torch.zeros(2, 1, *shape)).shape == (2, 2, *shape)


def test_deeper_and_wider_nets_are_larger():
    for name, option in [("resnet", "blocks"), ("plain-cnn", "depth"), ("mlp", "depth")]:
        assert parameters(build(name, {option: 3})) > parameters(build(name))


# Parameters that training changes, as the authors' own code and torchvision count them: what the
# averages of norms and biases before norms add to a published total is left out.
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet", {"in_channels": 3, "blocks": 1}, 78_666 - 4 * 240 + 2 * 240 - 336 + 2 * 96),
        ("dscnn-kws", {}, 24_908 - 9 * 2 * 64 - 9 * 64),
        ("autoencoder", {}, 269_992 - 2 * (8 * 128 + 8)),
        ("mobilenet-v1", {"in_channels": 3, "width": 8, "classes": 1000}, 470_072),
    ],
)
def test_reference_nets_have_the_published_number_of_parameters(name, options, count):
    assert parameters(build(name, options)) == count


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("efficientnet-lite0", 16), ("mobilenet-v1", 13), ("mobilenet-v2", 17), ("mobilenet-v3", 11)],
)
def test_blocks_that_the_paper_does_not_have_are_refused(name, blocks):
    assert len(build(name, {"width": 8}).blocks) == blocks
    with pytest.raises(RecipeError, match=f"depth must be at most {blocks}; got {blocks + 1}"):
        build(name, {"width": 8, "depth": blocks + 1})


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(1, 8), (12, 16), (11.9, 16), (18, 24), (20, 24), (36, 40), (100, 104)],
)
def test_channels_are_rounded_to_eights_and_lose_at_most_a_tenth(channels, rounded):
    assert eights(channels) == rounded
    assert rounded >= 0.9 * channels


def test_cutting_channels_that_are_zero_leaves_attention_as_it_was():
    attention = build("attention", {"width": 8, "heads": 2}).blocks[0].attention.eval()
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    dead, alive = [1, 6], [0, 2, 3, 4, 5, 7]  # one channel of each head
    with torch.no_grad():
        for layer in (attention.query, attention.key, attention.value):
            layer.weight[dead], layer.bias[dead] = 0, 0
        before = attention(tokens)
        for layer in (attention.query, attention.key, attention.value):
            layer.weight.data, layer.bias.data = layer.weight[alive], layer.bias[alive]
        attention.project.weight.data = attention.project.weight[:, alive]
        assert torch.allclose(attention(tokens), before, atol=1e-6)


def test_a_language_model_sees_nothing_of_what_comes_and_all_of_what_was():
    net = build("causal-lm", {"classes": 8, "width": 16, "context": 6}).eval()
    text = torch.tensor([[0, 1, 2, 3, 4, 5]])
    with torch.no_grad():
        before = net(text)
        for place in range(6):
            other = text.clone()
            other[0, place] = 7
            changed = (net(other) - before).abs().amax(1)[0] > 1e-5
            assert changed.tolist() == [False] * place + [True] * (6 - place)
        assert torch.allclose(net(text[:, :4]), before[:, :, :4], atol=1e-5)


def test_a_text_longer_than_the_context_is_refused():
    net = build("causal-lm", {"context": 6})
    with pytest.raises(DataError, match="takes texts of up to 6 tokens and got 7; give it a conte"):
        net(torch.zeros(1, 7, dtype=torch.long))


def test_a_language_model_is_for_the_vocabulary_of_the_task():
    assert build("causal-lm").head.out_features == len(VOCABULARY)
    with pytest.raises(RecipeError, match="width must be a multiple of heads; got 30 and 4"):
        build("causal-lm", {"width": 30, "heads": 4})


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        RecipeError, match=r"'resnett'; did you mean 'resnet'.*attention, autoencoder"
    ):
        build("resnett")


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(
        RecipeError,
        match=r"'dscnn' has no option 'widht'; did you mean 'width'\? it has in_channels, classes",
    ):
        build("dscnn", {"widht": 8})


@pytest.mark.parametrize("value", ["16", 16.0, True, 0, -8, None])
def test_an_option_that_is_no_size_is_refused(value):
    with pytest.raises(RecipeError, match="width must be a whole number of at least 1; got"):
        build("resnet", {"width": value})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 30, "heads": 4}, "width must be a multiple of heads; got 30 and 4"),
        ({"patch": 9, "image_size": 8}, "patch must not exceed image_size; got 9 and 8"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, match):
    with pytest.raises(RecipeError, match=match):
        build("attention", options)


def test_an_image_too_small_to_flatten_is_refused():
    with pytest.raises(RecipeError, match="image_size must be at least 4; got 3"):
        build("functional", {"image_size": 3})
