"""A Krylov space of the Hessian with full re-orthogonalisation, beside vectors that are settled already."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.landscape.hessian import Hessian


class Space:
    """An orthonormal ``basis`` (row, parameter): ``locked`` settled vectors, then a Krylov space of H outside them.

    The Krylov space begins at a random vector. Its last vector, ``basis[held]``, is p(H) times the first one, H taken
    outside the locked vectors and p a polynomial whose zeros are the Ritz values, those of earlier restarts included.
    """

    def __init__(self, hessian: Hessian, width: int, generator: torch.Generator) -> None:
        self._hessian = hessian
        self._generator = generator
        gradient = hessian.gradient
        self.basis = torch.empty(width + 1, hessian.size, dtype=gradient.dtype, device=gradient.device)
        self._small = torch.zeros(width, width, dtype=torch.float64)
        self.width = width
        self.locked = 0
        self.held = 0
        """Basis vectors whose product with H is known; the next one is ready."""
        self.leaving = 0.0
        """Length of the part of H times the last vector that lies outside."""
        self.largest = 0.0
        """Greatest length of H times a unit vector so far."""
        self._dropped: list[float] = []
        self._log_scale = 0.0
        self.begin()

    def begin(self, vector: Float[Tensor, " parameter"] | None = None) -> None:
        """Start a new Krylov space outside the locked vectors, at ``vector`` or at random; the old one is forgotten."""
        self.held = self.locked
        self._small[self.locked :] = 0
        self._small[:, self.locked :] = 0
        self._dropped = []
        self._log_scale = 0.0
        self._put(vector)

    def _put(self, vector: Tensor | None) -> None:
        if vector is None:
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
        """Add a vector. Where H does not leave the space, ``leaving`` is zero and nothing follows."""
        here = self.held
        image = self._hessian.product(self.basis[here])
        self.largest = max(self.largest, float(image.norm()))
        outside, inside = self._orthogonal(image, here + 1)
        self._small[here, : here + 1] = inside
        self._small[: here + 1, here] = inside
        self.held += 1
        self.leaving = float(outside.norm())
        if self.held < self._hessian.size and self.leaving > 10 * torch.finfo(image.dtype).eps * self.largest:
            self.basis[self.held] = outside / self.leaving
            self._log_scale += math.log(self.leaving)
        else:
            self.leaving = 0.0

    def refill(self) -> None:
        """Go on at a random vector outside all that is held, where H does not leave the space."""
        self._put(None)

    def projected(self) -> Float[Tensor, "row row"]:
        """Return H projected on all that is held."""
        return self._small[: self.held, : self.held]

    def outside_locked(self) -> Float[Tensor, "row row"]:
        """Return H projected on the Krylov space alone."""
        return self._small[self.locked : self.held, self.locked : self.held]

    def zeros(self) -> Float[Tensor, " zero"]:
        """Return the zeros of p."""
        dropped = torch.tensor(self._dropped, dtype=torch.float64)
        return torch.cat([torch.linalg.eigvalsh(self.outside_locked()), dropped])

    def log_growth(self, at: Float[Tensor, " point"], zeros: Float[Tensor, " zero"]) -> Float[Tensor, " point"]:
        """Return log |p(at)|, infinite where H does not leave the space.

        The last vector has length 1, so a unit eigenvector of H (outside the locked vectors) of eigenvalue ``at``
        cannot have more than 1 / |p(at)| in common with the vector that the space began at.
        """
        if self.leaving == 0.0:
            return torch.full_like(at, math.inf)
        return (at[:, None] - zeros).abs().log().sum(1) - self._log_scale

    def restart(self, values: Tensor, rotation: Tensor, kept: Tensor) -> None:
        """Keep these Ritz vectors of the Krylov space and the direction in which H leaves it."""
        count, first = len(kept), self.locked
        gone = torch.ones(len(values), dtype=torch.bool)
        gone[kept] = False
        self._dropped += values[gone].tolist()
        chosen = rotation[:, kept]
        ritz = chosen.T.to(self.basis) @ self.basis[first : self.held]
        beside = self._small[:first, first : self.held] @ chosen
        follower = self.basis[self.held].clone()
        self.basis[first : first + count] = ritz
        self._small[first:] = 0
        self._small[:, first:] = 0
        rows = range(first, first + count)
        self._small[rows, rows] = values[kept]
        self._small[:first, first : first + count] = beside
        self._small[first : first + count, :first] = beside.T
        self.held = first + count
        self.basis[self.held] = self._orthogonal(follower, self.held)[0]
        self.basis[self.held] /= self.basis[self.held].norm()

    def lock(self, old: Tensor, turn: Tensor) -> None:
        """Keep these locked vectors, lock vectors of the Krylov space (vector, chosen), drop the rest, begin anew."""
        first, count = self.locked, len(old) + turn.shape[1]
        fresh = turn.T.to(self.basis) @ self.basis[first : self.held]
        self.basis[: len(old)] = self.basis[old].clone()
        self.basis[len(old) : count] = fresh
        beside = self._small[:first, first : self.held][old] @ turn
        small = torch.zeros_like(self._small)
        small[: len(old), : len(old)] = self._small[old][:, old]
        small[: len(old), len(old) : count] = beside
        small[len(old) : count, : len(old)] = beside.T
        small[len(old) : count, len(old) : count] = turn.T @ self.outside_locked() @ turn
        self._small = small
        self.locked = count
        self.begin()
