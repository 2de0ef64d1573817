"""Files of weights: safetensors, and what ``torch.save`` writes, read as a stranger's.

Nothing of a file is run. A pickle is opened by torch's own reader of tensors alone, once the
archive around it was looked at, and one that needs code is refused with the line that converts it.
"""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.io.archives import check_stored, open_archive
from compress.io.files import memory_bytes, named, opened, parse_json, size_words

__all__ = ["as_in_model", "not_finite", "read_safetensors", "read_weights", "without_prefix"]

_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 64 << 20
_MOST_TENSORS = 100_000
_MOST_DEPTH = 4

_ZIP, _TAR, _TAR_AT = b"PK\x03\x04", b"ustar", 257
_PROTOCOLS = tuple(bytes([0x80, number]) for number in range(2, 6))
# Under which keys trainings keep what a module's state_dict gives; averages last.
_WRAPPERS: tuple[str, ...] = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "weights",
)
_WRAPPERS += ("params", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema")
# What several processes, torch.compile, averaging and Lightning put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_AVERAGED = "n_averaged"
_CONVERT = (
    "import sys, torch, safetensors.torch as s; m = torch.load(sys.argv[1], map_location='cpu', "
    "weights_only=False); m = m.get('model', m.get('state_dict', m)) if isinstance(m, dict) else "
    "m; m = m.state_dict() if hasattr(m, 'state_dict') else m; s.save_file({k: v.detach().clone()."
    "contiguous() for k, v in m.items()}, sys.argv[2])"
)
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)|class ([\w.]+)|[Uu]nsupported (?:global|class) ([\w.]+)")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, mapped from it: safetensors, or a zip of ``torch.save``.

    Of what ``torch.save`` wrote, the ``state_dict`` inside is looked for.

    Raises:
        CheckpointError: no such file, a damaged one, another format, or one that needs code.
    """
    with opened(path, CheckpointError) as stream:
        start = stream.read(_TAR_AT + len(_TAR))
        if start.startswith(_ZIP):
            _check_archive(stream, path)
        elif _is_pickle(start) or start[_TAR_AT:] == _TAR:
            _refuse_code(path, "a pickle without torch's archive around it, as of torch before 1.6")
        else:
            _check_header(stream, path)
    if start.startswith(_ZIP):
        return _state_in(path, _unpickled(path))
    return _mapped(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, mapped from it.

    Raises:
        CheckpointError: no such file, a damaged one, or another format.
    """
    with opened(path, CheckpointError) as stream:
        _check_header(stream, path)
    return _mapped(path)


def without_prefix(tensors: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The tensors without what wrappers put before every name, where the model's have it not."""
    known, found = set(own), dict(tensors)
    if _AVERAGED in found and _AVERAGED not in known:
        del found[_AVERAGED]
    prefixes = [p for p in _PREFIXES if not any(name.startswith(p) for name in known)]
    while found and (same := [p for p in prefixes if all(n.startswith(p) for n in found)]):
        found = {name.removeprefix(same[0]): tensor for name, tensor in found.items()}
    return found


def as_in_model(
    path: Path, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors in the dtypes that ``own`` has under their names.

    Floats become other floats and whole numbers wider ones; nothing else becomes anything else.

    Raises:
        CheckpointError: a dtype that would lose what the file says.
    """
    found = {}
    for name, tensor in tensors.items():
        wanted = own[name].dtype
        if not _becomes(tensor, wanted):
            raise CheckpointError(
                f"{named(path)}: {named(name)!r} is {_name(tensor.dtype)} and the model has "
                f"{_name(wanted)}, which it cannot become; save it as {_name(wanted)}."
            )
        found[name] = tensor.to(wanted)
    return found


def not_finite(tensors: Mapping[str, Tensor], parameters: Iterable[str]) -> str:
    """Which tensors hold NaN, and which of the parameters infinity, in words; empty if none.

    A buffer may be infinite: masks are.
    """
    learned = set(parameters)
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
        and not bool((torch.isfinite(tensor) if name in learned else ~torch.isnan(tensor)).all())
    ]
    if not bad:
        return ""
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"{named(bad[0])!r}{more} hold{'' if more else 's'} values that are not finite"


def _becomes(tensor: Tensor, wanted: torch.dtype) -> bool:
    given = tensor.dtype
    if given == wanted:
        return True
    if wanted.is_floating_point:
        return given in _FLOATS and wanted in _FLOATS
    of_others = any(d.is_complex or d.is_floating_point for d in (given, wanted))
    if of_others or torch.bool in (given, wanted) or not tensor.numel():
        return False
    limits = torch.iinfo(wanted)
    return limits.min <= int(tensor.min()) and int(tensor.max()) <= limits.max


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# -- safetensors ------------------------------------------------------------------------------


def _check_header(stream: BinaryIO, path: Path) -> None:
    """Read the header within bounds: the library would make all of it, whatever there is."""
    size = stream.seek(0, 2)
    stream.seek(0)
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    if not 2 <= length <= size - _LENGTH_BYTES:
        raise _unreadable(path, f"it has {size:,} bytes and says that {length:,} are its header")
    if (memory := memory_bytes()) is not None and size > memory:
        raise _unreadable(path, f"it has {size_words(size)}, and this machine {size_words(memory)}")
    if length > _MOST_HEADER_BYTES:
        raise _unreadable(path, f"its header has more than {_MOST_HEADER_BYTES >> 20} MiB")
    try:
        text = stream.read(length)
        header = parse_json(text)
        json.loads(text, object_pairs_hook=_each_once)
    except (OSError, ValueError) as error:
        raise _unreadable(path, named(error)) from error
    if not isinstance(header, dict) or len(header) > _MOST_TENSORS:
        what = f"a mapping of up to {_MOST_TENSORS:,} tensors"
        raise _unreadable(path, f"its header is not {what}")


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {twice!r} twice")


def _mapped(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:  # of a damaged file the library raises errors of many kinds
        raise _unreadable(path, named(error)) from error


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{named(path)}: not a readable safetensors file, nor one of torch.save ({why.rstrip('.')})"
        "; copy it again, or save the weights with safetensors.torch.save_file."
    )


# -- what torch.save writes -------------------------------------------------------------------


def _check_archive(stream: BinaryIO, path: Path) -> None:
    archive = open_archive(stream, path, CheckpointError)
    names = archive.namelist()
    folders = {name.partition("/")[0] for name in names}
    parts = [part for name in names for part in name.split("/")]
    if ".." in parts or any(name.startswith("/") or "\\" in name for name in names):
        raise CheckpointError(f"{named(path)}: a member of the archive leads out of it.")
    if len(folders) != 1 or f"{min(folders)}/data.pkl" not in names:
        raise CheckpointError(f"{named(path)}: a zip archive, but none that torch.save wrote.")
    if any(name.partition("/")[2].startswith("code/") for name in names):
        _refuse_code(path, "a program of TorchScript")
    check_stored(archive, path, stream.seek(0, 2), CheckpointError)


def _is_pickle(start: bytes) -> bool:
    # The length of a safetensors header may begin with the same bytes.
    return start.startswith(_PROTOCOLS) and start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{"


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about storages of older files
            if path.suffix != ".safetensors":  # which torch goes by
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with opened(path, CheckpointError) as stream:
                return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a forged pickle brings torch's reader to
        if found := _GLOBAL.search(str(error)):
            name = next(group for group in found.groups() if group)
            _refuse_code(path, f"objects of Python ({name.rstrip('.')})", error)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{named(path)}: a damaged file of torch.save ({named(lines[0]).rstrip('.')}); copy it "
            "again."
        ) from error


def _refuse_code(path: Path, what: str, cause: Exception | None = None) -> NoReturn:
    texts = [str(path), str(path.with_suffix(".safetensors"))]
    files = " ".join(shlex.quote(text if text.isprintable() else named(text)) for text in texts)
    raise CheckpointError(
        f"{named(path)}: it holds {what}, which cannot be opened without running its code; only if "
        f'you trust who made it, convert it: python -c "{_CONVERT}" {files}'
    ) from cause


def _state_in(path: Path, given: Any) -> dict[str, Tensor]:
    """The tensors by name, from under the keys that trainings keep them under."""
    for _ in range(_MOST_DEPTH):
        if not isinstance(given, dict) or _is_state(given):
            break
        inner = next((given[key] for key in _WRAPPERS if isinstance(given.get(key), dict)), None)
        if inner is None:
            break
        given = inner
    if not isinstance(given, dict):
        raise CheckpointError(
            f"{named(path)}: it holds {type(given).__name__} where weights are a mapping of names "
            "to tensors; save what state_dict() gives."
        )
    others = [key for key, value in given.items() if not _is_plain(value)]
    if others or not given:
        found = f"{named(others[0])!r} is {_described(given[others[0]])}" if others else "is empty"
        raise CheckpointError(
            f"{named(path)}: its mapping holds other things than weights ({found}); save what "
            "state_dict() gives, or that under the key state_dict."
        )
    return {str(name): tensor.detach() for name, tensor in given.items()}


def _is_state(given: Mapping[Any, Any]) -> bool:
    return bool(given) and all(isinstance(value, Tensor) for value in given.values())


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose values lie in the file."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
    )


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    kind = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")
    return f"a tensor that is {kind if value.device.type == 'cpu' else value.device.type}"
