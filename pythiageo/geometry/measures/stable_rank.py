"""Stable rank."""

from __future__ import annotations

from pythiageo.geometry.measure import Measure
from pythiageo.geometry.spectrum import Spectrum
from pythiageo.no_value import NoValueError


def stable_rank(spectrum: Spectrum) -> float:
    """Return sum sigma^2 / max sigma^2.

    Between 1 and the number of singular values, and never above the rank. Invariant to scale, rotation of d_model and
    order of rows; not to centring: uncentred states with a large mean have a stable rank near 1.

    Source: Rudelson and Vershynin, "Sampling from large matrices", J. ACM 2007.

    Raises:
        NoValueError: all singular values are zero.

    >>> import torch
    >>> sigma = torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64)
    >>> round(stable_rank(Spectrum(sigma, 4, 4, "svd")), 3)
    1.328
    """
    if not len(spectrum.sigma) or not float(spectrum.sigma[0]) > 0:
        raise NoValueError("the states do not vary")
    return float((spectrum.sigma / spectrum.sigma[0]).square().sum())


MEASURE = Measure(
    name="stable_rank",
    title="stable rank",
    unit="dimensions",
    kind="rank",
    transition="minimum",
    definition="Stable rank: Σσ² / max σ².",
    uses="sigma^2",
    formula="sum sigma^2 / max sigma^2",
    source="Rudelson and Vershynin 2007",
    function=stable_rank,
    needs="spectrum",
    cost="vector",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=1.0,
    greatest="values",
)
