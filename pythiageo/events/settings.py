"""In which settings of their training runs differ, as far as their manifests say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pythiageo.events.run import Run

_SECTIONS = ("model", "data", "training")
_FREE = {"checkpoints", "stop", "weights", "tensorboard", "cuda_graphs"}
"""Settings of a training that change neither its data nor its steps, or only where it ends and what is kept of it."""


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, with each run's value: ``{"training.batch_size": [16, 64]}``.

    Not the seed, nor what changes nothing in a training. A setting that a manifest lacks, as an older one may, is
    ``None`` there, and makes no difference by itself.
    """
    found = {}
    for section in _SECTIONS:
        parts = [run.manifest.settings(section) for run in runs]
        for key in sorted(set().union(*parts) - _FREE):
            known = [part[key] for part in parts if key in part]
            if any(value != known[0] for value in known):
                found[f"{section}.{key}"] = [part.get(key) for part in parts]
    return found
