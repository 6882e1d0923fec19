"""What stands beside a local learning coefficient in the table: its parts of error, and whether its chains agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pythiageo.landscape.llc import LLC


class LlcDiagnostic(NamedTuple):
    """A row beside ``llc``: its name in the table, in a sentence what it is, and the field of ``LLC`` that holds it."""

    name: str
    title: str
    definition: str
    field: str
    unit: str = ""


LLC_DIAGNOSTICS = (
    LlcDiagnostic(
        name="llc_sampling_error",
        title="LLC, sampling error",
        definition="Monte Carlo standard error of the LLC: what more draws at the same checkpoint would make smaller.",
        field="stderr",
    ),
    LlcDiagnostic(
        name="llc_chain_sd",
        title="LLC, spread of chains",
        definition="Standard deviation over chains of each chain's own LLC, at one checkpoint.",
        field="chain_sd",
    ),
    LlcDiagnostic(
        name="llc_step_bias",
        title="LLC, bias of the step",
        definition="By how much the finite SGLD step raises the LLC; an upper bound where batches are noisy.",
        field="step_bias",
    ),
    LlcDiagnostic(
        name="llc_r_hat",
        title="LLC, R-hat",
        definition="Rank-normalised split R-hat of the LLC's draws: 1 where chains, and their halves, agree.",
        field="r_hat",
    ),
    LlcDiagnostic(
        name="llc_bulk_draws",
        title="LLC, effective draws of the centre",
        unit="draws",
        definition="Effective number of independent draws for the centre of the distribution of the LLC's draws.",
        field="bulk_draws",
    ),
    LlcDiagnostic(
        name="llc_tail_draws",
        title="LLC, effective draws of the tails",
        unit="draws",
        definition="Effective number of independent draws for the 5% or 95% quantile of the LLC's draws, the fewer.",
        field="tail_draws",
    ),
)


def diagnose(llc: LLC) -> Iterator[tuple[str, float | str]]:
    """Yield the name and the value of every diagnostic; a sentence that says why where it has none."""
    for diagnostic in LLC_DIAGNOSTICS:
        value: float | None = getattr(llc, diagnostic.field)
        if value is not None:
            yield diagnostic.name, value
        elif llc.value is None:
            yield diagnostic.name, "a chain diverged"
        elif diagnostic.field == "chain_sd":
            yield diagnostic.name, "there is one chain: measures.landscape.llc.chains asks for more"
        else:
            yield diagnostic.name, "the draws are too few, or do not vary"
