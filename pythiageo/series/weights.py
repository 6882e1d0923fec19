"""A checkpoint's weights as data: their fingerprint, and whether they hold anything but finite numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, dtypes, shapes and raw bytes of ``tensors``, in the order of their names.

    The same tensors give the same fingerprint from any file format; a changed name, dtype, shape or bit another one.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if not tensor.numel():
            continue
        flat = tensor.reshape(-1)
        if flat.stride(0) != 1:  # a single element may keep a stride that its bytes cannot be viewed with
            flat = flat.clone(memory_format=torch.contiguous_format)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return which tensor (first by name) holds NaN or infinity and how many values of all do, or ``None``."""
    counts = {
        name: int((~torch.isfinite(tensor)).sum()) for name, tensor in tensors.items() if tensor.is_floating_point()
    }
    bad = sorted(name for name, count in counts.items() if count)
    if not bad:
        return None
    others = f" and {len(bad) - 1} other tensors" if len(bad) > 1 else ""
    return f"weights hold NaN or infinity: {sum(counts.values())} values in {bad[0]}{others}"
