"""A checkpoint's weights as data: their fingerprint, and whether they hold anything but finite numbers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

PIECE = 2**18
"""Values that are looked at, and converted, at one time: few enough to stay in a core's cache meanwhile."""
_LOOKED_AT = (torch.float16, torch.bfloat16, torch.float32)
"""Types that are looked at as they are: float32 holds no number that they do not."""


class TensorFacts(NamedTuple):
    """What is kept of one tensor: its name, a digest of dtype, shape and bytes, and how many values are not finite.

    Not finite in float32, in which weights are read: a float64 beyond its range counts too.
    """

    name: str
    digest: str
    nonfinite: int


class Examination:
    """Takes one tensor's values, in their order, piece by piece: looking at a large one makes no second one."""

    def __init__(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self._name = name
        self._digest = hashlib.sha256(f"{dtype}\0{shape}\0".encode())
        self._nonfinite = 0

    def add(self, piece: Tensor) -> None:
        """Take the next values, a flat tensor on the CPU without gaps."""
        self._digest.update(piece.view(torch.uint8).numpy().data)
        if not piece.is_floating_point():
            return
        if piece.dtype not in _LOOKED_AT:
            piece = piece.float()
        # NaN among them is both: one look that makes no second tensor, ten times as fast as isfinite
        least, greatest = torch.aminmax(piece)
        if not (math.isfinite(least) and math.isfinite(greatest)):
            self._nonfinite += piece.numel() - int(torch.isfinite(piece).sum())

    def facts(self) -> TensorFacts:
        """Return what was found."""
        return TensorFacts(self._name, self._digest.hexdigest(), self._nonfinite)


def examine(name: str, tensor: Tensor) -> TensorFacts:
    """Return the facts of one tensor."""
    examination = Examination(name, tensor.dtype, tuple(tensor.shape))
    for piece in pieces_of(tensor):
        examination.add(piece)
    return examination.facts()


def pieces_of(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor's values in their order, flat, on the CPU, no more than ``PIECE`` of them at a time."""
    flat = tensor.detach().cpu().reshape(-1)
    if not flat.numel():
        return
    if flat.stride(0) != 1:  # a single element may keep a stride that its bytes cannot be viewed with
        flat = flat.clone(memory_format=torch.contiguous_format)
    yield from flat.split(PIECE)


def combine(facts: Iterable[TensorFacts]) -> str:
    """Return the fingerprint: sha256 over all tensors' names and digests, in the order of their names.

    The same tensors give the same fingerprint from any file format and in any order; a changed name, dtype, shape or
    bit another one.
    """
    digest = hashlib.sha256()
    for fact in sorted(facts):
        digest.update(f"{fact.name}\0{fact.digest}\n".encode())
    return digest.hexdigest()


def describe_nonfinite(facts: Iterable[TensorFacts]) -> str | None:
    """Return which tensor (first by name) holds NaN or infinity and how many values of all do, or ``None``."""
    bad = sorted(fact for fact in facts if fact.nonfinite)
    if not bad:
        return None
    others = f" and {len(bad) - 1} other tensors" if len(bad) > 1 else ""
    return f"weights hold NaN or infinity: {sum(fact.nonfinite for fact in bad)} values in {bad[0].name}{others}"


def examine_all(tensors: Mapping[str, Tensor]) -> list[TensorFacts]:
    """Return the facts of tensors in memory."""
    return [examine(name, tensor) for name, tensor in tensors.items()]
