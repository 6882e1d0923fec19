"""Prompt entropy as a share of the largest that a prompt can have."""

from __future__ import annotations

import math

from pythiageo.geometry.matrix_entropy import ALL_ZERO, LEAST, SMALLEST, take_entropy
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.prompts import Batch, Prompts, Taken
from pythiageo.no_value import NoValueError


def prompt_entropy_normalised(prompts: Prompts) -> Estimate:
    """Return the mean over prompts of ``prompt_entropy`` over log min(n, d), n a prompt's rows and d their width.

    Between 0 and 1, so that prompts of several lengths compare. For n up to d it is the entropy over log n.
    Standard error: of the mean over prompts, taken as independent.

    Source: Skean et al., ICML 2025, arXiv 2502.02013 (their code's ``maxEntropy``); Queipo-de-Llano et al.,
    arXiv 2510.06477.

    Raises:
        NoValueError: no prompt has two rows, all states are zero, or they have one dimension.

    >>> import torch
    >>> round(prompt_entropy_normalised(Prompts.of([torch.eye(4), torch.ones(2, 4)])).value, 3)
    0.5
    """
    if prompts.states.shape[1] < 2:
        raise NoValueError("states of one dimension have no entropy to be a share of")

    def take(batch: Batch) -> Taken:
        taken, most = take_entropy(batch), math.log(min(batch.rows.shape[1:]))
        return Taken(taken.values / most, taken.rounded / most, taken.defined)

    mean = prompts.average(LEAST, take, ALL_ZERO)
    return Estimate(mean.value, mean.stderr, mean.rounded / max(mean.value, SMALLEST), mean.prompts, mean.note)


MEASURE = Measure(
    name="prompt_entropy_normalised",
    title="prompt entropy, share of the largest",
    transition="minimum",
    definition="Prompt entropy over log min(n, d), the largest that n states of width d can have; a mean over prompts.",
    uses="sigma^2",
    formula="mean over prompts of (-sum p log p) / log min(n, d)",
    source="Skean et al. 2025; Queipo-de-Llano et al. 2026",
    function=prompt_entropy_normalised,
    needs="prompts",
    cost="prompts",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=0.0,
    greatest=1.0,
    stderr="of the mean over prompts, taken as independent",
)
