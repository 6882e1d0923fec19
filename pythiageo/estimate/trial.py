"""Small pieces of a run, tried on this machine: how long a checkpoint will take, and how much memory."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.compute.allocator import give_back
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.config.tables import LinearProbeConfig
from pythiageo.errors import CheckpointError
from pythiageo.lens import BridgeReader
from pythiageo.linear_probe.fit import warm_up
from pythiageo.measurement.forward import SCORED, Reading, passes
from pythiageo.measurement.geometry import GeometryPlan, observe
from pythiageo.measurement.landscape import Landscape, llc_settings
from pythiageo.measurement.linear_probe import Decoder
from pythiageo.measurement.probe_loss import logits_of, problem_of
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared
from pythiageo.measurement.rows import Origin
from pythiageo.measurement.sites import parse_layers
from pythiageo.observations import ObservationStore
from pythiageo.probes.encoding import Encoded
from pythiageo.probes.scoring import predict
from pythiageo.series.files.fingerprint import examine
from pythiageo.series.model_shape import FEW, ModelShape

_TRIAL_SECONDS = 3.0
"""How long each part is tried at most."""
_SAMPLE = 32 * 2**20
_WIDTHS = 20
"""States of one block that are there at a time, in widths of the stream: 18 to 20 of them on Pythia's shapes."""
_GRADIENTS = {"gradient_rank": 8.0, "gradient_covariance_rank": 1.0, "first_parameters_covariance_rank": 1.0,
              "hessian_top": 120.0}  # fmt: skip
_ORIGIN = Origin("plan", "plan", "naturalistic", "plan", None, 0, None, None)


class Trial:
    """Small pieces of a run, tried on this machine."""

    def __init__(self, config: AnalyzeConfig, blueprint: ModelShape, prepared: list[Prepared]) -> None:
        self._config = config
        self._blueprint = blueprint
        self._prepared = prepared
        self._sites = sites_of(config, blueprint)
        self.passes = list(passes(prepared, config.compute.batch_tokens, config.measures.linear_probe is not None))
        """Forward passes: examples, positions, positions with logits."""

    def seconds(self, size: int) -> dict[str, float]:
        """Return the seconds of the parts of one checkpoint, whose files have ``size`` bytes, without the landscape."""
        parts = {"load": self.load(size), "forward": self.forward(), "geometry": self.geometry()}
        if self._config.measures.linear_probe is not None:
            parts["linear probe"] = self.linear_probe(self._config.measures.linear_probe)
        return parts

    def load(self, size: int) -> float:
        """Return the seconds to hold a checkpoint's files against their hashes, to fingerprint and convert them."""
        sample = torch.randn(_SAMPLE // 2).half()
        begun = time.perf_counter()
        hashlib.sha256(sample.numpy().data)
        examine("trial", sample)
        sample.float()
        return (time.perf_counter() - begun) / _SAMPLE * (size or 2 * self._blueprint.parameters)

    def forward(self) -> float:
        """Return the seconds of all forward passes, from passes through one block and logits at some positions."""
        block = self._blueprint.one_block()
        spent, tried = 0.0, 0
        vocab = block.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        with torch.inference_mode():
            for examples, length, _ in [self.passes[0], *spread(self.passes)]:
                ids = torch.randint(0, vocab, (examples, length))
                begun = time.perf_counter()
                block(ids, use_cache=False, logits_to_keep=1)
                if tried or spent:  # the first pass warms up
                    spent += time.perf_counter() - begun
                    tried += examples * length
                else:
                    spent = 1e-9
                if spent > _TRIAL_SECONDS:
                    break
        tokens = sum(examples * length for examples, length, _ in self.passes)
        return spent / tried * tokens * self._blueprint.layers + self._logits()

    def _logits(self) -> float:
        rows = sum(examples * scored for examples, _, scored in self.passes)
        if not rows:
            return 0.0
        few = min(rows, 256)
        states = torch.randn(few, self._blueprint.d_model)
        unembedding = torch.randn(self._blueprint.vocab, self._blueprint.d_model)
        begun = time.perf_counter()
        predict(states @ unembedding.T, torch.zeros(few, dtype=torch.long))
        return (time.perf_counter() - begun) / few * rows

    def geometry(self) -> float:
        """Return the seconds of the geometry, from that of one site of as many probe sets as there is time for."""
        instruments = replace(GeometryPlan.of(self._config.measures), linear_probe=None)
        probes = self._geometry
        spent, tried = 0.0, 0
        for prepared in spread(probes):
            stand_in = _StandIn(self._blueprint.d_model)
            reading = Reading(stand_in, {"blocks.0.hook_resid_post": 0}, self._config.compute.batch_tokens, 2**40)
            begun = time.perf_counter()
            observe(reading, [prepared], instruments, _ORIGIN)
            spent += time.perf_counter() - begun - stand_in.seconds
            tried += int(prepared.layout.lengths.sum())
            if spent > _TRIAL_SECONDS:
                break
        tokens = sum(int(prepared.layout.lengths.sum()) for prepared in probes)
        return spent / tried * tokens * self._sites if tried else 0.0

    def linear_probe(self, config: LinearProbeConfig) -> float:
        """Return the seconds of the linear probes, from fits at one site of as many probe sets as there is time for.

        States of a falling spectrum in no particular direction stand in: the solver takes its time over small ones.
        """
        warm_up()
        spent, tried = 0.0, 0
        stand_in = _StandIn(self._blueprint.d_model, mixed=True)
        for prepared in spread(self._geometry):
            states = stand_in.states(int(prepared.layout.lengths.sum()))
            reading = Reading(stand_in, {"blocks.0.hook_resid_post": 0}, self._config.compute.batch_tokens, 2**40)
            begun = time.perf_counter()
            list(Decoder(config, reading, prepared, _ORIGIN, {}, None).rows(states))
            spent += time.perf_counter() - begun
            tried += 1
            if spent > _TRIAL_SECONDS:
                break
        return spent / tried * len(self._geometry) * self._sites if tried else 0.0

    @property
    def _geometry(self) -> list[Prepared]:
        return [prepared for prepared in self._prepared if prepared.probe.purpose == GEOMETRY]

    def landscape(self, landscape: Landscape) -> float:
        """Return the seconds of the landscape measures of one checkpoint, from the gradient of one block's loss.

        In gradients of all examples, as measured on small models: a rank takes about 8 and the products of examples
        (docs/landscape.md), a top eigenvalue 60 products, a probe of the trace one, of 2 gradients each; a draw of the
        LLC its share of the examples.
        """
        config, block = landscape.config, self._blueprint.one_block()
        probes = [
            p for p in self._prepared if p.probe.purpose == GEOMETRY and p.probe.probe_set.task in landscape.tasks
        ]
        total = 0.0
        for prepared in probes:
            encoded = prepared.encoded[: config.examples]
            few = [_small(example) for example in encoded[:32]]
            problem = problem_of(block, logits_of(block), few)
            problem.gradient()
            begun = time.perf_counter()
            problem.gradient()
            example = (time.perf_counter() - begun) / len(few) * self._blueprint.layers
            gradients = sum(_GRADIENTS.get(name, 0.0) for name in landscape.measures)
            gradients += 2 * config.hessian.probes if "hessian_trace" in landscape.measures else 0
            draws = 0
            if "llc" in landscape.measures:
                settings = llc_settings(config, len(encoded))
                batch = min(settings.batch or len(encoded), len(encoded))
                draws = settings.chains * (settings.burn_in + settings.draws) * batch
            total += example * (gradients * len(encoded) + draws)
        return total * (self._blueprint.layers if config.per_layer else 1)

    def memory(self, folder: Path, mapped: int = 0) -> int:
        """Return the expected peak of a run's process: itself, the weights, and the most that opening or work takes.

        ``folder``: with the checkpoint's config and tokenizer. Weights are loaded in float32, beside ``mapped`` bytes
        of files; TransformerLens then makes copies of joint matrices, and drops what it copied once it is open.
        """
        own = self._process(folder)
        size = torch.empty(0, dtype=getattr(torch, self._config.compute.dtype)).element_size()
        loaded, opened = 4 * self._blueprint.parameters + mapped, size * self._blueprint.parameters
        return own + max(loaded, opened + max(size * self._blueprint.joint, self._work()))

    def _work(self) -> int:
        """Return the bytes of forward passes, and of what stands beside them: states and their spectra, or logits."""
        width, heads = self._blueprint.d_model, self._blueprint.heads
        # one block: the stream, two norms, q, k, v, rotated and not, and an MLP of four widths before and after its
        # activation; scores and their softmax. Small ones stay with the process, so they count beside logits too
        passing = 4 * max(
            (examples * length * (_WIDTHS * width + 2 * heads * length) for examples, length, _ in self.passes),
            default=0,
        )
        tokens = max((int(prepared.layout.lengths.sum()) for prepared in self._geometry), default=0)
        site = 4 * tokens * width
        states = min(max(self._config.compute.state_bytes, site), site * self._sites)
        found = 4 * self._sites * width * max((examples * length for examples, length, _ in self.passes), default=0)
        # rows in float64, again without their mean, and again in LAPACK's order; square matrices of the smaller side
        spectra = 3 * 2 * site + 4 * 8 * min(tokens, width) ** 2
        scored = max((min(examples * positions, SCORED) for examples, _, positions in self.passes), default=0)
        return passing + max(states + max(found, spectra), 4 * scored * self._blueprint.vocab)

    def _process(self, folder: Path) -> int:
        """Return what a process takes that has all libraries of a run at work, after a rehearsal with one block."""
        block, length = self._blueprint.one_block(), 8
        ids = torch.zeros(1, length, dtype=torch.long)
        with suppress(CheckpointError), BridgeReader(block, folder) as reader:
            reader.read(ids, list(reader.sites()), None)
            reader.read(ids, [], torch.tensor([0]))
        if self._geometry:
            least = min(self._geometry, key=lambda prepared: int(prepared.layout.lengths.sum()))
            reading = Reading(_StandIn(self._blueprint.d_model), {"blocks.0.hook_resid_post": 0}, 2048, 2**40)
            instruments = replace(GeometryPlan.of(self._config.measures), linear_probe=None)
            rows = observe(reading, [least], instruments, _ORIGIN)
            with TemporaryDirectory() as scratch:
                ObservationStore(Path(scratch)).write(_ORIGIN.step, rows)
        del block
        give_back()
        return int(psutil.Process(os.getpid()).memory_info().rss)


def _small(example: Encoded) -> Encoded:
    """Return an example in the few tokens of the trial block's vocabulary."""
    ids, targets = (tuple(token % FEW for token in tokens) for tokens in (example.ids, example.targets))
    return replace(example, ids=ids, targets=targets)


class _StandIn:
    """States with the trend of a residual stream: a large mean, and a spectrum that falls as one over the rank."""

    def __init__(self, width: int, mixed: bool = False) -> None:
        self.seconds = 0.0
        self._scale = 1 / torch.arange(1, width + 1)
        self._generator = torch.Generator().manual_seed(0)
        self._mixing = torch.linalg.qr(torch.randn(width, width, generator=self._generator))[0] if mixed else None

    def states(self, *shape: int) -> Float[Tensor, "*shape width"]:
        """Return as many states; ``mixed``: each feature has its share of every direction."""
        states = torch.randn(*shape, len(self._scale), generator=self._generator) * self._scale
        return (states if self._mixing is None else states @ self._mixing) + self._scale

    def sites(self) -> dict[str, int]:
        return {"blocks.0.hook_resid_post": 0}

    def hooks(self) -> dict[str, str]:
        return {site: site for site in self.sites()}

    def read(
        self, ids: Int[Tensor, "example position"], sites: list[str], logit_positions: Int[Tensor, " scored"] | None
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], None]:
        begun = time.perf_counter()
        states = self.states(*ids.shape)
        self.seconds += time.perf_counter() - begun
        return dict.fromkeys(sites, states), None


def sites_of(config: AnalyzeConfig, blueprint: ModelShape) -> int:
    """Return how many sites are measured; of named hooks only the patterns are known, taken as one a layer each."""
    layers = parse_layers(config.measures.layers, blueprint.layers)
    count = blueprint.layers if layers is None else len(layers)
    if config.measures.sites:
        return count * len(config.measures.sites)
    return count + (layers is None or blueprint.layers - 1 in layers)


def spread(items: Sequence[Any]) -> Iterator[Any]:
    """Yield items in an order in which every beginning is spread over all of them."""
    first = max(1, round(len(items) * 0.618))
    stride = next(k for k in range(first, 2 * len(items) + 2) if math.gcd(k, len(items)) == 1)
    yield from (items[k * stride % len(items)] for k in range(len(items)))
