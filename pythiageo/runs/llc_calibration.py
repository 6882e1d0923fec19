"""Calibrating the LLC on one checkpoint: the checkpoint opened, its loss on a task, a sweep over settings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pythiageo.config.tables import ProbeConfig
from pythiageo.errors import CheckpointError, UserError
from pythiageo.landscape.calibrate import Trial, calibrate
from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.lanczos import top_eigenvalues
from pythiageo.landscape.llc import named_settings
from pythiageo.landscape.problem import Problem
from pythiageo.measurement.forest_loss import find_forest_logits
from pythiageo.measurement.probe_loss import logits_of, problem_of, shared_problem_of
from pythiageo.measurement.probe_sets import GEOMETRY, choose_probes, prepare
from pythiageo.no_value import NoValue
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.progress import Progress, Reporter
from pythiageo.series import open_series
from pythiageo.series.architecture import context_of
from pythiageo.series.checkpoint import checkpoints_of


@dataclass(frozen=True)
class Calibration:
    """What is to be tried: named ``setting`` with these draws and chains, every step size with every gamma."""

    target: str
    step: int
    task: str
    setting: str
    step_sizes: list[float]
    gammas: list[float]
    draws: int
    burn_in: int
    chains: int
    examples: int
    parameters: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class CalibrationRow:
    """One pair that was tried: the estimate, and whether nothing speaks against the pair."""

    gamma: float
    step_size: float
    n_beta: float
    value: float | None
    stderr: float | None
    r_hat: float | None
    equipartition: float | None
    coarseness: float | None
    gradient_norm: float
    sane: bool
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, trial: Trial) -> CalibrationRow:
        """Take what a reader needs from a trial."""
        llc = trial.llc
        return cls(
            gamma=trial.gamma,
            step_size=trial.step,
            n_beta=llc.n_beta,
            value=llc.value,
            stderr=llc.stderr if llc.error is None else llc.error,
            r_hat=llc.r_hat,
            equipartition=llc.equipartition,
            coarseness=trial.coarseness,
            gradient_norm=llc.gradient_norm,
            sane=trial.sane,
            reasons=trial.reasons,
        )

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return dataclasses.asdict(self)


def calibrate_checkpoint(wanted: Calibration, report: Reporter) -> list[CalibrationRow]:
    """Open the checkpoint, and estimate with every pair; fetched files are removed again.

    Raises:
        UserError: no such target, step, task, parameters or settings.
        CheckpointError: the checkpoint cannot be opened, or its loss has no value.
    """
    settings = dataclasses.replace(
        named_settings(wanted.setting, wanted.examples),
        draws=wanted.draws,
        burn_in=wanted.burn_in,
        chains=wanted.chains,
    )
    for size in wanted.step_sizes:  # before anything is fetched
        for gamma in wanted.gammas:
            dataclasses.replace(settings, step=size, gamma=gamma)
    with TemporaryDirectory() as store:
        problem = _open(wanted, Path(store), report)
        report(Progress(wanted.target, 0, 1, "the largest eigenvalue of the Hessian"))
        top = _largest(problem)
        pairs = len(wanted.step_sizes) * len(wanted.gammas)
        rows: list[CalibrationRow] = []
        for gamma in wanted.gammas:
            for size in wanted.step_sizes:
                report(Progress(wanted.target, len(rows), pairs, f"gamma {gamma:g}, step size {size:g}"))
                trials = calibrate(problem, settings, [size], [gamma], wanted.seed, top)
                if isinstance(trials, NoValue):
                    raise CheckpointError(f"{wanted.target} step {wanted.step}: {trials.reason}", trials.status)
                rows += [CalibrationRow.of(trial) for trial in trials]
    report(Progress(wanted.target, pairs, pairs, "done"))
    return rows


def _open(wanted: Calibration, store: Path, report: Reporter) -> Problem:
    series = open_series(wanted.target)
    there = series.steps()
    if wanted.step not in there:
        near = min(there, key=lambda step: abs(step - wanted.step))
        raise UserError(f"{series.name}: step {wanted.step} is not there; the nearest is {near}")
    (checkpoint,) = checkpoints_of(series, [wanted.step], store)
    report(Progress(wanted.target, 0, 1, f"opening {checkpoint.label}"))
    probes = choose_probes(ProbeConfig(tasks=(wanted.task,), geometry_examples=wanted.examples))
    opened = checkpoint.open()
    if opened.nonfinite:
        raise CheckpointError(f"{checkpoint.label}: {opened.nonfinite}", "nonfinite")
    assert opened.tokenizer_folder is not None
    geometry = [probe for probe in probes if probe.purpose == GEOMETRY]
    prepared = prepare(geometry, FileTokenizer(opened.tokenizer_folder), context_of(opened.model.config))
    encoded = prepared[0].encoded
    forests = find_forest_logits(opened.model, encoded)
    if forests is None:
        return problem_of(opened.model, logits_of(opened.model), encoded, wanted.parameters)
    return shared_problem_of(opened.model, forests, encoded, wanted.parameters, forests.cut)


def _largest(problem: Problem) -> float | None:
    """Return the Hessian's largest eigenvalue, ``None`` where it was not found."""
    with Hessian(problem) as hessian:
        top = top_eigenvalues(hessian, 1, torch.Generator().manual_seed(0), tolerance=1e-2)
    return None if isinstance(top, NoValue) or not top.converged else float(top.values[0])
