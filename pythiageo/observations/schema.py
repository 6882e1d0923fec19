"""The observation table: its columns, its statuses, and the order of its rows."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

SCHEMA_VERSION = "1"

STATUSES = (
    "ok",
    "undefined",
    "nonfinite",
    "unreadable",
    "corrupt",
    "too-large",
    "not-causal",
    "same-as-neighbour",
    "suspect",
    "ambiguous",
    "mixed",
    "missing",
    "incomplete",
    "imprecise",
    "diverged",
    "negative",
    "drifting",
    "not_converged",
    "not_at_minimum",
    "failed",
)
"""``ok``: ``value`` holds a finite number. ``undefined``: the measure has no value on this input.
``nonfinite``: weights, states or logits hold NaN or infinity. ``unreadable``: the checkpoint could not
be opened. ``corrupt``: a file is not the one whose sha256 the Hub promises. ``too-large``: it does
not fit into the disk budget. ``not-causal``: the model sees later tokens. ``imprecise``: rounding may have made the
number. ``diverged``, ``negative``, ``drifting``, ``not_converged``, ``not_at_minimum``: an estimate that its own checks
do not accept (docs/landscape.md); the reason gives the number. ``failed``: taking the measure ended in an
error, whose traceback the run's log has. The others are the verdicts of an audit on a checkpoint
that was left out; of these only ``same-as-neighbour`` is as it should be: the weights are those of an earlier step,
where they were measured."""


STEPS = 2**53
"""Whole numbers below it stay what they are in pages and in other programs."""
LAYERS = 10_000
"""More layers than any model has: a table with more is none of a model."""
SOURCE, HARNESS = "source:", "lm-eval:"
"""Beginnings of an imported probe set's name: then the hash of the file it came from, or what the harness calls it."""


class Observation(NamedTuple):
    """One number, or one reason why there is none. ``value`` is ``None`` unless ``status`` is ``ok``."""

    run: str
    series: str
    """Name of the series: a run's name, a folder or a Hub repository."""
    regime: str
    """``task-aligned`` or ``naturalistic``."""
    size: str
    """A size name (``nano``) or a repository's own (``pythia-160m``)."""
    seed: int | None
    step: int
    """Optimiser steps taken."""
    tokens: int | None
    """Training tokens seen, padding left out; ``None`` where the series does not say."""
    task: str | None
    level: str | None
    """``L1`` .. or ``mixed`` (all levels in equal parts)."""
    probe_set: str | None
    """First 12 hex digits of the probe set's content hash; of imported rows ``SOURCE`` or ``HARNESS`` and a name."""
    layer: int | None
    """Index of the block whose output is read, from 0; for ``ln_final.hook_out`` the last block's."""
    site: str | None
    """TransformerLens hook name, e.g. ``blocks.1.hook_resid_post`` or ``ln_final.hook_out``."""
    readout: str | None
    """``positions/centring``, e.g. ``answer/centred``; ``None`` for scores."""
    measure: str
    """``rankme``, ``covariance_effective_rank``, ``participation_ratio``, ``accuracy``, ``log_prob``, ``perplexity``;
    see ``docs/words.md``."""
    value: float | None
    stderr: float | None
    n: int | None
    """Rows of the matrix (geometry) or examples (scores) that the value rests on."""
    status: str
    reason: str | None
    weight_sha: str | None
    """sha256 over the checkpoint's tensors (names, dtypes, shapes, bytes)."""


COLUMNS: dict[str, pl.DataType] = {
    "run": pl.String(),
    "series": pl.String(),
    "regime": pl.String(),
    "size": pl.String(),
    "seed": pl.Int64(),
    "step": pl.Int64(),
    "tokens": pl.Int64(),
    "task": pl.String(),
    "level": pl.String(),
    "probe_set": pl.String(),
    "layer": pl.Int32(),
    "site": pl.String(),
    "readout": pl.String(),
    "measure": pl.String(),
    "value": pl.Float64(),
    "stderr": pl.Float64(),
    "n": pl.Int64(),
    "status": pl.String(),
    "reason": pl.String(),
    "weight_sha": pl.String(),
}
SORT_KEY = ["step", "task", "level", "layer", "site", "readout", "measure"]
"""Rows are kept in this order, nulls first, so that equal runs give equal files."""
