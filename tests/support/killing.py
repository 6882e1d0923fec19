"""Kills a run at chosen writes and at random times, goes on with it, and compares it with one that was never killed.

``python killing.py KIND FOLDER POINTS RANDOM SEED`` prints, as JSON, what became of each. Each run is a fork of one
process that has everything imported: a hundred are a matter of minutes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETS = ["model.layers=2", "model.d_model=16", "model.heads=2", "model.d_ff=32", "training.stop=8", "name=tiny",
        'training.checkpoints="0-8:2"', "training.batch_size=4", "probes.tasks=['ADD']"]  # fmt: skip
PROBES = ["probes.score_examples=4", "probes.geometry_examples=6", "measures.readouts=['answer/centred']",
          "measures.spectra=true", "measures.sketch=5"]  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


def sets(values: list[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


class Events:
    """Counts what is about to change in ``folder``, and kills this process at number ``last``."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self._folder = str(folder)
        self._last = last
        self.names: list[str] = []
        self._sync = os.fsync
        os.fsync = self._synced  # type: ignore[assignment]
        sys.addaudithook(self._heard)

    def _heard(self, event: str, given: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and given[2] & _WRITES):
            paths = [str(one) for one in given if isinstance(one, str | Path)]
            if any(path.startswith(self._folder) for path in paths):
                self._count(f"{event} {paths[-1][len(self._folder) :]}")

    def _synced(self, handle: int) -> None:
        self._count("fsync")
        self._sync(handle)

    def _count(self, name: str) -> None:
        self.names.append(name)
        if self._last is not None and len(self.names) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], int], after: float | None = None) -> tuple[int, float]:
    """Do ``work`` in a fork, killed ``after`` seconds; return its exit code, -9 if it was killed, and its seconds."""
    begun = time.monotonic()
    child = os.fork()
    if not child:
        code = 70
        try:
            code = work()
        finally:
            os._exit(code)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        spent = time.monotonic() - begun
        if ended:
            return os.waitstatus_to_exitcode(status), spent
        if after is not None and spent > after:
            os.kill(child, signal.SIGKILL)
            after = None
        time.sleep(0.002)


def state_of(run: Path) -> dict[str, Any]:
    """Return what must be the same of two runs: their table, manifest, weights and state, nothing half written."""
    from safetensors import safe_open

    manifest = json.loads((run / "manifest.json").read_text())
    files = ["observations.parquet", *(str(one.relative_to(run)) for one in run.rglob("*/step*") if one.is_file())]
    files += [str(one.relative_to(run)) for one in run.glob("checkpoints/*/*")]
    state = run / "state.safetensors"
    return {
        "files": {name: (run / name).read_bytes() for name in sorted(files)},
        "state": safe_open(state, framework="pt").metadata() if state.exists() else None,
        "checkpoints": manifest["checkpoints"],
        "status": manifest["status"],
        "left": sorted(str(one.relative_to(run)) for one in run.rglob(".*") if one.name != ".lock"),
        "downloads": (run / "downloads").exists(),
    }


def main(kind: str, root: Path, points: int, at_random: int, seed: int) -> list[dict[str, Any]]:
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "POLARS_MAX_THREADS": "1"}
    target = "test/a" if kind == "hub" else str(root / "series")
    if kind == "train":
        arguments = ["train", "demo/tasks.toml", *sets(SETS)]
    else:
        arguments = ["analyze", target, "--tasks", "ADD", "--name", "a"]
    return killed([*arguments, *sets(PROBES), "--quiet"], root, points, at_random, random.Random(seed))


def killed(
    arguments: list[str], root: Path, points: int, at_random: int, chance: random.Random
) -> list[dict[str, Any]]:
    import torch

    # imported before the forks, that each need not: what runs import when they begin, too
    from transformers import GPT2LMHeadModel, GPTNeoXForCausalLM  # noqa: F401

    from pythiageo.cli.app import run as cli
    from pythiageo.engines import jobs, local  # noqa: F401
    from pythiageo.lens import BridgeReader  # noqa: F401
    from pythiageo.runs import analyze, train  # noqa: F401

    torch.set_num_threads(1)

    def work(run: Path, last: int | None, *more: str) -> Callable[[], int]:
        def done() -> int:
            errors = os.open(root / "errors.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            events = Events(run, last)
            code = cli([*arguments, *more, "--out", str(run)])
            (root / "events.json").write_text(json.dumps(events.names))
            return code

        return done

    code, seconds = forked(work(root / "whole", None))
    assert code == 0, (root / "errors.txt").read_text()
    names = json.loads((root / "events.json").read_text())
    whole = state_of(root / "whole")
    chosen = [1 + (2 * number + 1) * len(names) // (2 * points) for number in range(points)]
    plans = [(f"{names[point - 1]} ({point} of {len(names)})", point, None) for point in chosen]
    plans += [("", None, chance.random()) for _ in range(at_random)]
    found = []
    for number, (name, last, share) in enumerate(plans):
        run = root / f"run{number}"
        after = None if share is None else share * seconds
        first, spent = forked(work(run, last), after)
        while after is not None and first == 0:  # it was faster than the one that was timed
            shutil.rmtree(run)
            seconds = min(seconds, spent)
            after = chance.random() * seconds
            first, spent = forked(work(run, last), after)
        second, _ = forked(work(run, None, "--resume"))
        said = (root / "errors.txt").read_text()
        same = second == 0 and state_of(run) == whole
        found.append(
            {
                "at": name or f"{after:.3f} of {seconds:.3f} s",
                "killed": first == -signal.SIGKILL,
                "code": second,
                "same": same,
            }
            | ({} if same else {"said": said[-2000:]})
        )
    return found


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(main(given[0], Path(given[1]), int(given[2]), int(given[3]), int(given[4]))))
