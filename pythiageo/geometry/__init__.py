"""Tensors in, numbers out: readouts of states, their spectra, and the measures of a spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythiageo.lazy import lazy_names

if TYPE_CHECKING:
    from pythiageo.geometry.augmented import dime, infonce, lidar
    from pythiageo.geometry.cka import linear_cka
    from pythiageo.geometry.entropy import effective_number
    from pythiageo.geometry.measure import (
        Measure,
        get_measures,
        load_measures,
    )
    from pythiageo.geometry.prompts import Prompts
    from pythiageo.geometry.readout import Layout, Readout, get_readouts
    from pythiageo.geometry.similarity import principal_angles, procrustes
    from pythiageo.geometry.spectrum import Spectrum
    from pythiageo.geometry.view import single

__all__ = [
    "Layout",
    "Measure",
    "Prompts",
    "Readout",
    "Spectrum",
    "dime",
    "effective_number",
    "get_measures",
    "get_readouts",
    "infonce",
    "lidar",
    "linear_cka",
    "load_measures",
    "principal_angles",
    "procrustes",
    "single",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "augmented": ["dime", "infonce", "lidar"],
        "cka": ["linear_cka"],
        "entropy": ["effective_number"],
        "measure": [
            "Measure",
            "get_measures",
            "load_measures",
        ],
        "prompts": ["Prompts"],
        "readout": ["Layout", "Readout", "get_readouts"],
        "similarity": ["principal_angles", "procrustes"],
        "spectrum": ["Spectrum"],
        "view": ["single"],
    },
)
