"""CKA with the site below."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.cka import linear_cka
from pythiageo.geometry.measure import Measure


def cka_below(states: Float[Tensor, "row d_model"], below: Float[Tensor, "row width"]) -> float:
    """Return the linear CKA of a site's states with those of the site below; the first site has no row.

    See ``linear_cka`` for formula, range, bias and invariances. Centred and uncentred readouts give the same number.

    Raises:
        NoValueError: states that do not vary.
    """
    return linear_cka(states, below)


MEASURE = Measure(
    name="cka_below",
    title="linear CKA with the site below",
    definition="Linear CKA with the layer below: |YᵀX|² / (|XᵀX| |YᵀY|), both centred.",
    uses="rows",
    formula="|Y^T X|^2 / (|X^T X| |Y^T Y|), centred",
    source="Kornblith et al. 2019",
    function=cka_below,
    needs="layers",
    cost="product",
    invariances=frozenset({"scale", "rotation", "order", "centring"}),
    least=0.0,
    greatest=1.0,
)
