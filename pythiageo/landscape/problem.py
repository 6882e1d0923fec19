"""What every landscape measure is taken of: a module, some of its parameters, and the loss on fixed examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pythiageo.errors import UserError, nearest
from pythiageo.no_value import NoValueError

Piece = tuple[Tensor, ...]
"""Tensors whose first axis is the example. Examples of one length make a piece, so that nothing is padded."""

Losses = Callable[[Piece], Tensor]
"""From a piece to its losses: one an example, or their mean alone (which then serves the Hessian and LLC only)."""


class Problem:
    """The mean loss L over the examples of ``pieces``, as a function of the named ``parameters``; the rest is frozen.

    ``losses`` closes over ``module`` and calls it plainly. Each example's loss may depend on that example alone.
    ``parameters`` are names or patterns such as ``blocks.1.*``; a parameter shared by two layers counts once. While a
    measure runs, the module is in evaluation mode and attention uses the twice differentiable kernel; afterwards it is
    as it was. ``numbers``: those of each piece's examples, if they are not counted through the pieces.

    Raises:
        UserError: no example, pieces whose tensors differ in length, a pattern that no parameter's name matches, or
            chosen parameters of several types or devices.
    """

    def __init__(
        self,
        module: nn.Module,
        losses: Losses,
        pieces: Sequence[Piece],
        parameters: Sequence[str] = ("*",),
        numbers: Sequence[Int[Tensor, " _"]] | None = None,
    ) -> None:
        for number, piece in enumerate(pieces):
            if len({len(tensor) for tensor in piece}) != 1:
                raise UserError(f"piece {number}: expected tensors with one number of examples, at least one tensor")
        self.module = module
        self.pieces = [piece for piece in pieces if len(piece[0])]
        self._losses = losses
        self.counts = [len(piece[0]) for piece in self.pieces]
        self.examples = sum(self.counts)
        if not self.examples:
            raise UserError("a landscape measure needs at least one example, got none")
        counted = torch.arange(self.examples).split(self.counts)
        self.numbers = counted if numbers is None else [some for some in numbers if len(some)]
        self.parameters = _choose(module, parameters)
        kinds = {(str(p.dtype), str(p.device)) for p in self.parameters.values()}
        if len(kinds) > 1:
            raise UserError(f"expected parameters of one type on one device, got {sorted(kinds)}")
        self.size = sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def dtype(self) -> torch.dtype:
        """The chosen parameters' type."""
        return next(iter(self.parameters.values())).dtype

    @property
    def device(self) -> torch.device:
        """Where the chosen parameters lie."""
        return next(iter(self.parameters.values())).device

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the module into evaluation mode, with gradients for the chosen parameters only; undo it at the end."""
        training = [module for module in self.module.modules() if module.training]
        required = [(parameter, parameter.requires_grad) for parameter in self.module.parameters()]
        chosen = {id(parameter) for parameter in self.parameters.values()}
        self.module.eval()
        for parameter, _ in required:
            parameter.requires_grad_(id(parameter) in chosen)
        try:
            # the fused attention kernels have no second derivative on the CPU
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            for module in training:
                module.training = True
            for parameter, flag in required:
                parameter.requires_grad_(flag)

    def piece_losses(self, piece: Piece) -> Float[Tensor, " example"]:
        """Return the losses of a piece's examples, with gradient.

        Raises:
            UserError: ``losses`` gives another number of losses, or their mean alone.
        """
        losses = self._losses(piece)
        if losses.shape != (len(piece[0]),):
            raise UserError(
                f"expected one loss an example, shape ({len(piece[0])},), got losses of shape {tuple(losses.shape)}"
            )
        return losses

    def piece_sum(self, piece: Piece) -> Float[Tensor, ""]:
        """Return the sum of a piece's losses, with gradient; ``losses`` may give their mean alone.

        Raises:
            UserError: ``losses`` gives another number of losses.
        """
        losses = self._losses(piece)
        if losses.shape not in ((), (len(piece[0]),)):
            raise UserError(
                f"expected one loss an example, shape ({len(piece[0])},), or their mean, shape (), got losses of shape "
                f"{tuple(losses.shape)}"
            )
        return losses.sum() if losses.ndim else losses * len(piece[0])

    def example_losses(self) -> Float[Tensor, " example"]:
        """Return every example's loss, by number, in float64; its piece's mean where ``losses`` gives the mean alone.

        Raises:
            NoValueError: one is not finite.
        """
        found = []
        with self.evaluating(), torch.no_grad():
            for piece in self.pieces:
                losses = self._losses(piece)
                found.append((losses if losses.ndim else losses.expand(len(piece[0]))).double().cpu())
        everything = torch.cat(found)
        if len(everything) != self.examples:
            raise UserError(f"expected {self.examples} losses, one an example, got {len(everything)}")
        if not bool(torch.isfinite(everything).all()):
            raise NoValueError("a loss is not finite", "nonfinite")
        return torch.empty_like(everything).index_copy(0, torch.cat(list(self.numbers)), everything)

    def loss(self) -> float:
        """Return L over all examples.

        Raises:
            NoValueError: it is not finite.
        """
        with self.evaluating(), torch.no_grad():
            value = sum(float(self.piece_sum(piece)) for piece in self.pieces) / self.examples
        return finite(value, "the loss")

    def gradient(self) -> Float[Tensor, " parameter"]:
        """Return dL over the chosen parameters, flat, in the order of ``parameters``.

        Raises:
            NoValueError: it is not finite.
        """
        parameters = list(self.parameters.values())
        total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        with self.evaluating(), torch.enable_grad():
            for piece in self.pieces:
                share = self.piece_sum(piece) / self.examples
                if share.requires_grad:  # else the loss does not see the chosen parameters
                    add_flat(total, torch.autograd.grad(share, parameters, materialize_grads=True, allow_unused=True))
        if not is_finite(total):
            raise NoValueError("the gradient holds NaN or infinity", "nonfinite")
        return total

    def minibatch(self, chosen: Int[Tensor, " chosen"]) -> list[tuple[Piece, Int[Tensor, " _"]]]:
        """Return the examples of these numbers, and their numbers, in parts.

        Examples of several pieces come together where their tensors fit, as many as the largest piece has.
        """
        parts: list[tuple[Piece, Tensor]] = []
        for piece, numbers in zip(self.pieces, self.numbers, strict=True):
            (rows,) = torch.isin(numbers, chosen).nonzero(as_tuple=True)
            if not len(rows):
                continue
            part, inside = tuple(tensor[rows.to(tensor.device)] for tensor in piece), numbers[rows]
            if parts and _fit_together(parts[-1][0], part) and len(parts[-1][1]) + len(inside) <= max(self.counts):
                before, earlier = parts.pop()
                part = tuple(torch.cat(pair) for pair in zip(before, part, strict=True))
                inside = torch.cat([earlier, inside])
            parts.append((part, inside))
        return parts


def _fit_together(one: Piece, other: Piece) -> bool:
    return [tensor.shape[1:] for tensor in one] == [tensor.shape[1:] for tensor in other]


def _choose(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    known = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in known if fnmatchcase(name, pattern)}
        if not found:
            raise UserError(f"no parameter matches {pattern!r}{nearest(pattern, known)}")
        chosen |= found
    if not chosen:
        raise UserError("a landscape measure needs at least one parameter, got none")
    return {name: p for name, p in known.items() if name in chosen}


def flat(tensors: Sequence[Tensor]) -> Float[Tensor, " parameter"]:
    """Return the tensors' entries one after another."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def add_flat(total: Float[Tensor, " parameter"], tensors: Sequence[Tensor]) -> None:
    """Add the tensors' entries, one after another, to those of ``total``: nothing as long is made on the way."""
    for part, tensor in zip(split_like(total, tensors), tensors, strict=True):
        part.add_(tensor)


def split_like(vector: Float[Tensor, " parameter"], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return views of the entries of ``vector`` in the shapes of ``tensors``, which it holds one after another."""
    parts = vector.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def is_finite(tensor: Tensor) -> bool:
    """Say whether all entries are finite, of which there is one at least: read once, and nothing as large is made."""
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def finite(value: float, what: str) -> float:
    """Return ``value`` if it is a number.

    Raises:
        NoValueError: it is NaN or infinite.
    """
    if not abs(value) < float("inf"):
        raise NoValueError(f"{what} is not finite", "nonfinite")
    return value
