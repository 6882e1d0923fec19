"""A folder of tiny Pythia-architecture checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint


def write_series(root: Path, steps: Iterable[int], seed: int = 0) -> Path:
    """Write ``stepN`` for each step, every one with weights of its own, other ones a seed; return ``root``."""
    for step in steps:
        trainable = ARCHITECTURES["gpt_neox"](Shape(2, 64, 4, 256, 48, 41, True), seed=step + 1_000_000 * seed)
        write_checkpoint(root / f"step{step}", trainable, step, tokens=step)
    return root
