"""Error rates as tables and as a page of the docs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from scipy import stats  # type: ignore[import-untyped]

from pythiageo.claims.error_rates import KINDS, LIMIT, SHAPES, TRUTH, Plan, pooled
from pythiageo.claims.result import CONTRADICTED, SUPPORTED
from pythiageo.durable_files import replace_file
from pythiageo.study.protocols import PROTOCOLS

Table = tuple[Sequence[str], list[list[str]]]
_KEPT = "an earlier page is unchanged"


def rate_text(count: int, of: int) -> str:
    """Return a share as ``1.2% (0.4 to 2.9)``, with the exact (Clopper-Pearson) 95% interval.

    >>> rate_text(5, 100)
    '5.0% (1.6 to 11.3)'
    """
    if not of:
        return "-"
    low, high = stats.binomtest(count, of).proportion_ci(method="exact")
    return f"{count / of:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def false_rates(counts: pl.DataFrame) -> Table:
    """Return how often each claim is supported and contradicted in tables in which it is false, by protocol.

    Of the tables that could decide it; the last column names the kind and the number of runs that support it most.
    """
    noise = counts.filter(pl.col("kind") != TRUTH)
    worst = _worst(noise)
    rows = [
        [
            row["claim"], row["protocol"], str(row["decidable"]), rate_text(row[SUPPORTED], row["decidable"]),
            rate_text(row[CONTRADICTED], row["decidable"]), worst.get((row["claim"], row["protocol"]), "-"),
        ]
        for row in pooled(noise, ["claim", "protocol"]).sort("claim", _place("protocol", list(PROTOCOLS))).to_dicts()
    ]  # fmt: skip
    return ("claim", "protocol", "tables", "supported", "contradicted", "most often"), rows


def _place(column: str, order: list[str]) -> pl.Expr:
    return pl.col(column).replace_strict({name: index for index, name in enumerate(order)}, return_dtype=pl.Int64)


def _worst(noise: pl.DataFrame) -> dict[tuple[str, str], str]:
    """Return, for each claim and protocol, the kind and shape with the highest share of supports, in words."""
    share = (pl.col(SUPPORTED) / pl.col("decidable")).alias("share")
    found: dict[tuple[str, str], str] = {}
    cells = noise.filter((pl.col("decidable") > 0) & (pl.col(SUPPORTED) > 0)).with_columns(share)
    for row in cells.sort("share", descending=True, maintain_order=True).to_dicts():
        where = f"{row['kind']}, {row['seeds']} x {row['sizes']}: {row[SUPPORTED]} of {row['decidable']}"
        found.setdefault((row["claim"], row["protocol"]), where)
    return found


def rates_by_kind(counts: pl.DataFrame) -> Table:
    """Return the share supported in each kind of table in which a claim is false, all protocols together."""
    kinds = [kind for kind in KINDS if kind != TRUTH]
    cells = {
        (row["claim"], row["kind"]): f"{row[SUPPORTED] / row['decidable']:.1%} of {row['decidable']}"
        for row in pooled(counts, ["claim", "kind"]).to_dicts()
        if row["decidable"]
    }
    names = counts["claim"].unique().sort()
    return ("claim", *kinds), [[name, *(cells.get((name, kind), "-") for kind in kinds)] for name in names]


def powers(counts: pl.DataFrame) -> Table:
    """Return the share supported in tables in which a claim holds, by protocol and by seeds and sizes."""
    truth = counts.filter(pl.col("kind") == TRUTH)
    by = pooled(truth, ["claim", "protocol", "seeds", "sizes"]).to_dicts()
    cells = {
        (row["claim"], row["protocol"], row["seeds"], row["sizes"]): f"{row[SUPPORTED] / row['tables']:.0%}"
        if row["decidable"]
        else "cannot be decided"
        for row in by
    }
    pairs = truth.select("claim", "protocol").unique().sort("claim", _place("protocol", list(PROTOCOLS))).rows()
    head = ("claim", "protocol", *(f"{seeds} x {sizes}" for seeds, sizes in SHAPES))
    return head, [[*pair, *(cells.get((*pair, *shape), "-") for shape in SHAPES)] for pair in pairs]


def curve_table(of_curves: pl.DataFrame) -> Table:
    """Return what share of a specification curve supports a claim in noise."""
    rows = [
        [row["name"], str(row["specifications"]), f"{row['share_supported']:.1%}", f"{row['any_supported']:.0%}"]
        for row in of_curves.to_dicts()
    ]
    return ("claim", "specifications", "of them supported", "tables with one at least"), rows


def write_page(plan: Plan, counts: pl.DataFrame, of_curves: pl.DataFrame | None, curves: int, out: Path) -> None:
    """Write the page.

    Raises:
        MachineError: it could not be written.
    """
    command = ["pythiageo", "error-rates", "--tables", str(plan.tables)]
    command += ["--only", ",".join(plan.families)] if plan.families else []
    command += ["--protocol", ",".join(plan.protocols)] if plan.protocols != tuple(PROTOCOLS) else []
    command += ["--resamples", str(plan.resamples), "--curves", str(curves), "--seed", str(plan.seed)]
    parts = [
        _HEAD.format(
            command=shlex.join([*command, "--out", "docs/error_rates.md"]),
            date=datetime.now(UTC).date().isoformat(), tables=plan.tables, seed=plan.seed, limit=LIMIT,
        ),
        "## False verdicts\n", _FALSE, _markdown(false_rates(counts)),
        "## By kind of noise\n", "Share supported, all protocols and numbers of runs together.\n",
        _markdown(rates_by_kind(counts)),
        "## Power\n", _POWER, _markdown(powers(counts)),
    ]  # fmt: skip
    if of_curves is not None:
        parts += ["## Specification curves\n", _CURVES.format(curves=curves), _markdown(curve_table(of_curves))]
    replace_file(out, "\n".join(parts).encode("utf-8"), _KEPT)


def _markdown(table: Table) -> str:
    head, rows = table
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


_HEAD = """# Error rates of the verdicts

Written by

```sh
{command}
```

on {date}: {tables} tables of each kind and number of runs, seed {seed}. Do not edit by hand.

Each claim of [claims.md](claims.md) is asked of tables whose truth is known, with all its defaults. In noise
nothing is related to anything, so that a claim which is supported there is supported wrongly; 5% is what a verdict
may cost. Tables are of the study's eight tasks at one level, 37 checkpoints to step 14,000, one or three seeds of
one or three sizes (of 4, 6 and 8 blocks), with scores of 200 examples. `controls` takes four of the tasks for
trained.

| kind | ranks and scores |
|---|---|
| random walks | each task's and block's by itself |
| mean-reverting | pulled back to where they started |
| jumps | one jump to anywhere, at any checkpoint |
| common trend | a fall and a rise that all tasks, blocks and runs share, with noise |
| alike by depth | random walks; neighbouring blocks', and all tasks', are related |
| alike in every run | a walk of each task and block that comes back, nearly the same, in every seed and size |
| {limit} | for claims that things are alike: they differ by just as much as the claim allows |
| planted truth | every claim holds, with noise |

Where every run behaves alike, a claim on models (`recovery`, `top-down-*`, `floor-order`, `probe*`) is no longer
false, so it is not asked of that kind. `floors` and `seeds` are asked at their limit alone (the median task's
floors vary by 0.2 over sizes; a tenth of the variance of acquisition lies between seeds): where noise has equal
floors, equal they are. The linear probe of noise reads what the model knows: both shares have one expectation.

`controls` has little power with four tasks of each sort: untrained tasks' floors, too, come before most acquisitions.
"""
_FALSE = """Of the tables with an interval, of all kinds and numbers of runs. Intervals are exact (Clopper
and Pearson). The same tables are asked under each protocol, so its rows are not independent of one another.
"""
_POWER = """Share supported of the tables in which the claim holds, by seeds x sizes. Under billa-v1 the window of
floors ends at step 200, before most of what is planted.
"""
_CURVES = """What a specification curve (`pythiageo claims --curve`) shows where there is nothing: in {curves}
tables of noise, three runs of one size, random walks and mean-reverting in turn, one measure and readout. A claim
that is supported under a share of its specifications like this one has shown nothing. `claims --curve` prints the
share for noise of the very shape of your runs.
"""
