"""What is measured of the rows that an audit by value reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from pythiageo.series.audit.relations import Relations
from pythiageo.series.files.slices import Rows, block_of


class WeightMeasure(NamedTuple):
    """A number of some rows of a matrix: its name in the table, in a sentence what it is, and how it is computed."""

    name: str
    definition: str
    title: str
    formula: str


WEIGHT_MEASURES = (
    WeightMeasure(
        name="weight_rms",
        definition="Root mean square of the entries of the rows of a matrix that an audit by value reads.",
        title="root mean square of weights",
        formula="||W||_F / sqrt(rows columns)",
    ),
    WeightMeasure(
        name="weight_distance",
        definition="Distance of these rows from those of the series' first step that was read, over the latter's norm.",
        title="distance of weights from the first step",
        formula="||W - W_0||_F / ||W_0||_F",
    ),
    WeightMeasure(
        name="weight_stable_rank",
        definition="Stable rank of these rows: the sum of squared singular values over the largest.",
        title="stable rank of weights",
        formula="||W||_F^2 / sigma_1^2",
    ),
)


class WeightRow(NamedTuple):
    """The measures of the rows of one matrix at a step: ``rows`` of them from row ``first`` on; ``layer``: its block.

    ``weight_distance`` and ``weight_stable_rank`` are ``None`` where what they divide by is 0.
    """

    step: int
    matrix: str
    name: str
    layer: int | None
    first: int
    rows: int
    weight_rms: float
    weight_distance: float | None
    weight_stable_rank: float | None


def measure_rows(
    steps: Sequence[int], samples: Mapping[int, Mapping[str, Rows]], relations: Mapping[str, Relations]
) -> Iterator[WeightRow]:
    """Yield the measures of each matrix at each step, in float64."""
    for index, step in enumerate(steps):
        for role, one in relations.items():
            rows = samples[step][role]
            largest = float(torch.linalg.matrix_norm(rows.values.double(), 2)) ** 2
            size, first = float(one.rms[index]), float(one.rms[0])
            yield WeightRow(
                step=step,
                matrix=role,
                name=rows.name,
                layer=block_of(rows.name),
                first=rows.first,
                rows=rows.values.shape[0],
                weight_rms=size,
                weight_distance=float(one.distance[index, 0]) / first if first else None,
                weight_stable_rank=size**2 * rows.values.numel() / largest if largest else None,
            )
