"""The search for eigenvalues at the ends of the Hessian's spectrum, and what shows that none was passed over."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.krylov import Space

MISSED = 1e-3
"""Probability with which a value that was passed over may go unseen."""
LEAST_MORE = 5
"""Vectors beyond k before values are settled: earlier, one is often passed over, and has to be found later."""
SHARES = torch.linspace(0.5, 1.0, 9, dtype=torch.float64)
"""Places beyond a value, in tolerances, that eigenvalues are counted from: one of them is not near a Ritz value."""
ROUNDING = 2
"""Units of the type's rounding, times the greatest product, within which eigenvalues are not told apart."""


class Search:
    """The search for k eigenvalues, until hessian.products is ``last``.

    Ranks are of all Ritz values held, locked ones and those of the Krylov space. ``values``, ``rotation`` and
    ``residuals`` (bounds) are of these; ``certain`` and ``margins`` of the k wanted: whether the eigenvalue of a rank
    is shown to lie no further than its margin beyond the value.
    """

    def __init__(
        self,
        hessian: Hessian,
        k: int,
        generator: torch.Generator,
        which: str,
        tolerance: float,
        width: int,
        last: int,
    ) -> None:
        self._hessian = hessian
        self._k = k
        self._which = which
        self._ends = {"largest": (1,), "smallest": (-1,), "magnitude": (1, -1)}[which]
        self._tolerance = tolerance
        self._last = last
        self.space = Space(hessian, width, generator)
        self._outside = torch.zeros(0, dtype=torch.float64)
        """Bounds on the parts of the locked vectors' images outside them."""

    def run(self) -> None:
        """Search until all ranks are certain, or products are used up."""
        space, size = self.space, self._hessian.size
        while True:
            space.grow()
            full = space.held == size
            last = full or self._hessian.products >= self._last
            closed = space.leaving == 0.0
            if not (last or closed or space.held == space.width or _is_due(space.held)):
                continue
            self._rank()
            self.certain = torch.ones(self._k, dtype=torch.bool) if full else self._are_certain()
            if last or (len(self.certain) == self._k and bool(self.certain.all())):
                return
            if self._completes():
                if closed:
                    space.refill()
            elif self._is_settled() or closed:
                self._lock()
            elif space.held == space.width:
                self._restart()

    def vectors(self) -> Float[Tensor, "k parameter"]:
        """Return the wanted Ritz vectors."""
        return self.rotation[:, self.wanted].T.to(self.space.basis) @ self.space.basis[: self.space.held]

    @property
    def wanted(self) -> Int[Tensor, " k"]:
        """The numbers of the k most wanted Ritz values, in their order."""
        return self.order[: self._k]

    def _rank(self) -> None:
        """Take Ritz values, bounds on their residuals, and how far beyond them eigenvalues may lie (``margins``)."""
        space = self.space
        self.values, self.rotation = torch.linalg.eigh(space.projected())
        self.order = _order(self.values, self._which)
        beside = space.projected()[: space.locked, space.locked :].square().sum(1)
        unseen = (self._outside.square() - beside).clamp(min=0).sqrt()
        self.residuals = unseen @ self.rotation[: space.locked].abs() + (space.leaving * self.rotation[-1]).abs()
        top = self.values[self.wanted]
        floor = ROUNDING * torch.finfo(space.basis.dtype).eps * space.largest
        self.margins = (self._tolerance * top.abs()).clamp(min=floor)
        keys = key_of(top, self._which)
        self._places = keys[:, None] + self.margins[:, None] * SHARES

    def _pulls(self, end: int, small: Tensor, outside: Tensor) -> Float[Tensor, "rank place"]:
        """Return by how much vectors, split off, may raise eigenvalues of the rest past a place.

        With vectors split off on which H is S and whose images have parts R outside, H has as many eigenvalues above t
        as there are of S and of the rest of H plus R (t - S)^-1 R^T: its Schur complement. Eigenvalues of S above t
        lower it. ``outside``: the lengths of R's columns.
        """
        values, rotation = torch.linalg.eigh(end * small)
        apart = self._places[:, :, None] - values
        inverse = torch.where(apart > 0, 1 / apart, 0.0)
        pairs = torch.einsum("iv,jkv,lv->jkil", rotation, inverse, rotation).abs()
        return torch.einsum("jkil,i,l->jk", pairs, outside, outside)

    def _are_certain(self) -> Bool[Tensor, " rank"]:
        """Return, for each rank, whether it is shown that fewer eigenvalues than its number lie beyond a place."""
        space = self.space
        zeros = space.zeros()
        needed = 0.5 * math.log(2 * self._hessian.size / math.pi) - math.log(MISSED)
        small = space.projected()[: space.locked, : space.locked]
        beyond = (key_of(torch.linalg.eigvalsh(small), self._which) > self._places[:, :, None]).sum(2)
        shown = beyond < torch.arange(1, len(self._places) + 1)[:, None]
        self._blocked = torch.zeros(len(self._places), dtype=torch.bool)
        for end in self._ends:
            rest = self._places - self._pulls(end, small, self._outside)
            past = rest >= (end * zeros).max()
            self._blocked |= ~past.any(1)
            grown = space.log_growth((end * rest).flatten(), zeros).view_as(rest)
            shown = shown & past & (grown >= needed)
        return shown.any(1)

    def _choose(self) -> tuple[Int[Tensor, " kept"], Float[Tensor, "row ritz"], bool]:
        """Choose what to lock: the wanted vectors, and others that are as exact; whether the wanted are settled.

        Locked vectors are left as they are (to turn them would add up the bounds on what they leave outside), and Ritz
        vectors of the Krylov space are put beside them.
        """
        space, k, first = self.space, self._k, self.space.locked
        found, turn = torch.linalg.eigh(space.outside_locked())
        outside = (space.leaving * turn[-1]).abs()
        values = torch.cat([space.projected()[range(first), range(first)], found])
        order = _order(values, self._which)
        kept = order[:k]
        fresh = kept[kept >= first]
        settled = self._is_slight(found[fresh - first], outside[fresh - first], 0.25 * len(fresh) / k)
        everything = torch.cat([self._outside, outside])
        others = order[k:][everything[order[k:]].argsort()][: min(k + LEAST_MORE, (space.width - k) // 2)]
        slight = [n for n in range(1, len(others) + 1)
                  if self._is_slight(values[others[:n]], everything[others[:n]], 0.1)]  # fmt: skip
        return torch.cat([kept, others[: max(slight, default=0)]]), turn, settled

    def _is_slight(self, values: Tensor, outside: Tensor, share: float) -> bool:
        pulls = [self._pulls(end, values.diag(), outside).min(1).values for end in self._ends]
        return all(bool((pull <= share * self.margins).all()) for pull in pulls)

    def _is_settled(self) -> bool:
        """Return whether it is time to lock vectors."""
        first = self.space.locked == 0
        if first and (self._k == 1 or self.space.held < min(self._k + LEAST_MORE, self.space.width)):
            return False
        if not first and not bool(self._blocked.any()):
            return False
        return self._choose()[2]

    def _completes(self) -> bool:
        """Return whether it is best to go on to all of a small space: nothing is uncertain then."""
        space, size = self.space, self._hessian.size
        more = size - space.held
        return space.width == size and more <= min(size // 2, self._last - self._hessian.products)

    def _lock(self) -> None:
        """Lock the wanted vectors, and begin again outside them."""
        space, first = self.space, self.space.locked
        kept, turn, _ = self._choose()
        old, new = kept[kept < first], kept[kept >= first] - first
        gone = torch.ones(first, dtype=torch.bool)
        gone[old] = False
        small, beside = space.projected(), space.projected()[:first, first:] @ turn
        outside = (space.leaving * turn[-1]).square()[new] + beside[gone][:, new].square().sum(0)
        left = self._outside[old].square() - beside[old][:, new].square().sum(1)
        left = left.clamp(min=0) + small[:first, :first][gone][:, old].square().sum(0)
        self._outside = torch.cat([left, outside]).sqrt()
        space.lock(old, turn[:, new])

    def _restart(self) -> None:
        space = self.space
        values, rotation = torch.linalg.eigh(space.outside_locked())
        room = space.width - space.locked
        wanted = max(1, self._k - space.locked)
        count = max(1, min(room - 1, wanted + (room - wanted) // 2))
        space.restart(values, rotation, _order(values, self._which)[:count])


def _is_due(held: int) -> bool:
    """Return whether to look at the Ritz values: at each vector while that is cheap."""
    return held < 64 or held % (held // 32) == 0


def key_of(values: Tensor, which: str) -> Tensor:
    """Return what is to be large."""
    return {"largest": values, "smallest": -values, "magnitude": values.abs()}[which]


def _order(values: Tensor, which: str) -> Tensor:
    return key_of(values, which).argsort(descending=True)
