"""The effect ``diffusion`` on a tiny pipeline that is made here, and on folders of strangers."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch

from compress.config.references import CodeReferences
from compress.effects.diffusion import Diffusion
from compress.errors import CheckpointError, MissingExtra, RecipeError
from compress.tasks.pairs.teacher import ImageTeacherSettings

HAS_DIFFUSERS = importlib.util.find_spec("diffusers") is not None
pytestmark = pytest.mark.skipif(not HAS_DIFFUSERS, reason="needs diffusers")

TEXTS = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 64,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pipeline with random weights, as diffusers saves it."""
    from compress.backends.onnx.quiet import quiet

    folder = tmp_path_factory.mktemp("diffusion")
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        words |= {letter: len(words), f"{letter}</w>": len(words) + 1}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    with quiet():
        _pipeline(folder).save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def _pipeline(folder):
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    return diffusers.StableDiffusionImg2ImgPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=[4, 8],
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            norm_num_groups=2,
        ),
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(4, 8),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=2,
            norm_num_groups=2,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXTS)),
        tokenizer=CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
        ),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture
def image():
    return np.random.RandomState(0).randint(0, 256, (32, 48, 3)).astype(np.uint8)


def test_an_image_is_changed_as_far_as_its_strength_says(made, image, capfd):
    effect = Diffusion(model=made, prompt="oil paint", steps=4, guidance=2)
    unchanged, half, all_of_it = (effect(image, {"strength": s}) for s in (0.2, 0.5, 1.0))
    assert np.array_equal(unchanged, image.astype(np.float32) / 255)
    assert {one.shape for one in (half, all_of_it)} == {image.shape}
    assert not np.array_equal(half, all_of_it)
    assert np.array_equal(effect(image, {}), half)
    assert capfd.readouterr() == ("", "")
    other = Diffusion(model=made, prompt="oil paint", steps=4, guidance=2, seed=1)
    assert not np.array_equal(other(image, {}), half)


def test_a_recipe_names_it_and_a_changed_file_is_another_teacher(made, image, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(made, folder)
    given = {"name": "diffusion", "model": str(folder), "prompt": "a", "steps": 2}

    def teacher():
        return ImageTeacherSettings(**given).build(CodeReferences())

    first = teacher()
    assert first(image, {"strength": 1.0}).dtype == np.uint8
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text() + " ")
    assert teacher().identity != first.identity


def changed_index(folder, change):
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: (f / "model_index.json").unlink(), "there is no such file"),
        (lambda f: (f / "model_index.json").write_text("{"), "not readable as JSON"),
        (lambda f: (f / "model_index.json").write_text("[]"), "it is of no pipeline"),
        (
            lambda f: changed_index(f, lambda one: one.update(unet=["evil", "Net"])),
            "'unet' is of 'evil'; parts are of diffusers and transformers alone, and code",
        ),
        (
            lambda f: changed_index(f, lambda one: one.update(_class_name=["evil", "Pipeline"])),
            "it is of no pipeline",
        ),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged"),
            "no pipeline from image to image can be read from it",
        ),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").rename(
                f / "unet" / "diffusion_pytorch_model.bin"
            ),
            "no pipeline from image to image can be read from it",
        ),
    ],
    ids=["no index", "no JSON", "a list", "code", "own class", "damaged", "pickle"],
)
def test_a_folder_that_is_none_is_named(made, image, tmp_path, damage, problem):
    folder = tmp_path / "model"
    shutil.copytree(made, folder)
    (folder / "evil.py").write_text("raise SystemExit(3)")
    damage(folder)
    with pytest.raises(CheckpointError, match=problem):
        Diffusion(model=folder, prompt="a", steps=1)(image, {"strength": 1.0})


@pytest.mark.parametrize(
    ("controls", "problem"),
    [({"strength": 1.5}, "is from 0 to 1; it was given 1.5"), ({"size": 1.0}, "was given size")],
)
def test_controls_are_checked(made, image, controls, problem):
    with pytest.raises(RecipeError, match=problem):
        Diffusion(model=made, prompt="a")(image, controls)


def test_without_diffusers_the_extra_is_named(made, image, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"compresskit\[diffusion\]"):
        Diffusion(model=made, prompt="a")(image, {})
