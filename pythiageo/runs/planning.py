"""What an analysis will take, before any weights are fetched: bytes, disk, memory and time on this machine."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.errors import CheckpointError, UserError
from pythiageo.probes.encoding import Encoded, FileTokenizer
from pythiageo.probes.scoring import predict
from pythiageo.runs.auditing import Choice, choose_steps
from pythiageo.runs.config import AnalyzeConfig
from pythiageo.runs.landscape import Landscape, llc_settings
from pythiageo.runs.measuring import Instruments, Origin, observe
from pythiageo.runs.probing import GEOMETRY, Prepared, Probe, choose_probes, prepare
from pythiageo.runs.problems import logits_of, problem_of
from pythiageo.runs.progress import Progress, Reporter
from pythiageo.runs.reading import SCORED, Reading, passes
from pythiageo.runs.sites import parse_layers
from pythiageo.series import open_series
from pythiageo.series.blueprint import FEW, Blueprint
from pythiageo.series.checkpoint import Checkpoint
from pythiageo.series.fetching import HubCheckpoint
from pythiageo.series.hub import HubSeries
from pythiageo.series.weights import examine

_TRIAL_SECONDS = 3.0
"""How long each part is tried at most."""
_LISTERS = 8
_SAMPLE = 32 * 2**20
_GRADIENTS = {"gradient_rank": 8.0, "gradient_covariance_rank": 1.0, "first_parameters_covariance_rank": 1.0,
              "hessian_top": 120.0}  # fmt: skip
_ORIGIN = Origin("plan", "plan", "naturalistic", "plan", None, 0, None, None)


@dataclass(frozen=True)
class Plan:
    """What a run will take. Bytes and seconds; ``seconds`` are of one checkpoint, downloads left out."""

    series: str
    architecture: str
    parameters: int
    checkpoints: int
    to_measure: int
    left_out: dict[str, int]
    forward_tokens: int
    download_bytes: int
    largest_bytes: int
    disk_peak_bytes: int
    disk_free_bytes: int
    memory_peak_bytes: int
    memory_free_bytes: int
    seconds: dict[str, float]
    landscape_checkpoints: int
    """Checkpoints of which landscape measures are taken, too."""
    landscape_seconds: float
    """Of one of them."""

    @property
    def checkpoint_seconds(self) -> float:
        """Expected time of one checkpoint once it is here."""
        return sum(self.seconds.values())

    @property
    def total_seconds(self) -> float:
        """Expected time of all, where downloads keep pace."""
        return self.to_measure * self.checkpoint_seconds + self.landscape_checkpoints * self.landscape_seconds

    @property
    def pace_bytes(self) -> float:
        """Bytes a second at which downloads keep pace with measuring."""
        return self.download_bytes / self.total_seconds if self.total_seconds else 0.0

    @property
    def obstacles(self) -> list[str]:
        """Why this cannot run here as it is, a sentence each."""
        found = []
        if self.memory_peak_bytes > self.memory_free_bytes:
            found.append(
                f"it needs {_gb(self.memory_peak_bytes)} of memory, and {_gb(self.memory_free_bytes)} are free"
            )
        if self.disk_peak_bytes > self.disk_free_bytes:
            found.append(f"it needs {_gb(self.disk_peak_bytes)} of disk, {_gb(self.disk_free_bytes)} are free")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return all of it for scripts."""
        derived = {
            "checkpoint_seconds": self.checkpoint_seconds,
            "total_seconds": self.total_seconds,
            "pace_bytes_per_second": self.pace_bytes,
            "obstacles": self.obstacles,
        }
        return {**asdict(self), **derived}


def make_plan(config: AnalyzeConfig, out: Path, report: Reporter) -> Plan:
    """Find out what a run of ``config`` will take; of the Hub only listings, one config and one tokenizer are asked.

    Time is tried, not computed: one block of the model's shape with random weights on the run's own probe sets, the
    geometry of one site of them, the reading of a few megabytes; the rest is multiplication.

    Raises:
        UserError: see ``analyze``; nothing to measure; a disk budget that the largest checkpoint does not fit into.
        MachineError: the Hub cannot be reached.
    """
    torch.set_num_threads(config.compute.thread_count)
    series = open_series(config.target, config.step_pattern)
    if isinstance(series, HubSeries) and not config.fetch.keep:
        series.store = out / "downloads"
    choice = choose_steps(config, series, lambda _: None, report)
    there = set(series.steps())
    wanted = [step for step in choice.steps if step not in choice.left_out and not choice.earlier.get(step)]
    checkpoints = list(series.checkpoints([step for step in wanted if step in there]))
    if not checkpoints:
        raise UserError(f"{series.name}: the audit leaves nothing to measure of {len(choice.steps)} steps")
    report(Progress(config.name, 0, 1, f"listing {len(checkpoints)} checkpoints"))
    sizes = _sizes(checkpoints)
    budget = config.fetch.bytes
    if budget is not None and max(sizes) > budget:
        raise UserError(f"the disk budget of {_gb(budget)} is below the largest checkpoint's {_gb(max(sizes))}")
    with TemporaryDirectory() as scratch:
        report(Progress(config.name, 0, 1, "trying this machine"))
        folder = checkpoints[0].describe(Path(scratch))
        blueprint = Blueprint.read(folder, checkpoints[0].label)
        probes = choose_probes(config.probes)
        prepared = prepare(probes, FileTokenizer(folder), blueprint.context)
    landscape = Landscape.of(config.measures.landscape, choice.steps, probes)
    trial = _Trial(config, blueprint, prepared)
    return Plan(
        series=series.name,
        architecture=blueprint.architecture,
        parameters=blueprint.parameters,
        checkpoints=len(choice.steps),
        to_measure=len(checkpoints),
        left_out=_left_out(choice),
        forward_tokens=sum(examples * length for examples, length, _ in trial.passes),
        download_bytes=sum(sizes),
        largest_bytes=max(sizes),
        disk_peak_bytes=_disk(config, sizes),
        disk_free_bytes=psutil.disk_usage(str(_existing(out))).free,
        memory_peak_bytes=trial.memory(),
        memory_free_bytes=psutil.virtual_memory().available,
        seconds={"load": trial.load(max(sizes)), "forward": trial.forward(), "geometry": trial.geometry()},
        landscape_checkpoints=len(landscape.steps & set(wanted)),
        landscape_seconds=trial.landscape(landscape) if landscape.steps & set(wanted) else 0.0,
    )


@dataclass(frozen=True)
class Needs:
    """What measuring one checkpoint takes at most: bytes of memory, bytes of disk for the largest."""

    memory: int
    disk: int


def find_needs(config: AnalyzeConfig, checkpoints: Sequence[Checkpoint], probes: list[Probe]) -> Needs:
    """Return what a checkpoint of the run takes, as ``make_plan`` says it.

    Of the Hub one config and one tokenizer are asked, and listings where there is a disk budget. If no checkpoint's
    config can be read, nothing is known of its memory: 0.

    Raises:
        UserError: the tokenizer cannot read the probe sets.
    """
    disk = max(_sizes(checkpoints)) if config.fetch.bytes is not None else 0
    with TemporaryDirectory() as scratch:
        for number, checkpoint in enumerate(checkpoints):
            try:
                folder = checkpoint.describe(Path(scratch) / str(number))
                blueprint = Blueprint.read(folder, checkpoint.label)
            except CheckpointError:
                continue
            prepared = prepare(probes, FileTokenizer(folder), blueprint.context)
            return Needs(_Trial(config, blueprint, prepared).memory(), disk)
    return Needs(0, disk)


def _left_out(choice: Choice) -> dict[str, int]:
    """Return how many steps are not measured, by verdict."""
    verdicts = [found.verdict for found in choice.left_out.values()]
    verdicts += ["same-as-neighbour" for earlier in choice.earlier.values() if earlier]
    return {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}


def _sizes(checkpoints: Sequence[Checkpoint]) -> list[int]:
    """Return the bytes to fetch of each; one that cannot be listed counts as nothing, and fails in its own time."""

    def size(checkpoint: Checkpoint) -> int:
        try:
            return checkpoint.size() if isinstance(checkpoint, HubCheckpoint) else 0
        except CheckpointError:
            return 0

    with ThreadPoolExecutor(_LISTERS) as pool:
        return list(pool.map(size, checkpoints))


def _disk(config: AnalyzeConfig, sizes: list[int]) -> int:
    if config.fetch.keep:
        return sum(sizes)
    together = config.fetch.ahead + 1
    most = max(sum(sizes[start : start + together]) for start in range(len(sizes)))
    return most if config.fetch.bytes is None else min(most, config.fetch.bytes)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


class _Trial:
    """Small pieces of a run, tried on this machine."""

    def __init__(self, config: AnalyzeConfig, blueprint: Blueprint, prepared: list[Prepared]) -> None:
        self._config = config
        self._blueprint = blueprint
        self._prepared = prepared
        self._sites = _sites_of(config, blueprint)
        self.passes = list(passes(prepared, config.compute.batch_tokens))
        """Forward passes: examples, positions, positions with logits."""

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
            for examples, length, _ in [self.passes[0], *_spread(self.passes)]:
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
        instruments = Instruments.of(self._config.measures)
        probes = [prepared for prepared in self._prepared if prepared.probe.purpose == GEOMETRY]
        spent, tried = 0.0, 0
        for prepared in _spread(probes):
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

    def memory(self) -> int:
        """Return the expected peak: this process, float32 weights, and the larger of TransformerLens' copies of joint
        matrices at loading and of states with their spectra, or logits, at work."""
        weights, width = 4 * self._blueprint.parameters, self._blueprint.d_model
        tokens = max((int(p.layout.lengths.sum()) for p in self._prepared if p.probe.purpose == GEOMETRY), default=0)
        site = 4 * tokens * width
        states = min(max(self._config.compute.state_bytes, site), site * self._sites)
        # a readout selects rows and takes them to float64; a square matrix and its eigenvectors beside
        spectra = 3 * site + 3 * 8 * min(tokens, width) ** 2
        scored = max((examples * positions for examples, _, positions in self.passes), default=0)
        logits = 3 * 4 * min(scored, SCORED) * self._blueprint.vocab
        widest = max((examples * length for examples, length, _ in self.passes), default=0)
        passing = 4 * widest * 8 * width
        own = psutil.Process(os.getpid()).memory_info().rss
        return own + weights + max(4 * self._blueprint.joint, passing + max(states + spectra, logits))


def _small(example: Encoded) -> Encoded:
    """Return an example in the few tokens of the trial block's vocabulary."""
    ids, targets = (tuple(token % FEW for token in tokens) for tokens in (example.ids, example.targets))
    return replace(example, ids=ids, targets=targets)


class _StandIn:
    """States with the trend of a residual stream: a large mean, and a spectrum that falls as one over the rank."""

    def __init__(self, width: int) -> None:
        self.seconds = 0.0
        self._scale = 1 / torch.arange(1, width + 1)
        self._generator = torch.Generator().manual_seed(0)

    def sites(self) -> dict[str, int]:
        return {"blocks.0.hook_resid_post": 0}

    def hooks(self) -> dict[str, str]:
        return {site: site for site in self.sites()}

    def read(
        self, ids: Int[Tensor, "example position"], sites: list[str], logit_positions: Int[Tensor, " scored"] | None
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], None]:
        begun = time.perf_counter()
        states = torch.randn(*ids.shape, len(self._scale), generator=self._generator) * self._scale + self._scale
        self.seconds += time.perf_counter() - begun
        return dict.fromkeys(sites, states), None


def _sites_of(config: AnalyzeConfig, blueprint: Blueprint) -> int:
    """Return how many sites are measured; of named hooks only the patterns are known, taken as one a layer each."""
    layers = parse_layers(config.measures.layers, blueprint.layers)
    count = blueprint.layers if layers is None else len(layers)
    if config.measures.sites:
        return count * len(config.measures.sites)
    return count + (layers is None or blueprint.layers - 1 in layers)


def _spread(items: Sequence[Any]) -> Iterator[Any]:
    """Yield items in an order in which every beginning is spread over all of them."""
    first = max(1, round(len(items) * 0.618))
    stride = next(k for k in range(first, 2 * len(items) + 2) if math.gcd(k, len(items)) == 1)
    yield from (items[k * stride % len(items)] for k in range(len(items)))


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
