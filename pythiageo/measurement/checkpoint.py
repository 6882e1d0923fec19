"""One checkpoint in, its result out: the path of a saved series, a followed training, and a model that trains here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from pythiageo.compute.side_by_side import SideBySide
from pythiageo.compute.threads import torch_threads
from pythiageo.config.runs import AnalyzeConfig, FetchConfig, RunConfig
from pythiageo.measurement.failures import Failures
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.keeper import Keeper
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_loss import Logits, ScoredLogits
from pythiageo.measurement.probe_sets import Prepared, Probe
from pythiageo.measurement.reader import Reader
from pythiageo.measurement.result import CheckpointResult, Origin
from pythiageo.measurement.task_forest import TaskForest, grow
from pythiageo.observations import Observation
from pythiageo.series.checkpoint import Step
from pythiageo.series.origin import Source
from pythiageo.series.tokenizers import NamedTokenizer


@dataclass(frozen=True)
class MeasurementSpec:
    """What is asked of every checkpoint of a run. Plain data: it is the same in another process, or on another machine.

    ``steps``: those of the whole run. ``identity``: series, regime, size and seed. ``only``: tasks and levels of
    ``probes`` to measure, where the others are measured already. ``tokenizer``: in place of those of the checkpoints.

    ``in_memory``: the model is somebody's, in memory, and nobody looked ahead at its tokenizer. A probe set of which it
    can take no item is refused, and a step that fails keeps its weights' fingerprint: it cannot be opened again.
    """

    config: RunConfig
    identity: dict[str, Any]
    probes: list[Probe]
    device: str
    steps: Sequence[int]
    tokenizer: NamedTokenizer | None = None
    only: frozenset[tuple[str, str]] | None = None
    in_memory: bool = False

    @property
    def fetch(self) -> FetchConfig:
        """How checkpoints are fetched."""
        return self.config.fetch if isinstance(self.config, AnalyzeConfig) else FetchConfig()

    def origin(self, step: int, tokens: int | None, weight_sha: str | None) -> Origin:
        """Return the columns that all rows of a checkpoint share."""
        return Origin(run=self.config.name, step=step, tokens=tokens, weight_sha=weight_sha, **self.identity)


@dataclass(frozen=True)
class LiveCheckpoint:
    """A step of a model in memory; ``weight_sha`` and ``nonfinite`` where its weights were looked at."""

    step: int
    tokens: int | None
    label: str
    weight_sha: str | None = None
    nonfinite: str | None = None


@dataclass(frozen=True)
class OpenModel:
    """A model in memory, ready to be measured: its plain module for the landscape, and a reader of its states.

    ``open_reader``: called once the landscape is measured, for TransformerLens takes the module apart. ``prepared``:
    the probe sets under its tokenizer. ``nonfinite``: why the weights cannot be measured. ``scored_logits``: a faster
    way to the loss, where it has one. ``description``: what the manifest says of it. ``further``: gives other rows;
    ``first``: those that are taken of the module before anything else. ``met``: the prompts that its training has met,
    where that is known. ``passes_at_once``: threads that may ask the reader at a time.
    """

    module: nn.Module
    layers: int
    logits: Logits
    open_reader: Callable[[], AbstractContextManager[Reader]]
    prepared: list[Prepared]
    weight_sha: str
    nonfinite: str | None
    scored_logits: ScoredLogits | None = None
    description: dict[str, Any] | None = None
    source: Source | None = None
    further: Callable[[Origin], list[Observation]] = lambda _: []
    first: Callable[[Origin, Failures], list[Observation]] = lambda _origin, _failures: []
    met: frozenset[str] | None = None
    passes_at_once: int = 1


class Follower(Protocol):
    """Is told what the work is at."""

    def phase(self, name: str, doing: str) -> AbstractContextManager[None]:
        """Enclose a phase of the checkpoint under way."""

    def report_share(self, share: float) -> None:
        """Note which share of the checkpoint is measured."""


class Stopwatch:
    """A follower that times the phases of the checkpoint under way, until they are read."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    def note_fetch(self, seconds: float | None) -> None:
        """Note how long fetching the checkpoint took, where that is known."""
        if seconds is not None:
            self._spent["fetch"] = seconds

    @contextmanager
    def phase(self, name: str, doing: str) -> Iterator[None]:
        """Time a phase; ``doing`` is for people, and nobody looks at a stopwatch."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._spent[name] = time.monotonic() - begun

    def report_share(self, share: float) -> None:
        """Nobody is told which share of the checkpoint is measured."""

    def read(self) -> dict[str, float]:
        """Return seconds a phase, and begin anew."""
        spent, self._spent = self._spent, {}
        return spent


C = TypeVar("C", bound=Step)


class CheckpointMeasurer(Generic[C]):
    """Measures one checkpoint after the other for a specification.

    ``open_model`` makes of a checkpoint the model to measure: ``saved_model.SavedModels`` through TransformerLens, or
    ``runs.train`` the one that trains.

    Raises:
        UserError: measures, readouts, steps or tasks that there are not.
    """

    def __init__(
        self, spec: MeasurementSpec, open_model: Callable[[C], OpenModel], follower: Follower | None = None
    ) -> None:
        self._spec = spec
        self._open_model = open_model
        self._follower = follower or Stopwatch()
        measures = spec.config.measures
        self._geometry = GeometryPlan.of(measures, spec.config.compute.dtype)
        self._landscape = Landscape.of(measures.landscape, spec.steps, spec.probes)
        self._grown: tuple[list[Prepared], list[Prepared], list[TaskForest]] = [], [], []

    def measure(
        self,
        checkpoint: C,
        fetch_error: Exception | None = None,
        look: Callable[[], None] = lambda: None,
        strict: bool = False,
    ) -> CheckpointResult:
        """Open and measure a checkpoint; ``look`` is called between its probe sets.

        ``fetch_error``: why it could not be fetched. Whatever error is met, the result says so; only what concerns more
        than this checkpoint is raised. ``strict``: an error that leaves no numbers at all is raised, too.

        Raises:
            UserError: something that cannot be measured so.
            MachineError: the disk is full, or memory runs out over a single example.
        """
        failures = Failures()
        step, tokens, label = checkpoint.step, checkpoint.tokens, checkpoint.label
        weight_sha: str | None = None
        try:
            if fetch_error is not None:
                raise fetch_error
            with self._follower.phase("load", f"opening {label}"):
                model = self._open_model(checkpoint)
            weight_sha = model.weight_sha
            with self._follower.phase("compute", f"measuring {label}"):
                origin = self._spec.origin(step, tokens, weight_sha)
                keeper = Keeper(self._geometry, origin, failures)
                rows, passes = self._observe(model, origin, look, failures, keeper)
        except BaseException as error:
            if strict:
                raise
            status, reason = failures.of_checkpoint(error, label)
            # a saved one has none noted: a later checkpoint of the same weights would be referred to it
            origin = self._spec.origin(step, tokens, weight_sha if self._spec.in_memory else None)
            return CheckpointResult.failed(origin, label, status, reason, tuple(failures.tracebacks))
        return CheckpointResult(
            step,
            label,
            weight_sha,
            *failures.outcome(model.nonfinite),
            rows,
            model.description,
            source=model.source,
            tracebacks=tuple(failures.tracebacks),
            passes=passes,
            kept=keeper.kept,
        )

    def _observe(
        self, model: OpenModel, origin: Origin, look: Callable[[], None], failures: Failures, keeper: Keeper
    ) -> tuple[list[Observation], str | None]:
        """Return the rows of scores, geometry and linear probe, of the landscape, and what else there is.

        Beside them how prompts went through the model, ``None`` if none did.
        """

        def look_and_report(share: float) -> None:
            look()
            self._follower.report_share(share)

        config, nonfinite = self._spec.config, model.nonfinite
        first = model.first(origin, failures)
        # one gradient after the other: a number of threads that was asked for divides its products
        with torch_threads(config.compute.threads or 1):
            landscape = self._landscape.rows(
                model.module,
                model.logits,
                model.layers,
                model.prepared,
                origin,
                nonfinite,
                model.scored_logits,
                failures,
            )
        threads = SideBySide(config.compute.thread_count, config.compute.state_bytes)
        with model.open_reader() as reader, threads as side_by_side:
            prepared, forests = self._grow(model.prepared)
            forests = [] if nonfinite else forests
            reading = Reading.of(reader, config.measures, config.compute, forests, side_by_side, model.passes_at_once)
            rows = observe(
                reading,
                prepared,
                self._geometry,
                origin,
                nonfinite,
                look_and_report,
                failures,
                keeper,
                model.met,
            )
        return [*rows, *landscape, *first, *model.further(origin)], None if nonfinite else reading.passes

    def _grow(self, prepared: list[Prepared]) -> tuple[list[Prepared], list[TaskForest]]:
        """Return probe sets, thinned out to the states that are read, and their forests.

        Those of the last checkpoint where it had the same probe sets.
        """
        known, thin, forests = self._grown
        if len(known) != len(prepared) or any(a is not b for a, b in zip(known, prepared, strict=True)):
            thin = [one.thin_out(self._geometry.positions) for one in prepared]
            forests = grow(thin, self._geometry.linear_probe is not None)
            self._grown = prepared, thin, forests
        return thin, forests
