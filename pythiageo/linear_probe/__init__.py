"""What a linear reader makes of states: states and next tokens in, held-out accuracies out (numpy, scikit-learn)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythiageo.lazy import lazy_names

if TYPE_CHECKING:
    from pythiageo.linear_probe.fit import (
        ProbeResult,
        ProbeSettings,
        Split,
        fit_probe,
        make_split,
    )

__all__ = [
    "ProbeResult",
    "ProbeSettings",
    "Split",
    "fit_probe",
    "make_split",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "fit": [
            "ProbeResult",
            "ProbeSettings",
            "Split",
            "fit_probe",
            "make_split",
        ],
    },
)
