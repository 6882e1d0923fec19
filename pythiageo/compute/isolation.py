"""Measuring inside somebody else's process: numbers as in a process of our own, and nothing of theirs changed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch


@contextmanager
def isolate_process() -> Iterator[None]:
    """Set what numbers depend on to what it is in a fresh process, and give it all back afterwards.

    Random states (Python, NumPy, torch, each GPU), default type and device, precision of matrix products, threads,
    gradients, inference mode and autocast, whether algorithms are deterministic; environment variables that libraries
    set when they are imported.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - theirs, not ours
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    dtype, precision, threads = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_num_threads()
    strict, lenient = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    environment = dict(os.environ)
    try:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.device("cpu"))
            for kind in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
