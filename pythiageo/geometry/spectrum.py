"""Singular values of a matrix of states, in float64, with a bound on what their rounding does to an entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.compute.threads import one_thread
from pythiageo.geometry.deflation import Split, split
from pythiageo.geometry.matrix import EPS, Varying, distinct, is_finite, take_mean_off
from pythiageo.geometry.reductions import Reduction, find_squares, reduce, tries_gram_first
from pythiageo.lazy import lazy_property

TOLERANCE = 1e-6
"""Greatest error of the entropy of sigma / sum sigma (so, relative, of RankMe) that the Gram matrix may bring, and,
where every value counts, greatest relative error of a resolved sigma^2."""
TOLERANCE_OF_MANY = 1e-4
"""The same of more than ``FEW`` values, which without a Gram matrix are the dearest part of a run. What a bound adds up
of so many roundings is about 1,000 times what happens."""
FEW = 512
RESOLVED = 1e-6
"""A sigma below this share of the largest is not resolved: float32 states round at about 1e-7 in every layer."""
ROUNDED = float(torch.finfo(torch.float32).eps) / 2
"""What float32 alone rounds by, as a share: ``RESOLVED`` is about 17 times that."""


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
    equal states. One Gram matrix on the smaller side then gives both spectra (see ``reductions``). Its eigenvalues are
    squares, off by about ``eps * max(rows, columns)`` times its largest, so a small sigma is lost in rounding. Two
    things make the largest massive: the mean, which is taken off before anything is multiplied, and massive
    activations: where few directions dwarf the others they are split off first (see ``deflation``). Where the entropy
    of a spectrum could still be off by more than ``TOLERANCE`` (or, with ``every_value``, a resolved sigma^2 by more
    than that, relative), its singular values are taken without squaring, which keeps the condition number. States that
    are equal but for the rounding of their mean have singular values of exactly zero, not the spectrum of that
    rounding.

    Everything is computed where the states are, on one thread of the CPU or on their GPU, and the singular values alone
    come to the CPU.

    Args:
        states: (row, d_model), float64 or lower.
        every_value: whether each singular value must be right by itself, not only the spectrum as a distribution.

    Raises:
        ValueError: no row, or values that are not finite.
    """

    def __init__(self, states: Float[Tensor, "row d_model"], every_value: bool = False) -> None:
        if states.ndim != 2 or states.shape[0] == 0:
            raise ValueError(f"expected a (row, d_model) matrix with at least one row, got shape {tuple(states.shape)}")
        if not is_finite(states):
            raise ValueError("states hold NaN or infinity")
        self._states = states.contiguous()
        self._every_value = every_value

    def of(self, centred: bool) -> Spectrum:
        """Return the spectrum of the states, their mean row taken off if ``centred``."""
        return self._centred if centred else self._uncentred

    def release(self) -> None:
        """Let go of the float64 copies of the states, which what was asked already does not need."""
        for name in ("_distinct", "_varying", "_split", "_reduction"):
            vars(self).pop(name, None)

    @lazy_property
    def largest(self) -> float:
        """The largest singular value of the uncentred states, or up to the root of two times that."""
        varying = 0.0
        if not self._gram_first and self._split is not None:
            varying = float(self._split.sigma[0])
        elif self._varying.at_all:
            varying = math.sqrt(float(self._reduction.squares(True)[0]))
        return math.hypot(varying, float(torch.linalg.vector_norm(self._varying.mean)))

    @lazy_property
    def variation(self) -> float:
        """The Frobenius norm of the centred states."""
        return float(torch.linalg.vector_norm(self._varying.rows))

    @lazy_property
    def _centred(self) -> Spectrum:
        with one_thread():
            varying = self._varying
            if not varying.at_all:
                return self._spectrum(varying.mean[:0], "gram")
            found = self._take_whole(True) if self._gram_first else None
            if found is None and self._split is not None:
                found = self._put_together(self._split)
            elif not self._gram_first:
                found = self._take_whole(True)
            return found or self._spectrum(torch.linalg.svdvals(varying.rows), "svd")

    @lazy_property
    def _uncentred(self) -> Spectrum:
        with one_thread():
            matrix, _ = self._distinct
            if not self._varying.at_all:
                return self._spectrum(torch.linalg.vector_norm(self._varying.mean)[None], "gram")
            if self._gram_first and (found := self._take_whole(False)) is not None:
                return found
            alike = self._split is None
            if not (alike and self._reduction.keeps_small) and (parts := split(matrix)) is not None:
                found = self._put_together(parts)
            elif alike:
                found = None if self._gram_first else self._take_whole(False)
            else:
                found = self._accept(*find_squares(matrix))
            return found or self._spectrum(torch.linalg.svdvals(matrix), "svd")

    @lazy_property
    def _distinct(self) -> tuple[Tensor, Tensor]:
        return distinct(self._states)

    @lazy_property
    def _varying(self) -> Varying:
        return take_mean_off(*self._distinct)

    @lazy_property
    def _split(self) -> Split | None:
        return split(self._varying.rows)

    @lazy_property
    def _reduction(self) -> Reduction:
        return reduce(self._varying.rows, self._distinct[1], self._varying.mean)

    @property
    def _gram_first(self) -> bool:
        return tries_gram_first(self._states)

    def _take_whole(self, centred: bool) -> Spectrum | None:
        """Return the spectrum of a matrix that is not split, ``None`` where the bound does not allow for it."""
        return self._accept(self._reduction.squares(centred), self._reduction.error(centred))

    @lazy_property
    def _rounded(self) -> float:
        """How far any singular value may be off because the mean was taken off, in digits of the whole."""
        return 4 * EPS * float(torch.linalg.vector_norm(self._distinct[0]))

    def _put_together(self, parts: Split) -> Spectrum | None:
        """Return the spectrum of a split matrix, ``None`` where the bound does not allow for it."""
        squares, error = find_squares(parts.rest)
        # what was split off is zero in the rest, but for rounding
        squares = squares[: len(squares) - len(parts.sigma)]
        return self._accept(squares, error + parts.coupled, parts.sigma, parts.rounded)

    def _accept(
        self,
        squares: Float[Tensor, " value"],
        error: float,
        largest: Float[Tensor, " direction"] | None = None,
        rounded: float = 0.0,
    ) -> Spectrum | None:
        """Return the spectrum of these squares, each off by no more than ``error``, ``None`` where that is too far.

        ``largest``: singular values that are not among them; ``rounded``: how far they and the others may be off.
        """
        sigma, errors = squares.sqrt(), square_errors(squares, error)
        if largest is not None:
            sigma, errors = torch.cat([largest, sigma]), torch.cat([torch.zeros_like(largest), errors])
        errors = errors + (rounded + self._rounded)
        tolerance = TOLERANCE if min(self._states.shape) <= FEW else TOLERANCE_OF_MANY
        if entropy_error(sigma, errors) > tolerance:
            return None
        if self._every_value and value_error(sigma, errors) > tolerance:
            return None
        return self._spectrum(sigma, "gram")

    def _spectrum(self, sigma: Tensor, method: str) -> Spectrum:
        rows, columns = self._states.shape
        values = torch.zeros(min(rows, columns), dtype=torch.float64)
        values[: len(sigma)] = sigma.cpu().sort(descending=True).values[: len(values)]
        return Spectrum(values, rows, columns, method)


def spectrum(states: Float[Tensor, "row d_model"], centred: bool) -> Spectrum:
    """Return the singular values of ``states``, after taking off the mean row if ``centred``. See ``Spectra``.

    Raises:
        ValueError: no row, or values that are not finite.
    """
    return Spectra(states).of(centred)


def square_errors(squares: Float[Tensor, " value"], delta: float) -> Float[Tensor, " value"]:
    """Return how far the roots of squares, none below zero, may be off where the squares are by ``delta``."""
    sigma = squares.sqrt()
    return torch.maximum((squares + delta).sqrt() - sigma, sigma - (squares - delta).clamp_min(0).sqrt())


def entropy_error(sigma: Float[Tensor, " value"], errors: Float[Tensor, " value"]) -> float:
    """Bound the error of the entropy H of p = sigma / S that singular values off by ``errors`` can make.

    dH = -sum_i (log p_i + H) dsigma_i / S.
    """
    total = sigma.sum()
    if not len(sigma):
        return 0.0
    if not float(total) > 0:
        # all zero: exact if nothing was multiplied, unknown if something was
        return 0.0 if not float(errors.max()) > 0 else math.inf
    p = torch.maximum(sigma, errors) / total
    entropy = -torch.special.xlogy(p, p).sum()
    return float((torch.where(errors > 0, (p.log() + entropy).abs() * errors, 0.0)).sum() / total)


def value_error(sigma: Float[Tensor, " value"], errors: Float[Tensor, " value"]) -> float:
    """Bound the relative error of the squares of those singular values that are resolved."""
    if not len(sigma):
        return 0.0
    resolved = sigma + errors >= RESOLVED * sigma[0]
    return float((2 * errors / sigma.clamp_min(torch.finfo(torch.float64).tiny))[resolved].max())
