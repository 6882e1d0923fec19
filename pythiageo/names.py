"""Names that tables, hooks and commands share."""

from __future__ import annotations

import re

FINAL_NORM = "ln_final.hook_out"
"""Hook name of the output of the final LayerNorm."""
BLOCK_END = ".hook_resid_post"
"""What the hook name of a block's output ends with."""
LAST_BLOCK = "last-block"
"""Word for the output of a run's last block, whatever its index, before the final LayerNorm."""
FINAL_LN = "final-ln"
"""Word for the output of the final LayerNorm."""
READOUT = "answer/centred"
"""The readout that events, claims and pages take where a run has it."""
RANKME, COVARIANCE_RANK = "rankme", "covariance_effective_rank"
"""The rank of sigma, and that of sigma^2 which the study's floors fit."""
PHASE_READOUT, PHASE_ALPHA = "last/centred", "alpha_req_12_100"
"""The readout of the rank, and the fit of alpha-ReQ, that the phases of Li et al. 2025 are found by."""
DOMINATED = "dominated by"
"""How the reason of a rank begins to say that sinks or one direction make it (``geometry.dominance``)."""
BUT_SINKS = "-but-sinks"
"""What ends the name of positions that leave sinks out: first ones, and those of outlying norm (``geometry.sinks``)."""
AT_ROWS = "/rows="
"""What follows a readout, with a number, where a rank is taken at that many rows (``geometry.rarefaction``)."""

_SEEDED = re.compile(r"(?P<size>.*?[^-_])(?P<kind>-(?:data|weight)-seed)?(?(kind)|[-_]seed)[-_]?(?P<seed>\d{1,15})")
_SHARED = {
    "-data-seed": "share the initial weights: they differ in the order of the data alone",
    "-weight-seed": "share the order of the data: they differ in the initial weights alone",
}
_FITTED = re.compile(r"(.+)_([1-9]\d{0,5})_([1-9]\d{0,5})")


def split_ranks(name: str) -> tuple[str, int, int] | None:
    """Return the measure and the first and last rank that a name says a fit is over, ``None`` if it says none.

    >>> split_ranks("alpha_req_12_100"), split_ranks("alpha_req")
    (('alpha_req', 12, 100), None)
    """
    found = _FITTED.fullmatch(name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def split_seed(name: str) -> tuple[str, int | None]:
    """Return the size and the seed that the name of a series says, as PolyPythias' do; the name and ``None`` if none.

    Seeds of the data alone, or of the initial weights alone, are seeds of a size of their own: it is not the same that
    varies between them.

    >>> split_seed("pythia-14m-seed3"), split_seed("pythia-14m-weight-seed3"), split_seed("pythia-14m")
    (('pythia-14m', 3), ('pythia-14m-weight-seed', 3), ('pythia-14m', None))
    """
    found = _SEEDED.fullmatch(name)
    return (found["size"] + (found["kind"] or ""), int(found["seed"])) if found else (name, None)


def shared_by_seeds(size: str) -> str | None:
    """Return in a sentence what all seeds of a size share besides its shape, ``None``: nothing that its name says."""
    return next((f"seeds of {size} {what}" for kind, what in _SHARED.items() if size.endswith(kind)), None)
