"""What a geometry measure is, and the table of those that are there: one file in ``geometry/measures`` each."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from pythiageo.errors import UserError, nearest
from pythiageo.geometry.spectrum import Spectrum


class UndefinedMeasureError(Exception):
    """A measure has no value on this input; the message is the reason an observation gives."""


@dataclass(frozen=True)
class Measure:
    """A number of a spectrum.

    ``uses`` says which spectrum it normalises: ``sigma`` (singular values) or ``sigma^2`` (covariance eigenvalues).
    """

    name: str
    title: str
    uses: str
    formula: str
    source: str
    function: Callable[[Spectrum], float]


def load_measures() -> dict[str, Measure]:
    """Return every measure by name: each module of ``geometry/measures`` holds one as ``MEASURE``.

    Raises:
        ValueError: two modules with one measure name.
    """
    from pythiageo.geometry import measures  # noqa: PLC0415 - the package whose modules are being listed

    found: dict[str, Measure] = {}
    for module in sorted(pkgutil.iter_modules(measures.__path__), key=lambda entry: entry.name):
        measure: Measure = importlib.import_module(f"{measures.__name__}.{module.name}").MEASURE
        if measure.name in found:
            raise ValueError(f"two measures are called {measure.name!r}")
        found[measure.name] = measure
    return found


def get_measures(names: list[str]) -> list[Measure]:
    """Return the measures of these names.

    Raises:
        UserError: an unknown name; the nearest one is given.
    """
    known = load_measures()
    for name in names:
        if name not in known:
            raise UserError(f"no measure {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return [known[name] for name in names]
