"""The tensors of a checkpoint's files, read one at a time, each file's bytes once."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pythiageo.compute.device import copy_to
from pythiageo.compute.threads import torch_threads
from pythiageo.errors import CheckpointError, quote_error, raise_if_memory
from pythiageo.series.files.fingerprint import PIECE, Examination, TensorFacts, examine, pieces_of
from pythiageo.untrusted_files import MIB, BadFileError, is_plain
from pythiageo.untrusted_files import read_json as read_json_file

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
_PICKLE_LIMIT = 64 * MIB
"""Bytes of the pickle inside a ``.bin``: it names tensors, and holds none."""
_SHARED = 4
"""How many times its own bytes the tensors of a ``.bin`` may take together: tied ones share theirs."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Half(NamedTuple):
    """A tensor of a type of half float32's bytes: its shape, and how to read its values in order, flat, in pieces.

    The next piece may come in the memory of the one before.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[Tensor]]

    @classmethod
    def of(cls, dtype: torch.dtype, shape: Sequence[int], pieces: Callable[[], Iterator[Tensor]]) -> Half | None:
        """Return it if the type is one, and there are values."""
        there = dtype in {torch.float16, torch.bfloat16} and 0 not in shape
        return cls(dtype, tuple(shape), pieces) if there else None


class StoredTensor:
    """A tensor still in its file; ``stored[...]`` reads it, and notes its facts on the way.

    ``half``: how to read it in pieces, if it is stored in float16 or bfloat16.
    """

    def __init__(self, name: str, read: Callable[[], Tensor], half: Half | None = None, count: int = 0) -> None:
        self._name = name
        self.count = count
        """How many numbers it holds."""
        self._read = read
        self._half = half
        self._facts: TensorFacts | None = None

    def __getitem__(self, _: Any) -> Tensor:
        tensor = self._read()
        if self._facts is None:
            self._facts = examine(self._name, tensor)
        return tensor

    def widen(self, device: str = "cpu") -> Tensor:
        """Return it as stored, but float16 and bfloat16, which are a part of it, in float32 and on ``device``.

        They are read piece by piece into their place: both types of a large tensor are never in memory together. To a
        GPU they go as stored, half the bytes, and are widened there; a tensor of another type stays on the CPU.
        """
        if self._half is None:
            return self[...]
        examination = Examination(self._name, self._half.dtype, self._half.shape)
        tensor = torch.empty(self._half.shape, dtype=torch.float32, device=device)
        places = tensor.view(-1).split(PIECE)
        with torch_threads(1):  # transformers asks for several tensors at a time
            for place, piece in zip(places, self._half.pieces(), strict=True):
                place.copy_(copy_to(piece, device))
                examination.add(piece)
        if self._facts is None:
            self._facts = examination.facts()
        return tensor

    @property
    def facts(self) -> TensorFacts:
        """Digest and finiteness; reads the tensor if nobody has yet."""
        if self._facts is None:
            self[...]
        assert self._facts is not None
        return self._facts


class Widened:
    """A stored tensor in a state dict: transformers asks for its data with ``[...]`` when it fills a model.

    So no second copy of the weights exists.
    """

    def __init__(self, stored: StoredTensor, device: str) -> None:
        self._stored = stored
        self._device = device

    def __getitem__(self, _: Any) -> Tensor:
        return self._stored.widen(self._device)


def read_json(path: Path, label: str) -> dict[str, Any]:
    """Return a checkpoint's JSON file.

    Raises:
        CheckpointError: missing, too large, damaged, or no object.
    """
    try:
        value = read_json_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{label}: not a checkpoint: expected a {path.name} and weights") from None
    except BadFileError as error:
        raise CheckpointError(f"{label}: {path.name} cannot be read: it {error}") from None
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
        if is_plain(folder / name):
            return [folder / name]
        index = folder / f"{name}.index.json"
        if is_plain(index):
            weight_map = read_json(index, label).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{label}: {index.name} names no weights")
            shards = sorted({str(shard) for shard in weight_map.values()})
            for shard in shards:
                if Path(shard).name != shard or shard in {"", ".", ".."}:
                    raise CheckpointError(f"{label}: {index.name} names a file outside the checkpoint: {shard[:80]!r}")
                if not is_plain(folder / shard):
                    raise CheckpointError(f"{label}: the shard {shard[:80]} that {index.name} names is missing")
            return [folder / shard for shard in shards]
    raise CheckpointError(f"{label}: not a checkpoint: expected {' or '.join(names)}, whole or with an index")


def stored_tensors(folder: Path, label: str, names: Sequence[str] = (SAFETENSORS, BIN)) -> dict[str, StoredTensor]:
    """Return the tensors of a checkpoint's weight files by name, none of them read yet; ``names`` as above.

    Raises:
        CheckpointError: a file is missing, damaged, cut short, holds something else than tensors, or a tensor that
            another file holds too.
        MachineError: memory runs out.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder, label, names):
        try:
            part = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
        except CheckpointError as error:
            raise CheckpointError(f"{label}: {path.name} {error}") from None
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
            raise_if_memory(error, f"{label} was opened")
            raise CheckpointError(f"{label}: {path.name} is damaged or cut short: {quote_error(error)}") from None
        except Exception as error:  # weights_only=True refuses with pickle's own errors
            raise_if_memory(error, f"{label} was opened")
            raise CheckpointError(f"{label}: {path.name} is not a plain tensor file: {quote_error(error)}") from None
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
    return {
        name: StoredTensor(name, *_reader(path, 8 + length, entry), count=math.prod(entry["shape"]))
        for name, entry in header.items()
    }


def _reader(path: Path, start: int, entry: dict[str, Any]) -> tuple[Callable[[], Tensor], Half | None]:
    """Return how to read a tensor whole, and how to in pieces if it is stored in half of float32's bytes."""
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(f"holds {entry['dtype']} tensors; expected one of {', '.join(DTYPES)}")
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])

    def parts(size: int) -> Iterator[Tensor]:
        with path.open("rb", buffering=0) as file:
            file.seek(start + begin)
            buffer = bytearray(min(size, end - begin))  # one for all: fresh memory takes longer than reading into it
            for first in range(begin, end, size):
                count = min(size, end - first)
                view = memoryview(buffer)[:count]
                while view:
                    came = file.readinto(view)
                    if not came:
                        raise OSError(f"{path.name} ends early")
                    view = view[came:]
                yield torch.frombuffer(buffer, dtype=dtype, count=count // dtype.itemsize)

    def read() -> Tensor:
        return next(parts(end - begin)).reshape(shape) if begin < end else torch.empty(shape, dtype=dtype)

    return read, Half.of(dtype, shape, partial(parts, PIECE * dtype.itemsize))


def _pickled(path: Path) -> dict[str, StoredTensor] | None:
    size, zipped = path.stat().st_size, _is_zip(path)
    if zipped:
        _check_records(path, size)
    part = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    if not isinstance(part, dict) or not all(isinstance(tensor, Tensor) for tensor in part.values()):
        return None
    if sum(tensor.numel() * tensor.element_size() for tensor in part.values()) > _SHARED * size + MIB:
        raise CheckpointError(f"holds tensors that take far more than its {size:,} bytes")
    return {name: _mapped(name, tensor) for name, tensor in part.items()}


def _mapped(name: str, tensor: Tensor) -> StoredTensor:
    half = Half.of(tensor.dtype, tensor.shape, partial(pieces_of, tensor))
    return StoredTensor(name, lambda: tensor, half, tensor.numel())


def _is_zip(path: Path) -> bool:
    """Return whether torch saved it in its zip format, the one that can be mapped."""
    with path.open("rb") as file:
        return file.read(5)[:4] == b"PK\x03\x04"


def _check_records(path: Path, size: int) -> None:
    """Refuse a zip of which more could come than it holds; its directory tells, so nothing is unpacked.

    Raises:
        CheckpointError: compressed records, which torch never writes, or records that lie in one another.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError("holds compressed records, which torch never writes; they were not unpacked")
    if sum(record.file_size for record in records) > size:
        raise CheckpointError(f"says that it holds more than its {size:,} bytes; it was not unpacked")
    if any(record.file_size > _PICKLE_LIMIT for record in records if record.filename.endswith("data.pkl")):
        raise CheckpointError(f"holds a pickle of more than {_PICKLE_LIMIT:,} bytes; it was not unpacked")
