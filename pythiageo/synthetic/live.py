"""Reading a model while it trains: the same questions as the lens asks, answered by the model's own forward pass."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.names import FINAL_NORM
from pythiageo.no_value import NoValueError
from pythiageo.synthetic.trainable import Trainable


class LiveReader:
    """States and logits of a model in training, under TransformerLens' site names, without TransformerLens.

    Token ids come from the CPU; what is read stays where the model is.
    """

    def __init__(self, trainable: Trainable, layers: int) -> None:
        self._trainable = trainable
        self._layers = layers

    def sites(self) -> dict[str, int]:
        """Return every site with its layer: resid_post of each block, and the final LayerNorm's output."""
        sites = {f"blocks.{layer}.hook_resid_post": layer for layer in range(self._layers)}
        return {**sites, FINAL_NORM: self._layers - 1}

    def hooks(self) -> dict[str, str]:
        """Return the names of its sites: a model in training gives no others, its saved checkpoints do."""
        return {site: site for site in self.sites()}

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, "example position d_model"]], Float[Tensor, "example scored vocab"] | None]:
        """Run one forward pass over examples of equal length; see ``lens.BridgeReader.read``."""
        with torch.inference_mode():
            if not sites and logit_positions is not None and depths is None:
                scored = torch.zeros(ids.shape, dtype=torch.bool)
                scored[:, logit_positions] = True
                return {}, self._trainable.scored_logits(ids, scored).unflatten(0, (len(ids), -1))
            device = next(self._trainable.module.parameters()).device
            tree = [None if each is None else each.to(device) for each in (depths, visible)]
            stream = self._trainable.residual_stream(ids.to(device), *tree)
            normed = self._trainable.final_norm(stream[-1])
            everything = {f"blocks.{layer}.hook_resid_post": state for layer, state in enumerate(stream)}
            everything[FINAL_NORM] = normed
            logits = None
            if logit_positions is not None:
                logits = self._trainable.unembed(normed[:, logit_positions.to(device)])
        return {site: everything[site] for site in sites}, logits

    def attention_to_first(
        self, ids: Int[Tensor, "example position"], layers: list[int]
    ) -> dict[int, Float[Tensor, "example head"]]:
        """Raise ``NoValueError``: its attention keeps no pattern."""
        raise NoValueError("a model in training gives no attention patterns; analyze its checkpoints")
