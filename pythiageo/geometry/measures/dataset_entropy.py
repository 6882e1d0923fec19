"""Dataset entropy: the matrix-based entropy of one row an example."""

from __future__ import annotations

from pythiageo.geometry.entropy import entropy
from pythiageo.geometry.measure import Measure
from pythiageo.geometry.spectrum import Spectrum


def dataset_entropy(spectrum: Spectrum) -> float:
    """Return -sum p log p, in nats, with p = sigma^2 / sum sigma^2: the log of ``covariance_effective_rank``.

    At the readout ``mean/uncentred`` it is the study's dataset entropy: of the examples' mean states. Between 0 and the
    log of the number of singular values. Invariant to scale, rotation of d_model and order of rows; not to centring.

    Source: Skean et al., "Layer by Layer", ICML 2025, arXiv 2502.02013; the entropy of Giraldo, Rao, Principe 2014 in
    the limit of order one.

    Raises:
        NoValueError: all singular values are zero.

    >>> import torch
    >>> sigma = torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64)
    >>> round(dataset_entropy(Spectrum(sigma, 4, 4, "svd")), 3)
    0.724
    """
    return entropy(spectrum.sigma.square())


MEASURE = Measure(
    name="dataset_entropy",
    title="dataset entropy",
    unit="nats",
    transition="minimum",
    definition=(
        "Dataset entropy: −Σ p log p with p = σ² / Σσ², the log of the covariance effective rank; of mean states "
        "(mean/uncentred) it is the matrix-based entropy of a set of prompts."
    ),
    uses="sigma^2",
    formula="-sum p log p, p = sigma^2 / sum sigma^2",
    source="Skean et al. 2025",
    function=dataset_entropy,
    needs="spectrum",
    cost="vector",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=0.0,
)
