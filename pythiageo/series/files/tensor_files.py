"""The tensors of a checkpoint's files, read one at a time, each file's bytes once."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pythiageo.errors import CheckpointError, first_line
from pythiageo.series.files.fingerprint import TensorFacts, examine

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
_JSON_LIMIT = 16 * 2**20
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class StoredTensor:
    """A tensor still in its file; ``stored[...]`` reads it, and notes its facts on the way.

    transformers asks for a tensor's data just so when it fills a model, so that no second copy of all weights exists.
    """

    def __init__(self, name: str, read: Callable[[], Tensor]) -> None:
        self._name = name
        self._read = read
        self._facts: TensorFacts | None = None

    def __getitem__(self, _: Any) -> Tensor:
        tensor = self._read()
        if self._facts is None:
            self._facts = examine(self._name, tensor)
        return tensor

    @property
    def facts(self) -> TensorFacts:
        """Digest and finiteness; reads the tensor if nobody has yet."""
        if self._facts is None:
            self[...]
        assert self._facts is not None
        return self._facts


def read_json(path: Path, label: str) -> dict[str, Any]:
    """Return a checkpoint's JSON file.

    Raises:
        CheckpointError: missing, too large, damaged, or no object.
    """
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise CheckpointError(f"{label}: {path.name} is too large to be what its name says")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{label}: not a checkpoint: expected a {path.name} and weights") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{label}: {path.name} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{label}: {path.name} must hold a JSON object")
    return value


def weight_files(folder: Path, label: str, names: Sequence[str] = (SAFETENSORS, BIN)) -> list[Path]:
    """Return the files that hold the weights: safetensors where there are any, else ``.bin``; whole before sharded.

    ``names`` restricts them to a format.

    Raises:
        CheckpointError: none, a shard that the index names and is not there, or an index that leaves the folder.
    """
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = read_json(index, label).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{label}: {index.name} names no weights")
            shards = sorted({str(shard) for shard in weight_map.values()})
            for shard in shards:
                if Path(shard).name != shard or shard in {"", ".", ".."}:
                    raise CheckpointError(f"{label}: {index.name} names a file outside the checkpoint: {shard!r}")
                if not (folder / shard).is_file():
                    raise CheckpointError(f"{label}: the shard {shard} that {index.name} names is missing")
            return [folder / shard for shard in shards]
    raise CheckpointError(f"{label}: not a checkpoint: expected {' or '.join(names)}, whole or with an index")


def stored_tensors(folder: Path, label: str, names: Sequence[str] = (SAFETENSORS, BIN)) -> dict[str, StoredTensor]:
    """Return the tensors of a checkpoint's weight files by name, none of them read yet; ``names`` as above.

    Raises:
        CheckpointError: a file is missing, damaged, cut short, holds something else than tensors, or a tensor that
            another file holds too.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder, label, names):
        try:
            part = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
        except CheckpointError as error:
            raise CheckpointError(f"{label}: {path.name} {error}") from None
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
            raise CheckpointError(f"{label}: {path.name} is damaged or cut short: {first_line(error)}") from None
        except Exception as error:  # weights_only=True refuses with pickle's own errors
            raise CheckpointError(f"{label}: {path.name} is not a plain tensor file: {first_line(error)}") from None
        if part is None:
            raise CheckpointError(f"{label}: {path.name} holds something else than tensors")
        if twice := sorted(tensors.keys() & part.keys()):
            raise CheckpointError(f"{label}: {twice[0]} is in more than one file, {path.name} among them")
        tensors |= part
    return tensors


def _safetensors(path: Path) -> dict[str, StoredTensor]:
    """Read by file position, not by memory map: mapped pages would count as a second copy of the weights."""
    with safe_open(path, framework="pt"):
        pass  # the library has checked header, offsets and length now
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: StoredTensor(name, _reader(path, 8 + length, entry)) for name, entry in header.items()}


def _reader(path: Path, start: int, entry: dict[str, Any]) -> Callable[[], Tensor]:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(f"holds {entry['dtype']} tensors; expected one of {', '.join(_DTYPES)}")
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])

    def read() -> Tensor:
        if begin == end:
            return torch.empty(shape, dtype=dtype)
        buffer = bytearray(end - begin)
        with path.open("rb", buffering=0) as file:
            file.seek(start + begin)
            view = memoryview(buffer)
            while view:
                count = file.readinto(view)
                if not count:
                    raise OSError(f"{path.name} ends early")
                view = view[count:]
        return torch.frombuffer(buffer, dtype=dtype).reshape(shape)

    return read


def _pickled(path: Path) -> dict[str, StoredTensor] | None:
    part = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    if not isinstance(part, dict) or not all(isinstance(tensor, Tensor) for tensor in part.values()):
        return None
    # each entry drops its reference once the model has its copy; `tensor` is bound when the entry is made
    return {name: StoredTensor(name, lambda tensor=tensor: tensor) for name, tensor in part.items()}  # type: ignore[misc]


def _is_zip(path: Path) -> bool:
    """Return whether torch saved it in its zip format, the one that can be mapped."""
    with path.open("rb") as file:
        return os.path.getsize(path) > 4 and file.read(4) == b"PK\x03\x04"
