"""What a training run shows while it goes on: loss, speed, what is acquired; to people, in its log, in TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from pythiageo.errors import UserError
from pythiageo.measurement.result import CheckpointResult
from pythiageo.observations import read_observations
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.folder import RunFolder
from pythiageo.synthetic.trainer import Trainer
from pythiageo.untrusted_files import append_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

ACQUIRED, IN_A_ROW = 0.5, 3
"""billa-v4's rule, for the count that is shown; events are read from the table afterwards."""
EVERY = 10
"""Steps between two losses in TensorBoard's files."""


class TrainingProgress:
    """Follows one run: reports every step, and writes a line of the run's log at every checkpoint.

    Raises:
        UserError: TensorBoard's files are asked for, and ``tensorboard`` is not installed.
    """

    def __init__(self, run: str, last_step: int, folder: RunFolder, report: Reporter, tensorboard: bool) -> None:
        self._run = run
        self._last_step = last_step
        self._folder = folder
        self._report = report
        self._writer = _open_writer(folder) if tensorboard else None
        self._rows: dict[tuple[str, str], int] = {}
        self._acquired: set[tuple[str, str]] = set()
        if folder.observations.steps():
            known = read_observations(folder.path).filter(pl.col("measure") == "accuracy").sort("step")
            self._count(known.iter_rows(named=True))
        self._steps = 0
        self._training = 0.0
        self._seen = time.perf_counter()

    def report_step(self, trainer: Trainer) -> None:
        """Tell of an optimiser step that was taken."""
        now = time.perf_counter()
        self._training, self._seen = self._training + now - self._seen, now
        self._steps += 1
        loss = "" if trainer.recent_loss is None else f"loss {trainer.recent_loss:.3f}, "
        note = f"{loss}{self._steps / self._training:.1f} steps/s, {self._describe_acquired()}"
        self._report(Progress(self._run, trainer.step, self._last_step, note))
        if self._writer is not None and trainer.step % EVERY == 0:
            self._writer.add_scalar("loss", trainer.loss, trainer.step)
            self._writer.add_scalar("lr", trainer.schedule.lr(trainer.step), trainer.step)

    def report_measuring(self, step: int) -> None:
        """Tell that a checkpoint is being measured."""
        self._seen = time.perf_counter()
        self._report(Progress(self._run, step, self._last_step, f"measuring, {self._describe_acquired()}"))

    def report_result(self, result: CheckpointResult, trainer: Trainer) -> None:
        """Tell of a checkpoint that was measured and written."""
        seconds = time.perf_counter() - self._seen
        found = [row._asdict() for row in result.rows]
        self._count(row for row in found if row["measure"] == "accuracy")
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": result.step,
            "status": result.status,
            "loss": trainer.loss if trainer.step else None,
            "acquired": len(self._acquired),
            "seconds": {"training": round(self._training, 3), "measuring": round(seconds, 3)},
        } | ({"tracebacks": list(result.tracebacks)} if result.tracebacks else {})
        append_text(self._folder.log, json.dumps(line) + "\n")
        if self._writer is not None:
            for row in found:
                if row["status"] == "ok" and (row["measure"] == "accuracy" or row["readout"] == "answer/centred"):
                    place = "/".join(str(row[name]) for name in ("measure", "task", "level", "site") if row[name])
                    self._writer.add_scalar(place, row["value"], result.step)
            self._writer.flush()
        self._training, self._steps, self._seen = 0.0, 0, time.perf_counter()

    def _describe_acquired(self) -> str:
        return f"{len(self._acquired)} of {len(self._rows)} acquired"

    def _count(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            key = (row["task"], row["level"])
            held = row["status"] == "ok" and row["value"] >= ACQUIRED
            self._rows[key] = self._rows.get(key, 0) + 1 if held else 0
            if self._rows[key] >= IN_A_ROW:
                self._acquired.add(key)


def _open_writer(folder: RunFolder) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError(
            "training.tensorboard: TensorBoard is not installed: pip install 'pythiageo[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder.tensorboard))
