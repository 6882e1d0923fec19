"""One random checkpoint and a task of running texts, for what is measured of texts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythiageo.probes import tokenizer

TASK = (
    'name = "texts"\nversion = 1\nkind = "items"\nrule = "text"\ndescription = "x"\nsource = "own"\n'
    '[levels.L1]\nfile = "texts.jsonl"\n'
)


def write_text_series(root: Path, width: int, texts: int) -> Path:
    """Write ``series/step7``, a GPT-NeoX of two blocks, and a task of texts of 5 to 41 characters; return ``root``."""
    torch.manual_seed(3)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=41, hidden_size=width, num_hidden_layers=2, num_attention_heads=4,
                      intermediate_size=2 * width, max_position_embeddings=64)
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    model.save_pretrained(root / "series" / "step7")
    tokenizer.save(root / "series" / "step7")
    draw = random.Random(0)
    drawn = ["".join(draw.choices("ABCDEFGHIJ 0123456789", k=draw.randint(4, 40))).strip() + "A" for _ in range(texts)]
    (root / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in drawn))
    (root / "texts.toml").write_text(TASK)
    return root


def read_texts(root: Path) -> list[str]:
    """Return the texts, in order."""
    return [json.loads(line)["text"] for line in (root / "texts.jsonl").read_text().splitlines()]
