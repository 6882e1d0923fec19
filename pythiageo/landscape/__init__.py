"""Loss in, numbers out: ranks of gradients, the Hessian's spectrum, local learning coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythiageo.lazy import lazy_names

if TYPE_CHECKING:
    from pythiageo.landscape.gradient_rank import (
        GradientRank,
        gradient_covariance_rank,
        gradient_effective_rank,
        random_batches,
    )
    from pythiageo.landscape.gram import GradientGram, gradient_gram
    from pythiageo.landscape.hessian import Hessian, Trace, trace
    from pythiageo.landscape.lanczos import Eigenvalues, SpectralDensity, spectral_density, top_eigenvalues
    from pythiageo.landscape.llc import LLC, Settings, named_settings, quadratic_llc
    from pythiageo.landscape.measures import LANDSCAPE_MEASURES, LandscapeMeasure
    from pythiageo.landscape.problem import Problem

__all__ = [
    "LANDSCAPE_MEASURES",
    "LLC",
    "Eigenvalues",
    "GradientGram",
    "GradientRank",
    "Hessian",
    "LandscapeMeasure",
    "Problem",
    "Settings",
    "SpectralDensity",
    "Trace",
    "gradient_covariance_rank",
    "gradient_effective_rank",
    "gradient_gram",
    "named_settings",
    "quadratic_llc",
    "random_batches",
    "spectral_density",
    "top_eigenvalues",
    "trace",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "gradient_rank": [
            "GradientRank",
            "gradient_covariance_rank",
            "gradient_effective_rank",
            "random_batches",
        ],
        "gram": ["GradientGram", "gradient_gram"],
        "hessian": ["Hessian", "Trace", "trace"],
        "lanczos": ["Eigenvalues", "SpectralDensity", "spectral_density", "top_eigenvalues"],
        "llc": ["LLC", "Settings", "named_settings", "quadratic_llc"],
        "measures": ["LANDSCAPE_MEASURES", "LandscapeMeasure"],
        "problem": ["Problem"],
    },
)
