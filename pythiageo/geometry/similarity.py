"""How alike two sets of states of the same rows are, beside CKA: Procrustes distance, angles of principal subspaces."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles  # type: ignore[import-untyped]
from torch import Tensor

from pythiageo.geometry.matrix import centre
from pythiageo.no_value import NoValueError

TOLERANCE = 0.005
"""Greatest sine of the angle by which rounding may turn a subspace whose angles are told."""


def procrustes(first: Float[Tensor, "row width"], second: Float[Tensor, "row other"]) -> float:
    """Return |X|^2 + |Y|^2 - 2 |X^T Y|_*, X and Y without their mean rows, scaled to Frobenius norm 1.

    The squared distance after the best orthogonal map of one onto the other (the narrower one filled up with zeros);
    |.|_* is the sum of singular values. Between 0 (equal up to scale and rotation) and 2. Row i of both must stand for
    the same token. Invariant to scale, to orthogonal maps of either side, to one order of the rows of both, and to a
    vector added to all rows of either.

    Source: Ding, Denain, Steinhardt, "Grounding representation similarity with statistical testing", NeurIPS 2021.

    Raises:
        ValueError: the numbers of rows differ.
        NoValueError: states that do not vary.

    >>> states = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
    >>> procrustes(states, 3 * states.flip(1) + 1) < 1e-12
    True
    >>> round(procrustes(torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[1.0], [1.0], [-2.0]])), 6)
    2.0
    """
    x, y = _scaled(first, second)
    return max(2 - 2 * float(torch.linalg.svdvals(x.T @ y).sum()), 0.0)  # equal states come out below 0 by rounding


def principal_angles(
    first: Float[Tensor, "row width"],
    second: Float[Tensor, "row other"],
    dimensions: int,
    rounded: tuple[float, float] = (0.0, 0.0),
) -> Float[Tensor, " angle"]:
    """Return the angles, in radians, between the first ``dimensions`` principal components of X and of Y, descending.

    Components are taken as what they are over the rows: the first left singular vectors of states without their mean
    row, so that both sides may be of any width. Row i of both must stand for the same token. Between 0 and pi / 2.
    Invariant to scale, to orthogonal maps of either side and to a vector added to all rows of either.

    ``rounded``: about the largest singular value of each side's rounding. A subspace is turned by it by an angle of
    a sine of at most ``rounded`` over the gap between its last singular value and the next (Wedin).

    Source: Björck, Golub, Mathematics of Computation 1973; of components of states, Raghu et al., "SVCCA", 2017.

    Raises:
        ValueError: the numbers of rows differ.
        NoValueError: states of fewer dimensions than that; ``imprecise``: a subspace that rounding may turn by more
            than ``TOLERANCE``.

    >>> first = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> second = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    >>> round(float(principal_angles(first, second, 1)[0]), 6)
    0.785398
    """
    if len(first) != len(second):
        raise ValueError(f"expected as many rows on both sides, got {len(first)} and {len(second)}")
    one, two = (find_components(side, dimensions, noise) for side, noise in zip((first, second), rounded, strict=True))
    return angles_between(one, two)


def find_components(
    states: Float[Tensor, "row width"], dimensions: int, rounded: float
) -> Float[Tensor, "row component"]:
    """Return the first left singular vectors of states without their mean row; see ``principal_angles``.

    Raises:
        NoValueError: there are fewer; ``imprecise``: rounding may turn what they span too far.
    """
    left, sigma, _ = torch.linalg.svd(centre(states), full_matrices=False)
    if len(sigma) < dimensions:
        raise NoValueError(f"{len(states)} rows of {states.shape[1]} dimensions have no {dimensions} components")
    largest, last, following = (float(sigma[place : place + 1].sum()) for place in (0, dimensions - 1, dimensions))
    noise = max(rounded, torch.finfo(torch.float64).eps * max(states.shape) * largest)
    if not last > noise:
        raise NoValueError(f"the states do not vary in {dimensions} dimensions")
    if noise > TOLERANCE * (last - following):
        raise NoValueError(
            f"the gap behind the {dimensions} largest singular values is {(last - following) / largest:.3g} of the "
            f"largest, and rounding {noise / largest:.1g}: which directions they span is not told",
            "imprecise",
        )
    return left[:, :dimensions]


def angles_between(
    first: Float[Tensor, "row component"], second: Float[Tensor, "row component"]
) -> Float[Tensor, " angle"]:
    """Return the principal angles, in radians, descending, between the spans of two sets of orthonormal columns."""
    return torch.from_numpy(subspace_angles(first.cpu().numpy(), second.cpu().numpy()))


def _scaled(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if len(first) != len(second):
        raise ValueError(f"expected as many rows on both sides, got {len(first)} and {len(second)}")
    found = []
    for states in (first, second):
        centred = centre(states)
        largest = float(centred.abs().max()) if len(centred) else 0.0
        if not largest > 0:
            raise NoValueError("the states do not vary")
        centred = centred / largest
        found.append(centred / torch.linalg.vector_norm(centred))
    return found[0], found[1]
