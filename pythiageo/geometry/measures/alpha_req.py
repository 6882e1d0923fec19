"""alpha-ReQ: how fast the covariance's eigenvalues fall."""

from __future__ import annotations

import torch

from pythiageo.geometry.measure import Measure
from pythiageo.geometry.spectrum import Spectrum
from pythiageo.no_value import NoValueError

FIRST, LAST = 11, 50
"""Ranks of the fit, as in the code of Stringer et al. that the authors took: the head is no power law."""
LEAST = 10
"""Fewest ranks of a fit."""


def alpha_req(spectrum: Spectrum) -> float:
    """Return a of lambda_j ~ j^(-a), lambda = sigma^2: minus the slope of log lambda on log j, by least squares.

    Over ranks j = 11 to 50, or as far as eigenvalues are resolved (sigma above 1e-6 of the largest, below which float32
    states hold rounding as a rule; where that cuts the ranks short, above the rounding of the dimensions it lies in, so
    that one massive dimension does not hide the others), with weights 1/j, so that each octave counts about alike.
    Invariant to scale, rotation of d_model and order of rows; not to centring, though the ranks fitted lie beyond the
    mean's.

    Source: Agrawal, Mondal, Ghosh, Richards, "alpha-ReQ", NeurIPS 2022; Stringer et al., Nature 2019.

    Raises:
        NoValueError: fewer than 10 resolved eigenvalues from rank 11 on.

    >>> ranks = torch.arange(1, 101, dtype=torch.float64)
    >>> round(alpha_req(Spectrum(ranks ** (-1.5 / 2), 100, 100, "svd")), 6)
    1.5
    """
    spectrum = spectrum.resolve(LAST)
    sigma, resolved = spectrum.sigma, spectrum.resolved
    last = min(LAST, resolved)
    if last - FIRST + 1 < LEAST:
        raise NoValueError(
            f"the fit needs {LEAST} resolved eigenvalues from rank {FIRST} on; {resolved} are resolved in all"
        )
    ranks = torch.arange(FIRST, last + 1, dtype=torch.float64)
    x, y, weights = ranks.log(), 2 * sigma[FIRST - 1 : last].log(), 1 / ranks
    x = x - (weights * x).sum() / weights.sum()
    return -float((weights * x * y).sum() / (weights * x * x).sum())


MEASURE = Measure(
    name="alpha_req",
    title="alpha-ReQ",
    definition=(
        "α-ReQ: minus the slope of log λ_j on log j, j = 11 to 50, weights 1/j, λ the eigenvalues of the covariance."
    ),
    uses="sigma^2",
    formula="-slope of log lambda_j on log j, j = 11 .. 50, weights 1/j",
    source="Agrawal et al. 2022",
    function=alpha_req,
    needs="every value",
    cost="vector",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=0.0,
)
