"""Runs that are killed at any write or moment, and gone on with, are as if they never were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tinyseries import write_series

ALL = os.environ.get("PYTHIAGEO_ALL_KILLS", "")
"""Set: 40 writes and 40 random moments of each kind of run, some minutes; else a few."""
POINTS, RANDOM, CHECKPOINTS = (40, 40, 6) if ALL else (1, 1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "folder", "hub"])
def test_a_run_that_was_killed_is_gone_on_with_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    series = write_series(tmp_path / "series", range(CHECKPOINTS))
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "killing.py"), kind, str(tmp_path)]
    if kind == "hub":
        command = [sys.executable, "-m", "pythiageo", "serve", str(series), "--repo", "test/a", "--", *command]
    done = subprocess.run(
        [*command, str(POINTS), str(RANDOM), "0"],
        capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == POINTS + RANDOM
    assert sum(one["killed"] for one in found[:POINTS]) >= 0.9 * POINTS, found
    bad = [one for one in found if not one["same"]]
    assert not bad, bad
    print(f"{kind}: {sum(one['killed'] for one in found)} of {len(found)} killed, all the same after --resume")
