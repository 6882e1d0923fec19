"""What an analysis is at, for people: the checkpoint under way, what is being fetched, how long each part takes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pythiageo.measurement.checkpoint import Stopwatch
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.folder import RunFolder
from pythiageo.series.prefetch import Arrival
from pythiageo.untrusted_files import append_text

SILENCE = 15.0
"""Seconds without a byte of what is being fetched after which that is said."""
PHASES = ("fetch", "load", "compute")


class AnalysisProgress:
    """Times each checkpoint's phases, reports where the run is, and appends a line a checkpoint to the run's log."""

    def __init__(self, run: str, total: int, folder: RunFolder, report: Reporter) -> None:
        self._run = run
        self._total = total
        self._folder = folder
        self._report = report
        self._clock = Stopwatch()
        self._history: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self._doing = ""
        self._share = 0.0
        self._arrival: Arrival | None = None

    @contextmanager
    def phase(self, name: str, doing: str) -> Iterator[None]:
        """Time a phase of the checkpoint under way; ``doing`` says so."""
        self._doing, self._share = doing, 0.0
        self._tell()
        with self._clock.phase(name, doing):
            yield

    def report_share(self, share: float) -> None:
        """Note which share of the checkpoint is measured."""
        self._share = share
        self._tell()

    def report_arrival(self, arrival: Arrival | None, waits: bool = False) -> None:
        """Note what is being fetched; ``waits``: there is nothing else to do meanwhile."""
        self._arrival = arrival
        if waits:
            self._doing, self._share = "waiting", 0.0
            self._tell()

    def report_elsewhere(self, doing: str) -> None:
        """Note what is done by others."""
        if doing != self._doing:
            self._doing, self._share = doing, 0.0
            self._tell()

    def note_fetch(self, seconds: float | None) -> None:
        """Note how long fetching the checkpoint took."""
        self._clock.note_fetch(seconds)

    def close(
        self,
        step: int,
        label: str,
        status: str,
        spent: dict[str, float] | None = None,
        tracebacks: Sequence[str] = (),
    ) -> None:
        """End a checkpoint: write its line and begin anew. ``spent``: seconds a phase, if timed elsewhere."""
        own = self._clock.read()
        spent = own if spent is None else spent
        for phase, seconds in spent.items():
            self._history[phase].append(seconds)
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": step,
            "label": label,
            "status": status,
            "seconds": {phase: round(seconds, 3) for phase, seconds in spent.items()},
        } | ({"tracebacks": list(tracebacks)} if tracebacks else {})
        append_text(self._folder.log, json.dumps(line) + "\n")
        self._doing, self._share = "", 0.0
        self._tell()

    def _tell(self) -> None:
        done = len(self._folder.manifest.checkpoints)
        alert = ""
        parts = [f"{self._doing} {self._share:.0%}" if self._share else self._doing]
        if self._arrival is not None:
            parts.append(f"fetching {self._arrival.label} {_describe_amount(self._arrival)}")
            if self._arrival.silent >= SILENCE:
                alert = f"{self._arrival.label}: nothing has come for {self._arrival.silent:.0f} s"
                parts.append(f"nothing has come for {self._arrival.silent:.0f} s")
        typical = [f"{phase} {statistics.median(seconds):.1f} s" for phase, seconds in self._history.items() if seconds]
        if typical:
            parts.append(", ".join(typical))
        note = " · ".join(part for part in parts if part)
        self._report(Progress(self._run, done + self._share, self._total, note, alert))


def _describe_amount(arrival: Arrival) -> str:
    return f"{arrival.bytes / 1e6:,.0f} of {arrival.size / 1e6:,.0f} MB" if arrival.size else ""
