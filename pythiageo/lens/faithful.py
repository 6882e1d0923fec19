"""Whether TransformerLens computes what the model itself computes: its adapters rewrite parts of each architecture."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pythiageo.errors import CheckpointError

_TOKENS = 8
_LIMITS = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Greatest distance of a logit, as a share of the largest one. 46 architectures keep within 5e-7; a mistaken rotary
embedding was off by 2e-2."""
_HALF = 0.25
"""In half precision, whose rounding adds up over blocks: only a grossly other model is told."""


class TriedLogits:
    """The logits that ``model`` gives a few random tokens, before anything of it is rewritten."""

    def __init__(self, model: nn.Module) -> None:
        embedding = model.get_input_embeddings().weight  # type: ignore[operator]
        context = getattr(model.config, "max_position_embeddings", None) or _TOKENS
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, len(embedding), (1, min(_TOKENS, context)), generator=generator)
        self._kind = type(model).__name__
        with torch.inference_mode():
            self._expected = model(self.ids.to(embedding.device)).logits.float().cpu()

    def check(self, logits: Float[Tensor, "one token vocab"] | None, dtype: torch.dtype, label: str) -> None:
        """Compare the logits that TransformerLens gives the same tokens; NaN is told elsewhere, of both.

        Raises:
            CheckpointError: they are others.
        """
        assert logits is not None
        distance = float((logits.cpu() - self._expected).abs().max() / self._expected.abs().max().clamp_min(1e-30))
        if distance > _LIMITS.get(dtype, _HALF):
            raise CheckpointError(
                f"{label}: TransformerLens does not compute this {self._kind} as transformers does: logits differ by "
                f"{distance:.1g} of the largest, so no state of it is measured"
            )
