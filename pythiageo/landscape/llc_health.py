"""Whether an estimate of the local learning coefficient can be believed: what a reader must know of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythiageo.landscape.chains import drift, standard_error

if TYPE_CHECKING:
    from pythiageo.landscape.llc import LLC

R_HAT_LIMIT = 1.1
DRIFT_LIMIT = 4.0
"""Standard errors between the first and the last third of the draws."""
SHARE_LIMIT = 0.1
"""Share of the estimate that a known bias may make before it is reported."""
SLIGHT = 1e-3
"""Share of gamma below which n_beta times a curvature moves nothing."""
FLAT_GRADIENT = 1e-3
"""Greatest gradient norm of a minimum where gamma = 0 gives nothing to compare it with."""


@dataclass(frozen=True)
class Finding:
    """Something about an estimate that a reader must know: a status and a reason."""

    status: str
    reason: str


def find_faults(llc: LLC) -> Iterator[Finding]:
    """Yield what speaks against an estimate, gravest first."""
    if llc.value is None or llc.stderr is None:
        lost = sum(value is None for value in llc.per_chain)
        yield Finding("diverged", f"{lost} of {len(llc.per_chain)} chains reached a loss that is not finite")
    else:
        if llc.value < 0:
            yield Finding("negative", f"the mean loss fell below the start's: {llc.value:.3g} +- {llc.stderr:.2g}")
        moved = drift(llc.elevations)
        if abs(moved) > DRIFT_LIMIT:
            yield Finding("drifting", f"the last third of the draws is {moved:+.1f} standard errors from the first")
    if llc.r_hat is not None and llc.r_hat > R_HAT_LIMIT:
        yield Finding("not_converged", f"split R-hat is {llc.r_hat:.2f}, above {R_HAT_LIMIT}")
    if llc.equipartition is not None and llc.equipartition_stderr is not None:
        off = llc.equipartition - 1
        if abs(off) > max(SHARE_LIMIT, DRIFT_LIMIT * llc.equipartition_stderr):
            why = "the step is too large, or a batch's gradient too noisy" if off > 0 else "burn-in is too short"
            yield Finding("not_converged", f"equipartition is {llc.equipartition:.2f} where 1 is expected: {why}")
    if llc.step_bias is not None and abs(llc.step_bias) > SHARE_LIMIT * abs((llc.value or 0.0) - llc.step_bias):
        yield Finding(
            "not_converged", f"the step is too large: it alone raises the estimate by up to {llc.step_bias:.3g}"
        )
    if llc.value is not None and llc.error is None:
        yield Finding(
            "not_converged",
            f"draws are too correlated for a standard error: {llc.effective_draws:.0f} independent ones",
        )
    yield from _descents(llc)
    if llc.pull is None:
        sloped, lowers = llc.gradient_norm > FLAT_GRADIENT, ""
    else:
        sloped = llc.pull > SHARE_LIMIT * abs(llc.value or 0.0)
        lowers = f", which may lower the estimate by up to {llc.pull:.2g}"
    if sloped:
        yield Finding("not_at_minimum", f"the gradient at the start has norm {llc.gradient_norm:.3g}{lowers}")


def _descents(llc: LLC) -> Iterator[Finding]:
    """Yield what says that the loss falls somewhere near the start, though its gradient may be zero."""
    if llc.curvatures is not None:
        lowest, highest = llc.curvatures
        gamma, weight = llc.settings.gamma, -llc.n_beta * lowest
        if weight > SLIGHT * gamma and (-lowest > SHARE_LIMIT * highest or weight > SHARE_LIMIT * gamma > 0):
            yield Finding(
                "not_at_minimum",
                f"the start is a saddle: the Hessian has eigenvalues of {lowest:.3g} or below and of {highest:.3g}",
            )
    third = llc.elevations.shape[1] // 3
    if llc.value is None or third < 4:
        return
    for number, chain in enumerate(llc.elevations, start=1):
        for part in (chain[:third], chain[third : 2 * third], chain[-third:]):
            error = standard_error(part[None])
            if part.mean() < -DRIFT_LIMIT * error < 0:
                reason = f"chain {number} fell below the start's loss: {part.mean():.3g} +- {error:.2g}"
                yield Finding("not_at_minimum", reason)
                break
