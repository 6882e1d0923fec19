"""A model whose first position is massive and one of whose heads sinks into it, and texts for it: all of it planted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from pythiageo.probes import tokenizer
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import GPT2, write_checkpoint

WIDTH, HEADS, CONTEXT = 64, 4, 64
DIRECTION = 0
"""The dimension that the first position's embedding lies in; tokens have nothing there."""


def write_massive(root: Path, ratios: Iterable[int]) -> np.ndarray:
    """Write ``stepR`` for each R: states are token embeddings, the first position's R times as large; return those.

    Blocks add nothing. In block 0 head 0 attends to the first position alone, once that is massive; all other heads
    attend evenly. Token embeddings (token, width) have norm 1.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(tokenizer.VOCAB_SIZE, WIDTH, generator=generator) * torch.arange(1, WIDTH + 1) ** -0.25
    tokens[:, DIRECTION] = 0
    tokens[tokenizer.BOS] = 0  # so that all of the first position is its own
    tokens /= tokens.norm(dim=1, keepdim=True).clamp_min(1e-9)
    for ratio in ratios:
        trainable = GPT2(Shape(2, WIDTH, HEADS, 64, CONTEXT, tokenizer.VOCAB_SIZE, True), seed=0)
        decoder = trainable._decoder
        with torch.no_grad():
            decoder.wte.weight.copy_(tokens)
            decoder.wpe.weight.zero_()
            decoder.wpe.weight[0, DIRECTION] = ratio
            for block in decoder.ordered_blocks():
                for module in (block.attn.qkv, block.attn.proj, block.fc, block.proj):
                    module.weight.zero_()
                    module.bias.zero_()
            qkv = next(iter(decoder.ordered_blocks())).attn.qkv
            qkv.bias[0] = 100.0  # what head 0 asks for
            qkv.weight[WIDTH, DIRECTION] = 1.0  # and the first position has
        write_checkpoint(root / f"step{ratio}", trainable, ratio, tokens=ratio)
    return tokens.double().numpy()


def write_texts(folder: Path, name: str, lengths: Iterable[int], seed: int = 0) -> list[list[int]]:
    """Write a task of running texts of these lengths, ``[BOS]`` included; return the token ids that are fed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    letters = np.array(list(tokenizer.CHARACTERS[2:]))
    texts = ["".join(rng.choice(letters, length - 1)) for length in lengths]
    folder.mkdir(exist_ok=True)
    items = "\n".join(json.dumps({"text": text}) for text in texts)
    (folder / f"{name}.jsonl").write_text(items, encoding="utf-8")
    head = f'name = "{name}"\nversion = 1\nkind = "items"\nrule = "text"\ndescription = "letters"\nsource = "random"\n'
    (folder / f"{name}.toml").write_text(f'{head}\n[levels.L1]\nfile = "{name}.jsonl"\n', encoding="utf-8")
    return [[tokenizer.BOS, *tokenizer.encode(text)] for text in texts]
