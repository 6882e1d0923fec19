"""The lowest and the highest curvature at a point, as far as a few products with the Hessian tell."""

from __future__ import annotations

import torch

from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.krylov import Space
from pythiageo.landscape.problem import Problem
from pythiageo.no_value import NoValueError

PRODUCTS = 12
"""Products with the Hessian that are spent on it."""


def curvatures(problem: Problem, seed: int) -> tuple[float, float] | None:
    """Return bounds on the Hessian's eigenvalues: the lowest is not above the first, the highest not below the second.

    Ritz values of one Krylov space, so a first one below zero means a direction that curves down. Curvatures within
    the rounding of products are returned as zero. None where the loss cannot be differentiated twice.
    """
    try:
        with Hessian(problem, keep_graph=False) as hessian:
            width = min(PRODUCTS, hessian.size)
            space = Space(hessian, width, torch.Generator().manual_seed(seed))
            while space.held < width:
                space.grow()
                if space.leaving == 0.0:
                    break
            values = torch.linalg.eigvalsh(space.projected())
            noise = 1e3 * torch.finfo(problem.dtype).eps * space.largest
    except (NoValueError, RuntimeError):  # torch has kernels without a second derivative, and says so by RuntimeError
        return None
    values[values.abs() < noise] = 0.0
    return float(values[0]), float(values[-1])
