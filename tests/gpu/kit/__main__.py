"""Measure on a GPU, in minutes and in order of worth, what can be measured nowhere else.

``python -m tests.gpu.kit --out FOLDER`` from the repository's root. Every part runs in a process of its own and within
bounds of time; what it finds is in ``FOLDER/results.jsonl`` the moment it is found, so that a run cut at any second
keeps what it had. docs/gpu.md says how, and what has been measured.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.gpu.kit.results import Results, pack

ROOT = Path(__file__).parents[3]
TRAININGS = (("small", 42), ("medium", 42), ("small", 123), ("small", 7))
"""Size and seed, in order: the study's models that take a CPU days."""


@dataclass(frozen=True)
class Part:
    """A part: its arguments for this Python, and the seconds it may take."""

    name: str
    arguments: list[str]
    seconds: float
    run: Path | None = None
    """A run folder that it fills: what is there is packed while it grows."""


def parts(device: str, out: Path, work: Path, rehearse: bool) -> list[Part]:
    """Return all parts in order of worth; ``rehearse``: the same with tiny models."""
    few = ["--rehearse"] * rehearse
    own = ["--device", device, "--out", str(out), "--work", str(work), *few]
    tests = [
        "-m",
        "pytest",
        "-n",
        "0" if device == "cpu" else "6",
        "-v",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "tests/gpu/test_gpu.py",
    ]
    found = [
        Part("correctness", tests, 180),
        Part("rates", ["-m", "tests.gpu.kit.rates", *own], 60),
        Part("price", ["-m", "tests.gpu.kit.price", *own], 130),
        Part("shapes", ["-m", "tests.gpu.kit.shapes", *own], 150),
    ]
    for size, seed in TRAININGS:
        run = work / f"{size}-{seed}"
        goes_on = not rehearse and (run / "manifest.json").is_file()
        short = [
            "--set", "training.stop=4", "--set", 'training.checkpoints="0,4"',
            "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=6",
        ]  # fmt: skip
        train = [
            "train", "--protocol", "billa-v4", "--size", "nano" if rehearse else size, "--seed", str(seed), "--quiet",
            "--device", device, "--out", str(run), "--resume" if goes_on else "--overwrite",
        ]  # fmt: skip
        found.append(Part(run.name, ["-m", "pythiageo", *train, *(short if rehearse else [])], 3600, run))
    return found


def run(part: Part, device: str, seconds: float, results: Results) -> None:
    """Run a part for at most ``seconds``, and write how it ended; its output goes to the log."""
    begun = time.monotonic()
    with results.log.open("ab") as log:
        log.write(f"\n== {part.name}: python {' '.join(part.arguments)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *part.arguments], cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHIAGEO_TEST_DEVICE": device},
        )  # fmt: skip
        cut = False
        while process.poll() is None:
            if time.monotonic() - begun > seconds:
                os.killpg(process.pid, signal.SIGTERM if not cut else signal.SIGKILL)
                cut, seconds = True, seconds + 10
            time.sleep(0.5)
            if part.run is not None and int(time.monotonic() - begun) % 20 == 0:
                pack(part.run, results.folder)
    if part.run is not None:
        pack(part.run, results.folder)
    results.add(part.name, ended="cut" if cut else process.returncode, seconds=round(time.monotonic() - begun, 1))


def main() -> int:
    """Run every part for which there is time. Return 0 if none failed."""
    given = argparse.ArgumentParser(prog="python -m tests.gpu.kit", description=__doc__)
    given.add_argument("--out", type=Path, required=True, help="where results, log and packed runs go")
    given.add_argument("--work", type=Path, default=Path("/tmp/pythiageo-gpu"), help="where weights lie meanwhile")
    given.add_argument("--device", default="cuda")
    given.add_argument("--minutes", type=float, default=9.0, help="for all parts together")
    given.add_argument("--only", default="", help="names of parts, separated by commas")
    given.add_argument("--rehearse", action="store_true", help="every part with tiny models, on any device")
    options = given.parse_args()
    until = time.monotonic() + 60 * options.minutes
    chosen = parts(options.device, options.out, options.work, options.rehearse)
    known = [part.name for part in chosen]
    names = [name.strip() for name in options.only.split(",") if name.strip()] or known
    if unknown := set(names) - set(known):
        given.error(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    results = Results(options.out)
    results.add("machine", **results.machine(options.device))
    for part in chosen:
        left = until - time.monotonic()
        if part.name not in names:
            continue
        if left < 15:
            results.add(part.name, ended="no time left")
            continue
        run(part, options.device, min(part.seconds, left - 5), results)
        results.summarize()  # as it comes: nobody knows when the machine goes
    return results.show()


if __name__ == "__main__":
    sys.exit(main())
