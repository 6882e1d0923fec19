"""Where the pieces of a run are worked on: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pythiageo.errors import UserError, nearest

if TYPE_CHECKING:  # a command knows the engines' names without their libraries
    from pythiageo.runs.piece import Piece
    from pythiageo.runs.watch import Watch
    from pythiageo.runs.workbench import Order
    from pythiageo.series.checkpoint import Checkpoint

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


class Engine(Protocol):
    """Takes checkpoints, fetches and measures them, gives finished pieces."""

    def pieces(self, checkpoints: Sequence[Checkpoint]) -> Iterator[Piece]:
        """Yield each checkpoint's piece once, in any order, as soon as it is finished.

        Whoever asks for the next one has kept the last. Leaving early ends the work and drops what was fetched.
        """


def make_engine(choice: EngineChoice, order: Order, watch: Watch) -> Engine:
    """Return the engine of a choice, at work on ``order``.

    Raises:
        UserError: measures, readouts, steps or tasks that there are not; no Ray.
    """
    if choice.name == "ray":
        from pythiageo.runs.engines.ray import RayEngine  # noqa: PLC0415 - an extra

        return RayEngine(order, watch, choice.address)
    from pythiageo.runs.engines.local import LocalEngine  # noqa: PLC0415

    return LocalEngine(order, watch)
