"""A checkpoint's weights as data: their fingerprint, and whether they hold anything but finite numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class TensorFacts(NamedTuple):
    """What is kept of one tensor: its name, a digest of dtype, shape and bytes, and how many values are not finite.

    Not finite in float32, in which weights are read: a float64 beyond its range counts too.
    """

    name: str
    digest: str
    nonfinite: int


def examine(name: str, tensor: Tensor) -> TensorFacts:
    """Return the facts of one tensor."""
    tensor = tensor.detach().cpu()
    digest = hashlib.sha256(f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    if tensor.numel():
        flat = tensor.reshape(-1)
        if flat.stride(0) != 1:  # a single element may keep a stride that its bytes cannot be viewed with
            flat = flat.clone(memory_format=torch.contiguous_format)
        digest.update(flat.view(torch.uint8).numpy().data)
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    finite = torch.isfinite(tensor) if tensor.is_floating_point() else torch.ones((), dtype=torch.bool)
    return TensorFacts(name, digest.hexdigest(), int(finite.numel() - finite.sum()))


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
