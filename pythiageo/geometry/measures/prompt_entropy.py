"""Prompt entropy: the matrix-based entropy of one prompt's states, a mean over prompts."""

from __future__ import annotations

from pythiageo.geometry.matrix_entropy import ALL_ZERO, LEAST, SMALLEST, take_entropy
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.prompts import Prompts


def prompt_entropy(prompts: Prompts) -> Estimate:
    """Return the mean over prompts of -sum p log p, in nats, p the eigenvalues of X X^T over their sum.

    X (row, d_model) are the states of one prompt, at ``all/uncentred`` those of all its tokens. Between 0, where all
    states point one way, and log min(n, d), where they are orthogonal and of one size. Invariant to scale, rotation of
    d_model and order of a prompt's rows; not to centring. A massive first position makes it small (docs/geometry.md).
    Standard error: of the mean over prompts, taken as independent.

    Source: Skean et al., "Layer by Layer", ICML 2025, arXiv 2502.02013; the entropy of Giraldo, Rao, Principe 2014 in
    the limit of order one.

    Raises:
        NoValueError: no prompt has two rows, or all states are zero.

    >>> import torch
    >>> round(prompt_entropy(Prompts.of([torch.eye(4), torch.ones(4, 4)])).value, 3)
    0.693
    """
    mean = prompts.average(LEAST, take_entropy, ALL_ZERO)
    return Estimate(mean.value, mean.stderr, mean.rounded / max(mean.value, SMALLEST), mean.prompts, mean.note)


MEASURE = Measure(
    name="prompt_entropy",
    title="prompt entropy",
    unit="nats",
    transition="minimum",
    definition="Prompt entropy: −Σ p log p, p the eigenvalues of X Xᵀ over their sum, X one prompt's states; a mean.",
    uses="sigma^2",
    formula="mean over prompts of -sum p log p, p = sigma^2 / sum sigma^2 of one prompt's rows",
    source="Skean et al. 2025",
    function=prompt_entropy,
    needs="prompts",
    cost="prompts",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=0.0,
    stderr="of the mean over prompts, taken as independent",
)
