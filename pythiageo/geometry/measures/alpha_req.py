"""alpha-ReQ: how fast the covariance's eigenvalues fall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from pythiageo.geometry.measure import Measure
from pythiageo.geometry.spectrum import Spectrum
from pythiageo.names import split_ranks
from pythiageo.no_value import NoValueError

RANGE = 11, 50
"""First and last rank of the fit, as in the code of Stringer et al. that the authors took: the head is no power law."""
LEAST = 10
"""Fewest ranks of a fit."""


def alpha_req(spectrum: Spectrum, first: int = RANGE[0], last: int = RANGE[1], whole: bool = False) -> float:
    """Return a of lambda_j ~ j^(-a), lambda = sigma^2: minus the slope of log lambda on log j, by least squares.

    Over ranks j = ``first`` to ``last``, or as far as eigenvalues are resolved, unless all of the range is wanted
    (``whole``). Resolved is a sigma above 1e-6 of the largest, below which float32 states hold rounding as a rule;
    where that cuts the ranks short, above the rounding of the dimensions it lies in, so that one massive dimension does
    not hide the others. Weights are 1/j, so that each octave counts about alike. Invariant to scale, rotation of
    d_model and order of rows; not to centring, though the ranks fitted lie beyond the mean's.

    Source: Agrawal, Mondal, Ghosh, Richards, "alpha-ReQ", NeurIPS 2022; Stringer et al., Nature 2019.

    Raises:
        NoValueError: fewer than 10 resolved eigenvalues from the first rank on; ``whole``, and one is not resolved.

    >>> ranks = torch.arange(1, 101, dtype=torch.float64)
    >>> round(alpha_req(Spectrum(ranks ** (-1.5 / 2), 100, 100, "svd")), 6)
    1.5
    """
    spectrum = spectrum.resolve(last)
    sigma, resolved = spectrum.sigma, spectrum.resolved
    if whole and resolved < last:
        raise NoValueError(f"the fit is over ranks {first} to {last}, and {resolved} eigenvalues are resolved")
    last = min(last, resolved)
    if last - first + 1 < LEAST:
        raise NoValueError(
            f"the fit needs {LEAST} resolved eigenvalues from rank {first} on; {resolved} are resolved in all"
        )
    ranks = torch.arange(first, last + 1, dtype=torch.float64)
    x, y, weights = ranks.log(), 2 * sigma[first - 1 : last].log(), 1 / ranks
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


def over_ranks(first: int, last: int) -> Measure:
    """Return the measure whose fit is over these ranks: ``alpha_req``, or ``alpha_req_12_100`` for others.

    A name with a range says it, so its fit is over all of the range or has no value.
    """
    if (first, last) == RANGE:
        return MEASURE
    fit: Callable[[Spectrum], float] = partial(alpha_req, first=first, last=last, whole=True)
    own, other = f"j = {RANGE[0]} .. {RANGE[1]}", f"j = {first} .. {last}"
    name = f"{MEASURE.name}_{first}_{last}"
    return replace(MEASURE, name=name, formula=MEASURE.formula.replace(own, other), function=fit)


def find_over_ranks(name: str) -> Measure | None:
    """Return the measure of a name that says its range, such as ``alpha_req_12_100``; ``None`` for any other name."""
    base, first, last = split_ranks(name) or ("", 0, 0)
    return over_ranks(first, last) if base == MEASURE.name and last - first + 1 >= LEAST else None
