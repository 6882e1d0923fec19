"""pythiageo: layerwise geometry of Pythia checkpoints and of small synthetic transformers, by one code path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

__version__ = "0.1.0"
__all__ = ["__version__", "open_run"]


def open_run(path: str | Path) -> pl.DataFrame:
    """Return the observation table of a run folder, one row an observation (columns: ``observations.schema``).

    Works on an unfinished run too: it then holds the checkpoints finished so far.

    Raises:
        UserError: ``path`` is no run folder, its table is damaged, or a newer pythiageo wrote it.
    """
    from pathlib import Path  # noqa: PLC0415 - keeps `import pythiageo` light

    from pythiageo.observations import read_observations  # noqa: PLC0415

    return read_observations(Path(path))
