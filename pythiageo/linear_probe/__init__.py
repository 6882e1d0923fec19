"""What a linear reader makes of states: states and next tokens in, held-out accuracies out (numpy, scikit-learn)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythiageo.lazy import lazy_names

if TYPE_CHECKING:
    from pythiageo.linear_probe.fit import (
        NotConvergedError,
        ProbeResult,
        ProbeSettings,
        Split,
        UndefinedProbeError,
        fit_probe,
        make_split,
    )

__all__ = [
    "NotConvergedError",
    "ProbeResult",
    "ProbeSettings",
    "Split",
    "UndefinedProbeError",
    "fit_probe",
    "make_split",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "fit": [
            "NotConvergedError",
            "ProbeResult",
            "ProbeSettings",
            "Split",
            "UndefinedProbeError",
            "fit_probe",
            "make_split",
        ],
    },
)
