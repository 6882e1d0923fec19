"""A spectrum as it is kept beside a run's table: what a spectral measure asks of a readout, without the states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.rounding import Directions, Rounding
from pythiageo.geometry.spectrum import Spectra, Spectrum
from pythiageo.geometry.view import Rows, View
from pythiageo.no_value import NoValueError


@dataclass(frozen=True)
class KeptSpectrum:
    """The singular values of one readout, and what rounding of its states may make of a number taken of them.

    ``every_value``: whether each resolved value is right by itself (``Spectra``), not only the spectrum as a
    distribution. ``largest``: of the uncentred states, about; ``unit``, ``spectral`` and ``described`` as ``Rounding``
    has them. ``directions``: values with a limit to each, if a measure of the run asked for them.
    """

    sigma: Float[Tensor, " value"]
    rows: int
    columns: int
    method: str
    every_value: bool
    largest: float
    unit: float
    spectral: float
    described: str
    directions: Directions | None = None

    @classmethod
    def of(cls, view: View) -> KeptSpectrum:
        """Keep what the measures of ``view`` used; once one of them took its spectrum, nothing is decomposed for it.

        Raises:
            ValueError: no row, or values that are not finite.
        """
        spectrum, rounding = view.spectrum, view.rows.rounding
        return cls(
            sigma=spectrum.sigma.cpu(),
            rows=spectrum.rows,
            columns=spectrum.columns,
            method=spectrum.method,
            every_value=view.rows.every_value or spectrum.method == "svd",
            largest=view.rows.spectra.largest,
            unit=rounding.unit,
            spectral=rounding.spectral,
            described=rounding.describe_size(spectrum.rows, view.rows.spectra.variation),
            directions=rounding.known_directions(view.is_centred),
        )

    def view(self) -> View:
        """Return a view for ``Measure.take``, for measures of a spectrum alone: the value is that of the states' view.

        Where a measure asks for limits to each value, and no measure of the run did, it raises ``NoValueError``.
        """
        return _KeptView(_KeptRows(self), is_centred=False)


class _KeptView(View):
    """Centring is in the values already."""

    @property
    def directions(self) -> Directions:
        rows = self.rows
        assert isinstance(rows, _KeptRows)
        if rows.kept.directions is None:
            raise NoValueError(
                "it needs a limit of rounding to each singular value, which no measure of the run asked for here: "
                "measure it in the run"
            )
        return rows.kept.directions


class _KeptRows(Rows):
    def __init__(self, kept: KeptSpectrum) -> None:
        super().__init__(torch.empty(kept.rows, kept.columns, device="meta"), kept.every_value, kept.unit)
        self.kept = kept
        self.finite = True
        self.spectra = _KeptSpectra(kept)
        self.rounding = _KeptRounding(kept)

    @property
    def centred(self) -> Tensor:
        return self.matrix


class _KeptSpectra(Spectra):
    def __init__(self, kept: KeptSpectrum) -> None:
        self._kept = kept
        self.largest = kept.largest

    def of(self, centred: bool) -> Spectrum:
        return Spectrum(self._kept.sigma, self._kept.rows, self._kept.columns, self._kept.method)


class _KeptRounding(Rounding):
    def __init__(self, kept: KeptSpectrum) -> None:
        self.unit = kept.unit
        self._kept = kept

    @property
    def spectral(self) -> float:
        return self._kept.spectral

    def describe(self, centred: Tensor) -> str:
        return self._kept.described
