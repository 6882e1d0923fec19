"""Fetching a series of random bytes from a Hub on this machine, in a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from pythiageo.series.hub.loopback import LoopbackHub

WEIGHTS = "model.safetensors"
SHORT = {"PYTHIAGEO_HUB_STALL": "8", "HF_HUB_DOWNLOAD_TIMEOUT": "2", "PYTHIAGEO_HUB_WAITS": "0.05,0.1"}
"""Bounds: long enough for a process to start on a busy machine."""

FETCH = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pythiageo.errors import PythiageoError
from pythiageo.series.checkpoint import checkpoints_of
from pythiageo.series.hub import fetch
from pythiageo.series.sources.hub import HubSeries
fetch.XET_FAILURES = int(sys.argv[2])
def bring(checkpoint):
    begun = time.monotonic()
    try:
        checkpoint.fetch()
        said = "ok"
    except PythiageoError as error:
        said = f"{type(error).__name__}: {error}"
    return [said, time.monotonic() - begun]
series = HubSeries("test/a")
found = list(checkpoints_of(series, series.steps(), Path(sys.argv[1])))
with ThreadPoolExecutor(int(sys.argv[3])) as pool:
    print(json.dumps(dict(zip([one.step for one in found], pool.map(bring, found)))))
"""


def write_files(root: Path, count: int, size: int = 200_000) -> Path:
    """Write ``stepN`` folders whose weights are random bytes."""
    for step in range(count):
        (root / f"step{step}").mkdir(parents=True)
        (root / f"step{step}" / "config.json").write_text("{}")
        (root / f"step{step}" / WEIGHTS).write_bytes(random.Random(step).randbytes(size))
    return root


def fetch(
    hub: LoopbackHub, folder: Path, failures: int = 10**6, threads: int = 4, **variables: str
) -> tuple[dict[str, list], str]:
    environment = {**os.environ, **hub.environment(folder / "cache"), **SHORT, **variables}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(folder / "store"), str(failures), str(threads)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr
