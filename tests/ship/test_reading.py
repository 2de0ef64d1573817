"""What is shipped reads files as tasks read them: images within one grey level, texts exactly."""

import ast
import importlib.util
import json
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from compress.preprocessing import ImagePreprocessing
from compress.ship.request import PROGRAM, PROGRAM_FILES
from compress.tasks.arrays import ScaledImages, normalized
from compress.tasks.image_files import ImageFiles

pytestmark = pytest.mark.fast


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"shipped_{name}", PROGRAM / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reading = loaded("reading")


def picture(height, width, mode="RGB"):
    """Smooth, with noise and an edge: what a photograph is made of."""
    random = np.random.RandomState(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(y / (7 + k)) * np.cos(x / (5 + k)) * 90 + 128 for k in range(4)]
    pixels = np.stack(channels, 2) + random.normal(0, 20, (height, width, 4))
    pixels[: height // 2, width // 2 :] -= 60
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


@pytest.mark.parametrize("name", PROGRAM_FILES)
def test_the_program_needs_numpy_and_onnxruntime_alone(name):
    tree = ast.parse((PROGRAM / name).read_text())

    def imported(nodes):
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield str(node.module).partition(".")[0]

    allowed = {"numpy", "onnxruntime", "reading", "__future__"}
    at_import = {one for one in imported(tree.body) if one not in sys.stdlib_module_names}
    anywhere = {one for one in imported(ast.walk(tree)) if one not in sys.stdlib_module_names}
    assert at_import <= allowed
    assert anywhere <= allowed | {"PIL", "tokenizers"}


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("size", [(1, 1), (7, 30), (64, 48)])
def test_a_png_is_what_pillow_makes_of_it(mode, size, tmp_path):
    image = picture(*size, mode)
    image.save(tmp_path / "a.png", optimize=True)
    with Image.open(tmp_path / "a.png") as found:
        for channels, wanted in ((1, found.convert("L")), (3, found.convert("RGB"))):
            given = reading.read_image(str(tmp_path / "a.png"), {"channels": channels})
            expected = np.asarray(wanted).reshape(*size, channels)
            assert abs(given.astype(int) - expected).max() <= (mode == "P" and channels == 1)


def test_every_filter_of_a_png_is_undone(tmp_path):
    pixels = np.asarray(picture(10, 9)).astype(np.int16)
    lines, above = [], np.zeros((9, 3), np.int16)
    for number, line in enumerate(pixels):
        left = np.concatenate([np.zeros((1, 3), np.int16), line[:-1]])
        corner = np.concatenate([np.zeros((1, 3), np.int16), above[:-1]])
        guess = left + above - corner
        by = [abs(guess - one) for one in (left, above, corner)]
        paeth = np.where(
            (by[0] <= by[1]) & (by[0] <= by[2]), left, np.where(by[1] <= by[2], above, corner)
        )
        kind = number % 5
        predicted = [0 * left, left, above, (left + above) // 2, paeth][kind]
        lines.append(bytes([kind]) + (line - predicted).astype(np.uint8).tobytes())
        above = line
    picture(10, 9).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    data = zlib.compress(b"".join(lines))
    chunk = (
        len(data).to_bytes(4, "big")
        + b"IDAT"
        + data
        + zlib.crc32(b"IDAT" + data).to_bytes(4, "big")
    )
    (tmp_path / "b.png").write_bytes(whole[:33] + chunk + whole[-12:])
    assert (reading.read_image(str(tmp_path / "b.png"), {"channels": 3}) == pixels).all()
    with Image.open(tmp_path / "b.png") as found:
        assert (np.asarray(found) == pixels).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_ppm_and_pgm_are_read(mode, tmp_path):
    image = picture(12, 5, mode)
    image.save(tmp_path / "a.ppm")
    content = (tmp_path / "a.ppm").read_bytes()
    (tmp_path / "b.ppm").write_bytes(content.replace(b"\n", b"\n# by hand\n", 1))
    for name in ("a.ppm", "b.ppm"):
        found = reading.read_image(str(tmp_path / name), {"channels": len(image.getbands())})
        assert (found == np.asarray(image).reshape(12, 5, -1)).all()


@pytest.mark.parametrize("kind", ["interlaced", "16 bits", "1 bit", "jpeg", "gif"])
def test_other_images_are_read_by_pillow(kind, tmp_path):
    path, image = tmp_path / "a", picture(20, 30, "L")
    if kind == "16 bits":
        Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(path, "PNG")
    elif kind == "1 bit":
        image.convert("1").save(path, "PNG")
    else:
        image.save(path, {"jpeg": "JPEG", "gif": "GIF"}.get(kind, "PNG"))
    if kind == "interlaced":
        content = path.read_bytes()
        head = content[12:28] + b"\1"
        checksum = zlib.crc32(head).to_bytes(4, "big")
        assert reading.read_png(content[:12] + head + checksum + content[33:]) is None
        return
    form = ImagePreprocessing(8, 8, channels=1).to_json()
    found = reading.read_image(str(path), form)
    assert found.shape == (20, 30, 1)
    assert abs(found[..., 0].astype(int) - np.asarray(image)).max() <= (
        255 if kind == "1 bit" else 40
    )


def test_without_pillow_a_sentence_says_so(tmp_path, monkeypatch):
    picture(20, 30).save(tmp_path / "a.jpg")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        SystemExit, match=r"a\.jpg: only PNG .* are read without Pillow; pip install"
    ):
        reading.read_image(str(tmp_path / "a.jpg"), {"channels": 3})


SIZES = [(32, 32), (8, 8), (97, 131), (31, 200), (200, 31), (33, 64), (15, 9)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("way", ["cover", "contain"])
def test_an_image_is_within_one_grey_level_of_what_tasks_make_of_it(size, grey, way, tmp_path):
    picture(*size).save(tmp_path / "a.png")
    files = ImageFiles(tmp_path, 32, grey, "")
    if way == "cover":
        wanted, form = files.covering(tmp_path / "a.png"), files.cover
    else:
        wanted, form = files.placed(tmp_path / "a.png").pixels, files.contain
    given = reading.read_image(str(tmp_path / "a.png"), form.to_json())
    pixels, (across, down) = reading.fitted(given, form.to_json())
    assert abs(pixels.transpose(2, 0, 1).astype(int) - wanted.numpy()).max() <= 1
    if way == "contain":
        placed = files.placed(tmp_path / "a.png")
        assert (across, down) == (placed.across, placed.down)


def test_bytes_become_the_very_numbers_that_tasks_feed():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    forms = [
        ImagePreprocessing(16, 16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ImagePreprocessing(16, 16, mean=0.286, std=0.353),
    ]
    flat = pixels[0].permute(1, 2, 0).numpy()
    for form in forms:
        found = reading.normalized(flat, form.to_json())
        assert (found == normalized(pixels, form)[0].numpy()).all()
    scaled = ImageFiles("", 16, False, "").cover.to_json()
    given = ScaledImages([pixels[0]])[0]
    assert (reading.normalized(flat, scaled) == given.numpy()).all()
    upright = reading.normalized(flat, {**scaled, "layout": "hwc"})
    assert (upright.transpose(2, 0, 1) == given.numpy()).all()


def test_a_crop_of_the_middle_is_what_torchvision_makes():
    image = picture(90, 70)
    form = ImagePreprocessing(32, 32, resize=40).to_json()
    found, _ = reading.fitted(np.asarray(image), form)
    scaled = image.resize((40, int(40 * 90 / 70)), Image.Resampling.BILINEAR)
    left, top = round((40 - 32) / 2), round((scaled.height - 32) / 2)
    wanted = np.asarray(scaled.crop((left, top, left + 32, top + 32)))
    assert abs(found.astype(int) - wanted).max() <= 1


TEXTS = [
    "The plant, that is used for red stone!",
    "",
    "  tabs\tand\nlines  ",
    "Ünïcödé façade: ÀÉÎ STRASSE ß ŒUVRE",
    "水 and 火は red",
    "don't stop-now (or ever)... $5 ^ ~ `x`",
    "İstanbul ﬁsh \u200bzero\u00adwidth \ufffd \x07bell",
    "emoji 👩‍👩‍👧 and ѐ Ёлка אבג العربية हिन्दी",
    "a" * 120,
    "the " * 50,
    "a [SEP] b",
]


@pytest.fixture(scope="module", params=["lower", "cased"])
def bert(request, tmp_path_factory):
    """A vocabulary of pieces in BERT's manner, and the library's tokenizer for it."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, normalizers, pre_tokenizers, processors

    letters = sorted({c for text in TEXTS for c in text.lower() + text if not c.isspace()})
    words = [*["the", "plant", "red", "stone", "and", "used", "is", "for", "stop"], "水", "火"]
    parts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters[:60])]
    ids = {part: place for place, part in enumerate(dict.fromkeys([*parts, *words]))}
    made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=request.param == "lower")
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[CLS]", "[SEP]"])
    marks = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, marks)
    folder = tmp_path_factory.mktemp("bert")
    made.save(str(folder / "tokenizer.json"))
    return folder, made


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_cut_as_the_library_cuts_them(text, bert, monkeypatch):
    folder, library = bert
    monkeypatch.setattr(reading, "HERE", str(folder))
    if "[SEP]" not in text:  # which is a mark itself, and left to the library
        monkeypatch.setitem(sys.modules, "tokenizers", None)
    form = {"length": 24, "characters": [], "begin_id": None, "keep": "first", "pad_id": 0}
    library.enable_truncation(24)
    assert reading.tokens_of(text, form) == library.encode(text).ids


def test_another_tokenizer_is_left_to_the_library(bert, monkeypatch, tmp_path):
    folder, _ = bert
    said = json.loads((folder / "tokenizer.json").read_text())
    said["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    monkeypatch.setattr(reading, "HERE", str(tmp_path))
    form = {"length": 9, "characters": [], "begin_id": None, "keep": "first", "pad_id": 0}
    from tokenizers import Tokenizer

    other = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    other.enable_truncation(9)
    assert reading.tokens_of("the red plant", form) == other.encode("the red plant").ids
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SystemExit, match="needs the library tokenizers: pip install tokenizers"):
        reading.tokens_of("the red plant", form)


def test_characters_are_those_of_the_built_in_language(monkeypatch):
    from compress.tasks.language import VOCABULARY, encode

    form = {"length": 40, "characters": list(VOCABULARY), "unknown_id": 1, "begin_id": 0}
    text = "Café, naïve ﬁsh\t№ 5\nÅ 水"
    assert reading.tokens_of(text, {**form, "keep": "first"}) == [0, *encode(text)]
    assert reading.tokens_of(text * 9, {**form, "keep": "last"})[1:] == encode(text * 9)[-39:]
