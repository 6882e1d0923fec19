"""What run folders hold, in a few words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pythiageo.errors import PythiageoError, UserError, quote_error
from pythiageo.observations import read_manifest
from pythiageo.observations.dominated import count_dominated
from pythiageo.observations.reader import read_columns
from pythiageo.runs.folder import MANIFEST
from pythiageo.runs.lock import is_held


def list_run_folders(folder: Path) -> list[Path]:
    """Return the run folders directly inside ``folder``, by name.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of runs")
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def summarise(path: Path) -> dict[str, Any]:
    """Return name, kind, status and counts of a run.

    ``not_ok`` counts the observations that have a status instead of a value.
    """
    manifest = read_manifest(path)
    status = manifest.status
    if status == "running" and not is_held(path):  # its process was killed
        status = "interrupted"
    table = read_columns(path, ["step", "status"]) if _is_written(path) else None
    return {
        "folder": str(path),
        "name": manifest.name,
        "kind": manifest.kind,
        "series": manifest.series,
        "regime": manifest.regime,
        "size": manifest.size,
        "status": status,
        "remarks": manifest.remarks or [],
        "checkpoints": 0 if table is None else table["step"].n_unique(),
        "last_step": None if table is None else table["step"].max(),
        "observations": 0 if table is None else table.height,
        "not_ok": 0 if table is None else table.filter(pl.col("status") != "ok").height,
    }


def find_dominated(path: Path) -> pl.DataFrame:
    """Return which ranks of a run sinks or one direction make; see ``count_dominated``."""
    if not _is_written(path):
        return pl.DataFrame()
    return count_dominated(read_columns(path, ["step", "site", "readout", "measure", "value", "reason"]))


def _is_written(path: Path) -> bool:
    """Return whether a run has observations yet."""
    return (path / "observations.parquet").is_file() or any((path / "observations").glob("step-*.parquet"))


def summarise_all(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return ``summarise`` of each run; one that cannot be read has the status ``unreadable``, and why as ``problem``.

    A run of a newer version, or a stranger's folder that only looks like one, hides no other.
    """
    found = []
    for path in paths:
        try:
            found.append(summarise(path))
        except (PythiageoError, OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
            unknown = dict.fromkeys(("kind", "series", "regime", "size"))
            counts = dict.fromkeys(("checkpoints", "last_step", "observations", "not_ok"))
            said = {"folder": str(path), "name": path.name, **unknown, "status": "unreadable", **counts}
            found.append({**said, "problem": quote_error(error)})
    return found


def flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``a.b`` keys with their values."""
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, dict):
            yield from flatten(inner, name)
        else:
            yield name, inner
