"""The landscape measures: what each needs, what it costs, and what leaves it as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pythiageo.errors import UserError, nearest

LOSS = "loss"
GRADIENT = "gradient"
PER_EXAMPLE_GRADIENTS = "per-example gradients"
SECOND_DERIVATIVES = "second derivatives"


@dataclass(frozen=True)
class LandscapeMeasure:
    """``definition``, ``transition`` and ``unit``: as for a geometry measure.

    ``needs``: derivatives of the loss. ``cost``: in passes, one being forward and backward over all examples.

    ``invariances``: what may be done to loss, examples or parameters without changing the value. ``function`` is where
    it is computed.
    """

    name: str
    title: str
    definition: str
    needs: str
    cost: str
    formula: str
    source: str
    invariances: tuple[str, ...]
    function: str
    transition: Literal["minimum", "maximum", "half-way"] = "half-way"
    unit: str = ""
    gradients: float = 0.0
    """About how many gradients of all examples it takes beside the others, as measured."""
    gradients_a_probe: float = 0.0
    """The same of each random vector that it draws."""


_RANK = ("scale of the loss", "order of examples", "rotation of parameters")
_CURVATURE = ("order of examples", "rotation of parameters", "a constant added to the loss")

LANDSCAPE_MEASURES: dict[str, LandscapeMeasure] = {
    measure.name: measure
    for measure in (
        LandscapeMeasure(
            name="gradient_rank",
            title="gradient effective rank",
            unit="dimensions",
            definition=(
                "Gradient effective rank: exp(−Σ p log p), p the eigenvalues of G Gᵀ over their sum, G the per-"
                "example gradients."
            ),
            transition="minimum",
            needs=PER_EXAMPLE_GRADIENTS,
            cost="one pass, and N^2 products of gradients",
            gradients=3.0,  # at Pythia's sizes; 9 at 0.4 million parameters, where that is a second
            formula="exp(-sum p log p), p = eigenvalues of G G^T over their sum",
            source="Billa 2026",
            invariances=_RANK,
            function="gradient_rank.gradient_effective_rank",
        ),
        LandscapeMeasure(
            name="gradient_covariance_rank",
            title="gradient covariance rank",
            unit="dimensions",
            definition="Effective rank of batch gradients less their mean, on all parameters.",
            transition="minimum",
            needs=PER_EXAMPLE_GRADIENTS,
            cost="nothing beside gradient_rank",
            formula="as gradient_rank, of batch gradients less their mean, on all parameters",
            source="Billa 2026, without its cut at 50,000 parameters",
            invariances=_RANK,
            function="gradient_rank.gradient_covariance_rank",
        ),
        LandscapeMeasure(
            name="first_parameters_covariance_rank",
            title="gradient covariance rank, first 50,000 parameters",
            unit="dimensions",
            definition="As the gradient covariance rank, on the first 50,000 parameters only.",
            transition="minimum",
            needs=GRADIENT,
            cost="one pass",
            gradients=1.0,
            formula="as gradient_covariance_rank, on the first 50,000 parameters",
            source="Billa 2026",
            invariances=("scale of the loss", "order of batches"),
            function="gradient_rank.first_parameters_covariance_rank",
        ),
        LandscapeMeasure(
            name="hessian_top",
            title="top Hessian eigenvalues",
            unit="nats",
            definition="Largest eigenvalues of the loss's second derivative, by Lanczos.",
            transition="maximum",
            needs=SECOND_DERIVATIVES,
            cost="20 to 100 products, two passes each",
            gradients=120.0,  # 60 products
            formula="largest eigenvalues of d^2 L / dx^2, repeated ones counted, by thick-restart Lanczos",
            source="Wu and Simon 2000; van Dorsselaer et al. 2000",
            invariances=_CURVATURE,
            function="lanczos.top_eigenvalues",
        ),
        LandscapeMeasure(
            name="hessian_trace",
            title="Hessian trace",
            unit="nats",
            definition="Trace of the loss's second derivative, by random signs.",
            needs=SECOND_DERIVATIVES,
            cost="one product a probe and two a sketched direction, two passes each",
            gradients_a_probe=2.0,
            formula="mean of v^T H v over random signs v",
            source="Hutchinson 1990; Meyer et al. 2021",
            invariances=_CURVATURE,
            function="hessian.trace",
        ),
        LandscapeMeasure(
            name="hessian_density",
            title="Hessian spectral density",
            definition="Distribution of the eigenvalues of the loss's second derivative.",
            needs=SECOND_DERIVATIVES,
            cost="vectors times steps products, two passes each",
            formula="stochastic Lanczos quadrature of the eigenvalue distribution",
            source="Ubaru, Chen, Saad 2017",
            invariances=_CURVATURE,
            function="lanczos.spectral_density",
        ),
        LandscapeMeasure(
            name="llc",
            title="local learning coefficient",
            definition=("Local learning coefficient: nβ (E[L(w)] − L(w₀)), w drawn around the checkpoint w₀ by SGLD."),
            needs=GRADIENT,
            cost="chains times (burn-in and draws) passes over a batch, and 12 products with the Hessian",
            gradients=38.0,  # 12 products without a kept graph, the gradient twice, the losses
            formula="n_beta (E[L(x)] - L(x0)), x from exp(-n_beta L - gamma |x - x0|^2 / 2)",
            source="Lau et al. 2023",
            invariances=_CURVATURE,
            function="llc.llc",
        ),
    )
}


LANDSCAPE_GROUPS = {"hessian": ("hessian_top", "hessian_trace")}
"""Names that stand for several measures."""


def get_landscape_measure(name: str) -> LandscapeMeasure:
    """Return the measure called ``name``.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    if name not in LANDSCAPE_MEASURES:
        known = ", ".join(LANDSCAPE_MEASURES)
        raise UserError(f"no landscape measure {name!r}{nearest(name, LANDSCAPE_MEASURES)}; there are {known}")
    return LANDSCAPE_MEASURES[name]
