"""Where forward passes run."""

from __future__ import annotations

from pythiageo.errors import UserError


def resolve_device(name: str) -> str:
    """Return the device that a config's ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` stands for on this machine.

    Raises:
        UserError: a GPU that is not there.
    """
    import torch  # noqa: PLC0415 - takes seconds; a config is read without it

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda:0" if count else "cpu"
    if name == "cpu":
        return name
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        there = "no GPU that torch can use" if not count else f"GPUs 0 to {count - 1} only"
        raise UserError(f"device {name!r}: there is {there}; --device cpu, or auto")
    return f"cuda:{index}"
