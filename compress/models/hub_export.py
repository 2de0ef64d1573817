"""A candidate as a folder in the form of the Hugging Face hub, around an ONNX file with open sizes.

Owns what such a folder consists of: the file, with the names that ``optimum`` looks for, the
configuration of what is left of the model, the tokenizer and processor of the folder that it came
from, and what says which row it is. Knows nothing of runs.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.artifact import Parity, model_files
from compress.backends.onnx.export import OpenShapes
from compress.backends.onnx.open_file import lower_open
from compress.candidate import Candidate
from compress.errors import CheckpointError, RecipeError, StorageError
from compress.io.files import named
from compress.io.scratch import scratch
from compress.models.hub_folder import inside
from compress.models.hub_tasks import HUB_TASKS
from compress.models.huggingface import ARCHITECTURE, Encoder, HubModel, build_hub_model
from compress.models.sentence_modules import pooling_of
from compress.modules.inputs import Inputs, at_batch
from compress.overwriting import HUB_EXPORT, HUB_EXPORT_NAME
from compress.pruning.depth import blocks_of

__all__ = ["ExportedRow", "HubExport", "write_hub_folder"]

MODEL = "model.onnx"
_BATCHES = (5, 1)
_OF_A_SEQUENCE = 2  # axes of what has a length: tokens, or samples of sound
_AXES = {0: "batch_size", 1: "sequence_length"}
# What is copied as it is, where the folder has it.
_COPIED = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
_COPIED += ["added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model"]
_COPIED += ["sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja"]
_COPIED += ["preprocessor_config.json", "processor_config.json", "generation_config.json"]
_SENTENCES = ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"]
_SENTENCES += ["1_Pooling/config.json"]
_MOST_COPIED_BYTES = 256 << 20
_HEADS = ("num_attention_heads", "n_heads", "num_heads")
_HEAD_WIDTHS = ("head_dim", "attention_head_size", "head_size")
# Layers that make queries, and how many times as wide they are for keys and values in them.
_QUERIES = {"query": 1, "q_proj": 1, "q_lin": 1, "query_key_value": 3, "Wqkv": 3}


@dataclass(frozen=True)
class ExportedRow:
    """Which row of which run is exported, for whoever opens the folder."""

    recipe: str
    row: int
    stage: str
    fingerprint: str
    timed: str


@dataclass(frozen=True)
class HubExport:
    """What was written: the folder, its parity by batch and length, and what to note.

    ``opened_by`` is the class of ``optimum.onnxruntime`` for it.
    """

    folder: Path
    parities: Mapping[tuple[int, ...], Parity]
    bytes: int
    opened_by: str
    warnings: tuple[str, ...]


def write_hub_folder(
    candidate: Candidate, source: Path, inputs: Inputs, out: Path, row: ExportedRow
) -> HubExport:
    """Write the folder, whole or not at all; an earlier export in its place is replaced.

    Args:
        candidate: of a model from a folder; left as it was.
        source: the folder that it came from: its tokenizer and processor are copied.
        inputs: some real inputs of the task, padded, for parity.
        out: the folder.
        row: which row it is.

    Raises:
        RecipeError: a model from no folder.
        LoweringError: formats that have no form with open sizes, or a model that cannot be
            exported.
        ParityError: a file that does not compute what the module computes, at some size.
        CheckpointError: a file of ``source`` that cannot be copied.
        StorageError: the disk refused.
    """
    encoder = candidate.module
    if candidate.architecture is None or candidate.architecture.arch != ARCHITECTURE:
        kind = "an object" if candidate.architecture is None else candidate.architecture.arch
        raise RecipeError(
            f"row {row.row} ({row.stage}): its model ({named(kind)}) came from no Hugging Face "
            f"folder, whose configuration such a folder needs; deploy {row.timed}."
        )
    assert isinstance(encoder, HubModel)
    checks = dict(_checks(inputs, encoder))
    axes = dict(list(_AXES.items())[: len(next(iter(checks)))])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch(out.parent) as folder:
            draft = Path(folder) / out.name
            draft.mkdir()
            made = lower_open(
                _tokenwise(candidate, next(iter(checks.values()))),
                OpenShapes(dict.fromkeys(encoder.input_names, axes), encoder.output_name),
                list(checks.values()),
                draft / MODEL,
            )
            result = HubExport(
                out,
                dict(zip(checks, made.parities, strict=True)),
                sum(part.stat().st_size for part in model_files(draft / MODEL)),
                HUB_TASKS[candidate.architecture.options["task"]].opened_by,
                made.warnings,
            )
            _write_beside(draft, candidate, source, row, result)
            if out.exists():
                out.replace(Path(folder) / "earlier")
            draft.replace(out)
    except OSError as error:
        raise StorageError(
            f"{out}: the folder could not be written ({error.strerror or error}); free space or "
            "choose another."
        ) from error
    return result


def _tokenwise(candidate: Candidate, example: Inputs) -> Candidate:
    """The candidate with outputs as transformers has them: of each token, not pooled, and last."""
    module = copy.deepcopy(candidate.module)
    if isinstance(module, Encoder):
        module.classes_first = False
        if module.pooling is not None:
            module.pooling, module.normalize = "none", False
    return replace(candidate, module=module, example=example)


def _checks(
    inputs: Inputs, model: HubModel
) -> Iterator[tuple[tuple[int, ...], dict[str, torch.Tensor]]]:
    """Batches of the model's inputs, by their open sizes: two batches and, of those, two lengths.

    Images have one size, and so have spectrograms.
    """
    first = model.input_names[0]
    whole = inputs if isinstance(inputs, dict) else {first: inputs}
    full = _with_all_inputs(whole) if isinstance(model, Encoder) else whole
    has_length = full[first].dim() == _OF_A_SEQUENCE
    length = full[first].shape[1]
    lengths = dict.fromkeys((length, max(1, length // 2))) if has_length else [length]
    for batch, length in product(_BATCHES, lengths):
        fitted = at_batch({name: full[name] for name in model.input_names}, batch)
        assert isinstance(fitted, dict)
        sizes = (batch, length) if has_length else (batch,)
        yield sizes, {n: tensor[:, :length].contiguous() for n, tensor in fitted.items()}


def _with_all_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of tokens with a mask, and the second half of each text as if it were another one."""
    ids = batch["input_ids"]
    kinds = torch.arange(ids.shape[1]).expand_as(ids) >= ids.shape[1] // 2
    mask = torch.ones_like(ids)
    return {"attention_mask": mask, "token_type_ids": kinds.to(ids.dtype), **batch}


def _write_beside(
    folder: Path, candidate: Candidate, source: Path, row: ExportedRow, result: HubExport
) -> None:
    """Everything but the model: configuration, tokenizer, and what the folder says of itself."""
    assert candidate.architecture is not None
    options = candidate.architecture.options
    for name in _to_copy(source, options):
        _copy(source, name, folder)
    config = pruned_config(candidate)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(_readme(row, options, result))
    names = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
    facts = {"schema": 1, "kind": HUB_EXPORT, **asdict(row), "files": names}
    facts["parity"] = [
        {**dict(zip(_AXES.values(), sizes, strict=False)), **_facts(parity)}
        for sizes, parity in result.parities.items()
    ]
    facts["attention_heads"] = _heads_left(candidate.module)
    (folder / HUB_EXPORT_NAME).write_text(json.dumps(facts, indent=1) + "\n")


def _facts(parity: Parity) -> dict[str, Any]:
    """Numbers as JSON has them: ``None`` for one that there is not."""
    outputs = {name: _facts(one) for name, one in parity.outputs.items()}
    numbers = {key: value for key, value in vars(parity).items() if key != "outputs"}
    facts = {k: None if v is None or not math.isfinite(v) else v for k, v in numbers.items()}
    return {**facts, "outputs": outputs} if outputs else facts


def pruned_config(candidate: Candidate) -> dict[str, Any]:
    """``config.json`` of what is left of a model: its layers and, where all have one, their width.

    The number of heads stays, since it says how wide a head is; how many are left in each layer is
    in the facts beside it.
    """
    architecture, encoder = candidate.architecture, candidate.module
    assert architecture is not None
    assert isinstance(encoder, HubModel)
    settings: Any = encoder.model.config
    config = {"architectures": [type(encoder.model).__name__], **architecture.options["config"]}
    whole = getattr(settings, "num_hidden_layers", None)
    blocks = _blocks_left(candidate)
    if blocks is not None:
        config[_own_key(settings, "num_hidden_layers")] = len(blocks)
        for key, value in config.items():
            if isinstance(value, list) and len(value) == whole and key.endswith("_types"):
                config[key] = [value[place] for place in blocks]
    key = _own_key(settings, "intermediate_size")
    width = _common_width(candidate, getattr(settings, key, None))
    return config if width is None else {**config, key: width}


def _blocks_left(candidate: Candidate) -> Sequence[int] | None:
    """Which blocks of its architecture a candidate still has; ``None`` for all of them."""
    assert candidate.architecture is not None
    kept, skips = candidate.architecture.blocks, [e for e in candidate.edits if e.kind == "skip"]
    if not skips:
        return kept
    row = blocks_of(candidate.module)
    gone = {edit.path for edit in skips}
    names = [f"{row}.{name}" for name, _ in candidate.module.get_submodule(row).named_children()]
    places = range(len(names)) if kept is None else kept
    return [place for place, name in zip(places, names, strict=True) if name not in gone]


def _own_key(settings: Any, key: str) -> str:
    """What a family's configuration calls a size."""
    return str(settings.attribute_map.get(key, key))


def _common_width(candidate: Candidate, before: object) -> int | None:
    """The width that all layers of this one width were cut to; ``None`` if they differ."""
    assert candidate.architecture is not None
    whole = build_hub_model(candidate.architecture.options)
    kept = dict(candidate.module.named_modules())
    found = {
        left.out_features
        for name, layer in whole.named_modules()
        if isinstance(layer, nn.Linear)
        and layer.out_features == before
        and isinstance(left := kept.get(name), nn.Linear)
    }
    return found.pop() if len(found) == 1 else None


def _heads_left(module: nn.Module) -> dict[str, int]:
    """Heads of each layer of attention: as it says, or by the width of its queries."""
    found = {name: _heads_of(layer) for name, layer in module.named_modules() if _projects(layer)}
    return {name: count for name, count in found.items() if count is not None}


def _heads_of(layer: nn.Module) -> int | None:
    # A number of heads that forward does not read stays what it was before a cut.
    width = _number_of(layer, _HEAD_WIDTHS)
    children = dict(layer.named_children())
    for name, parts in _QUERIES.items():
        queries = children.get(name)
        if isinstance(queries, nn.Linear) and width and queries.out_features % (parts * width) == 0:
            return queries.out_features // (parts * width)
    return _number_of(layer, _HEADS)


def _number_of(layer: nn.Module, keys: Sequence[str]) -> int | None:
    found = (getattr(layer, key, None) for key in keys)
    return next((one for one in found if isinstance(one, int)), None)


def _projects(layer: nn.Module) -> bool:
    """Whether matrices lie directly in a module; tables of embeddings are none."""
    weights = (getattr(c, "weight", None) for c in layer.children() if type(c) is not nn.Embedding)
    return any(isinstance(weight, torch.Tensor) and weight.dim() == 2 for weight in weights)


def _to_copy(source: Path, options: Mapping[str, Any]) -> Sequence[str]:
    pooling = options.get("pooling"), options.get("normalize")
    # Pooled otherwise than the folder says, its note would be about another model.
    says_so = (source / _SENTENCES[0]).is_file() and pooling_of(source) == pooling
    return _COPIED + _SENTENCES if says_so else _COPIED


def _copy(source: Path, name: str, folder: Path) -> None:
    place, _, file = name.rpartition("/")
    path = inside(source / place, file)
    if not path.is_file():
        return
    if path.stat().st_size > _MOST_COPIED_BYTES:
        raise CheckpointError(
            f"{named(path)}: it is larger than any file of a tokenizer or processor; move it away."
        )
    (folder / place).mkdir(exist_ok=True)
    shutil.copyfile(path, folder / name)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _readme(row: ExportedRow, options: Mapping[str, Any], result: HubExport) -> str:
    lines = "\n".join(
        f"| {' x '.join(map(str, sizes))} | {parity.max_error:.2g} | {parity.r_squared:.6f} |"
        for sizes, parity in result.parities.items()
    )
    names = list(_AXES.values())[: len(next(iter(result.parities)))]
    sizes = " x ".join(names)
    shapes = " ".join(f"--shape {name}=1" for name in names)
    return f"""# {row.recipe}, row {row.row} ({row.stage})

`model.onnx` leaves {" and ".join(names)} open. It was not timed: what the run measured is
`{row.timed}`, whose shapes are fixed. Measure this one by
`compresskit bench model.onnx {shapes}`, with the sizes that you have.

```python
from optimum.onnxruntime import {result.opened_by}

model = {result.opened_by}.from_pretrained("{result.folder.name}")
```

{_what_it_gives(options)}

Compared with the module that it was made from:

| {sizes} | largest error | R² |
|---|---|---|
{lines}
"""


def _what_it_gives(options: Mapping[str, Any]) -> str:
    pooling = options.get("pooling")
    if pooling is None:
        return "Its output is `logits`."
    first = "Its output is `last_hidden_state`"
    if pooling == "none":
        return f"{first}: a vector for each token."
    how = "mean over tokens that are no padding" if pooling == "mean" else "vector of its first"
    end = ", scaled to length 1" if options.get("normalize") else ""
    return f"{first}; what the run scored is the {how}{end}, which is left to the program."
