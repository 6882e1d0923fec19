"""Whether a matrix looks like an initialisation: independent entries of one distribution around 0.

Training leaves directions that many rows share, rows of different lengths and heavy tails; an initialisation has none.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

_HEAVY, _LIGHT = 0.5, -1.35
"""Excess kurtosis of independent entries: 0 of a normal distribution, -1.2 of a uniform one, between for a cut one."""


class Start(NamedTuple):
    """What is seen of some rows of a matrix.

    ``sd``: of the entries. ``mean_z``: their mean in standard errors. ``kurtosis``: their excess kurtosis. ``edge``:
    the largest singular value over sd (sqrt(rows) + sqrt(columns)), where that of independent entries ends (Marchenko
    and Pastur). ``spread``: the variance of the rows' mean squares over that of independent entries.
    ``looks_initial``: all of these are as of independent entries.
    """

    sd: float
    mean_z: float
    kurtosis: float
    edge: float
    spread: float
    looks_initial: bool

    @property
    def shape(self) -> str:
        """The family that the entries look to be of."""
        if self.sd == 0:
            return "zeros"
        return "uniform" if self.kurtosis < -1 else "cut normal" if self.kurtosis < -0.1 else "normal"


def describe_start(matrix: Tensor) -> Start:
    """Return what is seen of a matrix (row, column). Rows of zeros alone, as of a padding token, are left out.

    The limits leave room for few rows: the largest singular value of independent entries lies beyond the edge by a
    share of the order of rows^(-2/3), the sum of ``rows`` squares varies by sqrt(2 / rows).
    """
    x = matrix.double().numpy()
    x = x[np.any(x != 0, axis=1)]
    if not x.size:
        return Start(0.0, 0.0, 0.0, 0.0, 0.0, True)
    rows, columns = x.shape
    sd = float(x.std())
    if sd == 0:  # one number everywhere
        return Start(0.0, 0.0, 0.0, 0.0, 0.0, False)
    mean_z = float(x.mean()) / sd * math.sqrt(x.size)
    kurtosis = float((((x - x.mean()) / sd) ** 4).mean() - 3)
    edge = float(np.linalg.norm(x, 2)) / (sd * (math.sqrt(rows) + math.sqrt(columns)))
    squares = (x**2).mean(axis=1)
    spread = float(squares.var() / squares.mean() ** 2 / ((max(kurtosis, -1.9) + 2) / columns))
    small = min(rows, columns)
    looks_initial = (
        abs(mean_z) < 6
        and _LIGHT < kurtosis < _HEAVY + 5 * math.sqrt(24 / x.size)
        and edge < 1.05 + 1.5 * small ** (-2 / 3)
        and spread < 1.3 + 6 * math.sqrt(2 / rows)
    )
    return Start(sd, mean_z, kurtosis, edge, spread, looks_initial)
