"""A small random GPT-NeoX with its tokenizer, as somebody else's code would hold it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from pythiageo.probes import tokenizer

FEW = {"probes.score_examples": 8, "probes.geometry_examples": 12}


def neox(seed: int = 0, dropout: float = 0.0) -> GPTNeoXForCausalLM:
    """A model of two layers in training mode."""
    torch.manual_seed(seed)
    settings = GPTNeoXConfig(
        vocab_size=41, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=48, hidden_dropout=dropout, attention_dropout=dropout,
    )  # fmt: skip
    return GPTNeoXForCausalLM(settings).train()


def characters(folder: Path) -> PreTrainedTokenizerFast:
    """The synthetic models' tokenizer, written to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)
