"""An audit of the steps that are wanted first, before the rest of a series is listed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from pythiageo.series.audit.audit import Audit, Auditable, judge
from pythiageo.series.audit.rules import WARM_UP
from pythiageo.series.files.weight_files import Revision


@runtime_checkable
class ListedInPart(Auditable, Protocol):
    """A series of which some steps can be listed without the others."""

    def steps(self) -> list[int]:
        """Return the steps that it has, ascending."""

    def inventory_of(self, steps: Collection[int], report: Callable[[int, int], None]) -> list[Revision]:
        """Return the weight files of these steps, and of ``main``; see ``inventory``."""

    def count_unlisted(self) -> int:
        """Return how many steps must be asked for to list all; 0 where all is kept from before."""


def needed_first(chosen: Collection[int], there: Sequence[int]) -> list[int]:
    """Return the steps that tell what can be told of the chosen ones before all others are listed.

    The last step, which ``main`` and the others are held against, and those of the warm-up are among them: so what is
    listed later only ever adds steps that share weights, and a verdict can only get worse.
    """
    warm_up = [step for step in there if step <= WARM_UP] if min(chosen, default=WARM_UP + 1) <= WARM_UP else []
    return sorted({*chosen, *warm_up, *there[-1:]})


def audit_part(
    series: ListedInPart, steps: Collection[int], expected: Sequence[int], report: Callable[[int, int], None]
) -> Audit:
    """Return the audit of some steps, judged by their own listings alone; ``needed_first`` says which it takes.

    Raises:
        MachineError: the Hub cannot be reached.
    """
    revisions = series.inventory_of(steps, report)
    main = next((one for one in revisions if one.step is None), None)
    found = judge(series.name, [one for one in revisions if one.step is not None], main, expected)
    return replace(found.only(steps), remarks=series.remarks)
