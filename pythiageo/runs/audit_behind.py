"""The audit of a run's series: of the chosen steps first, and of all others while these are measured already.

What is measured is audited before, by the listings of the chosen steps. That a step which was not chosen serves the
same weights comes to light when all are listed; until then a run is not complete, and says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from pythiageo.config.runs import AnalyzeConfig
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.choose_steps import StepChoice, choose_among, choose_steps
from pythiageo.series.audit.in_part import ListedInPart, audit_part, needed_first
from pythiageo.series.checkpoint import Series
from pythiageo.series.steps import select

_TICK = 0.2
"""Seconds of one wait: one without an end would not hear Ctrl-C once polars has run."""
_LEAVING = 2.0
_LOG = logging.getLogger("pythiageo")


class _LeftError(Exception):
    """Nobody wants the audit any more."""


class AuditBehind:
    """Which steps are measured, by what is known of the series; use as a context.

    ``choice``: what the audit says so far. ``unlisted``: in a sentence, what it rests on is not all; ``None`` once it
    is. ``record``: the audit as a run keeps it, ``None`` where there is none.
    """

    def __init__(self, config: AnalyzeConfig, series: Series, report: Reporter, soon: bool = True) -> None:
        self._config = config
        self._series = series
        self._report = report
        self._records: list[dict[str, Any]] = []
        self._left = threading.Event()
        self._whole: StepChoice | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._doing = ""
        self.unlisted: str | None = None
        self.choice = (soon and self._choose_first()) or choose_steps(config, series, self._records.append, report)

    @property
    def record(self) -> dict[str, Any] | None:
        """The audit, as far as it has come."""
        return self._records[0] if self._records else None

    def _choose_first(self) -> StepChoice | None:
        """Begin with the listings that the chosen steps need; ``None`` where these are all, or all are needed."""
        config, series = self._config, self._series
        if not config.audit or config.audit_values or not isinstance(series, ListedInPart):
            return None
        there = series.steps()
        chosen = select(config.steps, there)
        first = needed_first(chosen, there)
        if len(first) == len(there) or not series.count_unlisted():
            return None

        def listed(done: int, of: int) -> None:
            self._report(Progress(config.name, 0, len(chosen), f"auditing {series.name}: {done} of {of}"))

        found = audit_part(series, first, series.expected, listed)
        self.unlisted = (
            f"the audit is not finished: {len(there) - len(first)} of {len(there)} steps of {series.name} were not "
            f"compared with those that were measured, and may serve the same weights: --resume compares them"
        )
        self._records.append(replace(found, remarks=(*found.remarks, self.unlisted)).as_json())
        return choose_among(chosen, found, config.trust_revisions)

    def _audit_all(self) -> None:
        found: list[dict[str, Any]] = []

        def look(progress: Progress) -> None:
            if self._left.is_set():
                raise _LeftError
            self._doing = progress.note

        try:
            choice = choose_steps(self._config, self._series, found.append, look)
        except BaseException as error:
            self._error = error
        else:
            self._records[:] = found
            self._whole = choice

    def begin(self) -> None:
        """Begin to list what was not needed first, in a thread, if that was not begun. To be called once there is a
        result: a Hub that counts calls would have none left for the first weights."""
        if self.unlisted is not None and self._thread is None:
            self._thread = threading.Thread(target=self._audit_all, name="audit", daemon=True)
            self._thread.start()

    def finish(self, done: Callable[[], int]) -> None:
        """Wait until all is listed, and take over what that says; ``done`` tells how many steps are measured.

        Raises:
            MachineError: the Hub cannot be reached.
        """
        self.begin()
        while self._thread is not None and self._thread.is_alive():
            self._report(Progress(self._config.name, done(), len(self.choice.steps), self._doing))
            self._thread.join(_TICK)
        if self._error is not None:
            raise self._error
        if self._whole is not None:
            self.choice, self.unlisted = self._whole, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._left.set()
        until = time.monotonic() + _LEAVING
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < until:
            self._thread.join(_TICK)
        if kind is not None and self.unlisted is not None:
            _LOG.warning("%s: %s", self._config.name, self.unlisted)
