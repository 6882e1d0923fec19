"""Effective rank of the covariance."""

from __future__ import annotations

from pythiageo.geometry.entropy import effective_number
from pythiageo.geometry.measure import Measure
from pythiageo.geometry.spectrum import Spectrum


def covariance_effective_rank(spectrum: Spectrum) -> float:
    """Return exp(-sum p log p) with p = sigma^2 / sum sigma^2: the entropy rank of the covariance's eigenvalues.

    Of uncentred states: of the second-moment matrix. Between 1 and the number of singular values. Invariant to scale,
    rotation of d_model and order of rows; not to centring.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007, applied to covariance eigenvalues.

    Raises:
        NoValueError: all singular values are zero.

    >>> import torch
    >>> sigma = torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64)
    >>> round(covariance_effective_rank(Spectrum(sigma, 4, 4, "svd")), 3)
    2.063
    """
    return effective_number(spectrum.sigma.square())


MEASURE = Measure(
    name="covariance_effective_rank",
    title="covariance effective rank",
    unit="dimensions",
    kind="rank",
    transition="minimum",
    definition=(
        "Covariance effective rank: exp(−Σ p log p) with p = σ² / Σσ², the entropy rank of the "
        "covariance. Another number than RankMe, and smaller; of centred states it is what Li et al. 2025 call RankMe."
    ),
    uses="sigma^2",
    formula="exp(-sum p log p), p = sigma^2 / sum sigma^2",
    source="Roy and Vetterli 2007",
    function=covariance_effective_rank,
    needs="spectrum",
    cost="vector",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=1.0,
    greatest="values",
)
