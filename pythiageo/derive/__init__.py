"""Numbers made afterwards of what runs keep beside their tables: measures of spectra, similarities of states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythiageo.lazy import lazy_names

if TYPE_CHECKING:
    from pythiageo.derive.similarities import SIMILARITIES
    from pythiageo.derive.similarity import compare_states
    from pythiageo.derive.spectra import derive_measures, find_derivable

__all__ = ["SIMILARITIES", "compare_states", "derive_measures", "find_derivable"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "similarities": ["SIMILARITIES"],
        "similarity": ["compare_states"],
        "spectra": ["derive_measures", "find_derivable"],
    },
)
