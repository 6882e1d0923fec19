"""Joining the processes that ``accelerate launch`` started."""

from __future__ import annotations

import os
from datetime import timedelta

from pythiageo.synthetic.workers import ALONE, Workers

PATIENCE = timedelta(hours=12)
"""How long the others wait while the first process measures a checkpoint."""


def started_together() -> int:
    """Return the number of processes that a launcher says it started, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_workers() -> Workers:
    """Return this process among those started together, after all have found one another (gloo, on the CPU)."""
    if started_together() == 1:
        return ALONE
    from accelerate import PartialState  # noqa: PLC0415 - takes a second, and is rarely wanted

    state = PartialState(cpu=True, timeout=PATIENCE)
    return Workers(state.process_index, state.num_processes)
