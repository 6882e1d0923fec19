"""Where the results of a run are worked on: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythiageo.compute.device import resolve_device
from pythiageo.errors import UserError, nearest

if TYPE_CHECKING:  # a command knows the engines' names without their libraries
    from pythiageo.measurement.checkpoint import MeasurementSpec
    from pythiageo.runs.analysis_progress import AnalysisProgress
    from pythiageo.runs.engine import Engine, WorkerPool

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class EngineChoice:
    """Which engine, and where it is: ``address`` of a Ray cluster, ``auto`` for the one that this machine is part of.

    Raises:
        UserError: no such engine, or an address for the local one.
    """

    name: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UserError(f"--engine: there is no {self.name!r}{nearest(self.name, ENGINES)}; local or ray")
        if self.name == "local" and self.address is not None:
            raise UserError("--address says where the Ray cluster is: it goes with --engine ray")


LOCAL = EngineChoice()


class LocalEngine:
    """This process."""

    def device(self, wanted: str) -> str:
        """See ``Engine``."""
        return resolve_device(wanted)

    def pool(self, spec: MeasurementSpec, progress: AnalysisProgress) -> WorkerPool:
        """See ``Engine``."""
        from pythiageo.engines.local import LocalPool  # noqa: PLC0415 - training does not load the lens

        return LocalPool(spec, progress)


@contextmanager
def open_engine(choice: EngineChoice) -> Iterator[Engine]:
    """Give the engine of a choice, connected to its cluster meanwhile.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    if choice.name == "local":
        yield LocalEngine()
        return
    from pythiageo.engines.ray.cluster import connected  # noqa: PLC0415 - an extra
    from pythiageo.engines.ray.pool import RayEngine  # noqa: PLC0415

    with connected(choice.address or "auto") as ray:
        yield RayEngine(ray)
