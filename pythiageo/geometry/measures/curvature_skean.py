"""Curvature as the code of Skean et al. takes it."""

from __future__ import annotations

import math

from pythiageo.geometry.curvature import LEAST, find_turns
from pythiageo.geometry.matrix_entropy import NO_DIRECTION
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.prompts import Batch, Prompts, Taken, unit_rows


def curvature_skean(prompts: Prompts) -> Estimate:
    """Return the mean over prompts of the mean angle, 0 to pi / 2, between the lines along which the states step.

    Of each prompt's rows without their mean and of length one; a turn of more than a right angle counts as pi less it,
    and one of which a step is zero as 0: what ``compute_curvature`` of github.com/OFSkean/information_flow returns as
    ``raw`` since 2025. (Before, it took the angle between states.) ``curvature`` is the angle of the papers. Invariant
    to scale, rotation of d_model and centring. Standard error: of the mean over prompts, taken as independent.

    Source: Skean et al., "Layer by Layer", ICML 2025, arXiv 2502.02013, its code.

    Raises:
        NoValueError: no prompt has three rows, or in each a state is the mean.

    >>> import torch
    >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [2.0, 1.0]])
    >>> 0 <= curvature_skean(Prompts.of([corner])).value <= math.pi / 2
    True
    """

    def take(batch: Batch) -> Taken:
        units, defined = unit_rows(batch)
        turns = find_turns(units)
        folded = turns.angles.minimum(math.pi - turns.angles)
        share = turns.shares.mean(dim=1)
        return Taken(folded.mean(dim=1), share + (share / folded.shape[1]).sqrt(), defined)

    mean = prompts.average(LEAST, take, NO_DIRECTION)
    return Estimate(mean.value, mean.stderr, mean.rounded / (math.pi / 2), mean.prompts, mean.note)


MEASURE = Measure(
    name="curvature_skean",
    title="curvature (code of Skean et al.)",
    unit="radians",
    definition=(
        "Curvature as the code of Skean et al. takes it: mean angle, π less it where it is obtuse, between steps of "
        "one prompt's states without their mean and of length one; a mean over prompts."
    ),
    uses="unit rows",
    formula="mean of arccos |cos(u_t - u_(t-1), u_(t+1) - u_t)|",
    source="Skean et al. 2025, their code",
    function=curvature_skean,
    needs="prompts",
    cost="linear",
    invariances=frozenset({"scale", "rotation", "centring"}),
    least=0.0,
    greatest=math.pi / 2,
    stderr="of the mean over prompts, taken as independent",
)
