"""What a checkpoint will be, from its config alone: its parameters counted, and one of its blocks to try."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import nn

from pythiageo.errors import CheckpointError, quote_error
from pythiageo.series.architecture import build, context_of, read_config, settings_of

_JOINT = re.compile(r"\.(query_key_value|qkv_proj|c_attn|Wqkv|W_pack)\.")
"""Joint query, key and value matrices, by the names that architectures give them."""
FEW = 64
"""Rows of the trial block's vocabulary: embeddings are not what is tried."""


@dataclass(frozen=True)
class ModelShape:
    """A model's measures without its weights. ``parameters``: a tied one counts once; ``joint``: those in joint
    query, key and value matrices, of which TransformerLens makes copies."""

    architecture: str
    parameters: int
    joint: int
    layers: int
    heads: int
    d_model: int
    vocab: int
    context: int | None
    config: Any

    @classmethod
    def read(cls, folder: Path, label: str) -> ModelShape:
        """Read the config in ``folder`` and count on the meta device, where nothing is allocated.

        Raises:
            CheckpointError: no config, one that asks for remote code, or one that transformers cannot build.
        """
        shapes = read_config(folder, label)
        try:
            with torch.device("meta"):
                config = settings_of(shapes)
                model = build(config)
        except Exception as error:  # transformers raises many kinds on a config that does not fit
            raise CheckpointError(f"{label}: transformers cannot build this config: {quote_error(error)}") from None
        named = dict(model.named_parameters())
        return cls(
            architecture=type(model).__name__,
            parameters=sum(parameter.numel() for parameter in named.values()),
            joint=sum(parameter.numel() for name, parameter in named.items() if _JOINT.search(name)),
            layers=config.num_hidden_layers,
            heads=getattr(config, "num_attention_heads", None) or 0,
            d_model=config.hidden_size,
            vocab=config.vocab_size,
            context=context_of(config),
            config=config,
        )

    def one_block(self) -> nn.Module:
        """Return the model with one block; see ``with_blocks``."""
        return self.with_blocks(1)

    def with_blocks(self, count: int) -> nn.Module:
        """Return the model with a few blocks and a small vocabulary, with random weights, in evaluation mode.

        Raises:
            CheckpointError: the architecture cannot be cut like that, or it takes more memory than is free.
        """
        needed = 4 * count * (self.parameters - self.vocab * self.d_model) // max(1, self.layers)
        free = psutil.virtual_memory().available
        if needed > free:
            raise CheckpointError(
                f"{self.architecture}: the blocks to try take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are "
                f"free: it cannot be tried here"
            )
        config = copy.deepcopy(self.config)
        config.num_hidden_layers, config.vocab_size, config.pad_token_id = count, FEW, None
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:count]
        try:
            return build(config).float().eval().requires_grad_(False)
        except Exception as error:
            raise CheckpointError(
                f"{self.architecture}: cannot be tried with {count} of its blocks: {quote_error(error)}"
            ) from None
