"""Where a rank is made by few positions or by one direction: what a reader must know before quoting it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.readout import SPARED, Readout, find_places, owners
from pythiageo.geometry.sinks import DIRECTION_LIMIT, POSITION_LIMIT
from pythiageo.geometry.view import SiteStates
from pythiageo.names import BUT_SINKS, DOMINATED


def find_dominance(here: SiteStates, readout: Readout) -> list[str]:
    """Return in words what dominates the matrix of a readout: sinks, one direction, both or neither.

    Shares are of the matrix that is measured, its mean taken off where the readout is centred. Of a mean over
    positions, what sinks bring is set beside what the other positions bring: sinks that are alike in examples of one
    length bring nothing to the centred matrix, and in examples of many lengths they may bring all of it.

    Raises:
        ValueError: as ``Spectra``.
    """
    squares = here.read(readout).spectrum.sigma.square()
    total = float(squares.sum())
    if not total > 0:
        return []
    found = []
    share = 0.0 if readout.spares_sinks else _share_of_sinks(here, readout, total)
    if share > POSITION_LIMIT:
        spared = readout.positions + BUT_SINKS
        found.append(f"{DOMINATED} sinks: they bring {share:.1%} of the squared norm")
        found[0] += f" ({spared} leaves them out)" if spared in SPARED else ""
    if (direction := float(squares[0]) / total) > DIRECTION_LIMIT:
        found.append(f"{DOMINATED} one direction: it holds {direction:.1%} of the squared norm")
    return found


def _share_of_sinks(here: SiteStates, readout: Readout, total: float) -> float:
    sinks, matrix = here.sinks.all, here.rows(readout.positions).matrix
    if readout.positions == "mean":
        lengths = here.layout.lengths
        few = sinks.nonzero().flatten()  # all other positions are in the means already
        of_sinks = matrix.new_zeros(matrix.shape)
        of_sinks.index_add_(0, owners(here.layout, few.cpu()).to(few.device), here.states[few].double())
        of_sinks /= lengths[:, None].to(few.device)
        parts = [_size(part, readout.centred) for part in (of_sinks, matrix - of_sinks)]
        return parts[0] / sum(parts) if sum(parts) > 0 else 0.0
    places = find_places(here.layout, readout.positions)
    chosen = matrix[sinks if places is None else sinks[places]].double()
    if readout.centred:
        chosen = chosen - matrix.mean(dim=0, dtype=torch.float64)
    return float(chosen.square().sum()) / total


def _size(part: Float[Tensor, "row d_model"], centred: bool) -> float:
    return float((part - part.mean(dim=0) if centred else part).square().sum())
