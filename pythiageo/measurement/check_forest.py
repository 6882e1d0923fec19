"""Whether a model gives on a prefix forest the states and logits that it gives in plain passes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.compute.side_by_side import SideBySide
from pythiageo.interrupts import wait_for_all
from pythiageo.measurement.failures import describe_error
from pythiageo.measurement.forest import Forest, Pack
from pythiageo.measurement.reader import Readable

BOUND = 2e-5
"""Greatest distance of a state or of a position's logits from those of the plain pass, as a share of their size, in
float32. Rounding alone brings a twentieth of it; what is not honoured, 1e-3 to 1."""
LOW_BOUNDS = 1e-3, 0.05
"""In a type of fewer digits, where rounding brings about 0.01: four times what the order of the nodes alone makes, but
no less than the first of these, and no more than the second."""
_LOGITS = "the logits"
_BRANCH = 8
"""Tokens by which a trial prompt differs from the one it branches off."""


class Fit(NamedTuple):
    """Whether prefix forests can go through a model: what is in the way, ``None`` if nothing.

    ``vocab``, ``width``: of its logits, and of the narrowest site's states.
    """

    obstacle: str | None
    vocab: int = 1
    width: int = 1


def try_forest(
    reader: Readable,
    sites: list[str],
    tokens: Int[np.ndarray, " token"],
    longest: int,
    dtype: str,
    side_by_side: SideBySide | None = None,
) -> Fit:
    """Return whether prefix forests can go through a model.

    A few prompts of random ``tokens`` are tried, as long as the ``longest`` that is to be fed: a sliding window that
    none of them leaves is no obstacle. One branches off another near its beginning, one near its end, one shares
    nothing. So nodes lie further apart than in their prompts, behind strangers, and whatever else than a mask and
    position ids decides what a position sees gives them other states.

    ``side_by_side``: threads for the plain passes, where the reader takes several at a time.
    """
    threads = side_by_side or SideBySide(1, 0)
    rng = np.random.Generator(np.random.PCG64(0))
    try:
        prompts = list(_make_prompts(tokens, longest, rng))
        return _compare(reader, sites, prompts, None if dtype == "float32" else rng, threads)
    except Exception as error:  # whatever a library makes of a mask that it does not know
        return Fit(f"a pass over a forest ends in an error: {describe_error(error)}")


def _make_prompts(tokens: np.ndarray, length: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    whole = rng.choice(tokens, length)
    for shared in sorted({0, length // 4, max(0, length - _BRANCH // 2)}):
        others = rng.choice(tokens, min(length - shared, _BRANCH))
        yield tuple(whole[:shared].tolist()) + tuple(others.tolist())
    yield tuple(whole.tolist())


def _compare(
    reader: Readable,
    sites: list[str],
    prompts: list[tuple[int, ...]],
    rng: np.random.Generator | None,
    threads: SideBySide,
) -> Fit:
    """Compare a forest with plain passes; ``rng`` orders its nodes anew where rounding has to be known."""
    forest = Forest(prompts)
    pack = forest.pack(0, len(forest), np.arange(len(forest)), len(forest))
    found = _read(reader, sites, pack)
    bounds = dict.fromkeys(found, BOUND)
    if rng is not None:
        order = torch.from_numpy(rng.permutation(len(forest)))
        again = _read(reader, sites, pack.reorder(order))
        there = order.to(found[_LOGITS].device)
        rounding = {site: _find_distance(again[site], states[there]) for site, states in found.items()}
        bounds = {site: min(max(LOW_BOUNDS[0], 4 * moved), LOW_BOUNDS[1]) for site, moved in rounding.items()}
    fit = Fit(None, found[_LOGITS].shape[-1], min(states.shape[-1] for states in found.values()))

    def find_obstacle(ids: tuple[int, ...]) -> str | None:
        plain, logits = reader.read(torch.tensor([ids]), sites, torch.arange(len(ids)))
        assert logits is not None
        nodes = forest.nodes(ids)
        for site, expected in {**plain, _LOGITS: logits}.items():
            distance = _find_distance(found[site][torch.from_numpy(nodes).to(expected.device)], expected[0])
            if not distance <= bounds[site]:
                what = (
                    "are not finite" if np.isnan(distance) else f"differ from those of plain passes by {distance:.1g}"
                )
                return f"{site if site == _LOGITS else f'states at {site}'} {what}"
        return None

    size = 4 * sum(states.shape[-1] for states in found.values())
    tried = [threads.submit(partial(find_obstacle, ids), size * len(ids)) for ids in prompts]
    wait_for_all(tried)
    return fit._replace(obstacle=next(filter(None, (one.result() for one in tried)), None))


def _read(reader: Readable, sites: list[str], pack: Pack) -> dict[str, Float[Tensor, "node width"]]:
    """Return the states of every node of a pack, and its logits."""
    states, logits = reader.read(pack.ids, sites, torch.arange(pack.ids.shape[1]), pack.depths, pack.visible)
    assert logits is not None
    return {site: values[0] for site, values in {**states, _LOGITS: logits}.items()}


def _find_distance(found: Float[Tensor, "position width"], expected: Float[Tensor, "position width"]) -> float:
    """Return the greatest distance of two rows as a share of the second's size; two rows of zeros are equal."""
    distances = torch.linalg.vector_norm(found.double() - expected.double(), dim=1)
    sizes = torch.linalg.vector_norm(expected.double(), dim=1)
    return float((distances / sizes.clamp_min(torch.finfo(torch.float32).tiny)).max())
