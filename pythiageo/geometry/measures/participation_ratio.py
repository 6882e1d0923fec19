"""Participation ratio."""

from __future__ import annotations

from pythiageo.geometry.measure import Measure
from pythiageo.geometry.spectrum import Spectrum
from pythiageo.no_value import NoValueError


def participation_ratio(spectrum: Spectrum) -> float:
    """Return (sum sigma^2)^2 / sum sigma^4: the number of equal covariance eigenvalues with the same concentration.

    Between 1 and the number of singular values; never above the covariance effective rank. Invariant to scale,
    rotation of d_model and order of rows; not to centring.

    Source: Gao and Ganguli, "On simplicity and complexity in the brave new world of large-scale neuroscience", 2015.

    Raises:
        NoValueError: all singular values are zero.

    >>> import torch
    >>> sigma = torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64)
    >>> round(participation_ratio(Spectrum(sigma, 4, 4, "svd")), 3)
    1.654
    """
    if not float(spectrum.sigma.max()) > 0:
        raise NoValueError("all singular values are zero: the states do not vary")
    # scaled first: fourth powers of small states would underflow
    variance = (spectrum.sigma / spectrum.sigma.max()).square()
    return float(variance.sum().square() / variance.square().sum())


MEASURE = Measure(
    name="participation_ratio",
    title="participation ratio",
    unit="dimensions",
    kind="rank",
    transition="minimum",
    definition="Participation ratio: (Σσ²)² / Σσ⁴.",
    uses="sigma^2",
    formula="(sum sigma^2)^2 / sum sigma^4",
    source="Gao and Ganguli 2015",
    function=participation_ratio,
    needs="spectrum",
    cost="vector",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=1.0,
    greatest="values",
)
