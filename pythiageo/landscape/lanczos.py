"""The Hessian's top eigenvalues, repeated ones counted, and its spectral density, by Lanczos."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import stdtrit  # type: ignore[import-untyped]
from torch import Tensor

from pythiageo.errors import UserError, nearest
from pythiageo.landscape.hessian import Hessian, signs
from pythiageo.landscape.krylov import Space
from pythiageo.landscape.search import Search
from pythiageo.no_value import or_no_value

WANTED = ("largest", "magnitude", "smallest")
SPARE = 1 << 24
"""Numbers that a basis may hold whatever k is: with more vectors fewer products are needed."""


@dataclass(frozen=True)
class Eigenvalues:
    """``values`` (k), first the most wanted, and ``residuals`` (k): |H y - value y| of unit y.

    ``statuses`` (k): ``ok`` where the j-th eigenvalue of H, repeated ones counted, lies within ``tolerance`` times
    |value| of the j-th value, but for a chance of ``MISSED``; ``imprecise`` where products are rounded too much to
    say so; ``not_converged`` where there were too few products to. ``vectors`` (k, parameter).
    """

    values: Float[Tensor, " k"]
    residuals: Float[Tensor, " k"]
    vectors: Float[Tensor, "k parameter"]
    products: int
    statuses: tuple[str, ...]

    @property
    def converged(self) -> bool:
        """Whether all values are certain."""
        return set(self.statuses) == {"ok"}


@or_no_value
def top_eigenvalues(
    hessian: Hessian,
    k: int,
    generator: torch.Generator,
    which: str = "largest",
    tolerance: float = 5e-3,
    basis: int | None = None,
    max_products: int = 500,
) -> Eigenvalues:
    """Return the ``k`` eigenvalues of H that are largest, smallest, or largest in magnitude, repeated ones counted.

    Thick-restart Lanczos (Wu and Simon 2000) until each of k Ritz values is settled; these are locked, and a new
    search begins at a random vector outside them, which sees further copies of a repeated value and whatever was
    passed over. What it finds is locked in turn, until a search shows that nothing is left: a Ritz value never lies
    above the eigenvalue of its rank, and the last vector of the search says how large the polynomial of its Ritz values
    may be at an eigenvalue whose vector the random start did not miss (van Dorsselaer et al. 2000). So the eigenvalue
    of rank j is not above value + ``tolerance`` |value| either; usually both agree to tolerance^2.

    Memory: ``basis`` + 1 vectors in the parameters' type (default 2k + 10, more where they take no more than 2^24
    numbers). Deterministic in ``generator``.

    Raises:
        UserError: k below 1 or above the number of parameters, basis not above k, fewer products than 2k, or an
            unknown ``which``.
    """
    if which not in WANTED:
        raise UserError(f"no end of the spectrum {which!r}{nearest(which, WANTED)}; there are {', '.join(WANTED)}")
    if not 1 <= k <= hessian.size:
        raise UserError(f"expected between 1 and {hessian.size} eigenvalues (there are so many parameters), got {k}")
    if basis is not None and basis <= k < hessian.size:
        raise UserError(f"expected a basis of more than {k} vectors for {k} eigenvalues, got {basis}")
    if max_products < 2 * k:
        raise UserError(f"expected {2 * k} products or more for {k} eigenvalues, got {max_products}")
    roomy = min(max(2 * k + 10, SPARE // hessian.size), max_products)
    width = min(max(basis if basis is not None else roomy, k + 3), hessian.size)
    start = hessian.products
    search = Search(hessian, k, generator, which, tolerance, width, start + max_products - 1)
    search.run()
    return _checked(hessian, search, tolerance, generator, start)


def _checked(hessian: Hessian, search: Search, tolerance: float, generator: torch.Generator, start: int) -> Eigenvalues:
    """Check residuals by one product with a random combination of all vectors, and say which values are certain."""
    values, vectors, known = search.values[search.wanted], search.vectors(), search.residuals[search.wanted]
    count = len(values)
    mix = (2 * torch.randint(0, 2, (count,), generator=generator) - 1).double()
    image = hessian.product(mix.to(vectors) @ vectors / count**0.5).double() * count**0.5
    measured = float((image - (mix * values).to(image.device) @ vectors.double()).norm())
    rounded = math.sqrt(max(0.0, measured**2 - float(known.sum()) ** 2))
    exact = (search.margins <= tolerance * values.abs()) & (rounded <= search.margins)
    return Eigenvalues(
        values=values,
        residuals=(known.square() + rounded**2).sqrt(),
        vectors=vectors,
        products=hessian.products - start,
        statuses=tuple(
            "not_converged" if not sure else "ok" if fine else "imprecise"
            for sure, fine in zip(search.certain.tolist(), exact.tolist(), strict=True)
        ),
    )


@dataclass(frozen=True)
class SpectralDensity:
    """Stochastic Lanczos quadrature: per random vector, ``nodes`` (vector, step) with ``weights`` that sum to 1.

    Averages over vectors estimate the distribution of eigenvalues; ``steps`` moments and more are exact per vector.
    ``rounding``: how far a node may be from where it should, for the rounding of products.
    """

    nodes: Float[Tensor, "vector step"]
    weights: Float[Tensor, "vector step"]
    rounding: float = 0.0

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

    def below(
        self, at: Float[Tensor, " point"]
    ) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"], Float[Tensor, " point"]]:
        """Return the share of eigenvalues at or below some points, and the ends of a 95% interval.

        A vector's own share below a point lies between the weights of the nodes before the last one there and those up
        to the next one beyond (Chebyshev, Markov, Stieltjes): nodes are few, and the interval counts that beside the
        spread over vectors (Student's t). It covers at least 95%; more steps and more vectors make it narrower.
        """
        points = at.double()[:, None, None]
        there = self.nodes <= points
        each = (there * self.weights).sum(2)
        real = self.weights > 0
        # a vector whose space closed early has fewer nodes: the others carry no weight
        before = torch.where(real & (self.nodes < points - self.rounding), self.nodes, -math.inf).amax(2, keepdim=True)
        beyond = torch.where(real & (self.nodes > points + self.rounding), self.nodes, math.inf).amin(2, keepdim=True)
        low = ((self.nodes < before) * self.weights).sum(2)
        high = ((self.nodes <= beyond) * self.weights).sum(2)
        count = each.shape[1]
        spread = float(stdtrit(count - 1, 0.975)) / count**0.5
        return (
            each.mean(1),
            (low.mean(1) - spread * low.std(1)).clamp(min=0),
            (high.mean(1) + spread * high.std(1)).clamp(max=1),
        )

    def moment(self, order: int) -> tuple[float, float]:
        """Return the mean of eigenvalue^order, and its standard error over the vectors."""
        each = (self.nodes**order * self.weights).sum(1)
        return float(each.mean()), float(each.std() / len(each) ** 0.5)


@or_no_value
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
    largest = 0.0
    for row in range(vectors):
        space = Space(hessian, width, generator)
        space.basis[0] = signs(hessian, generator) / hessian.size**0.5
        while space.held < width:
            space.grow()
            if space.leaving == 0.0:  # the quadrature is complete: further directions carry no weight
                break
        values, rotation = torch.linalg.eigh(space.projected())
        nodes[row, : space.held] = values
        weights[row, : space.held] = rotation[0].square()
        largest = max(largest, space.largest)
    return SpectralDensity(nodes, weights, 10 * torch.finfo(hessian.gradient.dtype).eps * largest)
