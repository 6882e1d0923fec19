"""Prompt entropy as the code of Skean et al. takes it."""

from __future__ import annotations

from pythiageo.geometry.matrix_entropy import LEAST, NO_DIRECTION, SMALLEST, take_clipped_entropy
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.prompts import Prompts


def prompt_entropy_skean(prompts: Prompts) -> Estimate:
    """Return the mean over prompts of -sum p log p, in nats, of each prompt's rows, centred and of length one.

    p are the positive eigenvalues over their sum of X X^T, or of X^T X where a prompt has more rows than dimensions,
    with negative entries set to zero: what ``compute_entropy`` of github.com/OFSkean/information_flow returns as
    ``raw`` for granularity ``sentence``. No entropy of states, which ``prompt_entropy`` is, but the number of the
    study's figures. A massive position makes it small, too: it moves the mean, from which all other rows then lie one
    way. Between 0 and log min(n, d). Invariant to scale, order of a prompt's rows and centring; to rotation of d_model
    only where no prompt has more rows than dimensions. Standard error: of the mean over prompts, taken as independent.

    Source: Skean et al., "Layer by Layer", ICML 2025, arXiv 2502.02013, its code.

    Raises:
        NoValueError: no prompt has two rows, or in each a state is the mean.

    >>> import torch
    >>> round(prompt_entropy_skean(Prompts.of([torch.eye(4)])).value, 3)
    1.386
    """
    mean = prompts.average(LEAST, take_clipped_entropy, NO_DIRECTION)
    return Estimate(mean.value, mean.stderr, mean.rounded / max(mean.value, SMALLEST), mean.prompts, mean.note)


MEASURE = Measure(
    name="prompt_entropy_skean",
    title="prompt entropy (code of Skean et al.)",
    unit="nats",
    transition="minimum",
    definition=(
        "Prompt entropy as the code of Skean et al. takes it: of one prompt's states without their mean and of length "
        "one, negative entries of their Gram matrix set to zero; a mean over prompts."
    ),
    uses="unit rows",
    formula="mean over prompts of -sum p log p, p = positive eigenvalues of max(0, U U^T) over their sum",
    source="Skean et al. 2025, their code",
    function=prompt_entropy_skean,
    needs="prompts",
    cost="prompts",
    invariances=frozenset({"scale", "order", "centring"}),
    least=0.0,
    stderr="of the mean over prompts, taken as independent",
)
