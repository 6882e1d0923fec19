"""Where forward passes run."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

from pythiageo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def resolve_device(name: str) -> str:
    """Return the device that a config's ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` stands for on this machine.

    ``split``, for a model too large for one GPU, stays ``split``: divided over all of them.

    Raises:
        UserError: a GPU that is not there, or fewer than two to divide a model over.
    """
    import torch  # noqa: PLC0415 - takes seconds; a config is read without it

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda:0" if count else "cpu"
    if name == "cpu":
        return name
    if name == "split":
        if count < 2:
            raise UserError(
                f"device 'split' divides a model over the GPUs, two or more of them: there are {count} here"
            )
        return name
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        there = "no GPU that torch can use" if not count else f"GPUs 0 to {count - 1} only"
        raise UserError(f"device {name!r}: there is {there}; --device cpu, or auto")
    return f"cuda:{index}"


def find_device_here(name: str) -> str:
    """Return the device on which work for a config's device can be tried here: a GPU's on the CPU where none is."""
    try:
        device = resolve_device(name)
    except UserError:
        return "cpu"
    return "cuda:0" if device == "split" else device


def count_cores() -> int:
    """Return the number of cores that this process may use: of its affinity, and of a container's quota."""
    import joblib  # type: ignore[import-untyped] # noqa: PLC0415

    return max(1, int(joblib.cpu_count()))


def free_memory(device: str) -> int:
    """Return how many bytes are free on a resolved device."""
    import torch  # noqa: PLC0415

    return psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info(device)[0]


def make_repeatable(device: str, strict: bool = True) -> None:
    """Have the same steps give the same bits on a resolved device; call it before anything is computed there.

    On the CPU they do anyway. On a GPU sums by atomic additions come in any order, and so do those of cuBLAS unless its
    workspace is fixed. ``strict``: what has no repeatable form is an error, and a warning otherwise.
    """
    if device == "cpu":
        return
    import torch  # noqa: PLC0415

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    # else it writes NaN into every new tensor first, to show who reads what nobody wrote
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@cache
def load_solvers(device: str) -> None:
    """Have torch load the solvers of a GPU: their first call must not be made by several threads at once."""
    import torch  # noqa: PLC0415

    torch.linalg.eigvalsh(torch.ones(1, 1, device=device))


def copy_to(tensor: Tensor, device: str) -> Tensor:
    """Return a tensor of the CPU on a resolved device, in its own type; on the CPU it is the same tensor.

    To a GPU it goes from pinned memory, three times as fast as from other, and nobody waits for it: torch keeps the
    pinned copy until it has been read.
    """
    return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def wait_for_device(device: str) -> None:
    """Return when a resolved device has done what it was given: on a GPU a call returns before its work does."""
    if device != "cpu":
        import torch  # noqa: PLC0415

        torch.cuda.synchronize(None if device == "split" else device)
