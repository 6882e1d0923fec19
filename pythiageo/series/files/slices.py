"""A few rows of two matrices of a checkpoint, read from its safetensors files by ranges of bytes.

The header of a safetensors file says where each tensor lies, so that a thousandth of a checkpoint can be read alone.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pythiageo.errors import CheckpointError, quote_error
from pythiageo.series.files.tensor_files import DTYPES
from pythiageo.series.files.weight_files import SAFETENSORS, Revision
from pythiageo.untrusted_files import MIB, BadFileError, open_plain, parse_json

ReadBytes = Callable[[str, int, int], bytes]
"""Of a file's name, a position and a count: exactly these bytes. Raises ``CheckpointError``."""
EMBEDDING, MIDDLE = "embedding", "middle"
"""The matrices that are looked at: of the input tokens, and one of the block in the middle."""
MOST_ROWS, LEAST_ROWS = 256, 4
_FIRST_HEADER = 16 * 2**10
"""Bytes that are asked for before it is known how long a header is: a small model's is whole in them."""
_HEADER_LIMIT = 16 * MIB
_FLOATS = ("F64", "F32", "F16", "BF16")
_BLOCK = re.compile(r"(?:^|\.)(\d+)\.")
_TOKENS = re.compile(r"(?:^|[._])(?:\w*embed\w*|emb|wte)\.weight$", re.IGNORECASE)
_POSITIONS = re.compile(r"pos|wpe|type|norm|ln", re.IGNORECASE)
_COMMON = 300
"""Row of the embedding from which rows are read: tokenizers number common tokens first, after bytes and special ones,
and common tokens move at every step."""


class Placed(NamedTuple):
    """Where a tensor lies: its file, the position of its first byte, its type and shape."""

    name: str
    file: str
    start: int
    dtype: str
    shape: tuple[int, ...]


class Rows(NamedTuple):
    """Some rows of a matrix, as stored: ``values`` (row, column), the first of them row ``first`` of ``shape``."""

    name: str
    shape: tuple[int, ...]
    first: int
    values: Tensor


def read_rows(revision: Revision, read: ReadBytes, budget: int) -> dict[str, Rows]:
    """Read some rows of the embedding and of a matrix of the middle block; the same ones for equal shapes.

    ``budget``: bytes of each, at most, if it were stored in float32.

    Raises:
        CheckpointError: the weights are in no safetensors file; a header or a file is not what it says; there is no
            such matrix.
    """
    found = choose_matrices(_find_tensors(revision, read))
    return {role: _read(placed, role, read, budget) for role, placed in found.items()}


def choose_matrices(tensors: Iterable[Placed]) -> dict[str, Placed]:
    """Return the token embedding, and of the block in the middle the largest matrix that reads the residual stream.

    Raises:
        CheckpointError: there is neither.
    """
    matrices = [one for one in tensors if len(one.shape) == 2 and min(one.shape) > 1 and one.dtype in _FLOATS]
    tokens = [one for one in matrices if _is_embedding(one.name)]
    found = {}
    if tokens:
        found[EMBEDDING] = max(tokens, key=lambda one: (math.prod(one.shape), one.name))
    block = _middle_block(one.name for one in matrices)
    inside = [one for one in matrices if block is not None and block_of(one.name) == block]
    width = found[EMBEDDING].shape[1] if EMBEDDING in found else None
    if inside:
        found[MIDDLE] = max(inside, key=lambda one: (one.shape[1] == width, math.prod(one.shape), one.name))
    if not found:
        raise CheckpointError("it has neither an embedding nor a matrix in a block that could be found by name")
    return found


def _find_tensors(revision: Revision, read: ReadBytes) -> list[Placed]:
    """Return the tensors among which the two are; of a sharded checkpoint only the headers that they lie behind."""
    files = {file.name: file.size for file in revision.read_files(SAFETENSORS)}
    if not files:
        kinds = " and ".join(f".{kind}" for kind in revision.formats)
        raise CheckpointError(f"it has {kinds or 'no'} weights alone, of which no range can be read")
    weight_map = revision.weight_maps.get(SAFETENSORS)
    if len(files) > 1 and weight_map:
        block = _middle_block(weight_map)
        wanted = {weight_map[name] for name in weight_map if _is_embedding(name) or block_of(name) == block}
        files = {name: size for name, size in files.items() if name in wanted}
    return [placed for name, size in files.items() for placed in read_header(name, size, read)]


def read_part(path: Path, start: int, count: int) -> bytes:
    """Return ``count`` bytes of a plain file from position ``start`` on.

    Raises:
        CheckpointError: it cannot be read, or ends before.
    """
    try:
        with open_plain(path) as file:
            file.seek(start)
            content = file.read(count)
    except (OSError, BadFileError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {quote_error(error)}") from None
    if len(content) != count:
        raise CheckpointError(f"{path.name} ends early")
    return content


def read_header(file: str, size: int, read: ReadBytes) -> list[Placed]:
    """Return where the tensors of a safetensors file of ``size`` bytes lie.

    Raises:
        CheckpointError: it is none, or says what cannot be.
    """
    begun = read(file, 0, min(size, _FIRST_HEADER))
    (length,) = struct.unpack("<Q", begun[:8]) if len(begun) >= 8 else (size,)
    if length > min(size - 8, _HEADER_LIMIT):
        raise CheckpointError(f"{file} has no header of safetensors")
    text = begun[8 : 8 + length]
    if len(text) < length:
        text += read(file, 8 + len(text), length - len(text))
    try:
        header = parse_json(text.decode("utf-8"))
        entries = [(str(name), entry) for name, entry in header.items() if name != "__metadata__"]
        return [_placed(file, size, 8 + length, name, entry) for name, entry in entries]
    except (BadFileError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file} has a damaged header") from None


def _placed(file: str, size: int, begin: int, name: str, entry: Mapping[str, Any]) -> Placed:
    dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
    if not whole or begin + end > size or start > end:
        raise ValueError(name)
    if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != end - start:
        raise ValueError(name)
    return Placed(name, file, begin + start, dtype, shape)


def _read(placed: Placed, role: str, read: ReadBytes, budget: int) -> Rows:
    rows, columns = placed.shape
    count = min(rows, MOST_ROWS, max(LEAST_ROWS, budget // (4 * columns)))
    first = (rows - count) // 2 if role == MIDDLE else min(_COMMON, (rows - count) // 2)
    dtype = DTYPES[placed.dtype]
    stride = columns * dtype.itemsize
    content = read(placed.file, placed.start + first * stride, count * stride)
    values = torch.frombuffer(bytearray(content), dtype=dtype).reshape(count, columns)
    return Rows(placed.name, placed.shape, first, values)


def _is_embedding(name: str) -> bool:
    return block_of(name) is None and bool(_TOKENS.search(name)) and not _POSITIONS.search(name)


def block_of(name: str) -> int | None:
    """Return the number of the block that a tensor of this name lies in, ``None`` outside of blocks."""
    match = _BLOCK.search(name)
    return int(match[1]) if match else None


def _middle_block(names: Iterable[str]) -> int | None:
    blocks = sorted({block for name in names if (block := block_of(name)) is not None})
    return blocks[len(blocks) // 2] if blocks else None
