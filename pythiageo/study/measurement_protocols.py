"""Measurement protocols: what a published study measured of every checkpoint, by name.

``study.protocols`` names definitions of events, which are read from a table; these name what is put into one. A study
may have both under one name.
"""

from __future__ import annotations

from dataclasses import dataclass

from pythiageo.errors import UserError, nearest
from pythiageo.names import FINAL_NORM


@dataclass(frozen=True)
class MeasurementProtocol:
    """What a study measured, as settings of a run; a field that is empty leaves the setting to the run's own.

    Attributes:
        name: what the command line and manifests call it.
        source: the paper.
        measures: geometry measures, by name.
        readouts: which rows make the matrix, and whether they are centred.
        sites: hook names.
        tasks: the texts that the study took.
        examples: how many of them geometry is taken of; exactly so many.
        long_texts: how a running text is fed: ``truncate``, ``pack`` or ``stride``.
        text_tokens: tokens of a passage of running text, at most.
        alpha_range: first and last rank of the fit of alpha-ReQ.
        sinks: whether the measures of sinks are taken.
        differs: where the numbers are not those of the study's own code, a sentence each.
        version: of our reading of the source, raised whenever it changes.
    """

    name: str
    source: str
    measures: tuple[str, ...] = ()
    readouts: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    examples: int | None = None
    long_texts: str | None = None
    text_tokens: int | None = None
    alpha_range: tuple[int, int] | None = None
    sinks: bool = False
    differs: tuple[str, ...] = ()
    version: int = 1

    @property
    def origin(self) -> str:
        """Where it comes from, and which version of our reading of it this is."""
        return f"{self.source}, version {self.version} of its reading here"


MEASUREMENT_PROTOCOLS: dict[str, MeasurementProtocol] = {
    protocol.name: protocol
    for protocol in (
        MeasurementProtocol(
            name="li-2025",
            source="Li et al., NeurIPS 2025, arXiv 2509.23024",
            measures=("covariance_effective_rank", "alpha_req"),
            readouts=("last/centred",),
            sites=(FINAL_NORM,),
            tasks=("fineweb",),
            long_texts="truncate",
            text_tokens=512,
            alpha_range=(12, 100),
            differs=(
                "the study took 15,000 texts of more than 32 tokens, and a rank grows with their number: --examples",
                "its code adds 1e-7 to every variance share, which makes its rank up to 0.3% larger, and takes no more "
                "than the first 2,048 eigenvalues",
            ),
        ),
    )
}
"""The measurement protocols by name."""


def get_measurement_protocol(name: str) -> MeasurementProtocol:
    """Return the measurement protocol of this name.

    Raises:
        UserError: there is none; the message names those there are.
    """
    if name not in MEASUREMENT_PROTOCOLS:
        raise UserError(
            f"unknown measurement protocol {name!r}{nearest(name, MEASUREMENT_PROTOCOLS)}; there are "
            f"{', '.join(MEASUREMENT_PROTOCOLS)}."
        )
    return MEASUREMENT_PROTOCOLS[name]
