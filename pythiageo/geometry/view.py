"""What a measure is given at a readout; everything that readouts of one site have in common is computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.geometry.matrix import centre, is_finite
from pythiageo.geometry.readout import Layout, Readout, select
from pythiageo.geometry.rounding import Directions, Rounding, unit_of
from pythiageo.geometry.spectrum import RESOLVED, ROUNDED, Spectra, Spectrum
from pythiageo.lazy import lazy_property


class Rows:
    """The rows of one site at some positions, and their spectra.

    ``every_value``: see ``Spectra``. ``unit``: of the type the states were computed in (see
    ``Rounding``), where that is not the matrix's own.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "row d_model"],
        every_value: bool = False,
        unit: float | None = None,
    ) -> None:
        self.matrix = matrix
        self._every_value = every_value
        self._unit = unit_of(matrix.dtype) if unit is None else unit

    @lazy_property
    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return is_finite(self.matrix)

    @lazy_property
    def spectra(self) -> Spectra:
        """The spectra, centred and not; raises as ``Spectra``."""
        return Spectra(self.matrix, self._every_value)

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
        return Rows(self.matrix[rows], self._every_value, self._unit)


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
    def finite(self) -> bool:
        """Whether no value here or below is NaN or infinite."""
        return self.rows.finite and (self.below is None or self.below.finite)


class SiteStates:
    """All states of one site, from which readouts take their rows.

    ``below`` is the site below. ``unit``: see ``Rows``; means of states are as good as the states.
    """

    def __init__(
        self,
        states: Float[Tensor, "token d_model"],
        layout: Layout,
        every_value: bool,
        below: SiteStates | None = None,
        unit: float | None = None,
    ) -> None:
        self._states = states
        self._layout = layout
        self._every_value = every_value
        self._below = below
        self._unit = unit_of(states.dtype) if unit is None else unit
        self._rows: dict[str, Rows] = {}

    def rows(self, positions: str) -> Rows:
        """Return the rows that ``positions`` names, the same object each time."""
        if positions not in self._rows:
            rows = select(self._states, self._layout, positions)
            self._rows[positions] = Rows(rows, self._every_value, self._unit)
        return self._rows[positions]

    def read(self, readout: Readout) -> View:
        """Return what a measure is given at ``readout``."""
        below = None if self._below is None else self._below.read(readout)
        return View(self.rows(readout.positions), readout.centred, below)

    def alone(self) -> SiteStates:
        """Return the same rows without what is below, so that no more than two sites are kept."""
        alone = SiteStates(self._states, self._layout, self._every_value, unit=self._unit)
        alone._rows = self._rows
        return alone


def single(states: Float[Tensor, "row d_model"], centred: bool) -> View:
    """Return a view of a matrix that stands alone, its spectrum fit for every measure."""
    return View(Rows(states, every_value=True), centred)


def resample(view: View, rows: Int[Tensor, " row"]) -> View:
    """Return a view of these of its rows, each as often as it is named, the same ones below."""
    below = None if view.below is None else resample(view.below, rows)
    return View(view.rows.resample(rows), view.is_centred, below)
