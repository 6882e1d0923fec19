"""Whether a model gives on a prefix forest the states and logits that it gives in plain passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.measurement.failures import describe_error
from pythiageo.measurement.forest import Forest
from pythiageo.measurement.reader import Reader

BOUNDS = {"float32": 2e-5, "bfloat16": 0.05}
"""Greatest distance of a state or of a position's logits from those of the plain pass, as a share of their size, by the
type they are computed in. Rounding alone brings a twentieth of it; a mask that is not honoured brings 1e-3 to 1."""
_BRANCH = 8
"""Tokens by which a trial prompt differs from the one it branches off."""


def find_obstacle(reader: Reader, sites: list[str], forests: Sequence[Forest], dtype: str) -> tuple[str | None, int]:
    """Return why prefix forests cannot go through a model, ``None`` if they can, and the size of its vocabulary.

    A few prompts of random tokens are tried, as long as the longest that is to be fed: a sliding window that none of
    them leaves is no obstacle. One branches off another near its beginning, one near its end, one shares nothing. So
    nodes stand apart by more than in their prompts, and see what other layers, position encodings or mixers than plain
    attention to a mask would show them otherwise.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    tokens = np.unique(np.concatenate([forest.tokens for forest in forests]))
    try:
        prompts = list(_make_prompts(tokens, max(forest.longest for forest in forests), rng))
        return _compare(reader, sites, prompts, BOUNDS[dtype])
    except Exception as error:  # whatever a library makes of a mask that it does not know
        return f"a pass over a forest ends in an error: {describe_error(error)}", 1


def _make_prompts(tokens: np.ndarray, length: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    whole = rng.choice(tokens, length)
    for shared in sorted({0, length // 4, max(0, length - _BRANCH // 2)}):
        end = min(length, shared + _BRANCH)
        others = rng.choice(tokens, end - shared)
        yield tuple(whole[:shared].tolist()) + tuple(others.tolist())
    yield tuple(whole.tolist())


def _compare(reader: Reader, sites: list[str], prompts: list[tuple[int, ...]], bound: float) -> tuple[str | None, int]:
    forest = Forest(prompts)
    every = np.arange(len(forest))
    pack = forest.pack(0, len(forest), every, len(forest))
    states, logits = reader.read(pack.ids, sites, torch.from_numpy(every), pack.depths, pack.visible)
    assert logits is not None
    found = {**states, "the logits": logits}
    for ids in prompts:
        plain, plain_logits = reader.read(torch.tensor([ids]), sites, torch.arange(len(ids)))
        assert plain_logits is not None
        nodes = forest.nodes(ids)
        for site, expected in {**plain, "the logits": plain_logits}.items():
            distance = _find_distance(found[site][0, nodes], expected[0])
            if not distance <= bound:
                what = (
                    "are not finite" if np.isnan(distance) else f"differ from those of plain passes by {distance:.1g}"
                )
                return f"{site if site == 'the logits' else f'states at {site}'} {what}", logits.shape[-1]
    return None, logits.shape[-1]


def _find_distance(found: Float[Tensor, "position width"], expected: Float[Tensor, "position width"]) -> float:
    """Return the greatest distance of two rows as a share of the second's size; two rows of zeros are equal."""
    distances = torch.linalg.vector_norm(found.double() - expected.double(), dim=1)
    sizes = torch.linalg.vector_norm(expected.double(), dim=1)
    return float((distances / sizes.clamp_min(torch.finfo(torch.float32).tiny)).max())
