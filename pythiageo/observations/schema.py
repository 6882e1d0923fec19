"""The observation table: its columns, its statuses, and the order of its rows."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

SCHEMA_VERSION = "1"

STATUSES = {
    "ok": "`value` holds a finite number",
    "undefined": "the measure has no value on this input",
    "nonfinite": "weights, states or logits hold NaN or infinity",
    "unreadable": "the checkpoint could not be opened",
    "corrupt": "a file is not the one whose sha256 the Hub promises",
    "too-large": "the checkpoint does not fit into the disk budget",
    "not-causal": "the model sees later tokens",
    "same-as-neighbour": "the weights are those of an earlier step, where they were measured: as it should be",
    "suspect": "left out by the audit: the weights are those of another step",
    "ambiguous": "left out by the audit: two sets of weights claim to be the end of training",
    "mixed": "left out by the audit: some shards are those of another step",
    "missing": "left out by the audit: there is no such revision, or it has no files",
    "incomplete": "left out by the audit: the files cannot be a whole model",
    "imprecise": "rounding may have made the number",
    "diverged": "a chain's loss ceased to be finite",
    "negative": "the estimate is below zero: the weights are no minimum, or noise is larger than the value",
    "drifting": "the chains were still moving",
    "not_converged": "chains disagree, or a solver was stopped before its tolerance",
    "not_at_minimum": "the loss falls from these weights, so that the estimate is too low",
    "failed": "taking the measure ended in an error, whose traceback the run's log has",
}
"""What an observation may be instead of a number, and what each means. The row's ``reason`` gives the particulars; of
an estimate that its own checks refuse (``diverged`` to ``not_at_minimum``: docs/landscape.md), the number too."""


STEPS = 2**53
"""Whole numbers below it stay what they are in pages and in other programs."""
LAYERS = 10_000
"""More layers than any model has: a table with more is none of a model."""
SOURCE, HARNESS = "source:", "lm-eval:"
"""Beginnings of an imported probe set's name: then the hash of the file it came from, or what the harness calls it."""


class Observation(NamedTuple):
    """One number, or one reason why there is none. ``value`` is ``None`` unless ``status`` is ``ok``."""

    run: str
    """Name of the run."""
    series: str
    """Name of the series: a run's name, a folder or a Hub repository."""
    regime: str
    """``task-aligned``, ``naturalistic``, or ``mix:P``: text with a share P of task examples."""
    size: str
    """A size name (``nano``) or a repository's own (``pythia-160m``)."""
    seed: int | None
    """Seed of the training, of the config or the series' name (``pythia-14m-seed3``); ``None`` where nobody says."""
    step: int
    """Optimiser steps taken."""
    tokens: int | None
    """Training tokens seen, padding left out; ``None`` where the series does not say."""
    task: str | None
    """Name of the task; ``None`` of what is not of a task's examples."""
    level: str | None
    """``L1`` .. or ``mixed`` (all levels in equal parts)."""
    probe_set: str | None
    """First 12 hex digits of the probe set's content hash; of imported rows ``source:`` or ``lm-eval:`` and a name."""
    layer: int | None
    """Index of the block whose output is read, from 0; for ``ln_final.hook_out`` the last block's."""
    site: str | None
    """TransformerLens hook name, e.g. ``blocks.1.hook_resid_post`` or ``ln_final.hook_out``."""
    readout: str | None
    """``positions/centring``, e.g. ``answer/centred``; ``None`` for scores."""
    measure: str
    """What the number is: ``rankme``, ``accuracy`` and the others of docs/measures.md."""
    value: float | None
    """The number; ``None`` unless ``status`` is ``ok``."""
    stderr: float | None
    """Its standard error, where the measure has one."""
    n: int | None
    """Rows of the matrix (geometry) or examples (scores) that the value rests on."""
    status: str
    """``ok``, or which kind of no value: a key of ``STATUSES``."""
    reason: str | None
    """Why there is no value, or what to know about one that there is."""
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
