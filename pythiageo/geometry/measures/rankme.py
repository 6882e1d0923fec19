"""RankMe."""

from __future__ import annotations

from pythiageo.geometry.entropy import effective_number
from pythiageo.geometry.measure import Measure
from pythiageo.geometry.spectrum import Spectrum


def rankme(spectrum: Spectrum) -> float:
    """Return exp(-sum p log p) with p = sigma / sum sigma.

    Between 1 and the number of singular values. Invariant to scale, rotation of d_model and order of rows; not to
    centring. The paper adds 1e-7 to p against log 0; here 0 log 0 = 0.

    Source: Garrido, Balestriero, Najman, LeCun, "RankMe", ICML 2023, eq. 1.

    Raises:
        NoValueError: all singular values are zero.

    >>> import torch
    >>> sigma = torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64)
    >>> round(rankme(Spectrum(sigma, 4, 4, "svd")), 3)
    3.117
    """
    return effective_number(spectrum.sigma)


MEASURE = Measure(
    name="rankme",
    title="RankMe",
    unit="dimensions",
    kind="rank",
    transition="minimum",
    definition="RankMe: exp(−Σ p log p) with p = σ / Σσ, over the singular values σ of the matrix of states.",
    uses="sigma",
    formula="exp(-sum p log p), p = sigma / sum sigma",
    source="Garrido et al. 2023",
    function=rankme,
    needs="spectrum",
    cost="vector",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=1.0,
    greatest="values",
)
