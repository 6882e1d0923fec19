"""Claims: each a function of evidence and a specification, with a table and a verdict."""

from pythiageo.claims.every import all_claims, ask_each, holding_shares, specification_curve, trained_tasks
from pythiageo.claims.evidence import Evidence
from pythiageo.claims.register import claims
from pythiageo.claims.result import SUMMARY_COLUMNS, VERDICTS, ClaimResult, Specification, judge, summary_table

__all__ = [
    "SUMMARY_COLUMNS",
    "VERDICTS",
    "ClaimResult",
    "Evidence",
    "Specification",
    "all_claims",
    "ask_each",
    "claims",
    "holding_shares",
    "judge",
    "specification_curve",
    "summary_table",
    "trained_tasks",
]
