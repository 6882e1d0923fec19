"""What a geometry measure is, and the table of those that are there: one file in ``geometry/measures`` each."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pythiageo import extensions
from pythiageo.errors import UserError, nearest
from pythiageo.geometry.rounding import TOLERANCE
from pythiageo.geometry.spectrum import Spectrum
from pythiageo.geometry.view import View
from pythiageo.no_value import NoValueError

NEEDS = {
    "spectrum": "singular values whose entropy is right to 1e-6 (1e-4 for more than 512 of them)",
    "every value": "singular values of which each resolved one is right to 1e-6 (1e-4 for more than 512 of them)",
    "states": "the rows themselves",
    "distances": "the rows themselves, and how far they were rounded",
    "layers": "the rows, and the same rows at the site below",
    "prompts": "the rows themselves, prompt by prompt, and how far they were rounded",
}
"""What a measure's function is given: a ``Spectrum`` (the first two), a matrix, a matrix and its ``Rounding``, two
matrices, or ``Prompts``."""
COSTS = {
    "vector": "O(min(n, d)), on a spectrum that all measures share",
    "linear": "O(n d)",
    "product": "O(n d min(n, d)): a matrix product",
    "pairs": "O(n^2 d): every pair of rows",
    "prompts": "O(n d min(m, d)), m the rows of a prompt: a small matrix product each",
}
"""Work a readout of n rows and d columns takes, by class."""
INVARIANCES = {
    "scale": "all states times one positive number",
    "rotation": "an orthogonal map of d_model",
    "order": "the order of the rows",
    "centring": "one vector added to every row, so also the mean taken off",
}
"""What a measure can be blind to, by name."""


class Estimate(NamedTuple):
    """A value, with a standard error where the measure's own method gives one (``Measure.stderr`` says of what).

    ``rounded``: the share of it that rounding of the states may make, from a measure of ``distances`` or ``prompts``.
    ``n``: what it rests on, where that is not the number of rows. ``note``: what a reader must know, in words.
    """

    value: float
    stderr: float | None = None
    rounded: float = 0.0
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Measure:
    """A number of the states at a readout, with what there is to know about it.

    ``definition`` says in a sentence what it is, for people who read a page. ``kind``: a ``rank`` has a collapse floor.
    ``transition``: what counts as the step of its change. ``unit``: what the value counts, for axes and heads of
    tables; empty for a pure number. These are read by rooms that never import torch, so they must
    be written out where the measure is made (``observations.measures``).

    ``uses`` names what it normalises or compares: ``sigma`` (singular values), ``sigma^2`` (covariance eigenvalues),
    ``rows``. ``needs``, ``cost`` and ``invariances`` are keys of ``NEEDS``, ``COSTS`` and ``INVARIANCES``. ``least``
    and ``greatest`` bound it; ``values`` is the number of singular values. ``stderr`` says what the standard error of
    an ``Estimate`` is, if the function returns one.

    Raises:
        ValueError: a need, cost class or invariance that there is not.
    """

    name: str
    title: str
    uses: str
    formula: str
    source: str
    function: Callable[..., float | Estimate]
    needs: str
    cost: str
    invariances: frozenset[str]
    least: float = -math.inf
    greatest: float | Literal["values"] = math.inf
    stderr: str = ""
    definition: str = ""
    kind: Literal["rank", "geometry"] = "geometry"
    transition: Literal["minimum", "maximum", "half-way"] = "half-way"
    unit: str = ""

    def __post_init__(self) -> None:
        for what, names, known in (
            ("need", {self.needs}, NEEDS),
            ("cost class", {self.cost}, COSTS),
            ("invariance", self.invariances, INVARIANCES),
        ):
            for name in sorted(names):
                if name not in known:
                    raise ValueError(
                        f"measure {self.name!r}: no {what} {name!r}{nearest(name, known)}; there are {', '.join(known)}"
                    )

    def take(self, view: View) -> Estimate:
        """Return the measure's value on ``view``.

        Raises:
            NoValueError: it has none; ``imprecise``: rounding of the states may make more than ``TOLERANCE`` of it.
        """
        estimate = self.value(view)
        share = self._rounded(view, estimate)
        if share > TOLERANCE:
            raise NoValueError(
                f"rounding of the states may make {min(share, 1):.0%} of it, and {TOLERANCE:.1%} is allowed: "
                + view.rows.rounding.describe(view.rows.centred),
                "imprecise",
            )
        return estimate

    def value(self, view: View) -> Estimate:
        """Return the measure's value on ``view``, whether or not rounding made it.

        Raises:
            NoValueError: it has none.
        """
        estimate = self._estimate(*self._arguments(view))
        if not math.isfinite(estimate.value):
            raise NoValueError("the value overflows float64")
        return estimate

    def _estimate(self, *arguments: Any) -> Estimate:
        result = self.function(*arguments)
        return result if isinstance(result, Estimate) else Estimate(float(result))

    def _rounded(self, view: View, estimate: Estimate) -> float:
        """Return which share of a value rounding of the states may make."""
        if self.needs in {"distances", "prompts"}:
            return estimate.rounded
        if self.needs == "states":
            return view.rows.rounding.share_of_rows(view.states)
        if self.needs == "layers":
            sides = [view.rows] if view.below is None else [view.rows, view.below.rows]
            return max(rows.rounding.share_of_all(rows.centred) for rows in sides)
        spectrum, cut = view.spectrum, 0.0
        if self.needs == "every value":
            cut = self._change(spectrum, spectrum.loosen())
        # all of it along every direction is more than there can be, and costs little or nothing to try
        share = self._change(spectrum, spectrum.less(2 * view.rows.rounding.unit * view.rows.spectra.largest))
        if share > TOLERANCE:
            share = self._change(spectrum, spectrum.less(view.rows.rounding.spectral))
        if share > TOLERANCE:
            finer = view.finer()
            share = self._change(finer, finer.less(view.directions.noise))
        return max(share, cut)

    def _change(self, *spectra: Spectrum) -> float:
        """Return how much the values of two spectra differ, relative to the first."""
        try:
            one, other = (self._estimate(each).value for each in spectra)
        except NoValueError:
            return 1.0
        return 0.0 if one == other else abs(one - other) / max(abs(one), sys.float_info.min)

    def _arguments(self, view: View) -> tuple[Any, ...]:
        if self.needs == "states":
            return (view.states,)
        if self.needs == "distances":
            return (view.states, view.rows.rounding)
        if self.needs == "prompts":
            return (view.prompts,)
        if self.needs == "layers":
            if view.below is None:
                raise NoValueError("there is no site below the first")
            return (view.states, view.below.states)
        return (view.spectrum,)

    @property
    def resamples(self) -> bool:
        """Whether a bootstrap tells its error: not where rows are compared (it pairs rows with themselves), nor of a
        mean over prompts, which knows its own."""
        return self.needs not in {"states", "distances", "prompts"}

    @property
    def weighs_squares(self) -> bool:
        """Whether it is a rank or an entropy, so that few large rows or one direction can make it."""
        return self.kind == "rank" or (self.uses == "sigma^2" and self.needs != "every value")

    @property
    def small_values(self) -> bool:
        """Whether small singular values weigh in it, so that rounding of the states does too."""
        return self.uses == "sigma" or self.needs == "every value"

    @property
    def range(self) -> str:
        """The range, for people."""
        greatest = "number of singular values" if self.greatest == "values" else f"{self.greatest:g}"
        return f"{self.least:g} to {greatest}"


def load_measures() -> dict[str, Measure]:
    """Return every measure by name: each module of ``geometry/measures`` holds one as ``MEASURE``, and so
    does each module that an installed package names as an entry point ``pythiageo.measures``.

    Raises:
        UserError: two modules with one measure name; a module that an installed package names and that has none.
    """
    from pythiageo.geometry import measures  # noqa: PLC0415 - the package whose modules are being listed

    found: dict[str, Measure] = {}
    for measure in extensions.load_parts(measures, extensions.MEASURES, "MEASURE"):
        if measure.name in found:
            raise UserError(f"two measures are called {measure.name!r}: rename one, or uninstall its package")
        found[measure.name] = measure
    return found


def get_measures(names: list[str]) -> list[Measure]:
    """Return the measures of these names; a name may say the ranks that a fit is over, as ``alpha_req_12_100`` does.

    Raises:
        UserError: an unknown name; the nearest one is given.
    """
    from pythiageo.geometry.measures.alpha_req import find_over_ranks  # noqa: PLC0415 - it is made of what is above

    known = load_measures()
    found = [known.get(name) or find_over_ranks(name) for name in names]
    for name, measure in zip(names, found, strict=True):
        if measure is None:
            raise UserError(f"no measure {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return [measure for measure in found if measure is not None]
