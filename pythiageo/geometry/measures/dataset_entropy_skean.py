"""Dataset entropy as the code of Skean et al. takes it."""

from __future__ import annotations

import torch

from pythiageo.geometry.matrix import EPS
from pythiageo.geometry.matrix_entropy import LEAST, NO_DIRECTION, SMALLEST, clipped_gram, entropies_of, moved_by
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.prompts import Prompts, unit_rows
from pythiageo.no_value import NoValueError


def dataset_entropy_skean(prompts: Prompts) -> Estimate:
    """Return -sum p log p, in nats, of the mean of each prompt's rows once these are centred and of length one.

    p are the positive eigenvalues over their sum of Z Z^T, Z (prompt, d_model) those means, or of Z^T Z where there
    are more prompts than dimensions, with negative entries set to zero: what ``compute_entropy`` of
    github.com/OFSkean/information_flow returns as ``raw`` for granularity ``dataset``. The means are no means of
    states, of which ``dataset_entropy`` is taken. Between 0 and log min(prompts, d). Invariant to scale, order of a
    prompt's rows and centring.

    Source: Skean et al., "Layer by Layer", ICML 2025, arXiv 2502.02013, its code.

    Raises:
        NoValueError: fewer than two prompts of two rows, or in all but one a state is the mean.

    >>> import torch
    >>> one = torch.tensor([[3.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    >>> round(dataset_entropy_skean(Prompts.of([one, one.roll(1, 1)])).value, 3)
    0.693
    """
    means, noise, left_out = [], [], 0
    for batch in prompts.batches(LEAST):
        units, defined = unit_rows(batch)
        means.append(units.rows.mean(dim=1)[defined])
        noise.append(units.rounded.square().mean(dim=1)[defined] / units.rows.shape[1])
        left_out += int((~defined).sum())
    rows = torch.cat(means)
    if len(rows) < 2:
        raise NoValueError(f"two prompts with a mean are needed, and there are {len(rows)} of {len(prompts.lengths):,}")
    gram, total = clipped_gram(rows), rows.square().sum()
    if not float(total) > 0:
        raise NoValueError("the means of the prompts are all zero")
    share = torch.cat(noise).sum() / total + EPS * len(gram)
    value, moved = float(entropies_of(gram)), float(moved_by(share, len(gram)))
    note = prompts.describe_left_out(left_out, NO_DIRECTION, LEAST)
    return Estimate(value, None, moved / max(value, SMALLEST), len(rows), note)


MEASURE = Measure(
    name="dataset_entropy_skean",
    title="dataset entropy (code of Skean et al.)",
    unit="nats",
    transition="minimum",
    definition=(
        "Dataset entropy as the code of Skean et al. takes it: of the means of each prompt's states once these are "
        "without their mean and of length one, negative entries of their Gram matrix set to zero."
    ),
    uses="unit rows",
    formula="-sum p log p, p = positive eigenvalues of max(0, Z Z^T) over their sum, Z means of unit rows",
    source="Skean et al. 2025, their code",
    function=dataset_entropy_skean,
    needs="prompts",
    cost="linear",
    invariances=frozenset({"scale", "order", "centring"}),
    least=0.0,
)
