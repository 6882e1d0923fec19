"""What an analysis will take, before any weights are fetched: bytes, disk, memory and time on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from pythiageo.compute.device import find_device_here
from pythiageo.config.protocols import describe_protocol
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import CheckpointError, UserError, count_noun
from pythiageo.estimate.card import Card, time_on
from pythiageo.estimate.kept import count_kept
from pythiageo.estimate.trial import Trial, count_sites
from pythiageo.interrupts import map_in_threads
from pythiageo.locations import check_folder
from pythiageo.measurement.checkpoint import MeasurementSpec
from pythiageo.measurement.examples import look_ahead
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_sets import choose_probes
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.check_names import check_names
from pythiageo.runs.choose_steps import StepChoice, choose_steps
from pythiageo.series import open_series
from pythiageo.series.audit.samples import most_bytes
from pythiageo.series.causality import check_causal
from pythiageo.series.checkpoint import FETCHING, Checkpoint, Mapped, checkpoints_of, is_fetchable
from pythiageo.series.tokenizers import read_tokenizer

_LISTERS = 8


@dataclass(frozen=True)
class Plan:
    """What a run will take. Bytes and seconds; ``seconds`` are of one checkpoint, downloads left out."""

    series: str
    architecture: str
    parameters: int
    checkpoints: int
    to_measure: int
    left_out: dict[str, int]
    items: list[str]
    """Which items of which probe set are left out or not fed whole."""
    forward_tokens: int
    audit_bytes: int
    """Bytes that the audit by value reads, at most; those that are kept from before are not read again."""
    download_bytes: int
    largest_bytes: int
    disk_peak_bytes: int
    disk_free_bytes: int
    kept_bytes: dict[str, int]
    """What all checkpoints together keep beside the table, on the disk: spectra, sketches."""
    memory_peak_bytes: int
    memory_free_bytes: int
    seconds: dict[str, float]
    landscape_checkpoints: int
    """Checkpoints of which landscape measures are taken, too."""
    landscape_seconds: float
    """Of one of them."""
    remarks: tuple[str, ...]
    """What the series says of itself, such as revisions that are not read as steps."""
    card: str | None
    """The GPU from whose rates the seconds are computed; ``None`` where they were tried here."""
    card_bytes: int | None
    """Its memory."""
    workers: int
    """Workers that the checkpoints are divided over, each as fast as this machine; disk and memory are of one."""

    @property
    def checkpoint_seconds(self) -> float:
        """Expected time of one checkpoint once it is here."""
        return sum(self.seconds.values())

    @property
    def total_seconds(self) -> float:
        """Expected time of all, where downloads keep pace: that of the worker with the most checkpoints."""
        most, landscape = (-(-count // self.workers) for count in (self.to_measure, self.landscape_checkpoints))
        return most * self.checkpoint_seconds + landscape * self.landscape_seconds

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
                f"it needs {_in_gb(self.memory_peak_bytes)} of memory, and {_in_gb(self.memory_free_bytes)} are free"
            )
        if self.card_bytes is not None and self.memory_peak_bytes > self.card_bytes:
            found.append(
                f"it needs up to {_in_gb(self.memory_peak_bytes)} of a GPU's memory, and one {self.card} has "
                f"{_in_gb(self.card_bytes)}"
            )
        disk = self.disk_peak_bytes + sum(self.kept_bytes.values())
        if disk > self.disk_free_bytes:
            found.append(f"it needs {_in_gb(disk)} of disk, {_in_gb(self.disk_free_bytes)} are free")
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


def make_plan(config: AnalyzeConfig, out: Path, report: Reporter, workers: int = 1, card: Card | None = None) -> Plan:
    """Find out what a run of ``config`` will take; of the Hub only listings, one config and one tokenizer are asked.

    Time is tried, not computed: one block of the model's shape with random weights on the run's own probe sets, the
    geometry of one site of them, the reading of a few megabytes; the rest is multiplication. With a ``card``, which
    need not be here, it is computed from that GPU's rates (``estimate.card``).

    Raises:
        UserError: see ``analyze``; nothing to measure; a disk budget that the largest checkpoint does not fit into.
        CheckpointError: the first checkpoints cannot be read, or their model sees later tokens.
        MachineError: the Hub cannot be reached.
    """
    check_names(config)
    if card is not None and not config.compute.device.startswith("cuda"):
        raise UserError(f"--card: of a GPU, so add --device cuda; the device is {config.compute.device!r}")
    check_folder(out)
    torch.set_num_threads(1)  # of one piece of work: compute.threads of them are at work at a time
    series = open_series(config.target, config.naming)
    listed = config.model_copy(update={"audit_values": False})  # nothing of any weights is read for a plan
    choice = choose_steps(listed, series, lambda _: None, report)
    there = set(series.steps())
    wanted = [step for step in choice.steps if step not in choice.left_out and not choice.earlier.get(step)]
    store = None if config.fetch.keep else out / "downloads"
    checkpoints = list(checkpoints_of(series, [step for step in wanted if step in there], store))
    if not checkpoints:
        raise UserError(
            f"{series.name}: the audit leaves nothing to measure of {count_noun(len(choice.steps), 'step')}"
        )
    report(Progress(config.name, 0, 1, f"listing {count_noun(len(checkpoints), 'checkpoint')}"))
    sizes = _find_sizes(checkpoints)
    budget = config.fetch.bytes
    if budget is not None and max(sizes) > budget:
        raise UserError(f"the disk budget of {_in_gb(budget)} is below the largest checkpoint's {_in_gb(max(sizes))}")
    report(Progress(config.name, 0, 1, "trying this machine"))
    probes = choose_probes(config.probes)
    named_tokenizer = None if config.tokenizer is None else read_tokenizer(config.tokenizer)
    with TemporaryDirectory() as scratch:
        ahead = look_ahead(checkpoints, probes, Path(scratch), tokenizer=named_tokenizer)
        shape = ahead.shape
        check_causal(shape.one_block(), checkpoints[0].label)
        trial = Trial(config, shape, ahead.prepared, ahead.folder)
        memory = trial.estimate_memory(_count_mapped(checkpoints[0])) + _count_fetching(checkpoints[0])
        landscape = Landscape.of(config.measures.landscape, choice.steps, probes)
        kept = count_kept(config.measures, ahead.prepared, count_sites(config, shape), shape.d_model)
        return Plan(
            series=series.name,
            architecture=shape.architecture,
            parameters=shape.parameters,
            checkpoints=len(choice.steps),
            to_measure=len(checkpoints),
            left_out=_count_left_out(choice),
            items=[*ahead.notes, *_note_harness(config), *_note_device(config, card)],
            forward_tokens=sum(one.tokens for one in trial.passes.all),
            audit_bytes=most_bytes(len(there)) if config.audit and config.audit_values else 0,
            download_bytes=sum(sizes),
            largest_bytes=max(sizes),
            disk_peak_bytes=_find_peak_disk(config, sizes),
            disk_free_bytes=psutil.disk_usage(str(_find_existing(out))).free,
            kept_bytes={kind: len(checkpoints) * count for kind, count in kept.items()},
            memory_peak_bytes=memory,
            memory_free_bytes=psutil.virtual_memory().available,
            seconds=trial.time_checkpoint(max(sizes))
            if card is None
            else time_on(card, config, shape, ahead.prepared, trial, max(sizes)),
            landscape_checkpoints=len(set(landscape.steps) & set(wanted)),
            landscape_seconds=trial.time_landscape(landscape) if set(landscape.steps) & set(wanted) else 0.0,
            remarks=(*series.remarks, *describe_protocol(config, config.protocol)),
            card=None if card is None else card.name,
            card_bytes=None if card is None else card.memory,
            workers=workers,
        )


@dataclass(frozen=True)
class Needs:
    """What measuring one checkpoint takes at most: bytes of memory, bytes of disk for the largest."""

    memory: int
    disk: int


def find_needs(spec: MeasurementSpec, checkpoints: Sequence[Checkpoint]) -> Needs:
    """Return what a checkpoint of the run takes, as ``make_plan`` says it.

    Of the Hub one config and one tokenizer are asked, and listings where there is a disk budget. If the config of no
    checkpoint that is tried can be read, nothing is known of its memory: 0.
    """
    disk = max(_find_sizes(checkpoints)) if spec.fetch.bytes is not None else 0
    with TemporaryDirectory() as scratch:
        try:
            ahead = look_ahead(checkpoints, spec.probes, Path(scratch), everything=False, tokenizer=spec.tokenizer)
        except CheckpointError:
            return Needs(0, disk)
        trial = Trial(spec.config, ahead.shape, ahead.prepared, ahead.folder)
        own = trial.estimate_memory(_count_mapped(checkpoints[0]))
        return Needs(own + _count_fetching(checkpoints[0]), disk)


def _note_harness(config: AnalyzeConfig) -> list[str]:
    """Return what is not counted here."""
    return ["the time that lm-evaluation-harness takes is not counted"] if config.harness else []


def _note_device(config: AnalyzeConfig, card: Card | None) -> list[str]:
    """Return where times were taken, if not where the run will be."""
    if card is not None or config.compute.device in {"auto", "cpu"} or find_device_here(config.compute.device) != "cpu":
        return []
    return ["there is no GPU here, so times are this CPU's: --card h200 computes them from that GPU's rates"]


def _count_left_out(choice: StepChoice) -> dict[str, int]:
    """Return how many steps are not measured, by verdict."""
    verdicts = [found.verdict for found in choice.left_out.values()]
    verdicts += ["same-as-neighbour" for earlier in choice.earlier.values() if earlier]
    return {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}


def _find_sizes(checkpoints: Sequence[Checkpoint]) -> list[int]:
    """Return the bytes to fetch of each; one that cannot be listed counts as nothing, and fails in its own time."""

    def size(checkpoint: Checkpoint) -> int:
        try:
            return checkpoint.size() if is_fetchable(checkpoint) else 0
        except CheckpointError:
            return 0

    return list(map_in_threads(size, checkpoints, _LISTERS))


def _count_mapped(checkpoint: Checkpoint) -> int:
    """Return the bytes that are mapped beside the weights; none of one that has no weights, which fails in its time."""
    try:
        return checkpoint.mapped() if isinstance(checkpoint, Mapped) else 0
    except CheckpointError:
        return 0


def _count_fetching(checkpoint: Checkpoint) -> int:
    """Return the bytes that the process takes which fetches meanwhile."""
    return FETCHING if is_fetchable(checkpoint) else 0


def _find_peak_disk(config: AnalyzeConfig, sizes: list[int]) -> int:
    if config.fetch.keep:
        return sum(sizes)
    together = config.fetch.ahead + 1
    most = max(sum(sizes[start : start + together]) for start in range(len(sizes)))
    return most if config.fetch.bytes is None else min(most, config.fetch.bytes)


def _find_existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _in_gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
