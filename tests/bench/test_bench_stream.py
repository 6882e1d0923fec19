"""Eight checkpoints from a Hub so slow that a download takes as long as an analysis: how much of it is hidden.

The Hub is a process of its own with a bounded rate. Each pair is a run over the folder itself and, at the rate that it
gives, one through the Hub; whole commands are timed, start included. The first download of the eight can be hidden
behind nothing, so that 1.125 is the least for a run without start-up. The second ratio is of the streamed run alone:
from its first fetch to its end, over the longer of its own parts, in which other load on the machine cancels. Printed,
not asserted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

pytestmark = pytest.mark.bench
PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "9"))
WIDTH = int(os.environ.get("PYTHIAGEO_BENCH_WIDTH", "512"))
EXAMPLES = int(os.environ.get("PYTHIAGEO_BENCH_EXAMPLES", "200"))
CHECKPOINTS = 8

SERVE = """
import json, sys, tempfile
from pathlib import Path
from pythiageo.series.hub.loopback import LoopbackHub, serve_folder
with tempfile.TemporaryDirectory() as cache, LoopbackHub(serve_folder(Path(sys.argv[1]), "test/a"),
                                                         rate=float(sys.argv[2])) as hub:
    for revision in hub.repositories["test/a"].values():
        revision.commit  # hashed before anybody asks
    print(json.dumps(hub.environment(Path(cache))), flush=True)
    sys.stdin.read()
"""


@contextmanager
def slow_hub(folder: Path, rate: float) -> Iterator[dict[str, str]]:
    """Serve a folder at ``rate`` bytes per second; give a client's environment."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield {**os.environ, **json.loads(server.stdout.readline())}
        server.stdin.close()


Seconds = dict[str, float]


def analyze(target: str, out: Path, environment: dict[str, str]) -> tuple[float, list[Seconds], float]:
    """Return the command's wall time, each checkpoint's seconds by phase, and the seconds from first to last end."""
    sizes = [f"--set=probes.{kind}_examples={EXAMPLES}" for kind in ("score", "geometry")]
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pythiageo", "analyze", target, "--out", str(out), "--tasks", "ADD,MUL", *sizes, "-q"],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - begun
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    ends = [datetime.fromisoformat(line["at"]) for line in lines]
    return wall, [line["seconds"] for line in lines], (ends[-1] - ends[0]).total_seconds()


def spent(checkpoints: list[Seconds], *phases: str) -> float:
    return sum(seconds[phase] for seconds in checkpoints for phase in phases)


def test_downloads_are_hidden_behind_the_analysis(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    for step in range(CHECKPOINTS):
        trainable = ARCHITECTURES["gpt_neox"](Shape(6, WIDTH, 8, 4 * WIDTH, 48, 41, True), seed=step)
        write_checkpoint(folder / f"step{step}", trainable, step, tokens=step)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    ratios: dict[str, list[float]] = {"commands": [], "within the streamed run": []}
    for pair in range(PAIRS):
        local, alone, _ = analyze(str(folder), tmp_path / f"local{pair}", dict(os.environ))
        worked = spent(alone, "load", "compute")
        with slow_hub(folder, total / worked) as environment:
            streamed, beside, between = analyze("test/a", tmp_path / f"streamed{pair}", environment)
        loop = sum(beside[0].values()) + between
        longer = max(spent(beside, "load", "compute"), spent(beside, "fetch"))
        ratios["commands"].append(streamed / local)
        ratios["within the streamed run"].append(loop / longer)
        print(f"\nfolder {local:.1f} s, {worked:.1f} of them analysis; streamed {streamed:.1f} s, its loop {loop:.1f}, "
              f"the longer of analysis and download in it {longer:.1f}")  # fmt: skip
    for what, found in ratios.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{what}, {CHECKPOINTS} x {total / CHECKPOINTS / 1e6:.0f} MB, {PAIRS} pairs: "
              f"{middle:.3f} [{low:.3f}, {high:.3f}]")  # fmt: skip
