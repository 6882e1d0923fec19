"""A training step against the usual loop: padded batches through ``GPT2LMHeadModel``, cross-entropy, AdamW.

Both sides take the same examples, rates and clipping, from the same weights, on one thread, step by step in turns;
their first losses are asserted to be equal. Times are printed, not asserted.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

from pythiageo.config.runs import TrainConfig, make_config
from pythiageo.runs.build_training import build_model, make_trainer, resolve
from pythiageo.synthetic.batches import IGNORED, Batches
from pythiageo.synthetic.trainable import write_checkpoint
from pythiageo.synthetic.trainer import Optimiser, Schedule, Trainer

pytestmark = pytest.mark.bench
SIZES = os.environ.get("PYTHIAGEO_BENCH_SIZES", "nano,micro").split(",")
STEPS = int(os.environ.get("PYTHIAGEO_BENCH_STEPS", "100"))
EQUAL = 1e-5


def usual_loop(folder: Path, batches: Batches, schedule: Schedule, settings: Optimiser) -> Callable[[int], float]:
    """What people write: the batch padded whole, logits everywhere, two parameter groups, one backward pass."""
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).train()
    # biases that our model lacks are zeros there, and stay so
    named = [(name, p) for name, p in model.named_parameters() if not name.endswith(".bias")]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith(".bias"))
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas)

    def step(number: int) -> float:
        batch = batches(number)
        for group in adamw.param_groups:
            group["lr"] = schedule.lr(number)
        adamw.zero_grad(set_to_none=True)
        logits = model(batch.ids).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], settings.clip)
        adamw.step()
        return float(loss.detach())

    return step


def ours_and_theirs(size: str, folder: Path) -> tuple[Trainer, Callable[[int], float]]:
    config = make_config(
        {"name": "bench", "regime": "task-aligned", "model": {"size": size}, "data": {"source": "tasks"}},
        [],
        "train",
        "bench",
    )
    assert isinstance(config, TrainConfig)
    config = resolve(config)
    trainable, shape = build_model(config)
    trainer = make_trainer(config, trainable, shape, None)
    write_checkpoint(folder, trainable, 0, 0)
    return trainer, usual_loop(folder, trainer.batches, trainer.schedule, trainer.settings)


@pytest.mark.parametrize("size", SIZES)
def test_training_step(size: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    trainer, theirs = ours_and_theirs(size, tmp_path / "step0")
    spent: dict[str, list[float]] = {name: [] for name in ("ours", "usual", "examples")}
    worst = 0.0
    for number in range(STEPS):
        begun = time.process_time()
        trainer.batches(number)
        spent["examples"].append(time.process_time() - begun)
        begun = time.process_time()
        trainer.advance()
        spent["ours"].append(time.process_time() - begun)
        begun = time.process_time()
        loss = theirs(number)
        spent["usual"].append(time.process_time() - begun)
        worst = max(worst, abs(loss - trainer.loss))
    assert worst <= EQUAL
    ratios = [usual / ours for usual, ours in zip(spent["usual"], spent["ours"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = {name: f"{1000 * statistics.median(values):.1f} ms" for name, values in spent.items()}
    print(f"\n{size}: {medians} of CPU time a step, {STEPS} steps in turns; losses differ by {worst:.1e} at most")
    print(f"{size}: usual / ours {middle:.2f}, quartiles [{low:.2f}, {high:.2f}]")
    share = statistics.median(spent["examples"]) / statistics.median(spent["ours"])
    print(f"{size}: drawing examples is {share:.1%} of a step")
