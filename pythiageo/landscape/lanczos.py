"""Lanczos with full re-orthogonalisation: the Hessian's top eigenvalues, and its spectral density."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.errors import UserError, nearest
from pythiageo.landscape.hessian import Hessian, signs
from pythiageo.landscape.undefined import or_undefined

WANTED = ("largest", "magnitude", "smallest")
LEAST_MORE = 5
"""Vectors beyond k before a space is believed to have met the end of the spectrum."""


@dataclass(frozen=True)
class Eigenvalues:
    """``values`` (k), first the most wanted, and ``residuals`` (k): |H y - value y| of unit y.

    Some eigenvalue of H lies within a residual of its value (whatever the algorithm did), but for the rounding of one
    product. ``converged``: all residuals are within what was asked. ``vectors`` (k, parameter).
    """

    values: Float[Tensor, " k"]
    residuals: Float[Tensor, " k"]
    vectors: Float[Tensor, "k parameter"]
    products: int
    converged: bool


@or_undefined
def top_eigenvalues(
    hessian: Hessian,
    k: int,
    generator: torch.Generator,
    which: str = "largest",
    tolerance: float = 1e-3,
    basis: int | None = None,
    max_products: int = 500,
) -> Eigenvalues:
    """Return the ``k`` eigenvalues of H that are largest, smallest, or largest in magnitude.

    Thick-restart Lanczos (Wu and Simon 2000): a Krylov space of at most ``basis`` vectors (default 2k + 10), each made
    orthogonal to all others twice; when full, it is cut back to the best Ritz vectors. Stops as soon as every residual
    is below ``tolerance`` times the largest |value|; values are then right to about tolerance^2 where they are apart.
    A residual says that an eigenvalue is near, not that no larger one is: so it is not asked before k + 5 vectors.
    Residuals are computed anew at the end, k products more. A space that H does not leave is followed by a fresh random
    direction; otherwise an exactly repeated eigenvalue may be found once only, as from any single start.

    Memory: ``basis`` + 1 vectors in the parameters' type. Deterministic in ``generator``.

    Raises:
        UserError: k below 1 or above the number of parameters, basis not above k, fewer products than 2k, or an
            unknown ``which``.
    """
    if which not in WANTED:
        raise UserError(f"no end of the spectrum {which!r}{nearest(which, WANTED)}; there are {', '.join(WANTED)}")
    if not 1 <= k <= hessian.size:
        raise UserError(f"expected between 1 and {hessian.size} eigenvalues (there are so many parameters), got {k}")
    width = min(basis if basis is not None else 2 * k + 10, hessian.size)
    if width < k or (width == k and width < hessian.size):
        raise UserError(f"expected a basis of more than {k} vectors for {k} eigenvalues, got {basis}")
    if max_products < 2 * k:
        raise UserError(f"expected {2 * k} products or more for {k} eigenvalues, got {max_products}")
    start = hessian.products
    space = _Space(hessian, width, generator)
    trusted = min(k + LEAST_MORE, width)
    while True:
        space.grow()
        values, rotation = torch.linalg.eigh(space.projected())
        order = _order(values, which)
        scale = float(values.abs().max())
        estimates = (space.leaving * rotation[-1, order[:k]]).abs()
        done = space.held >= trusted and float(estimates.max()) <= tolerance * scale
        if done or space.held == hessian.size or hessian.products - start + k >= max_products:
            break
        if space.held == width:
            space.restart(values, rotation, order[: min(width - 1, k + (width - k) // 2)])
    found = min(k, space.held)
    return _checked(hessian, space.basis[: space.held], values, rotation, order[:found], tolerance, start, k)


def _checked(
    hessian: Hessian,
    basis: Tensor,
    values: Tensor,
    rotation: Tensor,
    chosen: Tensor,
    tolerance: float,
    start: int,
    k: int,
) -> Eigenvalues:
    vectors = rotation[:, chosen].T.to(basis.dtype) @ basis
    residuals = []
    for vector, value in zip(vectors, values[chosen], strict=True):
        residuals.append(float((hessian.product(vector).double() - value * vector.double()).norm()))
    scale = float(values.abs().max())
    # a product is rounded in the parameters' type: below that nothing can be asked
    floor = 100 * torch.finfo(basis.dtype).eps
    return Eigenvalues(
        values=values[chosen],
        residuals=torch.tensor(residuals, dtype=torch.float64),
        vectors=vectors,
        products=hessian.products - start,
        converged=len(residuals) == k and max(residuals) <= max(tolerance, floor) * scale,
    )


def _order(values: Tensor, which: str) -> Tensor:
    key = {"largest": values, "smallest": -values, "magnitude": values.abs()}[which]
    return key.argsort(descending=True)


class _Space:
    """An orthonormal ``basis`` (row, parameter), H projected on it, and the direction in which H leaves it."""

    def __init__(self, hessian: Hessian, width: int, generator: torch.Generator) -> None:
        self._hessian = hessian
        self._generator = generator
        gradient = hessian.gradient
        self.basis = torch.empty(width + 1, hessian.size, dtype=gradient.dtype, device=gradient.device)
        self._small = torch.zeros(width, width, dtype=torch.float64)
        self._width = width
        self.held = 0
        """Basis vectors whose product with H is known; the next one is ready."""
        self.leaving = 0.0
        """Length of the part of H times the last vector that lies outside."""
        self._largest = 0.0
        self._put_random()

    def _put_random(self) -> None:
        vector = torch.randn(self._hessian.size, generator=self._generator, dtype=torch.float64)
        vector = self._orthogonal(vector.to(self.basis), self.held)[0]
        self.basis[self.held] = vector / vector.norm()

    def _orthogonal(self, vector: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the part outside the first ``count`` basis vectors, and the coefficients of the part inside."""
        inside = torch.zeros(count, dtype=torch.float64)
        known = self.basis[:count]
        for _ in range(2):
            coefficients = known @ vector
            vector = vector - coefficients @ known
            inside += coefficients.double().cpu()
        return vector, inside

    def grow(self) -> None:
        """Add a vector."""
        here = self.held
        image = self._hessian.product(self.basis[here])
        self._largest = max(self._largest, float(image.norm()))
        outside, inside = self._orthogonal(image, here + 1)
        self._small[here, : here + 1] = inside
        self._small[: here + 1, here] = inside
        self.held += 1
        self.leaving = float(outside.norm())
        if self.leaving > 10 * torch.finfo(image.dtype).eps * self._largest:
            self.basis[self.held] = outside / self.leaving
        else:  # H maps the space into itself
            self.leaving = 0.0
            if self.held < self._hessian.size:
                self._put_random()

    def projected(self) -> Float[Tensor, "row row"]:
        """Return H projected on the space."""
        return self._small[: self.held, : self.held]

    def restart(self, values: Tensor, rotation: Tensor, kept: Tensor) -> None:
        """Keep the Ritz vectors of these numbers and the direction in which H leaves the space."""
        count = len(kept)
        ritz = rotation[:, kept].T.to(self.basis) @ self.basis[: self.held]
        follower = self.basis[self.held].clone()
        self.basis[:count] = ritz
        self._small.zero_()
        self._small[range(count), range(count)] = values[kept]
        self.held = count
        self.basis[count] = self._orthogonal(follower, count)[0]
        self.basis[count] /= self.basis[count].norm()


@dataclass(frozen=True)
class SpectralDensity:
    """Stochastic Lanczos quadrature: per random vector, ``nodes`` (vector, step) with ``weights`` that sum to 1.

    Averages over vectors estimate the distribution of eigenvalues; ``steps`` moments and more are exact per vector.
    """

    nodes: Float[Tensor, "vector step"]
    weights: Float[Tensor, "vector step"]

    def density(self, at: Float[Tensor, " point"], width: float) -> Float[Tensor, " point"]:
        """Return the density at some points, each node a normal of standard deviation ``width``.

        Raises:
            UserError: the width is not above zero.
        """
        if not width > 0:
            raise UserError(f"expected a width above zero, got {width}")
        z = (at.double()[:, None, None] - self.nodes) / width
        bumps = torch.exp(-0.5 * z.square()) / (width * math.sqrt(2 * math.pi))
        return (bumps * self.weights).sum(2).mean(1)

    def below(self, at: Float[Tensor, " point"]) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
        """Return the share of eigenvalues at or below some points, and its standard error over the vectors."""
        each = ((self.nodes <= at.double()[:, None, None]) * self.weights).sum(2)
        return each.mean(1), each.std(1) / each.shape[1] ** 0.5

    def moment(self, order: int) -> tuple[float, float]:
        """Return the mean of eigenvalue^order, and its standard error over the vectors."""
        each = (self.nodes**order * self.weights).sum(1)
        return float(each.mean()), float(each.std() / len(each) ** 0.5)


@or_undefined
def spectral_density(hessian: Hessian, vectors: int, steps: int, generator: torch.Generator) -> SpectralDensity:
    """Return nodes and weights of the eigenvalue distribution by stochastic Lanczos quadrature.

    For each of ``vectors`` vectors of random signs, ``steps`` Lanczos steps; the eigenvalues of the tridiagonal matrix
    are nodes, the squared first components of its eigenvectors weights: a Gauss quadrature, exact for polynomials up
    to degree 2 steps - 1 (Golub and Welsch 1969; Ubaru, Chen, Saad 2017). Costs vectors * steps products, and the
    memory of steps + 1 vectors.

    Raises:
        UserError: fewer than two vectors (there would be no standard error) or no step.
    """
    if vectors < 2 or steps < 1:
        raise UserError(f"expected two vectors or more and one step or more, got {vectors} and {steps}")
    width = min(steps, hessian.size)
    nodes = torch.zeros(vectors, width, dtype=torch.float64)
    weights = torch.zeros(vectors, width, dtype=torch.float64)
    for row in range(vectors):
        space = _Space(hessian, width, generator)
        space.basis[0] = signs(hessian, generator) / hessian.size**0.5
        while space.held < width:
            space.grow()
            if space.leaving == 0.0:  # the quadrature is complete: further directions carry no weight
                break
        values, rotation = torch.linalg.eigh(space.projected())
        nodes[row, : space.held] = values
        weights[row, : space.held] = rotation[0].square()
    return SpectralDensity(nodes, weights)
