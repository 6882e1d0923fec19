"""One number of the landscape, or why there is none, before it is a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pythiageo.config.landscape import LandscapeConfig
from pythiageo.landscape.llc import Settings, llc, named_settings
from pythiageo.landscape.llc_diagnostics import diagnose
from pythiageo.landscape.problem import Problem
from pythiageo.no_value import NoValue


@dataclass(frozen=True)
class LandscapeResult:
    """A measure's value with its standard error, or a status and a reason."""

    measure: str
    value: float | None
    stderr: float | None = None
    status: str = "ok"
    reason: str | None = None


def undefined(measure: str, no_value: NoValue) -> LandscapeResult:
    """Return the result of a measure that has no value."""
    return LandscapeResult(measure, None, status=no_value.status, reason=no_value.reason)


def measure_llc(config: LandscapeConfig, problem: Problem) -> Iterator[LandscapeResult]:
    """Yield the local learning coefficient and its diagnostics; these have values where a finding withholds it."""
    estimate = llc(problem, llc_settings(config, problem.examples), config.seed)
    if isinstance(estimate, NoValue):
        yield undefined("llc", estimate)
        return
    if estimate.findings:
        number = (
            "no value" if estimate.value is None else f"{estimate.value:.4g} +- {estimate.error or estimate.stderr:.2g}"
        )
        reasons = "; ".join(finding.reason for finding in estimate.findings)
        yield LandscapeResult("llc", None, status=estimate.status, reason=f"{number}: {reasons}")
    else:
        yield LandscapeResult("llc", estimate.value, estimate.error)
    for name, found in diagnose(estimate):
        if isinstance(found, str):
            yield undefined(name, NoValue("undefined", found))
        else:
            yield LandscapeResult(name, found)


def llc_settings(config: LandscapeConfig, examples: int) -> Settings:
    """Return the named settings with what the config replaces; ``n_beta`` and ``beta`` replace one another.

    Raises:
        UserError: settings that there are not, or that contradict each other.
    """
    given: dict[str, Any] = config.llc.model_dump(exclude={"setting"}, exclude_none=True)
    if "n_beta" in given or "beta" in given:
        given = {"n_beta": None, "beta": None, **given}
    return dataclasses.replace(named_settings(config.llc.setting, examples), **given)
