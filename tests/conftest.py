"""Shared set-up: threads, offline clients, and jaxtyping's shapes enforced while testing."""

from __future__ import annotations

import os
from pathlib import Path

# before any client is imported: tests never leave this machine
os.environ["HF_HUB_OFFLINE"] = "0"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")
os.environ["WANDB_MODE"] = "disabled"

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import config as axes
from jaxtyping import install_import_hook

settings.register_profile(
    "pythiageo",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pythiageo")


def pytest_configure(config: pytest.Config) -> None:
    """Check axis names on signatures in tests; not where time is measured, for users do not pay for it."""
    if config.getoption("-m") != "bench":
        rooms = ["geometry", "landscape", "probes", "synthetic", "lens"]
        install_import_hook([f"pythiageo.{room}" for room in rooms], "beartype.beartype")


CHECKED = {"api", "derive", "geometry", "landscape", "lens", "linear_probe", "measurement", "probes", "synthetic"}
"""Tests of what computes, where signatures are checked: in whole runs that doubles the time, and finds no more."""


@pytest.fixture(autouse=True)
def _signatures(request: pytest.FixtureRequest) -> None:
    room = request.path.relative_to(request.config.rootpath).parts[1]
    axes.update("jaxtyping_disable", room not in CHECKED)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIAGEO_CACHE", str(tmp_path / "pythiageo-cache"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
