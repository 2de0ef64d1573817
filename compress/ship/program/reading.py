"""What a model is fed, from files and texts: used by run.py beside it, and needs only numpy.

PNG (8 bits, not interlaced), PPM and PGM are read here, other images by Pillow; texts by a
tokenizer of BERT's kind are cut here, others by the library tokenizers. model.json says what is
done with each.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import unicodedata
import zlib
from typing import Any

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
MOST_PIXELS = 64 << 20
TYPES = {"float": "f4", "double": "f8", "float16": "f2", "int64": "i8", "int32": "i4"}
TYPES.update({"int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?"})


def read_inputs(given: str, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs of one or several samples, by name, and what is known of where they came from."""
    form = model["preprocessing"]
    suffix = os.path.splitext(given)[1].lower()
    if suffix in (".npy", ".npz"):
        return read_arrays(given, model)
    if form["kind"] == "text":
        return read_text(given, model)
    if form["kind"] == "image":
        return prepared(read_image(given, form), model)
    if re.fullmatch(r"[\d\s.,eE+-]+", given) and len(model["inputs"]) == 1:
        numbers = np.array([float(number) for number in re.split(r"[,\s]+", given.strip(", "))])
        return batched({model["inputs"][0]["name"]: numbers}, model), {}
    sys.exit(f"{given}: this model takes arrays, in a file .npy or .npz ({wanted(model)}).")


def prepared(pixels: Any, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An image as the input, and where it is in it."""
    form = model["preprocessing"]
    square, covered = fitted(pixels, form)
    place = {"size": [pixels.shape[1], pixels.shape[0]], "covered": list(covered)}
    values = {name: np.array([value]) for name, value in form.get("values", {}).items()}
    image = next(one["name"] for one in model["inputs"] if one["name"] not in values)
    return batched({image: normalized(square, form), **values}, model), place


def read_arrays(path: str, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays as the model takes them; one of bytes is a picture where the model takes these."""
    with open(path, "rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        names = [one["name"] for one in model["inputs"]]
        arrays = dict(loaded) if hasattr(loaded, "files") else {names[0]: loaded}
    first = next(iter(arrays.values()))
    if model["preprocessing"]["kind"] == "image" and first.dtype == np.uint8 and first.ndim < 4:
        pixels = first if first.ndim == 3 else first[..., None]
        return prepared(as_channels(pixels, model["preprocessing"]["channels"]), model)
    if len(names) == len(arrays) == 1:
        arrays = {names[0]: first}
    if missing := [name for name in names if name not in arrays]:
        sys.exit(f"{path}: the input {missing[0]} is missing ({wanted(model)}).")
    return batched({name: arrays[name] for name in names}, model), {}


def read_text(given: str, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A text, or each line of a text file, as tokens; and how many of them are no padding."""
    texts = [given]
    if given.lower().endswith(".txt") and os.path.isfile(given):
        with open(given, encoding="utf-8") as stream:
            texts = [line.strip() for line in stream if line.strip()]
    form = model["preprocessing"]
    found = [tokens_of(text, form) for text in texts]
    ids = np.array([ids + [form["pad_id"]] * (form["length"] - len(ids)) for ids in found])
    mask = np.array([[1] * len(ids) + [0] * (form["length"] - len(ids)) for ids in found])
    by_name = {"attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    inputs = {one["name"]: by_name.get(one["name"], ids) for one in model["inputs"]}
    return batched(inputs, model), {"texts": texts, "lengths": [len(ids) for ids in found]}


def batched(arrays: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Arrays with an axis of samples, in the types that the model takes."""
    found = {}
    for one in model["inputs"]:
        array, shape = arrays[one["name"]], one["shape"]
        array = array[None] if array.ndim == len(shape) - 1 else array
        fits = [isinstance(b, str) or a == b for a, b in zip(array.shape[1:], shape[1:])]
        if array.ndim != len(shape) or not all(fits):
            sys.exit(f"the input {one['name']} has the shape {array.shape} ({wanted(model)}).")
        found[one["name"]] = np.ascontiguousarray(array, TYPES[one["type"]])
    return found


def wanted(model: dict[str, Any]) -> str:
    """What the model takes, in words."""
    shapes = (f"{i['name']}: {['n', *i['shape'][1:]]} of {i['type']}" for i in model["inputs"])
    return "it takes " + ", ".join(shapes).replace("'", "")


# -- images -----------------------------------------------------------------------------------


def read_image(path: str, form: dict[str, Any]) -> Any:
    """An image file as bytes (height, width, channels)."""
    with open(path, "rb") as stream:
        content = stream.read()
    pixels = None
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        pixels = read_png(content)
    elif content[:2] in (b"P5", b"P6"):
        pixels = read_pnm(content)
    return read_by_pillow(path, form) if pixels is None else as_channels(pixels, form["channels"])


def read_png(content: bytes) -> Any:
    """The pixels of a PNG of 8 bits that is not interlaced; None of any other."""
    place, parts, kinds = 8, [], {}
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        chunk, end = content[place + 8 : place + 8 + size], place + 8 + size
        if content[end : end + 4] != struct.pack(">I", zlib.crc32(kind + chunk)):
            raise ValueError("the PNG is damaged or cut short")
        parts += [chunk] if kind == b"IDAT" else []
        kinds[kind] = chunk
        place = end + 4
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", kinds[b"IHDR"])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    if depth != 8 or interlaced or b"eXIf" in kinds:
        return None
    check_pixels(width, height)
    wanted = height * (1 + width * channels)
    raw = zlib.decompressobj().decompress(b"".join(parts), wanted)
    rows = np.frombuffer(raw, np.uint8, wanted).reshape(height, -1)
    pixels = unfiltered(rows[:, 1:].reshape(height, width, channels), rows[:, 0])
    if color == 3:
        palette = np.zeros((256, 3), np.uint8)
        given = np.frombuffer(kinds[b"PLTE"], np.uint8).reshape(-1, 3)
        palette[: len(given)] = given
        return palette[pixels[..., 0]]
    return pixels[..., :3] if color == 6 else pixels[..., : 1 if color == 4 else channels]


def unfiltered(raw: Any, filters: Any) -> Any:
    """Pixels from what PNG stores, along diagonals: each needs those to the left and above it."""
    height, width, channels = raw.shape
    out = np.zeros((height + 1, width + 1, channels), np.int16)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        a, b, c = out[y + 1, x], out[y, x + 1], out[y, x]
        by_a, by_b, by_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        paeth = np.where((by_a <= by_b) & (by_a <= by_c), a, np.where(by_b <= by_c, b, c))
        guess = np.choose(filters[y, None], [np.zeros_like(a), a, b, (a + b) >> 1, paeth])
        out[y + 1, x + 1] = (raw[y, x] + guess) & 255
    return out[1:, 1:].astype(np.uint8)


def read_pnm(content: bytes) -> Any:
    """The pixels of a binary PPM or PGM of 8 bits; None of any other."""
    space = rb"(?:\s|#[^\n]*\n)+"
    head = re.match(rb"P[56]" + space + space.join([rb"(\d+)"] * 3) + rb"\s", content)
    if head is None or int(head[3]) != 255:
        return None
    width, height, channels = int(head[1]), int(head[2]), 3 if content[1:2] == b"6" else 1
    check_pixels(width, height)
    found = np.frombuffer(content, np.uint8, width * height * channels, head.end())
    return found.reshape(height, width, channels)


def read_by_pillow(path: str, form: dict[str, Any]) -> Any:
    """Any image that Pillow reads."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        sys.exit(f"{path}: only PNG (8 bits, not interlaced), PPM and PGM are read without Pillow; "
                 "pip install pillow, or convert it.")  # fmt: skip
    mode = "L" if form["channels"] == 1 else "RGB"
    with Image.open(path) as image:
        check_pixels(image.width, image.height)
        if form["draft"]:
            image.draft(mode, (form["width"], form["height"]))
        upright: Any = image
        if image.mode in ("I", "I;16", "I;16B", "I;16L"):
            upright = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        upright = ImageOps.exif_transpose(upright) if form["upright"] else upright
        pixels = np.asarray(upright.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def check_pixels(width: int, height: int) -> None:
    """Leave where an image unfolds to more than is read."""
    if not 0 < width * height <= MOST_PIXELS:
        sys.exit(f"an image of {width} by {height} pixels is not read.")


def as_channels(pixels: Any, channels: int) -> Any:
    """Grey from colors as Pillow has it, or the same grey in each color."""
    if channels == 3 or pixels.shape[2] == 1:
        return np.repeat(pixels, channels, 2) if pixels.shape[2] != channels else pixels
    weighted = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000
    return (weighted >> 16).astype(np.uint8)[..., None]


def scaled(pixels: Any, height: int, width: int, box: tuple[float, ...] | None = None) -> Any:
    """Bilinear with antialiasing, of a box (left, top, right, bottom), rounded as Pillow does."""
    left, top, right, bottom = box or (0, 0, pixels.shape[1], pixels.shape[0])
    across = weights(pixels.shape[1], width, left, right)
    down = weights(pixels.shape[0], height, top, bottom)
    rows = np.tensordot(pixels.astype(np.float32), across, (1, 1)).swapaxes(1, 2)
    found = np.tensordot(down, as_bytes(rows).astype(np.float32), (1, 0))
    return as_bytes(found)


def weights(size: int, wanted: int, start: float, end: float) -> Any:
    """What each pixel counts in each of the wanted ones: a triangle, as wide as one of these."""
    scale = (end - start) / wanted
    reach = max(scale, 1.0)
    centers = start + (np.arange(wanted) + 0.5) * scale
    first = np.maximum(0, (centers - reach + 0.5).astype(int))
    last = np.minimum(size, (centers + reach + 0.5).astype(int))
    places = np.arange(size)
    found = np.maximum(0, 1 - abs(places + 0.5 - centers[:, None]) / reach)
    found *= (places >= first[:, None]) & (places < last[:, None])
    return (found / found.sum(1, keepdims=True)).astype(np.float32)


def as_bytes(values: Any) -> Any:
    """Rounded, and within 0 to 255."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def fitted(pixels: Any, form: dict[str, Any]) -> tuple[Any, tuple[int, int]]:
    """An image of the wanted size, and how much of its width and height is covered."""
    height, width = pixels.shape[:2]
    down, across = form["height"], form["width"]
    if form["fit"] == "stretch":
        return scaled(pixels, down, across), (across, down)
    if form["fit"] == "contain":
        if width * down > height * across:
            across, down = across, max(1, round(across * height / width))
        else:
            across, down = max(1, round(down * width / height)), down
        found = np.full((form["height"], form["width"], pixels.shape[2]), form["fill"], np.uint8)
        found[:down, :across] = scaled(pixels, down, across)
        return found, (across, down)
    if form["resize"]:
        short, long = form["resize"], int(form["resize"] * max(height, width) / min(height, width))
        pixels = scaled(pixels, *((short, long) if height <= width else (long, short)))
        top, left = round((pixels.shape[0] - down) / 2), round((pixels.shape[1] - across) / 2)
        return pixels[top : top + down, left : left + across], (across, down)
    cut = min(width, across / down * height), min(height, width / (across / down))
    left, top = (width - cut[0]) * 0.5, (height - cut[1]) * 0.5
    return scaled(pixels, down, across, (left, top, left + cut[0], top + cut[1])), (across, down)


def normalized(pixels: Any, form: dict[str, Any]) -> Any:
    """Bytes as the numbers that the model takes."""
    values = pixels.astype(np.float32) / np.float32(255 / form["highest"])
    values = (values - np.float32(form["mean"])) / np.float32(form["std"])
    return values if form["layout"] == "hwc" else values.transpose(2, 0, 1)


# -- texts ------------------------------------------------------------------------------------


def tokens_of(text: str, form: dict[str, Any]) -> list[int]:
    """The ids of a text, cut to the length, with the marks that it is given."""
    length = form["length"]
    if form["characters"]:
        plain = unicodedata.normalize("NFKD", text)
        names = {name: place for place, name in enumerate(form["characters"])}
        ids = [names.get(c, form["unknown_id"]) for c in plain if not unicodedata.combining(c)]
        before: list[int] = []
        behind: list[int] = []
    else:
        before, ids, behind = read_by_tokenizer(text)
    if form["begin_id"] is not None:
        before, behind = [form["begin_id"], *before], []
    room = max(0, length - len(before) - len(behind))
    kept = ids[:room] if form["keep"] == "first" else ids[max(0, len(ids) - room) :]
    return [*before, *kept, *behind]


def read_by_tokenizer(text: str) -> tuple[list[int], list[int], list[int]]:
    """The ids of a text, and those of the marks before and behind it."""
    path = os.path.join(HERE, "tokenizer.json")
    with open(path, encoding="utf-8") as stream:
        said = json.load(stream)
    marks = marks_of(said.get("post_processor"))
    kinds = [
        (said.get(part) or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")
    ]
    plain = [t for t in said.get("added_tokens") or [] if t["content"] in text]
    if kinds == ["WordPiece", "BertNormalizer", "BertPreTokenizer"] and marks and not plain:
        ids = [
            i for word in words_of(text, said["normalizer"]) for i in pieces(word, said["model"])
        ]
        return marks[0], ids, marks[1]
    try:
        from tokenizers import Tokenizer
    except ImportError:
        sys.exit("the tokenizer of this model is not of BERT's kind, and needs the library "
                 "tokenizers: pip install tokenizers.")  # fmt: skip
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    bare = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.encode(text).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], bare, whole[start + len(bare) :]
    return [], whole, []


def marks_of(said: Any) -> tuple[list[int], list[int]] | None:
    """The ids before and behind a text; None where the file does not say them plainly."""
    if said is None:
        return [], []
    if said.get("type") == "BertProcessing":
        return [said["cls"][1]], [said["sep"][1]]
    if said.get("type") != "TemplateProcessing":
        return None
    found: tuple[list[int], list[int]] = ([], [])
    behind = 0
    for part in said["single"]:
        if "Sequence" in part:
            behind = 1
        else:
            found[behind].extend(said["special_tokens"][part["SpecialToken"]["id"]]["ids"])
    return found


def words_of(text: str, rules: dict[str, Any]) -> list[str]:
    """Words and punctuation, as BERT's normalizer and pre-tokenizer have them."""
    if rules.get("clean_text", True):
        kept = (" " if c.isspace() else c for c in text if is_kept(c))
        text = "".join(kept)
    if rules.get("handle_chinese_chars", True):
        text = "".join(f" {c} " if is_chinese(ord(c)) else c for c in text)
    lower = rules.get("lowercase", True)
    if rules.get("strip_accents") or (rules.get("strip_accents") is None and lower):
        parts = unicodedata.normalize("NFD", text)
        text = "".join(c for c in parts if unicodedata.category(c) != "Mn")
    text = "".join(c.lower() for c in text) if lower else text
    spaced = (f" {c} " if is_punctuation(c) else c for c in text)
    return "".join(spaced).split()


def is_kept(c: str) -> bool:
    """Whether BERT's cleaning leaves a character."""
    return c in "\t\n\r" or not (c in "\0\ufffd" or unicodedata.category(c)[0] == "C")


def is_punctuation(c: str) -> bool:
    """Whether a character is a word of its own."""
    return (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or (
        unicodedata.category(c)[0] == "P"
    )


def is_chinese(code: int) -> bool:
    """Whether a character is a word of its own for being one of Chinese."""
    ranges = (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)
    more = (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)
    return any(low <= code <= high for low, high in ranges + more)


def pieces(word: str, model: dict[str, Any]) -> list[int]:
    """The longest pieces of a word that the vocabulary has, one after another."""
    found, start, vocabulary = [], 0, model["vocab"]
    while start < len(word) <= model.get("max_input_chars_per_word", 100):
        prefix = model.get("continuing_subword_prefix", "##") if start else ""
        ends = range(len(word), start, -1)
        end = next((e for e in ends if prefix + word[start:e] in vocabulary), None)
        if end is None:
            break
        found.append(vocabulary[prefix + word[start:end]])
        start = end
    return found if start == len(word) else [vocabulary[model["unk_token"]]]
