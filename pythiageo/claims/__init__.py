"""Claims: each a function of evidence and a specification, with a table and a verdict."""

from pythiageo.claims.controls import controls
from pythiageo.claims.emergence import emergence
from pythiageo.claims.every import (
    FAMILIES,
    all_claims,
    ask_each,
    holding_shares,
    specification_curve,
    trained_tasks,
)
from pythiageo.claims.evidence import Evidence
from pythiageo.claims.floor_order import floor_order
from pythiageo.claims.floors import floors
from pythiageo.claims.hierarchy import hierarchy
from pythiageo.claims.prediction import prediction, swap, tie_rates
from pythiageo.claims.probe import probe
from pythiageo.claims.recovery import recovery
from pythiageo.claims.result import (
    SUMMARY_COLUMNS,
    VERDICTS,
    ClaimResult,
    Specification,
    judge,
    summary_table,
)
from pythiageo.claims.seeds import seeds
from pythiageo.claims.topdown import top_down_profile, top_down_propagation

__all__ = [
    "FAMILIES",
    "SUMMARY_COLUMNS",
    "VERDICTS",
    "ClaimResult",
    "Evidence",
    "Specification",
    "all_claims",
    "ask_each",
    "controls",
    "emergence",
    "floor_order",
    "floors",
    "hierarchy",
    "holding_shares",
    "judge",
    "prediction",
    "probe",
    "recovery",
    "seeds",
    "specification_curve",
    "summary_table",
    "swap",
    "tie_rates",
    "top_down_profile",
    "top_down_propagation",
    "trained_tasks",
]
