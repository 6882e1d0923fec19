"""Similarity of the states of any two checkpoints, layers, seeds or models, of what their runs keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from pythiageo.compute.threads import one_thread
from pythiageo.derive.kept_rows import KeptRun, check_known
from pythiageo.derive.similarities import SIMILARITIES, Side, Similarity
from pythiageo.errors import UserError, nearest
from pythiageo.geometry.readout import SPARED
from pythiageo.no_value import NoValue, NoValueError
from pythiageo.observations.sidecars import SKETCHES, SketchRow
from pythiageo.series.steps import select

BETWEEN = {
    "steps": "every two checkpoints, at the same site",
    "layers": "every two sites, at the same step",
    "runs": "the same step and site of two runs",
    "all": "everything with everything",
}
"""Which pairs are compared."""
MOST = 200_000
"""Pairs that are compared at most."""


COLUMNS: dict[str, pl.DataType] = {
    "measure": pl.String(), "dimensions": pl.Int64(), "task": pl.String(), "level": pl.String(),
    "positions": pl.String(),
    **{f"{what}_{side}": kind for side in "ab" for what, kind in (("run", pl.String()), ("step", pl.Int64()),
       ("layer", pl.Int32()), ("site", pl.String()))},
    "value": pl.Float64(), "n": pl.Int64(), "of": pl.Int64(), "status": pl.String(), "reason": pl.String(),
}  # fmt: skip
"""``n``: rows compared, of so many that there are (``of``, of side a). ``dimensions``: of subspaces alone."""


@dataclass(frozen=True)
class Choice:
    """Which sketches of a run are one side of the pairs."""

    run: KeptRun
    steps: list[int]
    sites: Sequence[str]

    def read(self, tasks: Sequence[str], positions: Sequence[str]) -> list[SketchRow]:
        """Return them.

        Raises:
            UserError: a file that is not whole; the run has no such task, positions or site.
        """
        found: list[SketchRow] = []
        seen: dict[str, set[str]] = {"task": set(), "positions": set(), "site": set()}
        for step in self.steps:
            for row in self.run.store.sketches(self.run.entries[step]):
                for name, known in seen.items():
                    known.add(getattr(row, name))
                wanted = (not tasks or row.task in tasks) and (not positions or row.positions in positions)
                if wanted and (not self.sites or any(fnmatchcase(row.site, pattern) for pattern in self.sites)):
                    found.append(row)
        check_known("task", tasks, sorted(seen["task"]), self.run.path)
        check_known("sketch of positions", positions, sorted(seen["positions"]), self.run.path)
        for pattern in self.sites:
            if not any(fnmatchcase(site, pattern) for site in seen["site"]):
                check_known("site", [pattern], sorted(seen["site"]), self.run.path)
        return found


def compare_states(
    run: str | Path,
    other: str | Path | None = None,
    measures: Sequence[str] = ("linear_cka", "procrustes", "subspace_angle"),
    *,
    between: str | None = None,
    tasks: Sequence[str] = (),
    positions: Sequence[str] = (),
    steps: str = "log:12",
    sites: Sequence[str] = (),
    other_steps: str | None = None,
    other_sites: Sequence[str] = (),
    dimensions: int = 10,
) -> pl.DataFrame:
    """Return the similarity of states of one run, or of two, from their sketches; one row a pair and measure.

    Sketches hold the states of a fixed sample of rows up to rotations of d_model, each row as it was to about 6e-8 of
    its size; all measures here are blind to such rotations, and centre the rows. Row i of both sides must stand for the
    same: the same items, and for positions of which an example has several the same tokens.

    Args:
        run, other: run folders that keep sketches (``measures.sketch``).
        measures: names among ``SIMILARITIES``.
        between: which pairs, a key of ``BETWEEN``; default ``runs`` for two, ``steps`` for one.
        tasks, positions: default all that are kept, of two runs all that both keep.
        steps, sites: of side a: steps as for ``analyze``, patterns of sites; default 12 steps, all sites.
        other_steps, other_sites: of side b; default as for side a.
        dimensions: of the subspaces.

    Returns:
        The columns of ``COLUMNS``.

    Raises:
        UserError: no run, one that keeps no sketches, a name that there is not, rows that are not the same, no pair, or
            more than ``MOST``.
    """
    for name in measures:
        if name not in SIMILARITIES:
            raise UserError(f"no similarity {name!r}{nearest(name, SIMILARITIES)}; there are {', '.join(SIMILARITIES)}")
    how = between or ("steps" if other is None else "runs")
    if how not in BETWEEN:
        raise UserError(f"between: no {how!r}{nearest(how, BETWEEN)}; expected {', '.join(BETWEEN)}")
    if how == "runs" and other is None:
        raise UserError("between runs needs two of them")
    if dimensions < 1:
        raise UserError(f"dimensions: expected at least 1, got {dimensions}")
    first = KeptRun(Path(run), SKETCHES)
    second = first if other is None else KeptRun(Path(other), SKETCHES)
    here = Choice(first, select(steps, list(first.entries)), sites)
    there = Choice(second, select(other_steps or steps, list(second.entries)), other_sites or sites)
    rows_here = here.read(tasks, positions)
    rows_there = rows_here if there == here else there.read(tasks, positions)
    pairs = list(_pairs(rows_here, rows_there, how, first is second))
    _check_pairs(pairs, how, first.path, second.path)
    rows: list[dict[str, Any]] = []
    sides: dict[int, Side] = {}

    def side_of(row: SketchRow) -> Side:
        if id(row) not in sides:
            sides[id(row)] = Side(row)
        return sides[id(row)]

    with one_thread():
        for _, group in groupby(pairs, lambda pair: _probe(pair[0])):
            sides.clear()  # no more than one probe set's are unpacked at a time
            for a, b in group:
                shared = _shared(first, second, a, b)
                for one in (SIMILARITIES[name] for name in measures):
                    said = {"measure": one.name, "dimensions": dimensions if one.of_subspaces else None}
                    rows.append({**shared, **said, **_take(one, a, b, dimensions, side_of)})
    return pl.DataFrame(rows, schema=COLUMNS)


def _pairs(
    a: Sequence[SketchRow], b: Sequence[SketchRow], between: str, same_run: bool
) -> Iterator[tuple[SketchRow, SketchRow]]:
    """Yield the pairs of one probe set and positions; of one run each once, and none with itself."""
    others = {name: list(rows) for name, rows in groupby(sorted(b, key=_probe), _probe)}
    seen = set()
    for row in sorted(a, key=_probe):
        for one in others.get(_probe(row), ()):
            step, site = row.step == one.step, row.site == one.site
            wanted = {"steps": site, "layers": step, "runs": step and site, "all": True}[between]
            if not wanted or (same_run and step and site):
                continue
            if same_run:
                pair = frozenset([(row.step, row.site), (one.step, one.site)])
                if (_probe(row), pair) in seen:
                    continue
                seen.add((_probe(row), pair))
            yield row, one


def _probe(row: SketchRow) -> tuple[str, str, str]:
    return row.task, row.level, row.positions


def _check_pairs(pairs: Sequence[tuple[SketchRow, SketchRow]], between: str, first: Path, second: Path) -> None:
    """Refuse what is not to be compared at all.

    Raises:
        UserError: no pair, too many, or rows that stand for other things.
    """
    if not pairs:
        raise UserError(f"{first}, {second}: no two sketches to compare between {between}: {BETWEEN[between]}")
    if len(pairs) > MOST:
        raise UserError(f"{len(pairs):,} pairs, and {MOST:,} are compared at most: choose steps, sites, tasks")
    for a, b in pairs:
        if a.status != "ok" or b.status != "ok":
            continue
        where = f"task {a.task}, {a.positions}: {first} at step {a.step} and {second} at step {b.step}"
        if a.items != b.items:
            raise UserError(f"{where} sketch the states of other items: only states of the same prompts compare")
        if (a.n, a.of, a.fed) != (b.n, b.of, b.fed) and a.positions not in SPARED:
            raise UserError(
                f"{where} sketch {a.n:,} of {a.of:,} rows and {b.n:,} of {b.of:,} which do not stand for the same "
                "tokens: take positions with one row an example (equals, last, mean), and as many rows in both runs"
            )


def _shared(first: KeptRun, second: KeptRun, a: SketchRow, b: SketchRow) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(a, name) for name in ("task", "level", "positions", "n", "of")}
    for side, run, row in (("a", first, a), ("b", second, b)):
        found |= {
            f"run_{side}": run.name,
            **{f"{name}_{side}": getattr(row, name) for name in ("step", "layer", "site")},
        }
    return found


def _take(
    similarity: Similarity, a: SketchRow, b: SketchRow, dimensions: int, side_of: Callable[[SketchRow], Side]
) -> dict[str, Any]:
    no_value: NoValue | None = None
    for row in (a, b):
        if row.status != "ok":
            no_value = NoValue(row.status, str(row.reason))
    if no_value is None and (a.n, a.fed) != (b.n, b.fed):
        no_value = NoValue("undefined", "the sinks that are left out are not the same ones")
    if no_value is None:
        try:
            return {"value": similarity.take(side_of(a), side_of(b), dimensions), "status": "ok", "reason": None}
        except NoValueError as error:
            no_value = error.no_value
    return {"value": None, "status": no_value.status, "reason": no_value.reason}
