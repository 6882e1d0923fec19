"""One probe set of one checkpoint as it is measured: its states, and how errors become rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pythiageo.measurement.failures import FAILED, Failures
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.keeper import Keeper
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.measurement.reader import SiteReading
from pythiageo.measurement.result import Origin
from pythiageo.no_value import NoValue
from pythiageo.observations import Observation


def columns_of(prepared: Prepared) -> dict[str, Any]:
    """Return the columns that all rows of a probe set share."""
    probe_set = prepared.probe.probe_set
    return {"task": probe_set.task, "level": probe_set.level, "probe_set": probe_set.sha}


@dataclass(frozen=True)
class Subject:
    """One probe set of one checkpoint. ``unread`` holds why its passes failed, if they did.

    ``keeper`` takes what is kept beside the rows. ``met``: the prompts that training has met, where it is known.
    """

    reading: Reading
    prepared: Prepared
    plan: GeometryPlan
    origin: Origin
    no_value: NoValue | None
    failures: Failures
    keeper: Keeper
    met: frozenset[str] | None = None
    unread: list[str] = field(default_factory=list)

    def failed(self, measure: str, no_value: NoValue, **columns: Any) -> Observation:
        """Return a row without a value."""
        if no_value.status == FAILED:
            self.failures.note_lost(measure, no_value.reason)
        return self.origin.failed(measure, no_value.status, no_value.reason, **columns)

    def explain(self, error: BaseException) -> NoValue:
        """Return why there is no number after an error. Raises it where it concerns more than this."""
        return NoValue(FAILED, self.failures.reason(error))

    def states(self) -> Iterator[tuple[str, SiteReading | None, NoValue | None]]:
        """Yield each site with what is read of it, or with why nothing is."""
        no_value, waiting = self.no_value, list(self.reading.sites)
        if no_value is None:
            try:
                for site, found in self.reading.states(self.prepared):
                    yield site, found, None
                    waiting.remove(site)
            except Exception as error:
                no_value = self.explain(error)
                if len(waiting) == len(self.reading.sites):
                    self.unread.append(no_value.reason)
        for site in waiting:
            yield site, None, no_value
