"""The report: one self-contained page for one or more runs."""

from pythiageo.report.report import build_report

__all__ = ["build_report"]
