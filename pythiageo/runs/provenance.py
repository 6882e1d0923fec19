"""What a manifest says about where a run's numbers come from."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pythiageo import extensions
from pythiageo._version import __version__
from pythiageo.config.tables import ComputeConfig
from pythiageo.observations import Manifest

_PACKAGES = (
    "torch", "transformers", "transformer-lens", "numpy", "scipy", "polars", "pyarrow", "safetensors", "tokenizers",
    "huggingface-hub", "lm-eval",
)  # fmt: skip


NUMBERS = 4
"""Raised with every change of the code that gives another number for what was measured before: rows of two such
versions never stand in one table. Manifests of 0.1.0 have none; that was 1."""


def provenance(compute: ComputeConfig, device: str) -> dict[str, Any]:
    """Return versions, git commit and dirty flag of the code, device, dtype, threads and the command line.

    ``numbers`` is the version of what the code measures. The git fields are ``None`` for an installed wheel.
    ``processing`` names the weights as they are measured: raw.
    """
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain")
    return {
        "pythiageo": __version__,
        "numbers": NUMBERS,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "git_commit": commit,
        "git_dirty": None if status is None else bool(status),
        "device": device,
        "dtype": compute.dtype,
        "threads": compute.thread_count,
        "processing": "raw weights: no LayerNorm folding, no centring",
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def list_earlier(old: Manifest, now: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what other code and machines the run's earlier checkpoints come from, each with the last step it made."""
    before, earlier = old.provenance.as_json(), [one.as_json() for one in old.earlier_provenance]
    if old.checkpoints and {**before, "command": None} != {**now, "command": None}:
        earlier.append({**before, "last_step": max(entry.step for entry in old.checkpoints)})
    return earlier


def packages() -> dict[str, str | None]:
    """Return the versions of the packages that numbers come through, those that add measures or the like among them."""
    return {**{name: _version(name) for name in _PACKAGES}, **extensions.providers()}


def versions() -> dict[str, str | None]:
    """Return the versions that must be alike where one table is measured by several processes."""
    return {"pythiageo": __version__, "python": platform.python_version(), **packages()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
