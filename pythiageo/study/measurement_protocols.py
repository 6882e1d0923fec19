"""Measurement protocols: what a published study measured of every checkpoint, by name.

``study.protocols`` names definitions of events, which are read from a table; these name what is put into one. A study
may have both under one name.
"""

from __future__ import annotations

from dataclasses import dataclass

from pythiageo.errors import UserError, nearest
from pythiageo.names import FINAL_NORM

HIDDEN_STATES = ("hook_embed", "blocks.*.hook_resid_post", FINAL_NORM)
"""The sites of transformers' ``hidden_states``, and the last block's output before the final LayerNorm beside them."""


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
        MeasurementProtocol(
            name="skean-2025",
            source="Skean et al., ICML 2025, arXiv 2502.02013",
            measures=(
                *("prompt_entropy", "prompt_entropy_normalised", "dataset_entropy", "curvature"),
                *("prompt_entropy_skean", "dataset_entropy_skean", "curvature_skean"),
            ),
            readouts=("all/uncentred", "mean/uncentred"),
            sites=HIDDEN_STATES,
            tasks=("running-text",),
            long_texts="truncate",
            text_tokens=2048,
            differs=(
                "the study took up to 1,000 paragraphs of WikiText-103 without headings, and texts of MTEB: name texts "
                "with --tasks, and how many with --examples",
                "measures ending in _skean are those of its code, the others of its equations (docs/geometry.md); its "
                "InfoNCE, DiME and LiDAR need changed texts, which analyze does not feed",
            ),
        ),
        MeasurementProtocol(
            name="queipo-2025",
            source="Queipo-de-Llano et al., ICLR 2026, arXiv 2510.06477",
            measures=("prompt_entropy", "prompt_entropy_normalised"),
            readouts=("all/uncentred",),
            sites=HIDDEN_STATES,
            tasks=("running-text",),
            long_texts="truncate",
            text_tokens=2048,
            sinks=True,
            differs=(
                "the study took GSM8K and samples of FineWeb: name texts with --tasks, and how many with --examples",
                "Pythia's tokenizer puts no token before a text, so the first position is the text's own first token",
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
