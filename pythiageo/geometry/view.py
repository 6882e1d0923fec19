"""What a measure is given at a readout; everything that readouts of one site have in common is computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.geometry.matrix import centre, is_finite
from pythiageo.geometry.prompts import Prompts
from pythiageo.geometry.readout import BUT_SINKS, SPARED, Layout, Readout, examples_of, find_places, select
from pythiageo.geometry.rounding import Directions, Rounding, unit_of
from pythiageo.geometry.sinks import Sinks
from pythiageo.geometry.spectrum import RESOLVED, ROUNDED, Spectra, Spectrum
from pythiageo.lazy import lazy_property


class Rows:
    """The rows of one site at some positions, and their spectra.

    ``every_value``: see ``Spectra``. ``unit``: of the type the states were computed in (see
    ``Rounding``), where that is not the matrix's own. ``without``: the sinks that are left out, if so.
    ``lengths`` (prompt): how many of the rows, which lie one prompt after another, each prompt has; one has all where
    nobody says.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "row d_model"],
        every_value: bool = False,
        unit: float | None = None,
        without: Sinks | None = None,
        lengths: Int[Tensor, " prompt"] | None = None,
    ) -> None:
        self.matrix = matrix
        self.without = without
        self.lengths = torch.tensor([len(matrix)], device="cpu") if lengths is None else lengths
        self.every_value = every_value
        self._unit = unit_of(matrix.dtype) if unit is None else unit

    @lazy_property
    def finite(self) -> bool:
        """Whether no value is NaN or infinite, those of sinks that are left out included."""
        return is_finite(self.matrix) and (self.without is None or self.without.finite)

    @lazy_property
    def spectra(self) -> Spectra:
        """The spectra, centred and not; raises as ``Spectra``."""
        return Spectra(self.matrix, self.every_value)

    @lazy_property
    def centred(self) -> Float[Tensor, "row d_model"]:
        """The rows without their mean; see ``centre``."""
        return centre(self.matrix)

    @lazy_property
    def rounding(self) -> Rounding:
        """How far the rows were rounded."""
        return Rounding(self.matrix, self._unit)

    def release(self) -> None:
        """Let go of what only further spectra would need."""
        if "spectra" in vars(self):
            self.spectra.release()

    def resample(self, rows: Int[Tensor, " row"]) -> Rows:
        """Return these of the rows, each as often as it is named."""
        return Rows(self.matrix[rows], self.every_value, self._unit)


@dataclass(frozen=True)
class View:
    """Rows, centred or not, and the same rows at the site below, if there is one."""

    rows: Rows
    is_centred: bool
    below: View | None = None

    @property
    def spectrum(self) -> Spectrum:
        """The singular values, which can be resolved further (``Spectrum.resolve``)."""
        return replace(self.rows.spectra.of(self.is_centred), finer=self.finer)

    @property
    def directions(self) -> Directions:
        """The singular values, and the rounding along the direction of each."""
        return self.rows.rounding.directions(self.states, self.is_centred)

    def finer(self) -> Spectrum:
        """Return the spectrum with a limit to each value by the dimensions it lies in, in place of one for all.

        Where all dimensions are of a size the limits are those of ``RESOLVED``, or above them.
        """
        sigma, _, columns = self.directions
        rows, width = self.rows.matrix.shape
        limits = RESOLVED / ROUNDED * width**0.5 * columns
        return Spectrum(sigma, rows, width, "svd", limits.clamp_max(RESOLVED * float(sigma[0])))

    @property
    def states(self) -> Float[Tensor, "row d_model"]:
        """The rows, in float64, their mean taken off if the readout is centred."""
        return self.rows.centred if self.is_centred else self.rows.matrix.double()

    @property
    def prompts(self) -> Prompts:
        """The same rows prompt by prompt."""
        states = self.rows.centred if self.is_centred else self.rows.matrix
        return Prompts(states, self.rows.lengths, self.rows.rounding.rows)

    @property
    def finite(self) -> bool:
        """Whether no value here or below is NaN or infinite."""
        return self.rows.finite and (self.below is None or self.below.finite)


class SiteStates:
    """All states of one site, from which readouts take their rows.

    ``below`` is the site below. ``unit``: see ``Rows``; means of states are as good as the states. ``sinks``: which of
    the states are sinks, where ``states`` and ``layout`` are not of all positions, so that they cannot say.
    """

    def __init__(
        self,
        states: Float[Tensor, "token d_model"],
        layout: Layout,
        every_value: bool,
        below: SiteStates | None = None,
        unit: float | None = None,
        sinks: Sinks | None = None,
    ) -> None:
        self.states = states
        self.layout = layout
        self._every_value = every_value
        self._below = below
        self._unit = unit_of(states.dtype) if unit is None else unit
        self._rows: dict[str, Rows] = {}
        if sinks is not None:
            self.sinks = sinks

    @lazy_property
    def sinks(self) -> Sinks:
        """The positions that readouts which leave sinks out leave out."""
        return Sinks.of(self.states, self.layout)

    def rows(self, positions: str) -> Rows:
        """Return the rows that ``positions`` names, the same object each time."""
        if positions not in self._rows:
            self._rows[positions] = self._select(positions, self.sinks if positions in SPARED else None)
        return self._rows[positions]

    def read(self, readout: Readout) -> View:
        """Return what a measure is given at ``readout``; below are the same positions as here."""
        rows, below = self.rows(readout.positions), None
        if self._below is not None:
            same = rows.without is None or bool((rows.without.all == self._below.sinks.all).all())
            there = self._below.rows if same else partial(self._below._select, without=rows.without)
            below = View(there(readout.positions), readout.centred)
        return View(rows, readout.centred, below)

    def describe_left_out(self, readout: Readout) -> str:
        """Return in words which positions a readout that leaves sinks out leaves out."""
        places = find_places(self.layout, readout.positions.removesuffix(BUT_SINKS))
        return self.sinks.count(torch.arange(len(self.states)) if places is None else places)

    def _select(self, positions: str, without: Sinks | None) -> Rows:
        sinks = None if without is None else without.all
        rows = select(self.states, self.layout, positions, sinks)
        lengths = torch.bincount(examples_of(self.layout, positions, sinks), minlength=len(self.layout.lengths))
        return Rows(rows, self._every_value, self._unit, without, lengths)

    def alone(self) -> SiteStates:
        """Return the same rows without what is below, so that no more than two sites are kept."""
        alone = SiteStates(self.states, self.layout, self._every_value, unit=self._unit, sinks=self.sinks)
        alone._rows = self._rows
        return alone


def single(states: Float[Tensor, "row d_model"], centred: bool) -> View:
    """Return a view of a matrix that stands alone, its spectrum fit for every measure."""
    return View(Rows(states, every_value=True), centred)


def resample(view: View, rows: Int[Tensor, " row"]) -> View:
    """Return a view of these of its rows, each as often as it is named, the same ones below."""
    below = None if view.below is None else resample(view.below, rows)
    return View(view.rows.resample(rows), view.is_centred, below)
