"""The Hessian of the loss as an operator: products with vectors, its trace, and functions of its spectrum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.errors import UserError
from pythiageo.landscape.problem import Problem, add_flat, finite, is_finite, split_like
from pythiageo.no_value import NoValueError, or_no_value

Product = Callable[[Float[Tensor, " parameter"]], Float[Tensor, " parameter"]]


class Hessian:
    """H = d^2 L / dx^2 over the chosen parameters of ``problem``; symmetric, as products with flat vectors.

    The gradient's graph is kept between products, which makes one about twice as fast as building it anew; it takes
    about three times the memory of a training step on all examples. ``keep_graph=False`` holds one piece's at a time.

    Use it as a context manager: the graph is freed, and the module put back as it was, at the end.

    Raises:
        NoValueError: (on entry) the loss or its gradient is not finite.
    """

    def __init__(self, problem: Problem, keep_graph: bool = True) -> None:
        self.problem = problem
        self.size = problem.size
        self.products = 0
        """How many products have been taken."""
        self.loss = 0.0
        self._keep = keep_graph
        self._parameters = list(problem.parameters.values())
        self._kept: list[tuple[Tensor, ...]] = []
        self.gradient = torch.zeros(problem.size, dtype=problem.dtype, device=problem.device)

    def __enter__(self) -> Hessian:
        self._evaluating = self.problem.evaluating()
        self._evaluating.__enter__()
        try:
            for piece in range(len(self.problem.pieces)):
                gradients, loss = self._differentiated(piece)
                self.loss += loss
                if gradients:
                    add_flat(self.gradient, [gradient.detach() for gradient in gradients])
                if self._keep:
                    self._kept.append(gradients)
            finite(self.loss, "the loss")
            if not is_finite(self.gradient):
                raise NoValueError("the gradient holds NaN or infinity", "nonfinite")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._kept = []
        self._evaluating.__exit__(None, None, None)

    def _differentiated(self, piece: int) -> tuple[tuple[Tensor, ...], float]:
        """Return the gradients of a piece's share of the loss, with their graph, and that share.

        None where the loss does not see the chosen parameters.
        """
        with torch.enable_grad():
            share = self.problem.piece_sum(self.problem.pieces[piece]) / self.problem.examples
            if not share.requires_grad:
                return (), float(share)
            grads = torch.autograd.grad(
                share, self._parameters, create_graph=True, allow_unused=True, materialize_grads=True
            )
        return grads, float(share.detach())

    def product(self, vector: Float[Tensor, " parameter"]) -> Float[Tensor, " parameter"]:
        """Return H v, by differentiating the gradient's inner product with v.

        Raises:
            NoValueError: it is not finite.
        """
        self.products += 1
        total = torch.zeros_like(self.gradient)
        parts = split_like(vector.to(total.dtype), self._parameters)
        for piece in range(len(self.problem.pieces)):
            gradients = self._kept[piece] if self._keep else self._differentiated(piece)[0]
            pairs = [(each, part) for each, part in zip(gradients, parts, strict=False) if each.requires_grad]
            if not pairs:  # linear in the parameters
                continue
            found = torch.autograd.grad(
                [each for each, _ in pairs],
                self._parameters,
                [part for _, part in pairs],
                retain_graph=self._keep,
                allow_unused=True,
                materialize_grads=True,
            )
            add_flat(total, found)
        if not is_finite(total):
            raise NoValueError("a product with the Hessian holds NaN or infinity", "nonfinite")
        return total


@dataclass(frozen=True)
class Trace:
    """``value`` of tr H, its standard error ``stderr`` over ``probes`` random vectors, ``products`` taken in all."""

    value: float
    stderr: float
    probes: int
    products: int


@or_no_value
def trace(hessian: Hessian, probes: int, generator: torch.Generator, sketch: int = 0) -> Trace:
    """Return an unbiased estimate of tr H: the mean of v^T H v over vectors of random signs (Hutchinson 1990).

    With ``sketch`` > 0, that many directions that H stretches are found first and their share of the trace is taken
    exactly; the mean is over the rest (Hutch++; Meyer, Musco, Musco, Woodruff 2021, arXiv 2010.09649). That costs
    ``2 sketch + probes`` products and ``sketch`` vectors of memory, and pays where few eigenvalues make the trace.
    The standard error is the probes' standard deviation over sqrt(probes): zero for a diagonal H.

    Raises:
        UserError: fewer than two probes, or a sketch wider than the number of parameters.
    """
    if probes < 2 or not 0 <= sketch <= hessian.size:
        raise UserError(
            f"expected two probes or more and a sketch of 0 to {hessian.size}, got {probes} probes and sketch {sketch}"
        )
    start = hessian.products
    exact = 0.0
    basis: Tensor | None = None
    if sketch:
        stretched = [hessian.product(signs(hessian, generator)).double() for _ in range(sketch)]
        basis = torch.linalg.qr(torch.stack(stretched, dim=1)).Q
        exact = sum(float(column @ hessian.product(column.to(hessian.gradient.dtype)).double()) for column in basis.T)
    samples = torch.empty(probes, dtype=torch.float64)
    for row in range(probes):
        vector = signs(hessian, generator).double()
        if basis is not None:
            vector = vector - basis @ (basis.T @ vector)
        samples[row] = vector @ hessian.product(vector.to(hessian.gradient.dtype)).double()
    return Trace(
        value=exact + float(samples.mean()),
        stderr=float(samples.std() / probes**0.5),
        probes=probes,
        products=hessian.products - start,
    )


def signs(hessian: Hessian, generator: torch.Generator) -> Float[Tensor, " parameter"]:
    """Return a vector of random signs, the same on every device."""
    bits = torch.randint(0, 2, (hessian.size,), generator=generator)
    return (2 * bits - 1).to(dtype=hessian.gradient.dtype, device=hessian.gradient.device)
