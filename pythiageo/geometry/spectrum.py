"""Singular values of a matrix of states, in float64, with a bound on what their rounding does to an entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pythiageo.geometry.lapack import Array
from pythiageo.geometry.reductions import Bidiagonal, Tridiagonal

ENTROPY_TOLERANCE = 1e-6
"""Greatest error of the entropy of sigma / sum sigma (so, relative, of RankMe) that the Gram matrix may bring."""
VALUE_TOLERANCE = 1e-6
"""Greatest relative error of a resolved sigma^2 where every value counts."""
RESOLVED = 1e-6
"""A sigma below this share of the largest is not resolved: float32 states round at about 1e-7 in every layer."""
ROUNDED = float(torch.finfo(torch.float32).eps) / 2
"""What float32 alone rounds by, as a share: ``RESOLVED`` is about 17 times that."""
Numbers = NDArray[np.float64] | NDArray[np.float32]
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Spectrum:
    """Singular values, descending, of a (rows, columns) matrix, and how they were computed (``gram`` or ``svd``).

    ``limits``: at or below its limit a value is not resolved; ``None`` is ``RESOLVED`` times the largest for all.
    ``finer``: gives the spectrum with a limit to each value, where a matrix stands behind it.
    """

    sigma: Float[Tensor, " value"]
    rows: int
    columns: int
    method: str
    limits: Float[Tensor, " value"] | None = None
    finer: Callable[[], Spectrum] | None = field(default=None, repr=False, compare=False)

    @property
    def resolved(self) -> int:
        """How many values are told apart from the rounding of the states."""
        return int((self.sigma > self._limits()).sum())

    def _limits(self) -> Tensor:
        if self.limits is None:
            return (RESOLVED * self.sigma[:1].sum()).expand(len(self.sigma))
        return self.limits

    def resolve(self, count: int) -> Spectrum:
        """Return a spectrum of which ``count`` values are resolved, or as near to that as the states allow.

        One limit for all values is set by the largest: too high where one dimension dominates all others, whose own
        numbers hold their digits. Where that cuts the spectrum short, each value has a limit of its own.
        """
        if self.finer is None or self.resolved >= min(count, len(self.sigma)):
            return self
        finer = self.finer()
        return finer if finer.resolved > self.resolved else self

    def loosen(self) -> Spectrum:
        """Return the spectrum with limits of plain rounding, where ``RESOLVED`` allows for what a network adds to it.

        A number that moves with the limits is made by them: the directions between the two may or may not be rounding.
        """
        finer = self.finer
        if finer is None:
            return self
        return replace(self, finer=lambda: _scale_limits(finer(), ROUNDED / RESOLVED))

    def less(self, noise: float | Float[Tensor, " value"]) -> Spectrum:
        """Return the spectrum with rounding of this size along each direction taken off its values."""
        largest = float(self.sigma[:1].sum()) or 1.0
        squares = (self.sigma / largest).square() - (torch.as_tensor(noise) / largest).square()
        left = (squares.clamp_min(0.0).sqrt() * largest).sort(descending=True).values
        return replace(self, sigma=left, limits=self._limits(), finer=None)


def _scale_limits(spectrum: Spectrum, factor: float) -> Spectrum:
    """Return the spectrum with other limits; none falls below what the decomposition itself rounds by."""
    least = EPS * max(spectrum.rows, spectrum.columns) * float(spectrum.sigma[:1].sum())
    return replace(spectrum, limits=(factor * spectrum._limits()).clamp_min(least))


class Spectra:
    """The spectra of one matrix of states, centred and not, with what they share computed once.

    Rows that are equal bit by bit are taken once, with their number as weight: in a causal model equal prompts have
    equal states. One Gram matrix on the smaller side, uncentred, then gives both spectra (see ``reductions``). Its
    eigenvalues are squares, off by about ``eps * max(rows, columns)`` times the *uncentred* ``lambda_max``, which
    massive activations make large; so a small sigma is lost in rounding. Where the entropy of a spectrum could be off
    by more than ``ENTROPY_TOLERANCE`` (or, with ``every_value``, a resolved sigma^2 by more than ``VALUE_TOLERANCE``,
    relative), its singular values are taken without squaring, which keeps the condition number; and where even that
    would be swamped by the mean, from states that are centred first. States that are equal but for the rounding of
    their mean have singular values of exactly zero, not the spectrum of that rounding.

    Args:
        states: (row, d_model), float64 or lower.
        every_value: whether each singular value must be right by itself, not only the spectrum as a distribution.
        steep: whether the spectrum is expected to be too steep for the Gram matrix, which is then not tried.

    Raises:
        ValueError: no row, or values that are not finite.
    """

    def __init__(self, states: Float[Tensor, "row d_model"], every_value: bool = False, steep: bool = False) -> None:
        if states.ndim != 2 or states.shape[0] == 0:
            raise ValueError(f"expected a (row, d_model) matrix with at least one row, got shape {tuple(states.shape)}")
        if not is_finite(states):
            raise ValueError("states hold NaN or infinity")
        self._states = states.contiguous()
        self._every_value = every_value
        self._steep = steep
        self._taken: dict[bool, Tensor] = {}

    def of(self, centred: bool) -> Spectrum:
        """Return the spectrum of the states, their mean row taken off if ``centred``."""
        return self._centred if centred else self._uncentred

    @property
    def steep(self) -> bool:
        """Whether a spectrum taken here so far was too steep for the Gram matrix."""
        return "_bidiagonal" in vars(self)

    def release(self) -> None:
        """Let go of the float64 copy of the states, which what was asked already does not need."""
        vars(self).pop("_weighted", None)

    @cached_property
    def _uncentred(self) -> Spectrum:
        if not self._steep and self._good(squares := self._squares(False), self._delta):
            return self._spectrum(squares.sqrt(), "gram")
        return self._spectrum(self._sigma(False), "svd")

    @cached_property
    def _centred(self) -> Spectrum:
        if not self._steep:
            # the mean and its square round too: four times the error of the product alone
            squares, delta = self._squares(True), 4 * self._delta
            if self._good(squares, delta):
                return self._spectrum(squares.sqrt(), "gram")
            largest = float(squares[:1].sum())
            if largest <= delta or self._good(squares, delta * largest / self.largest**2):
                return self._centred_first()  # it is the mean that swamps the product
        sigma = self._sigma(True)
        if self._good_sigma(sigma, max(self._states.shape) * EPS * self.largest):
            return self._spectrum(sigma, "svd")
        return self._centred_first()

    def _centred_first(self) -> Spectrum:
        """Take the mean off before anything is multiplied."""
        matrix = centre(self._states)
        if not bool(matrix.any()):
            return self._spectrum(torch.zeros(0, dtype=torch.float64), "gram")
        again = Spectra(matrix, self._every_value)
        squares = again._squares(True)
        if again._good(squares, 4 * again._delta):
            return self._spectrum(squares.sqrt(), "gram")
        return self._spectrum(again._sigma(True), "svd")

    def _squares(self, centred: bool) -> Tensor:
        if centred not in self._taken:
            self._taken[centred] = torch.from_numpy(self._tridiagonal.eigenvalues(centred))
        return self._taken[centred]

    def _sigma(self, centred: bool) -> Tensor:
        return torch.from_numpy(self._bidiagonal.values(centred))

    @cached_property
    def _weighted(self) -> tuple[Array, Array]:
        return distinct(self._states.numpy())

    @cached_property
    def _tridiagonal(self) -> Tridiagonal:
        return Tridiagonal(*self._weighted)

    @cached_property
    def _bidiagonal(self) -> Bidiagonal:
        return Bidiagonal(*self._weighted)

    @cached_property
    def largest(self) -> float:
        """The largest singular value of the uncentred states."""
        return float(self._sigma(False)[0]) if self._steep else math.sqrt(float(self._squares(False)[0]))

    @property
    def _delta(self) -> float:
        """Error of the Gram matrix's eigenvalues: chains of so many operations, each rounded."""
        return self._tridiagonal.terms * EPS * self.largest**2

    def _spectrum(self, sigma: Tensor, method: str) -> Spectrum:
        rows, columns = self._states.shape
        values = torch.zeros(min(rows, columns), dtype=torch.float64)
        values[: len(sigma)] = sigma
        return Spectrum(values, rows, columns, method)

    def _good(self, squares: Float[Tensor, " value"], delta: float) -> bool:
        """Whether eigenvalues off by ``delta`` are good enough."""
        return entropy_error(squares, delta) <= ENTROPY_TOLERANCE and not (
            self._every_value and value_error(squares, delta) > VALUE_TOLERANCE
        )

    def _good_sigma(self, sigma: Float[Tensor, " value"], error: float) -> bool:
        """Whether singular values off by ``error`` are good enough."""
        good = _entropy_error(sigma, torch.full_like(sigma, error)) <= ENTROPY_TOLERANCE
        if not (good and self._every_value):
            return good
        resolved = sigma > RESOLVED * sigma[0] - error
        return float((2 * error / sigma[resolved]).max()) <= VALUE_TOLERANCE


def spectrum(states: Float[Tensor, "row d_model"], centred: bool) -> Spectrum:
    """Return the singular values of ``states``, after taking off the mean row if ``centred``. See ``Spectra``.

    Raises:
        ValueError: no row, or values that are not finite.
    """
    return Spectra(states).of(centred)


def is_finite(states: Tensor) -> bool:
    """Return whether no value is NaN or infinite."""
    flat = states.detach().contiguous().view(-1)
    # NaN and infinity survive the sum of squares; only where it overflows need every value be looked at
    return math.isfinite(float(flat @ flat)) or bool(torch.isfinite(flat).all())


def distinct(states: Numbers) -> tuple[Array, Array]:
    """Return, in float64, the distinct rows, each times the root of its number, and those roots over sqrt(row).

    Both together have the singular values, centred and not, of all rows. Rows are equal where every number is.
    """
    rows, columns = states.shape
    # a projection finds candidates; only rows that are equal in every column are taken together
    projection = states @ np.cos(np.arange(1.0, columns + 1)).astype(states.dtype)
    order = np.argsort(projection, kind="stable")
    candidates = np.flatnonzero(np.diff(projection[order]) == 0)
    same = np.zeros(rows, dtype=bool)
    same[candidates + 1] = (states[order[candidates]] == states[order[candidates + 1]]).all(axis=1)
    if not same.any():
        return states.astype(np.float64, copy=False), np.full(rows, rows**-0.5)
    first = np.flatnonzero(~same)
    roots = np.sqrt(np.diff(np.append(first, rows)))
    kept = states[order[first]].astype(np.float64, copy=False)
    kept *= roots[:, None]
    return kept, roots / np.sqrt(rows)


def centre(states: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    """Return ``states`` in float64 without their mean row; a row that is the mean but for rounding is exactly zero."""
    matrix = states.to(torch.float64, copy=True)
    # in place: each copy would be twice as large as the states
    rounding = EPS * len(matrix) * max(float(matrix.max()), -float(matrix.min()))
    matrix -= matrix.mean(dim=0)
    matrix[torch.linalg.vector_norm(matrix, ord=math.inf, dim=1) <= rounding] = 0
    return matrix


def entropy_error(eigenvalues: Float[Tensor, " value"], delta: float) -> float:
    """Bound the error of the entropy H of p = sigma / S that eigenvalues, none below zero, off by ``delta`` can make.

    dH = -sum_i (log p_i + H) dsigma_i / S.
    """
    sigma = eigenvalues.sqrt()
    more, less = (eigenvalues + delta).sqrt() - sigma, sigma - (eigenvalues - delta).clamp_min(0).sqrt()
    return _entropy_error(sigma, torch.maximum(more, less))


def _entropy_error(sigma: Float[Tensor, " value"], error: Float[Tensor, " value"]) -> float:
    total = sigma.sum()
    if not len(sigma):
        return 0.0
    if not float(total) > 0:
        # all zero: exact if nothing was multiplied, unknown if something was
        return 0.0 if not float(error.max()) > 0 else math.inf
    p = torch.maximum(sigma, error) / total
    entropy = -torch.special.xlogy(p, p).sum()
    return float((torch.where(error > 0, (p.log() + entropy).abs() * error, 0.0)).sum() / total)


def value_error(eigenvalues: Float[Tensor, " value"], delta: float) -> float:
    """Bound the relative error of those eigenvalues that are resolved, if all are off by ``delta``."""
    if not len(eigenvalues):
        return 0.0
    resolved = eigenvalues >= RESOLVED**2 * eigenvalues[0] - delta
    return float((delta / eigenvalues[resolved].clamp_min(torch.finfo(torch.float64).tiny)).max())
