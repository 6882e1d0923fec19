"""The landscape measures: what each needs, what it costs, and what leaves it as it is."""

from __future__ import annotations

from dataclasses import dataclass

from pythiageo.errors import UserError, nearest

LOSS = "loss"
GRADIENT = "gradient"
PER_EXAMPLE_GRADIENTS = "per-example gradients"
SECOND_DERIVATIVES = "second derivatives"


@dataclass(frozen=True)
class LandscapeMeasure:
    """``needs``: derivatives of the loss. ``cost``: in passes, one being forward and backward over all examples.

    ``invariances``: what may be done to loss, examples or parameters without changing the value. ``function`` is where
    it is computed.
    """

    name: str
    title: str
    needs: str
    cost: str
    formula: str
    source: str
    invariances: tuple[str, ...]
    function: str


_RANK = ("scale of the loss", "order of examples", "rotation of parameters")
_CURVATURE = ("order of examples", "rotation of parameters", "a constant added to the loss")

LANDSCAPE_MEASURES: dict[str, LandscapeMeasure] = {
    measure.name: measure
    for measure in (
        LandscapeMeasure(
            "gradient_rank",
            "gradient effective rank",
            PER_EXAMPLE_GRADIENTS,
            "a few passes, and N^2 products of gradients",
            "exp(-sum p log p), p = eigenvalues of G G^T over their sum",
            "Billa 2026",
            _RANK,
            "gradient_rank.gradient_effective_rank",
        ),
        LandscapeMeasure(
            "gradient_covariance_rank",
            "gradient covariance rank",
            PER_EXAMPLE_GRADIENTS,
            "nothing beside gradient_rank",
            "as gradient_rank, of batch gradients less their mean, on all parameters",
            "Billa 2026, without its cut at 50,000 parameters",
            _RANK,
            "gradient_rank.gradient_covariance_rank",
        ),
        LandscapeMeasure(
            "first_parameters_covariance_rank",
            "gradient covariance rank, first 50,000 parameters",
            GRADIENT,
            "one pass",
            "as gradient_covariance_rank, on the first 50,000 parameters",
            "Billa 2026",
            ("scale of the loss", "order of batches"),
            "gradient_rank.first_parameters_covariance_rank",
        ),
        LandscapeMeasure(
            "hessian_top",
            "top Hessian eigenvalues",
            SECOND_DERIVATIVES,
            "20 to 100 products, two passes each",
            "largest eigenvalues of d^2 L / dx^2, repeated ones counted, by thick-restart Lanczos",
            "Wu and Simon 2000; van Dorsselaer et al. 2000",
            _CURVATURE,
            "lanczos.top_eigenvalues",
        ),
        LandscapeMeasure(
            "hessian_trace",
            "Hessian trace",
            SECOND_DERIVATIVES,
            "one product a probe and two a sketched direction, two passes each",
            "mean of v^T H v over random signs v",
            "Hutchinson 1990; Meyer et al. 2021",
            _CURVATURE,
            "hessian.trace",
        ),
        LandscapeMeasure(
            "hessian_density",
            "Hessian spectral density",
            SECOND_DERIVATIVES,
            "vectors times steps products, two passes each",
            "stochastic Lanczos quadrature of the eigenvalue distribution",
            "Ubaru, Chen, Saad 2017",
            _CURVATURE,
            "lanczos.spectral_density",
        ),
        LandscapeMeasure(
            "llc",
            "local learning coefficient",
            GRADIENT,
            "chains times (burn-in and draws) passes over a batch",
            "n_beta (E[L(x)] - L(x0)), x from exp(-n_beta L - gamma |x - x0|^2 / 2)",
            "Lau et al. 2023",
            _CURVATURE,
            "llc.llc",
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
