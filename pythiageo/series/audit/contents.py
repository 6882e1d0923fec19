"""Whether the ``.safetensors`` and the ``.bin`` of a step hold the same tensors: their contents, not their hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from pythiageo.errors import CheckpointError
from pythiageo.series.files.fingerprint import examine
from pythiageo.series.files.tensor_files import BIN, SAFETENSORS, StoredTensor, stored_tensors

Weights = Tensor | StoredTensor

AGREE, DIFFER, ONE_FORMAT, UNREADABLE = "agree", "differ", "one-format", "unreadable"


class Contents(NamedTuple):
    """How the two formats of a step compare; counts are of tensors, ``None`` where nothing was compared."""

    step: int
    status: str
    reason: str
    common: int | None = None
    different: int | None = None
    only_safetensors: int | None = None
    only_bin: int | None = None


@runtime_checkable
class BothFormats(Protocol):
    """A series that can lay out all weight files of a step in a folder."""

    def all_weights(self, step: int) -> AbstractContextManager[Path]:
        """Give a folder with the weight files of a step in every format, for as long as the context is open.

        Raises:
            CheckpointError: they cannot be had.
        """


def compare_formats(series: BothFormats, steps: Sequence[int]) -> Iterator[Contents]:
    """Yield how the formats of each step compare; the files of one step are there at a time."""
    for step in steps:
        try:
            with series.all_weights(step) as folder:
                yield _compare_folder(step, folder)
        except CheckpointError as error:
            yield Contents(step, UNREADABLE, str(error))


def _compare_folder(step: int, folder: Path) -> Contents:
    label = f"step{step}"
    there = [
        name for name in (SAFETENSORS, BIN) if (folder / name).is_file() or (folder / f"{name}.index.json").is_file()
    ]
    if len(there) < 2:
        kinds = f"there is only {there[0]}" if there else "there are no weights"
        return Contents(step, ONE_FORMAT, kinds)
    first, second = (stored_tensors(folder, label, (name,)) for name in there)
    return compare_tensors(step, first, second)


def compare_tensors(step: int, safetensors: Mapping[str, Weights], pickled: Mapping[str, Weights]) -> Contents:
    """Compare tensors of equal names by dtype, shape and bits.

    Tensors that only one side has are counted, and are no difference: ``.bin`` files hold buffers, and ``.safetensors``
    leave out a tensor that is tied to another.
    """
    common = sorted(safetensors.keys() & pickled.keys())
    different = [name for name in common if _digest(safetensors[name]) != _digest(pickled[name])]
    if not common:
        status, reason = DIFFER, "they have no tensor name in common"
    elif different:
        first = different[0]
        status = DIFFER
        how = _how(safetensors[first][...], pickled[first][...])
        reason = f"{len(different)} of {len(common)} tensors differ, {first}{how}"
    else:
        status, reason = AGREE, f"all {len(common)} tensors that both have are the same, bit by bit"
    alone = len(safetensors) - len(common), len(pickled) - len(common)
    return Contents(step, status, reason, len(common), len(different), *alone)


def _digest(tensor: Weights) -> str:
    return examine("", tensor[...]).digest


def _how(first: Tensor, second: Tensor) -> str:
    if first.shape != second.shape:
        return f" in shape ({tuple(first.shape)}, {tuple(second.shape)})"
    if first.dtype != second.dtype:
        return f" in dtype ({first.dtype}, {second.dtype})"
    return f" by {(first.double() - second.double()).abs().max().item():.3g} at most"
