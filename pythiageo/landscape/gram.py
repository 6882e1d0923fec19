"""The Gram matrix of per-example gradients, on all chosen parameters, without ever holding them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from pythiageo.compute.device import free_memory
from pythiageo.errors import UserError
from pythiageo.landscape.captures import Capture, Gram, project, projected_totals
from pythiageo.landscape.problem import Piece, Problem
from pythiageo.no_value import NoValueError, or_no_value

KINDS = (nn.Linear, nn.Embedding, nn.LayerNorm)
MEMORY = 1 << 30
"""Bytes of layer inputs and output gradients kept at a time where little is free, and of formed gradients."""
SHARE = 4
"""One in so many of the free bytes may be taken by what is kept of layers."""
FEW = 2
"""Examples of a piece from which the size of what its layers are fed and give is known."""
AUDITED = 1 << 20
"""Entries of a gradient that are made float64 at a time, to be compared."""
FORMED_BYTES = 24
"""Bytes that an entry of a formed gradient takes: in the parameters' type, once more while joined, and in float64."""


@dataclass(frozen=True)
class GradientGram:
    """``matrix`` (example, example) float64: inner products of the gradients of two examples' losses.

    ``parameters``: how many the gradients have; ``terms``: greatest length of a sum that was rounded; ``precision``:
    the machine epsilon in which the gradients were computed. ``formed``: the names of parameters that were not taken
    from their layer's inputs and outputs, but formed whole.
    """

    matrix: Float[Tensor, "example example"]
    parameters: int
    terms: int
    precision: float
    formed: tuple[str, ...] = ()


@or_no_value
def gradient_gram(problem: Problem, memory: int | None = None) -> GradientGram:
    """Return the inner products of all pairs of examples' gradients.

    Linear, embedding and LayerNorm layers are read through their inputs and the gradients of their outputs
    (``captures``); each is compared with what automatic differentiation gives for the sum over examples, and a
    parameter for which they differ (it is used elsewhere too: a tied unembedding) is formed by ``vmap`` instead, or one
    example at a time where ``vmap`` cannot. Two examples' gradients are computed plainly, one at a time, and compared
    with the result.

    ``memory``: bytes of layer inputs and gradients kept at a time; with less, the examples are passed more often, which
    changes no bits. If not given, a quarter of what is free, 1 GiB at least.

    Raises:
        UserError: the losses are not one an example, or an example's loss depends on the others in its piece.
    """
    gram = Gram(problem.examples, problem.device)
    with problem.evaluating(), torch.enable_grad():
        layers = _layers(problem)
        taken: set[str] = set()
        kept = max(MEMORY, _free(problem) // SHARE) if memory is None else memory
        for group in _groups(problem, layers, kept):
            taken |= _add_group(problem, {name: layers[name] for name in group}, gram)
        formed = {name: p for name, p in problem.parameters.items() if name not in taken}
        for name in formed:
            _add_formed(problem, name, gram, MEMORY if memory is None else memory)
        if not bool(torch.isfinite(gram.matrix).all()):
            raise NoValueError("a gradient holds NaN or infinity", "nonfinite")
        _audit(problem, gram.matrix)
    precision = torch.finfo(problem.dtype).eps
    return GradientGram(gram.matrix, problem.size, gram.terms, precision, tuple(formed))


def _free(problem: Problem) -> int:
    device = problem.device
    return free_memory(str(device)) if device.type in ("cpu", "cuda") else 0


def _layers(problem: Problem) -> dict[str, nn.Module]:
    """Return the layers all of whose own parameters were chosen, by name; a shared parameter disqualifies none."""
    chosen = {id(parameter) for parameter in problem.parameters.values()}
    found = {}
    for name, module in problem.module.named_modules():
        own = list(module.parameters(recurse=False))
        plain = not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) == 1
        if own and type(module) in KINDS and plain and all(id(parameter) in chosen for parameter in own):
            found[name] = module
    return found


@contextmanager
def _watching(layers: dict[str, nn.Module], seen: list[tuple[str, Tensor, Tensor]]) -> Iterator[None]:
    def hook(name: str) -> Any:
        def keep(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            seen.append((name, arguments[0], output))

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _groups(problem: Problem, layers: dict[str, nn.Module], memory: int) -> list[list[str]]:
    """Cut the layers, in order, so that what is kept of a group's inputs and outputs fits into ``memory`` bytes.

    A few examples of each piece tell how much that is. At least one group, if an empty one.
    """
    sizes: dict[str, int] = dict.fromkeys(layers, 0)
    for piece, count in zip(problem.pieces, problem.counts, strict=True):
        few = tuple(tensor[:FEW] for tensor in piece)
        seen: list[tuple[str, Tensor, Tensor]] = []
        with torch.no_grad(), _watching(layers, seen):
            problem.piece_losses(few)
        for name, fed, output in seen:
            size = fed.numel() * fed.element_size() + output.numel() * output.element_size()
            sizes[name] += size * count // len(few[0])
    groups: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if groups[-1] and held + size > memory:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _add_group(problem: Problem, layers: dict[str, nn.Module], gram: Gram) -> set[str]:
    """Add the layers whose captures account for their gradient; return the names of their parameters."""
    names = {id(parameter): name for name, parameter in problem.parameters.items()}
    own = {id(p): p for module in layers.values() for p in module.parameters(recurse=False)}
    expected = {key: torch.zeros_like(project(parameter.detach())) for key, parameter in own.items()}
    captures: dict[str, list[Capture]] = defaultdict(list)
    spoiled: set[str] = set()
    first = 0
    for piece in problem.pieces:
        count = len(piece[0])
        seen: list[tuple[str, Tensor, Tensor]] = []
        with _watching(layers, seen):
            losses = problem.piece_losses(piece)
        if not bool(torch.isfinite(losses).all()):
            raise NoValueError("a loss is not finite", "nonfinite")
        reached = [(name, fed.detach(), output) for name, fed, output in seen if output.requires_grad]
        seen.clear()
        wanted = [output for _, _, output in reached] + list(own.values())
        if losses.requires_grad and wanted:
            grads = torch.autograd.grad(losses.sum(), wanted, allow_unused=True, materialize_grads=True)
            for (name, fed, _), output_grad in zip(reached, grads, strict=False):
                if output_grad.ndim < 2 or len(output_grad) != count or len(fed) != count:
                    spoiled.add(name)
                    continue
                captures[name].append(_capture(layers[name], fed, output_grad, first))
            for key, total in zip(own, grads[len(reached) :], strict=True):
                expected[key] += project(total)
            del grads
        first += count
    taken: set[str] = set()
    for name, module in layers.items():
        if name not in spoiled and captures[name] and _accounts(module, captures[name], expected):
            _add_layer(module, captures.pop(name), gram)
            taken |= {names[id(parameter)] for parameter in module.parameters(recurse=False)}
    return taken


def _capture(module: nn.Module, fed: Tensor, output_grad: Tensor, first: int) -> Capture:
    count = len(output_grad)
    if isinstance(module, nn.Embedding):
        fed = fed[..., None]
    return Capture(fed.reshape(count, -1, fed.shape[-1]), output_grad.reshape(count, -1, output_grad.shape[-1]), first)


def _accounts(module: nn.Module, captures: list[Capture], expected: dict[int, Tensor]) -> bool:
    """Say whether the captures are all there is to the gradient of each of the layer's parameters."""
    found = projected_totals(module, captures)
    for name, parameter in module.named_parameters(recurse=False):
        total, size = found[name]
        rounding = 100 * torch.finfo(parameter.dtype).eps * size
        if float((total - expected[id(parameter)]).norm()) > rounding:
            return False
    return True


def _add_layer(module: nn.Module, captures: list[Capture], gram: Gram) -> None:
    if isinstance(module, nn.Linear):
        gram.add_linear(captures, bias=module.bias is not None)
    elif isinstance(module, nn.Embedding):
        gram.add_embedding(captures)
    elif isinstance(module, nn.LayerNorm):
        gram.add_norm(captures, module.eps, weight=True, bias=module.bias is not None)


class _Losses(nn.Module):
    """The losses as a module, so that ``functional_call`` can put other parameters into the one they close over."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.module = problem.module
        self._problem = problem

    def forward(self, *example: Tensor) -> Tensor:
        """Return the loss of one example, given without the example axis."""
        return self._problem.piece_losses(tuple(tensor[None] for tensor in example)).sum()


def _add_formed(problem: Problem, name: str, gram: Gram, memory: int) -> None:
    """Form the gradients of one parameter, a range of its entries at a time, all examples at once."""
    parameter = problem.parameters[name].detach()
    entries = parameter.reshape(-1)
    call = _Losses(problem)
    step = max(1, memory // (FORMED_BYTES * problem.examples))
    for start in range(0, len(entries), step):
        part = entries[start : start + step]
        before, after = entries[:start], entries[start + step :]

        def loss(part: Tensor, example: tuple[Tensor, ...], before: Tensor = before, after: Tensor = after) -> Tensor:
            whole = torch.cat([before, part, after]).view_as(parameter)
            return functional_call(call, {f"module.{name}": whole}, example)

        blocks = []
        for piece in problem.pieces:
            try:
                with torch.no_grad():  # the gradients themselves need none
                    blocks.append(vmap(grad(loss), in_dims=(None, 0))(part, piece))
            except RuntimeError:  # an operation that vmap cannot batch, or a derivative of the model's own (Bloom's)
                blocks.append(_form_plainly(problem, name, piece)[:, start : start + step])
        gram.add_block(torch.cat(blocks).double())


def _form_plainly(problem: Problem, name: str, piece: Piece) -> Float[Tensor, "example value"]:
    """Return the gradients of one parameter by plain automatic differentiation, one example at a time."""
    rows = []
    for number in range(len(piece[0])):
        loss = problem.piece_losses(tuple(tensor[number : number + 1] for tensor in piece)).sum()
        (found,) = torch.autograd.grad(loss, [problem.parameters[name]], allow_unused=True, materialize_grads=True)
        rows.append(found.reshape(-1))
    return torch.stack(rows)


def _audit(problem: Problem, matrix: Float[Tensor, "example example"]) -> None:
    """Compare two examples' gradients, each computed alone, with the matrix."""
    numbers = sorted({0, problem.counts[0] - 1})
    parameters = list(problem.parameters.values())
    alone = []
    for number in numbers:
        losses = problem.piece_losses(tuple(tensor[number : number + 1] for tensor in problem.pieces[0])).sum()
        if not losses.requires_grad:
            return
        alone.append(torch.autograd.grad(losses, parameters, allow_unused=True, materialize_grads=True))
    plain = torch.zeros(len(alone), len(alone), dtype=torch.float64, device=matrix.device)
    for gradients in zip(*alone, strict=True):
        for start in range(0, gradients[0].numel(), AUDITED):
            part = torch.stack([each.flatten()[start : start + AUDITED] for each in gradients]).double()
            plain += part @ part.T
    found = matrix[numbers][:, numbers]
    size = plain.diagonal().max() + found.diagonal().max()
    tolerance = 1e4 * torch.finfo(problem.dtype).eps
    if float((plain - found).abs().max()) > tolerance * float(size):
        raise UserError(
            "the gradient of an example's loss is another one when the example is alone: expected losses that each "
            "depend on one example (no batch statistics), and the example as the first axis in every layer"
        )
