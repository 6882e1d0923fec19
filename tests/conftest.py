"""Shared set-up: threads, offline clients, and jaxtyping's shapes enforced while testing."""

from __future__ import annotations

import os

# before any client is imported: tests never leave this machine
os.environ["HF_HUB_OFFLINE"] = "0"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")
os.environ["WANDB_MODE"] = "disabled"

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

settings.register_profile(
    "pythiageo",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pythiageo")

# axis names on signatures are checked in tests, and cost nothing elsewhere
install_import_hook(
    ["pythiageo.geometry", "pythiageo.landscape", "pythiageo.probes", "pythiageo.synthetic", "pythiageo.lens"],
    "beartype.beartype",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
