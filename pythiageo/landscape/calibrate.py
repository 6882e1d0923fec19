"""A sweep over step size and localisation of the LLC, that says which settings are sane."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pythiageo.errors import UserError
from pythiageo.landscape.llc import LLC, Settings, llc
from pythiageo.landscape.llc_health import SHARE_LIMIT
from pythiageo.landscape.problem import Problem
from pythiageo.no_value import NoValue, NoValueError, or_no_value


@dataclass(frozen=True)
class Trial:
    """One point of a calibration. ``coarseness`` = step (n_beta h + gamma) / 4 for the top eigenvalue h, if known.

    The finite step inflates the stiffest direction's part by 1 / (1 - coarseness); at 1 it diverges. ``sane`` where
    nothing but ``not_at_minimum`` was found (no setting mends that), and the coarseness is at most a tenth.
    """

    step: float
    gamma: float
    llc: LLC
    coarseness: float | None
    sane: bool
    reasons: tuple[str, ...]


@or_no_value
def calibrate(
    problem: Problem,
    settings: Settings,
    steps: list[float],
    gammas: list[float],
    seed: int,
    top_eigenvalue: float | None = None,
) -> list[Trial]:
    """Estimate with every pair of a step and a gamma, and say which are sane and why the others are not.

    ``top_eigenvalue``: of the Hessian of the mean loss (``top_eigenvalues``), for the bias of a finite step. Trials of
    one gamma that are sane should agree: their spread over steps is what the step does.

    Raises:
        UserError: no step or no gamma.
    """
    if not steps or not gammas:
        raise UserError("a calibration needs at least one step and one gamma")
    return [
        _trial(problem, replace(settings, step=step, gamma=gamma), seed, top_eigenvalue)
        for gamma in gammas
        for step in steps
    ]


def _trial(problem: Problem, settings: Settings, seed: int, top_eigenvalue: float | None) -> Trial:
    estimate = llc(problem, settings, seed)
    if isinstance(estimate, NoValue):
        raise NoValueError(estimate.reason, estimate.status)
    coarseness = None
    reasons = [f"{f.status}: {f.reason}" for f in estimate.findings if f.status != "not_at_minimum"]
    if top_eigenvalue is not None and not settings.rmsprop:
        coarseness = settings.step * (estimate.n_beta * top_eigenvalue + settings.gamma) / 4
        if coarseness > SHARE_LIMIT:
            reasons.append(f"coarse: the step is {coarseness:.2g} of the largest stable one")
    return Trial(settings.step, settings.gamma, estimate, coarseness, not reasons, tuple(reasons))
