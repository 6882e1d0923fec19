"""Whether a model sees later tokens: then neither its states nor its scores are those of a causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pythiageo.errors import CheckpointError, quote_error
from pythiageo.series.architecture import context_of
from pythiageo.series.kinds import NOT_CAUSAL

_POSITIONS = 8
_RELATIVE = 2e-5
"""Of the median size of a layer's states: what reordered sums may move, such as those of experts that are given other
numbers of tokens. Encoders with freshly drawn weights move by 250 times as much, all decoders that were tried by 0."""
_ROUNDING = 64 * torch.finfo(torch.float32).eps
"""Of a state itself: a massive one is rounded more coarsely than the others."""
_UNFIT = (TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, NotImplementedError)


def check_causal(model: nn.Module, label: str) -> None:
    """Refuse a model in which another token moves the state at an earlier position, by more than rounding.

    One forward pass over three texts of a few random tokens: the second has others in its later half, the third
    another last one.

    Raises:
        CheckpointError: it does (status ``not-causal``), or it cannot be run on token ids alone.
    """
    positions = min(_POSITIONS, context_of(model.config) or _POSITIONS)
    half = positions // 2
    try:
        vocab = len(model.get_input_embeddings().weight)  # type: ignore[operator]
        if vocab < 2 or positions < 2:
            return
        for layer, states in enumerate(_states(model, _texts(vocab, positions, half))):
            if _moved(states[0, :half], states[1, :half]) or _moved(states[0, :-1], states[2, :-1]):
                raise CheckpointError(
                    f"{label}: this {type(model).__name__} sees later tokens (with another last token, states before "
                    f"it change at depth {layer}): its states and scores would not be those of a causal model",
                    NOT_CAUSAL,
                )
    except _UNFIT as error:
        kind = type(model).__name__
        raise CheckpointError(f"{label}: this {kind} cannot be run on token ids: {quote_error(error)}") from None


def _texts(vocab: int, positions: int, half: int) -> Int[Tensor, "text position"]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab, (3, positions), generator=generator)
    others = (ids[0] + torch.randint(1, vocab, (positions,), generator=generator)) % vocab
    ids[1:] = ids[0]
    ids[1, half:], ids[2, -1] = others[half:], others[-1]
    return ids


def _states(model: nn.Module, ids: Int[Tensor, "text position"]) -> Iterator[Float[Tensor, "text position width"]]:
    """Yield the states of every depth, then the logits."""
    known = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in known else {}
    with torch.inference_mode():
        found: Any = model(ids.to(next(model.parameters()).device), output_hidden_states=True, **options)
    yield from getattr(found, "hidden_states", None) or ()
    yield found.logits


def _moved(before: Float[Tensor, "position width"], after: Float[Tensor, "position width"]) -> bool:
    """Whether a state differs by more than rounding; NaN never does, and is told elsewhere."""
    bound = _RELATIVE * before.abs().median() + _ROUNDING * before.abs()
    return bool(((after - before).abs() > bound).any())
