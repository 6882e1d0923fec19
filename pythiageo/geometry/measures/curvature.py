"""Curvature: how far a prompt's states turn from one token to the next, a mean over prompts."""

from __future__ import annotations

import math

from pythiageo.geometry.curvature import LEAST, find_turns
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.prompts import Batch, Prompts, Taken, scale_to_one

STILL = "no three states in a row are different"


def curvature(prompts: Prompts) -> Estimate:
    """Return the mean over prompts of the mean angle, in radians, between x_t - x_(t-1) and x_(t+1) - x_t.

    Rows x of one prompt in the order of its tokens. 0 along a straight line, pi where each step takes the one before
    back, 2 pi / 3 in the mean for independent states in many dimensions. Turns of which a step is zero, as between
    equal tokens of an embedding, have no angle and are left out, which the note says. Invariant to scale, rotation of
    d_model and centring. Standard error: of the mean over prompts, taken as independent.

    Source: Hosseini and Fedorenko, NeurIPS 2023; Skean et al., ICML 2025, arXiv 2502.02013.

    Raises:
        NoValueError: no prompt has three different states in a row.

    >>> import torch
    >>> round(curvature(Prompts.of([torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])])).value, 3)
    1.571
    """
    still = turns = 0

    def take(batch: Batch) -> Taken:
        nonlocal still, turns
        scaled, _ = scale_to_one(batch)
        found = find_turns(scaled)
        count = found.defined.sum(dim=1)
        still, turns = still + int((~found.defined).sum()), turns + found.defined.numel()
        mean, share = (each.sum(dim=1) / count.clamp_min(1) for each in (found.angles, found.shares))
        # rounding turns each step by the root of its share, here and there, and all of them towards a right angle
        moved = share + (share / count.clamp_min(1)).sqrt()
        return Taken(mean, moved, count > 0)

    mean = prompts.average(LEAST, take, STILL)
    note = [mean.note] if mean.note else []
    note += [f"{still:,} of {turns:,} turns left out: a state equals the one before"] if still else []
    return Estimate(mean.value, mean.stderr, mean.rounded / (math.pi / 2), mean.prompts, "; ".join(note))


MEASURE = Measure(
    name="curvature",
    title="curvature",
    unit="radians",
    definition="Curvature: mean angle between successive differences of one prompt's states; a mean over prompts.",
    uses="rows",
    formula="mean of the angle between x_t - x_(t-1) and x_(t+1) - x_t",
    source="Hosseini and Fedorenko 2023; Skean et al. 2025",
    function=curvature,
    needs="prompts",
    cost="linear",
    invariances=frozenset({"scale", "rotation", "centring"}),
    least=0.0,
    greatest=math.pi,
    stderr="of the mean over prompts, taken as independent",
)
