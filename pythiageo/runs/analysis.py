"""An analysis run: the checkpoints of a series from the Hub or a folder, each opened through TransformerLens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from pythiageo.errors import CheckpointError, UserError
from pythiageo.lens import BridgeReader
from pythiageo.observations import read_manifest
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.runs.config import AnalyzeConfig
from pythiageo.runs.folder import MANIFEST, RunFolder
from pythiageo.runs.measuring import Instruments, Origin, observe
from pythiageo.runs.probing import Prepared, Probe, choose_probes, describe_probes, prepare
from pythiageo.runs.progress import Progress, Reporter
from pythiageo.series import open_series
from pythiageo.series.checkpoint import Checkpoint, OpenCheckpoint, Series
from pythiageo.series.steps import select


def analyze(config: AnalyzeConfig, folder: RunFolder, report: Reporter) -> bool:
    """Measure every chosen checkpoint of the series; return whether all of them could be.

    A checkpoint that cannot be opened gives one row that says why, and the rest go on.
    """
    torch.set_num_threads(config.compute.threads)
    series = open_series(config.target)
    steps = select(config.steps, series.steps())
    probes = choose_probes(config.probes)
    identity = _identity(config, series)
    folder.update(**identity, probe_sets=describe_probes(probes), steps=steps)
    done = set(folder.observations.steps())
    remaining = [step for step in steps if step not in done]
    session = _Session(config, folder, identity, probes)
    for number, checkpoint in enumerate(series.checkpoints(remaining), start=len(steps) - len(remaining)):
        report(Progress(config.name, number, len(steps), f"opening {checkpoint.label}"))
        try:
            opened = checkpoint.open()
            report(Progress(config.name, number, len(steps), f"measuring {checkpoint.label}"))
            session.measure(checkpoint, opened)
        except CheckpointError as error:
            session.give_up(checkpoint, error)
    folder.observations.consolidate()
    folder.update(status="complete")
    report(Progress(config.name, len(steps), len(steps), "done"))
    return all(entry["status"] == "ok" for entry in folder.manifest["checkpoints"])


def _identity(config: AnalyzeConfig, series: Series) -> dict[str, Any]:
    """Return series, regime, size and seed; a run folder's own manifest knows the latter two better than its name."""
    source = Path(config.target)
    known = read_manifest(source) if (source / MANIFEST).is_file() else {}
    return {
        "series": series.name,
        "regime": config.regime or known.get("regime") or "naturalistic",
        "size": known.get("size") or series.size,
        "seed": known.get("seed"),
    }


class _Session:
    """What stays the same from one checkpoint to the next."""

    def __init__(self, config: AnalyzeConfig, folder: RunFolder, identity: dict[str, Any], probes: list[Probe]) -> None:
        self._config = config
        self._folder = folder
        self._identity = identity
        self._probes = probes
        self._instruments = Instruments.of(config.measures)
        self._tokenizer_sha = ""
        self._prepared: list[Prepared] = []

    def measure(self, checkpoint: Checkpoint, opened: OpenCheckpoint) -> None:
        """Read one checkpoint through TransformerLens and write its observations."""
        assert opened.tokenizer_folder is not None
        config: Any = opened.model.config
        context = getattr(config, "max_position_embeddings", None)
        layers, d_model = config.num_hidden_layers, config.hidden_size
        # counted before TransformerLens splits joint matrices into copies
        parameters = sum(p.numel() for p in opened.model.parameters())
        self._prepare(opened.tokenizer_folder, context)
        reader = BridgeReader(opened.model, opened.tokenizer_folder)
        origin = self._origin(checkpoint, opened.weight_sha)
        rows = observe(
            reader,
            self._prepared,
            self._instruments,
            origin,
            self._config.compute.batch_tokens,
            opened.nonfinite,
        )
        self._folder.observations.write(checkpoint.step, rows)
        self._folder.manifest["model"] = {
            "architecture": opened.architecture,
            "parameters": parameters,
            "layers": layers,
            "d_model": d_model,
        }
        status = "nonfinite" if opened.nonfinite else "ok"
        self._folder.add_checkpoint(checkpoint.step, checkpoint.label, opened.weight_sha, status, opened.nonfinite)

    def give_up(self, checkpoint: Checkpoint, error: CheckpointError) -> None:
        """Write one row that says why there are no others."""
        origin = self._origin(checkpoint, None)
        self._folder.observations.write(checkpoint.step, [origin.failed("checkpoint", error.status, str(error))])
        self._folder.add_checkpoint(checkpoint.step, checkpoint.label, None, error.status, str(error))

    def _origin(self, checkpoint: Checkpoint, weight_sha: str | None) -> Origin:
        return Origin(
            run=self._config.name,
            step=checkpoint.step,
            tokens=checkpoint.tokens,
            weight_sha=weight_sha,
            **self._identity,
        )

    def _prepare(self, tokenizer_folder: Path, context: int | None) -> None:
        """Tokenize the probe sets, again only if this checkpoint's tokenizer is another one."""
        file = tokenizer_folder / "tokenizer.json"
        sha = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"
        if sha != self._tokenizer_sha:
            try:
                tokenizer = FileTokenizer(tokenizer_folder)
            except UserError as error:  # this checkpoint's fault; the next may have one
                raise CheckpointError(str(error)) from None
            self._prepared = prepare(self._probes, tokenizer, context)
            self._tokenizer_sha = sha
