"""Where a model's weights lie: on one device, or divided over several."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from pythiageo.errors import MachineError

SPLIT = "split"
"""In a device's place: divided over all GPUs that the process sees."""


def place(model: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """Return the model in ``dtype`` on a device, or divided where the device is ``split``.

    Raises:
        MachineError: it does not fit the GPUs together.
    """
    if device != SPLIT:
        return model.to(torch.device(device), dtype)
    return divide(model.to(dtype), gpu_map(model, dtype))


def copy_without_weights(model: nn.Module) -> nn.Module:
    """Return modules like the model's, whose parameters have the shapes and types of its own and are one zero each.

    They take no memory, and are to be given the weights of another copy.
    """
    zeros = {
        id(one): nn.Parameter(one.detach().new_zeros(()).expand(one.shape), one.requires_grad)
        for one in model.parameters()
    }
    return deepcopy(model, zeros)  # what it takes for copied already


def gpu_map(model: nn.Module, dtype: torch.dtype) -> dict[str, int]:
    """Return which GPU takes which modules: blocks whole, in their order, as even as their sizes allow.

    Raises:
        MachineError: it does not fit the GPUs together.
    """
    from accelerate import infer_auto_device_map  # noqa: PLC0415 - takes a second, and is rarely wanted
    from accelerate.utils import get_balanced_memory  # noqa: PLC0415

    whole = getattr(model, "_no_split_modules", None)
    whole = list(whole) if whole else None
    free = get_balanced_memory(model, dtype=dtype, no_split_module_classes=whole)
    found = infer_auto_device_map(model, max_memory=free, dtype=dtype, no_split_module_classes=whole)
    if elsewhere := {str(where) for where in found.values() if not isinstance(where, int)}:
        raise MachineError(
            f"{type(model).__name__} does not fit the GPUs that are here, {' and '.join(sorted(elsewhere))} would have "
            "to hold the rest: take more GPUs, or --dtype bfloat16"
        )
    return found


def divide(model: nn.Module, where: dict[str, int] | dict[str, str], folder: Path | None = None) -> nn.Module:
    """Return the model with each module where ``where`` says; ``folder`` takes those of ``disk``.

    The same states and logits as undivided: Accelerate carries them from module to module, and TransformerBridge reads
    weights through it.
    """
    from accelerate import dispatch_model  # noqa: PLC0415

    return dispatch_model(model, where, offload_dir=None if folder is None else str(folder), force_hooks=True)
