"""Inner products of per-example gradients, from what a layer was fed and the gradient of what it gave.

The gradient of an example's loss with respect to a linear layer's weight is sum_t g_t a_t^T, over its positions t, with
a_t what was fed and g_t the gradient of what came out. So the inner product of two examples' gradients is
sum_ts (a_t . a_s)(g_t . g_s), and the gradients themselves need not be formed (Goodfellow 2015, arXiv 1510.01799, for
one position; here over all pairs of positions). Where the matrix is small, forming them in blocks is cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BLOCK_VALUES = 1 << 22
"""Float64 values held at a time while gradients are formed in blocks."""

PAIR_ROWS = 256
"""Rows of the pairwise products held at a time. Rows of one block are paired in both orders, so that larger blocks
compute more for nothing: of 1,300 rows, blocks of 1,024 take 1.4 times as many products."""

SYMMETRIC_ROWS = 64
"""Examples whose products with all later ones are one product of matrices: with all at once, each is taken twice."""

PROJECTIONS = 8
"""Random vectors on which gradients are compared. A difference of one direction, the worst case, shows as less than a
fifth of its size three times in 100,000 (chi-squared, 8 degrees of freedom)."""

ELEMENTWISE = 24
"""Cost of reading and writing one pairwise product, in multiply-adds of a matrix product (measured)."""


@dataclass(frozen=True)
class Capture:
    """One piece's passage through a layer: ``fed`` (example, row, in), ``grad`` (example, row, out), first example."""

    fed: Tensor
    grad: Tensor
    first: int


class Gram:
    """Accumulates the inner products, (example, example), in float64; ``terms`` bounds the length of its sums."""

    def __init__(self, examples: int, device: torch.device) -> None:
        self.matrix = torch.zeros(examples, examples, dtype=torch.float64, device=device)
        self.terms = 0

    def add_block(self, block: Float[Tensor, "example value"]) -> None:
        """Add the inner products of a block of gradient entries."""
        products = torch.zeros_like(self.matrix)
        for start in range(0, len(block), SYMMETRIC_ROWS):
            here = slice(start, start + SYMMETRIC_ROWS)
            products[here, start:] = block[here] @ block[start:].T
        self.matrix += products.triu() + products.triu(1).T
        self.terms = max(self.terms, block.shape[1]) + 1

    def add_linear(self, captures: list[Capture], bias: bool) -> None:
        """Add those of a linear layer's weight, and of its bias."""
        rows = sum(capture.grad.shape[0] * capture.grad.shape[1] for capture in captures)
        out, into = captures[0].grad.shape[2], captures[0].fed.shape[2] + bias
        fed, grad, example = _live_rows(captures)
        forming = out * into * (rows + len(self.matrix) ** 2)
        pairing = len(fed) ** 2 / 2 * (out + into + ELEMENTWISE)
        if pairing < forming:
            self._add_pairs(fed, grad, example, bias)
        else:
            self._add_formed(captures, bias)

    def _add_pairs(
        self, fed: Float[Tensor, "row in"], grad: Float[Tensor, "row out"], example: Tensor, bias: bool
    ) -> None:
        examples = len(self.matrix)
        upper = torch.zeros_like(self.matrix)
        fed, grad = fed.double(), grad.double()
        for start in range(0, len(fed), PAIR_ROWS):
            here = slice(start, start + PAIR_ROWS)
            products = fed[here] @ fed[start:].T
            if bias:
                products += 1
            products *= grad[here] @ grad[start:].T
            # pairs within these rows appear in both orders, pairs with later rows once
            size = len(products)
            products[:, :size] *= 0.5
            by_column = torch.zeros(examples, size, dtype=torch.float64, device=fed.device)
            by_column.index_add_(0, example[start:], products.T.contiguous())
            upper.index_add_(0, example[here], by_column.T.contiguous())
        self.matrix += upper + upper.T
        self.terms = max(self.terms, fed.shape[1], grad.shape[1], len(fed)) + 1

    def _add_formed(self, captures: list[Capture], bias: bool) -> None:
        examples, out = len(self.matrix), captures[0].grad.shape[2]
        wide = [(F.pad(c.fed, (0, 1), value=1.0) if bias else c.fed).double() for c in captures]
        step = max(1, BLOCK_VALUES // (examples * wide[0].shape[2]))
        for start in range(0, out, step):
            width = min(step, out - start)
            block = torch.zeros(examples, width, wide[0].shape[2], dtype=torch.float64, device=self.matrix.device)
            for capture, fed in zip(captures, wide, strict=True):
                grad = capture.grad[:, :, start : start + width].double()
                block[capture.first : capture.first + len(fed)] += grad.transpose(1, 2) @ fed
            self.add_block(block.flatten(1))

    def add_embedding(self, captures: list[Capture]) -> None:
        """Add those of an embedding's weight: ``fed`` (example, row, 1) holds token ids."""
        tokens = torch.cat([capture.fed.flatten() for capture in captures])
        grad = torch.cat([capture.grad.flatten(0, 1) for capture in captures])
        example = torch.cat([_examples_of(capture) for capture in captures])
        known, place = tokens.unique(return_inverse=True)
        examples, d_model = len(self.matrix), grad.shape[1]
        step = max(1, BLOCK_VALUES // (examples * d_model))
        for start in range(0, len(known), step):
            width = min(step, len(known) - start)
            inside = (place >= start) & (place < start + width)
            block = torch.zeros(examples * width, d_model, dtype=torch.float64, device=self.matrix.device)
            block.index_add_(0, example[inside] * width + place[inside] - start, grad[inside].double())
            self.add_block(block.view(examples, width * d_model))

    def add_norm(self, captures: list[Capture], eps: float, weight: bool, bias: bool) -> None:
        """Add those of a LayerNorm's gains and biases."""
        for scaled in [True] * weight + [False] * bias:
            block = torch.zeros(len(self.matrix), captures[0].grad.shape[2], dtype=torch.float64)
            block = block.to(self.matrix.device)
            for capture in captures:
                grad = capture.grad.double()
                if scaled:
                    grad = grad * _normed(capture, eps)
                block[capture.first : capture.first + len(grad)] += grad.sum(1)
            self.add_block(block)


def project(gradient: Tensor) -> Tensor:
    """Return a matrix times random vectors, the same for every matrix of a width, in float64; a vector as it is.

    They are scaled so that the square of a matrix's size is on average that of its projection.
    """
    if gradient.ndim != 2:
        return gradient.double()
    width = gradient.shape[1]
    generator = torch.Generator().manual_seed(width)
    vectors = torch.randn(width, PROJECTIONS, generator=generator, dtype=torch.float64) / PROJECTIONS**0.5
    vectors = vectors.to(gradient.device)
    rows = max(1, BLOCK_VALUES // (4 * width))
    return torch.cat([part.double() @ vectors for part in gradient.split(rows)])


def projected_totals(module: nn.Module, captures: list[Capture]) -> dict[str, tuple[Tensor, float]]:
    """Return, for each of a layer's own parameters, the gradient summed over examples and the size of its terms.

    Of a matrix's gradient, its projection (``project``), which needs no gradient formed. It must equal that of what
    automatic differentiation says; where it does not, the parameter is used elsewhere too.
    """
    found: dict[str, tuple[Tensor, float]] = {}
    for name, parameter in module.named_parameters(recurse=False):
        total = torch.zeros_like(project(parameter.detach()))
        size = 0.0
        for capture in captures:
            fed, grad = capture.fed.flatten(0, 1), capture.grad.flatten(0, 1)
            size += float(grad.norm()) * (float(fed.norm()) if isinstance(module, nn.Linear) else 1.0)
            size += float(grad.norm()) * len(grad) ** 0.5
            if name == "bias":
                total += grad.double().sum(0)
            elif isinstance(module, nn.Linear):
                total += grad.double().T @ project(fed)
            elif isinstance(module, nn.Embedding):
                total.index_add_(0, fed.flatten(), project(grad))
            elif isinstance(module, nn.LayerNorm):
                total += (capture.grad.double() * _normed(capture, module.eps)).sum((0, 1))
        found[name] = (total, size)
    return found


def _normed(capture: Capture, eps: float) -> Tensor:
    return F.layer_norm(capture.fed.double(), capture.fed.shape[-1:], eps=eps)


def _examples_of(capture: Capture) -> Tensor:
    count, rows = capture.grad.shape[:2]
    return torch.arange(capture.first, capture.first + count, device=capture.grad.device).repeat_interleave(rows)


def _live_rows(captures: list[Capture]) -> tuple[Tensor, Tensor, Tensor]:
    """Return fed, gradient and example of the rows whose gradient is not zero: the others add nothing."""
    grad = torch.cat([capture.grad.flatten(0, 1) for capture in captures])
    fed = torch.cat([capture.fed.flatten(0, 1) for capture in captures])
    example = torch.cat([_examples_of(capture) for capture in captures])
    live = (grad != 0).any(1)
    return fed[live], grad[live], example[live]
