"""The similarities that are taken of sketches, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.errors import UserError
from pythiageo.geometry.cka import linear_cka
from pythiageo.geometry.rounding import TOLERANCE, Rounding
from pythiageo.geometry.similarity import angles_between, find_components, procrustes
from pythiageo.geometry.sketch import Sketch, count_values
from pythiageo.lazy import lazy_property
from pythiageo.no_value import NoValueError
from pythiageo.observations.sidecars import SketchRow


class Side:
    """The states of one side of pairs; what all its pairs share is computed once.

    Raises:
        UserError: a row whose numbers are not as many as it says.
    """

    def __init__(self, row: SketchRow) -> None:
        n, width = int(row.n or 0), int(row.width or 0)
        if row.values is None or n < 1 or width < 1 or len(row.values) != count_values(n, width):
            where = f"{row.task} at {row.site}, step {row.step}"
            raise UserError(f"the sketch of {where}, does not hold {n} rows of width {width}")
        self._sketch = Sketch(row.values, float(row.scale or 0), n, width)
        self._unit, self._spectral = float(row.unit or 0), float(row.spectral or 0)
        self.components = cache(self._find_components)

    @lazy_property
    def centred(self) -> Float[Tensor, "row coordinate"]:
        """The rows without their mean."""
        return self._sketch.centred

    def _find_components(self, dimensions: int) -> Float[Tensor, "row component"]:
        return find_components(self.centred, dimensions, self._spectral)

    def check_rounding(self) -> None:
        """Raise ``NoValueError`` where rounding may make too much of a number of all the rows."""
        if self._too_rounded is not None:
            raise NoValueError(self._too_rounded, "imprecise")

    @lazy_property
    def _too_rounded(self) -> str | None:
        rounding = Rounding(self._sketch.states, self._unit)
        share = rounding.share_of_all(self.centred)
        if share <= TOLERANCE:
            return None
        described = rounding.describe(self.centred)
        return f"rounding of the states may make {share:.0%} of it, and {TOLERANCE:.1%} is allowed: {described}"


@dataclass(frozen=True)
class Similarity:
    """A number of two sets of states of the same rows; ``take`` gets both, and how many dimensions a subspace has."""

    name: str
    definition: str
    source: str
    take: Callable[[Side, Side, int], float]
    of_subspaces: bool = False


def _of_rows(function: Callable[[Tensor, Tensor], float]) -> Callable[[Side, Side, int], float]:
    def take(first: Side, second: Side, _: int) -> float:
        value = function(first.centred, second.centred)
        for side in (first, second):
            side.check_rounding()
        return value

    return take


def _of_angles(function: Callable[[Tensor], float]) -> Callable[[Side, Side, int], float]:
    def take(first: Side, second: Side, dimensions: int) -> float:
        return function(angles_between(first.components(dimensions), second.components(dimensions)))

    return take


SIMILARITIES = {
    one.name: one
    for one in (
        Similarity(
            "linear_cka",
            "linear CKA: |YᵀX|² / (|XᵀX| |YᵀY|), both centred; 0 to 1 (alike)",
            "Kornblith et al. 2019",
            _of_rows(linear_cka),
        ),
        Similarity(
            "procrustes",
            "|X|² + |Y|² - 2 |XᵀY|_*, both centred and of norm 1; 0 (alike) to 2",
            "Ding et al. 2021",
            _of_rows(procrustes),
        ),
        Similarity(
            "subspace_angle",
            "largest angle between the first principal components of both, over the rows; degrees, 0 (alike) to 90",
            "Björck and Golub 1973",
            _of_angles(lambda angles: math.degrees(float(angles.max()))),
            of_subspaces=True,
        ),
        Similarity(
            "subspace_overlap",
            "mean cos² of all angles between them; 0 to 1 (alike)",
            "Björck and Golub 1973",
            _of_angles(lambda angles: float(torch.cos(angles).square().mean())),
            of_subspaces=True,
        ),
    )
}
"""By name, what ``compare_states`` takes."""
