"""Small pieces of a run, tried on this machine: how long a checkpoint will take, and how much memory."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil  # type: ignore[import-untyped]
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.compute.allocator import give_back
from pythiageo.compute.device import find_device_here
from pythiageo.config.runs import RunConfig
from pythiageo.config.tables import LinearProbeConfig
from pythiageo.errors import CheckpointError
from pythiageo.estimate.landscape_trial import LandscapeTrial
from pythiageo.estimate.timer import scale, time_items
from pythiageo.estimate.trial_opening import TrialOpening
from pythiageo.estimate.trial_passes import TrialPasses
from pythiageo.lens import BridgeReader
from pythiageo.linear_probe.fit import warm_up
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import WORKSPACE, observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.linear_probe import LinearProbe
from pythiageo.measurement.plain_reading import SCORED
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared
from pythiageo.measurement.result import Origin
from pythiageo.measurement.saved_model import find_load_device
from pythiageo.measurement.sites import parse_layers
from pythiageo.no_value import NoValueError
from pythiageo.observations import ObservationStore
from pythiageo.probes.scoring import predict
from pythiageo.series.model_shape import ModelShape

_WIDTHS = 20
"""States of one block that are there at a time, in widths of the stream: 18 to 20 of them on Pythia's shapes."""
_SITE = "blocks.0.hook_resid_post"
_ORIGIN = Origin("plan", "plan", "naturalistic", "plan", None, 0, None, None)


class Trial:
    """Small pieces of a run, tried on this machine."""

    def __init__(self, config: RunConfig, shape: ModelShape, prepared: list[Prepared], folder: Path) -> None:
        self._config = config
        self._shape = shape
        positions = GeometryPlan.of(config.measures).positions
        self._prepared = prepared = [one.thin_out(positions) for one in prepared]
        self._sites = count_sites(config, shape)
        self._folder = folder
        probed = config.measures.linear_probe is not None
        self._device = find_device_here(config.compute.device)
        loaded = find_load_device(config.compute.device, config.compute.dtype)
        self._load_device = "cpu" if loaded == "cpu" else self._device
        self.passes = TrialPasses(shape, folder, prepared, config.compute, probed)
        self.opening = TrialOpening(shape, folder, config.compute, self._device, self._load_device, self.passes.longest)

    def time_checkpoint(self, size: int) -> dict[str, float]:
        """Return the seconds of the parts of one checkpoint, whose files have ``size`` bytes, without the landscape.

        Where threads wait for the last passes of a task, they are at sites of earlier tasks.
        """
        waiting, at_sites = self.passes.idle
        forward, geometry = self.time_forward(), self.time_geometry()
        parts = {
            "load": self.time_weights(size) + self.opening.time_opening(),
            "forward": (1 + waiting) * forward,
            "geometry": max(geometry - at_sites * forward, geometry / max(1, len(self.passes.forests))),
        }
        if self._config.measures.linear_probe is not None:
            parts["linear probe"] = self.time_linear_probe(self._config.measures.linear_probe)
        return parts

    def time_weights(self, size: int) -> float:
        """Return the seconds to read weights of ``size`` bytes; 0: of those of the model in half precision."""
        return self.opening.time_weights(size or 2 * self._shape.parameters)

    def time_forward(self) -> float:
        """Return the seconds of all forward passes, from passes through one block and logits at some positions.

        As if they were divided evenly among threads.
        """
        return self.passes.time() + self._time_logits()

    def _time_logits(self) -> float:
        scored = [rows for one in self.passes.all if (rows := one.examples * one.scored)]
        # logits of unit size: the exponentials of larger ones are denormal numbers, which take several times as long
        size = self._shape.d_model**-0.5
        unembedding = size * torch.randn(self._shape.vocab, self._shape.d_model, device=self._device)

        def unembed(rows: int) -> None:
            states = torch.ones(rows, self._shape.d_model, device=self._device)
            predict(states @ unembedding.T, torch.zeros(rows, dtype=torch.long))

        at_once = self._config.compute.passes_at_once
        timed = time_items(scored, unembed, warm_up=True, at_once=at_once)
        return scale(timed, float, sum(scored))

    def time_geometry(self) -> float:
        """Return the seconds of the geometry, from that of one site of as many probe sets as there is time for."""
        plan = replace(GeometryPlan.of(self._config.measures), linear_probe=None)

        def measure(prepared: Prepared) -> float:
            stand_in = _StandIn(self._shape.d_model, device=self._device)
            observe(self._read(stand_in), [_feed_kept(prepared)], plan, _ORIGIN)
            return stand_in.seconds

        tokens = sum(map(_count_tokens, self._geometry))
        timed = time_items(self._geometry, measure, at_once=self._config.compute.thread_count)
        return scale(timed, _count_tokens, tokens) * self._sites

    def time_linear_probe(self, config: LinearProbeConfig) -> float:
        """Return the seconds of the linear probes, from fits at one site of as many probe sets as there is time for.

        States of a falling spectrum in no particular direction stand in: the solver takes its time over small ones.
        """
        warm_up()
        stand_in = _StandIn(self._shape.d_model, mixed=True)

        def fit(prepared: Prepared) -> float:
            before = stand_in.seconds
            states = stand_in.states(_count_tokens(prepared))
            list(LinearProbe(config, self._read(stand_in), prepared, _ORIGIN, {}, None).rows(states))
            return stand_in.seconds - before

        probes = self._geometry
        return scale(time_items(probes, fit), lambda _: 1, len(probes)) * self._sites

    def _read(self, stand_in: _StandIn) -> Reading:
        return Reading(stand_in, {_SITE: 0}, self._config.compute.batch_tokens, 2**40)

    @property
    def _geometry(self) -> list[Prepared]:
        return [prepared for prepared in self._prepared if prepared.probe.purpose == GEOMETRY]

    def time_landscape(self, landscape: Landscape) -> float:
        """Return the seconds of the landscape measures of one checkpoint."""
        probes = [one for one in self._geometry if one.probe.probe_set.task in landscape.tasks]
        threads = self._config.compute.threads or 1
        return LandscapeTrial(landscape, self._shape, self._load_device, threads).time(probes)

    def estimate_memory(self, mapped: int = 0) -> int:
        """Return the expected peak of a run's process: itself, the weights, and the most that opening or work takes.

        Weights are loaded in float32, beside ``mapped`` bytes
        of files; TransformerLens then makes copies of joint matrices, and drops what it copied once it is open.
        """
        own = self._estimate_process()
        size = torch.empty(0, dtype=getattr(torch, self._config.compute.dtype)).element_size()
        loaded, opened = 4 * self._shape.parameters + mapped, size * self._shape.parameters
        copied = size * self._shape.joint
        return own + max(loaded, opened + max(copied, self._estimate_work()))

    def _estimate_work(self) -> int:
        """Return the bytes of forward passes, and of what stands beside them: states and their spectra, or logits."""
        width, heads = self._shape.d_model, self._shape.heads
        # one block: the stream, two norms, q, k, v, rotated and not, and an MLP of four widths before and after its
        # activation; scores and their softmax. Small ones stay with the process, so they count beside logits too
        passes, forests = self.passes.all, self.passes.forests
        passing = 4 * max((one.tokens * (_WIDTHS * width + 2 * heads * one.positions) for one in passes), default=0)
        tokens = max(map(_count_tokens, self._geometry), default=0)
        rows = max((len(task.kept) for task in forests), default=tokens)
        norms = max((8 * one.tokens for one in self._geometry if one.places is not None), default=0)
        site = 4 * rows * width + norms
        states = min(max(self._config.compute.state_bytes, site), site * self._sites)
        found = 4 * self._sites * width * max((one.tokens for one in passes), default=0)
        # rows in float64, again without their mean, and again in LAPACK's order; square matrices of the smaller side
        laid_out = 4 * tokens * width
        spectra = 3 * 2 * laid_out + 4 * 8 * min(tokens, width) ** 2
        threads, at_once = self._config.compute.thread_count, min(self._config.compute.passes_at_once, len(passes))
        beside = threads > 1
        if beside:  # sites are measured beside the next passes: some are at work, and more of them wait
            fitting = max(1, self._config.compute.state_bytes // max(1, WORKSPACE * laid_out))
            waiting = min(fitting, self._sites * len(self._geometry))
            spectra = waiting * laid_out + min(waiting, threads) * spectra
        logits = 4 * max((min(one.examples * one.scored, SCORED) for one in passes), default=0) * self._shape.vocab
        if forests:  # states and logits come out of the same pass; a site's states are laid out for every example
            parts = (at_once * (found + logits), laid_out + spectra)
            return at_once * passing + states + (sum(parts) if beside else max(parts))
        return at_once * passing + max(states + max(at_once * found, spectra), at_once * logits)

    def _estimate_process(self) -> int:
        """Return what a process takes that has all libraries of a run at work, after a rehearsal with one block."""
        block, length = self._shape.one_block(), 8
        ids = torch.zeros(1, length, dtype=torch.long)
        with suppress(CheckpointError), BridgeReader(block, self._folder) as reader:
            reader.read(ids, list(reader.sites()), None)
            reader.read(ids, [], torch.tensor([0]))
        if self._geometry:
            least = min(self._geometry, key=_count_tokens)
            reading = Reading(_StandIn(self._shape.d_model), {_SITE: 0}, 2048, 2**40)
            plan = replace(GeometryPlan.of(self._config.measures), linear_probe=None)
            rows = observe(reading, [least], plan, _ORIGIN)
            with TemporaryDirectory() as scratch:
                ObservationStore(Path(scratch)).write(_ORIGIN.step, rows)
        del block
        give_back()
        return int(psutil.Process(os.getpid()).memory_info().rss)


def _count_tokens(prepared: Prepared) -> int:
    return int(prepared.layout.lengths.sum())


def _feed_kept(prepared: Prepared) -> Prepared:
    """Return a probe set that has no other positions than those whose states are kept."""
    kept = prepared.layout.lengths.tolist()
    encoded = [replace(one, ids=one.ids[:count]) for one, count in zip(prepared.encoded, kept, strict=True)]
    return replace(prepared, encoded=encoded, places=None)


class _StandIn:
    """States with the trend of a residual stream: a large mean, and a spectrum that falls as one over the rank."""

    def __init__(self, width: int, mixed: bool = False, device: str = "cpu") -> None:
        self.seconds = 0.0
        self._device = device
        self._scale = 1 / torch.arange(1, width + 1)
        self._generator = torch.Generator().manual_seed(0)
        self._mixing = torch.linalg.qr(torch.randn(width, width, generator=self._generator))[0] if mixed else None

    def states(self, *shape: int) -> Float[Tensor, "*shape width"]:
        """Return as many states; ``mixed``: each feature has its share of every direction."""
        begun = time.perf_counter()
        states = torch.randn(*shape, len(self._scale), generator=self._generator) * self._scale
        states = ((states if self._mixing is None else states @ self._mixing) + self._scale).to(self._device)
        self.seconds += time.perf_counter() - begun
        return states

    def sites(self) -> dict[str, int]:
        return {_SITE: 0}

    def hooks(self) -> dict[str, str]:
        return {site: site for site in self.sites()}

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], None]:
        return dict.fromkeys(sites, self.states(*ids.shape)), None

    def attention_to_first(
        self, ids: Int[Tensor, "example position"], layers: list[int]
    ) -> dict[int, Float[Tensor, "example head"]]:
        """Raise ``NoValueError``: it has no heads."""
        raise NoValueError("made-up states come of no attention")


def count_sites(config: RunConfig, shape: ModelShape) -> int:
    """Return how many sites are measured; of named hooks only the patterns are known, taken as one a layer each."""
    layers = parse_layers(config.measures.layers, shape.layers)
    count = shape.layers if layers is None else len(layers)
    if config.measures.sites:
        return count * len(config.measures.sites)
    return count + (layers is None or shape.layers - 1 in layers)
