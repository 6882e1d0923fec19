"""What of a run's observations is really there, before a run goes on: a file that is cut or empty holds nothing."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pythiageo.durable_files import remove
from pythiageo.errors import UserError
from pythiageo.observations.reader import read_observations, read_part
from pythiageo.observations.store import ObservationStore, part_files


def mend(run_folder: Path) -> dict[int, str | None]:
    """Remove parts that are damaged, and the whole table, which is made of parts again at the end of a run.

    Rows of the whole table whose part is gone are kept: they become a part again.

    Returns:
        The steps that have a whole part, each with the fingerprint of the weights that it says it measured.

    Raises:
        MachineError: a part could not be written.
    """
    store = ObservationStore(run_folder)
    store.steps()  # removes what a write that was cut off left
    found: dict[int, str | None] = {}
    for step, path in part_files(store.parts_folder):
        try:
            found[step] = _weights(read_part(step, path, run_folder))
        except UserError:
            remove(path)
    if store.table_path.is_symlink() or not store.table_path.is_file():
        remove(store.table_path)
        return found
    try:
        whole = read_observations(run_folder)
    except UserError:
        remove(store.table_path)
        return found
    for (step,), rows in whole.group_by("step"):
        found.setdefault(int(step), _weights(rows))
    store.restore(whole)
    return found


def _weights(rows: pl.DataFrame) -> str | None:
    shas = rows["weight_sha"].drop_nulls().unique().to_list()
    return shas[0] if len(shas) == 1 else None
