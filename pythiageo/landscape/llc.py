"""The local learning coefficient, estimated by Langevin dynamics; its settings, and the health of an estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from pythiageo.errors import UserError, nearest
from pythiageo.landscape.chains import (
    bulk_draws,
    chain_sd,
    effective_draws,
    r_hat,
    standard_error,
    tail_draws,
    whole_error,
)
from pythiageo.landscape.curvature import curvatures
from pythiageo.landscape.llc_health import Finding, find_faults
from pythiageo.landscape.problem import Problem
from pythiageo.landscape.sgld import Chain, sample_chain
from pythiageo.no_value import or_no_value

BASELINES = ("same-batch", "full-batch")


@dataclass(frozen=True)
class Settings:
    """How an LLC is estimated. Exactly one of ``beta`` (n_beta = beta times the examples) and ``n_beta`` is given.

    ``gamma``: localisation, the inverse variance of a Gaussian prior around the start. ``step``: e of ``sample_chain``.
    ``draws`` follow ``burn_in`` steps that are not averaged. ``batch``: examples a draw, None for all. ``baseline``:
    the loss at the start of the draw's own batch (no more noise than needed) or of all examples.
    """

    gamma: float
    step: float
    n_beta: float | None = None
    beta: float | None = None
    draws: int = 400
    burn_in: int = 100
    chains: int = 4
    batch: int | None = 64
    rmsprop: bool = False
    baseline: str = "same-batch"

    def __post_init__(self) -> None:
        if (self.n_beta is None) == (self.beta is None):
            raise UserError("expected one of n_beta and beta (n_beta = beta times the number of examples)")
        for name, value in (("n_beta", self.n_beta), ("beta", self.beta), ("step", self.step)):
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"expected {name} above zero, got {value}")
        if not 0 <= self.gamma < math.inf:
            raise UserError(f"expected gamma of zero or more, got {self.gamma}")
        least = {"draws": 2, "burn_in": 0, "chains": 1} | ({"batch": 1} if self.batch is not None else {})
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UserError(f"expected {name} of {low} or more, got {getattr(self, name)}")
        if self.baseline not in BASELINES:
            known = ", ".join(BASELINES)
            raise UserError(f"no baseline {self.baseline!r}{nearest(self.baseline, BASELINES)}; there are {known}")

    def n_beta_of(self, examples: int) -> float:
        """Return n_beta for a data set of so many examples."""
        return self.n_beta if self.n_beta is not None else float(self.beta or 0.0) * examples


NAMED = {
    "billa": Settings(gamma=10_000.0, step=1e-5, n_beta=1.0, chains=1),
    "billa-beta": Settings(gamma=10_000.0, step=1e-5, beta=1.0, chains=1),
}
"""The study's settings: 500 steps of 1e-5, 100 of them burn-in, gamma = 10,000, and "beta = 1.0" read as n_beta = 1
(``billa``; where L is quadratic the result is then nearly tr H / (2 gamma)) or as beta = 1. Its batch size and number
of chains are not stated: 64, as in its training, and one."""


def named_settings(name: str, examples: int) -> Settings:
    """Return the settings called ``name``; ``theory`` has n_beta = n / log n (Watanabe's), for n ``examples``.

    ``theory`` leaves gamma and the step at values that ``calibrate`` must confirm for the model at hand.

    Raises:
        UserError: there are none of this name, or ``theory`` with fewer than two examples.

    >>> named_settings("billa", 200).n_beta
    1.0
    >>> round(named_settings("theory", 200).n_beta, 3)
    37.748
    """
    if name == "theory":
        if examples < 2:
            raise UserError(f"n / log n needs at least two examples, got {examples}")
        return Settings(gamma=100.0, step=1e-4, n_beta=examples / math.log(examples))
    if name not in NAMED:
        known = [*NAMED, "theory"]
        raise UserError(f"no LLC settings {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return NAMED[name]


@dataclass(frozen=True)
class LLC:
    """An estimate of the local learning coefficient and its health.

    ``value`` is None where a chain diverged. ``per_chain``: each chain's own estimate, None where it diverged.
    ``chain_sd``: standard deviation of these. ``r_hat``: rank-normalised, split. ``effective_draws``: for the mean;
    ``bulk_draws``, ``tail_draws``: for the centre and the 5% and 95% quantiles (``chains``).
    ``stderr``: Monte Carlo standard error of ``value``, over all chains, autocorrelation counted. ``error``: what
    belongs beside ``value``; 1.96 times it covers the value at a step of zero in 95 of 100 estimates. ``stderr``, made
    larger where few draws are independent (``chains.interval_error``), with ``step_bias``, with what draws that still
    rise leave open and with the share by which equipartition falls short. None where draws are too correlated.
    ``curvatures``: bounds on the Hessian's lowest and highest eigenvalue at the start (``curvature.curvatures``).
    ``gradient_norm``: of the mean loss at the start; ``pull`` = n_beta^2 |gradient|^2 / gamma bounds by how much a
    slope there lowers the estimate (None for gamma = 0). ``equipartition``: the mean over draws and parameters of
    (x - x0) times the drift, whatever the loss exactly 1 in the distribution that is meant; flat directions that have
    not spread yet lower it, a coarse step or noisy batches raise it. ``step_bias``: by how much the finite step raises
    ``value``, exact where L is quadratic and batches are full; noisy batches make it a bound. It sees a few stiff
    directions, which equipartition does not. ``findings`` is empty for a healthy estimate.
    ``elevations`` (chain, draw): n_beta times loss over baseline, burn-in left out.
    """

    value: float | None
    stderr: float | None
    error: float | None
    per_chain: tuple[float | None, ...]
    chain_sd: float | None
    r_hat: float | None
    effective_draws: float | None
    bulk_draws: float | None
    tail_draws: float | None
    equipartition: float | None
    equipartition_stderr: float | None
    step_bias: float | None
    baseline_loss: float
    gradient_norm: float
    pull: float | None
    curvatures: tuple[float, float] | None
    n_beta: float
    settings: Settings
    findings: tuple[Finding, ...]
    elevations: np.ndarray

    @property
    def status(self) -> str:
        """``ok``, or the gravest finding's status."""
        return self.findings[0].status if self.findings else "ok"


@or_no_value
def llc(problem: Problem, settings: Settings, seed: int) -> LLC:
    """Return n_beta (E[L(x)] - L(x0)), x drawn from exp(-n_beta L(x) - gamma |x - x0|^2 / 2), x0 the weights as given.

    Its limit for n_beta to infinity and gamma to zero, at a minimum, is the local learning coefficient; what is
    estimated is its value at these n_beta and gamma. Where L is quadratic with Hessian eigenvalues h it is
    ``sum n_beta h / (n_beta h + gamma) / 2``, so for n_beta h far below gamma just n_beta tr H / (2 gamma). A finite
    step multiplies each term by 1 / (1 - step (n_beta h + gamma) / 4). Parameters not chosen in ``problem`` are frozen
    (weight-restricted LLC). Deterministic in ``seed``; chains differ by their number.

    Findings, gravest first: ``diverged`` (loss not finite), ``negative``, ``drifting`` (the last third of the draws
    apart from the first), ``not_converged`` (split R-hat above 1.1, equipartition off 1 by more than a tenth, or
    ``step_bias`` above a tenth of the estimate without it, or too few independent draws), ``not_at_minimum`` (``pull``
    above a tenth of the estimate; a curvature so far below zero that it weakens the localisation by a tenth, or is a
    tenth of the highest one; a third of a chain that lies below the start's loss).

    Beside the draws, it takes 12 products with the Hessian.

    Source: Lau et al. 2023, arXiv 2308.12108; restricted to some weights: Wang et al. 2024, arXiv 2410.02984.
    """
    n_beta = settings.n_beta_of(problem.examples)
    start_losses = problem.example_losses()
    gradient_norm = float(problem.gradient().double().norm())
    chains = [
        sample_chain(
            problem,
            settings.draws,
            settings.burn_in,
            n_beta,
            settings.gamma,
            settings.step,
            settings.batch,
            settings.rmsprop,
            start_losses,
            (seed, number),
        )
        for number in range(settings.chains)
    ]
    bends = curvatures(problem, seed)
    # a direction that the loss does not hold relaxes at half this rate, its square at all of it; others are faster
    rate = None if settings.rmsprop else settings.step * settings.gamma
    baseline = float(start_losses.mean())
    elevated = [_elevations(chain, settings, n_beta, baseline) for chain in chains]
    whole = np.stack([e for e in elevated if e is not None]) if any(e is not None for e in elevated) else None
    healthy = whole is not None and len(whole) == len(chains)
    virial = np.stack([chain.virials[settings.burn_in :] for chain in chains]) / problem.size if healthy else None
    value = float(whole.mean()) if whole is not None and healthy else None
    step_bias = float(np.stack([c.excesses[settings.burn_in :] for c in chains]).mean()) if healthy else None
    equipartition = float(virial.mean()) if virial is not None else None
    # what has not spread yet is missing from the value, in whatever directions it is
    known = math.hypot(step_bias or 0.0, (value or 0.0) * max(0.0, 1 - (equipartition or 1.0)))
    estimate = LLC(
        value=value,
        stderr=standard_error(whole) if whole is not None and healthy else None,
        error=whole_error(whole, known, rate) if whole is not None and healthy else None,
        per_chain=tuple(None if e is None else float(e.mean()) for e in elevated),
        chain_sd=chain_sd(whole) if whole is not None and healthy else None,
        r_hat=r_hat(whole) if whole is not None and healthy else None,
        effective_draws=effective_draws(whole) if whole is not None and healthy else None,
        bulk_draws=bulk_draws(whole) if whole is not None and healthy else None,
        tail_draws=tail_draws(whole) if whole is not None and healthy else None,
        equipartition=equipartition,
        equipartition_stderr=standard_error(virial) if virial is not None else None,
        step_bias=step_bias,
        baseline_loss=baseline,
        gradient_norm=gradient_norm,
        pull=n_beta**2 * gradient_norm**2 / settings.gamma if settings.gamma else None,
        curvatures=bends,
        n_beta=n_beta,
        settings=settings,
        findings=(),
        elevations=whole if whole is not None else np.empty((0, settings.draws)),
    )
    return replace(estimate, findings=tuple(find_faults(estimate)))


def _elevations(chain: Chain, settings: Settings, n_beta: float, baseline: float) -> np.ndarray | None:
    if chain.diverged:
        return None
    below = chain.baselines if settings.baseline == "same-batch" else np.full_like(chain.losses, baseline)
    return n_beta * (chain.losses - below)[settings.burn_in :]


def quadratic_llc(eigenvalues: torch.Tensor, n_beta: float, gamma: float, step: float = 0.0) -> float:
    """Return the truth where L is quadratic with these Hessian eigenvalues, all n_beta h + gamma above zero.

    sum n_beta h / (n_beta h + gamma) / 2, each term over 1 - step (n_beta h + gamma) / 4: exact at any stable step.

    Raises:
        UserError: a direction is not held (n_beta h + gamma is not above zero), or the step is not stable.

    >>> quadratic_llc(torch.tensor([1.0, 1.0, 0.0]), n_beta=100.0, gamma=100.0)
    0.5
    """
    stiffness = n_beta * eigenvalues.double() + gamma
    if not bool((stiffness > 0).all()) or not bool((step * stiffness < 4).all()):
        raise UserError("expected n_beta h + gamma between 0 and 4 / step for every eigenvalue h")
    return float((n_beta * eigenvalues.double() / stiffness / (1 - step * stiffness / 4)).sum() / 2)
