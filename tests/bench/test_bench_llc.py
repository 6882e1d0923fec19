"""The LLC against devinterp and canonical-interp: the same number within error, and draws a second.

Neither is a dependency: ``pip install devinterp canonical-interp`` beside the pinned torch, then ``make bench``.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from landscapes import IGNORED, nano
from torch import Tensor

from pythiageo.landscape.llc import LLC, Settings, llc
from pythiageo.landscape.problem import Problem
from pythiageo.measurement.probe_loss import shared_problem_of
from pythiageo.probes.encoding import CharacterTokenizer, Encoded, encode_probe_set
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import MIXED, load_tasks
from pythiageo.study.tasks import TASKS

pytestmark = pytest.mark.bench
PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "9"))
EXAMPLES, BATCH, CHAINS = 192, 32, 12
STEP, GAMMA, N_BETA = 1e-5, 1e4, EXAMPLES / math.log(EXAMPLES)


def examples() -> list[Encoded]:
    """The study's mixture: the eight tasks in equal parts."""
    tasks = load_tasks(None)
    sets = [make_probe_set(tasks[name], MIXED, EXAMPLES // len(TASKS), 0) for name in TASKS]
    return [example for one in sets for example in encode_probe_set(one, CharacterTokenizer())]


def mixture(model: torch.nn.Module) -> Problem:
    return shared_problem_of(model, model.scored_logits, examples())  # type: ignore[arg-type]


def trained(steps: int = 150) -> torch.nn.Module:
    """Nano, a little trained on the tasks: an estimate at random weights would be all slope."""
    model = nano()
    problem = mixture(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        (sum(problem.piece_sum(piece) for piece in problem.pieces) / EXAMPLES).backward()  # type: ignore[union-attr]
        optimiser.step()
    return model.eval().requires_grad_(True)


def padded() -> tuple[Tensor, Tensor]:
    """All examples as the peers take them: one width, ids and targets."""
    encoded = examples()
    width = max(len(example.ids) for example in encoded)
    ids, targets = torch.zeros(len(encoded), width, dtype=torch.long), torch.full((len(encoded), width), IGNORED)
    for row, example in enumerate(encoded):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        targets[row, list(example.answer_positions)] = torch.tensor(example.targets)
    return ids, targets


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Each example's mean over its answer tokens, as in ``task_problem``."""
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return each.view(targets.shape).sum(1) / (targets != IGNORED).sum(1)


def ours(problem: Problem, draws: int, chains: int, seed: int) -> LLC:
    settings = Settings(gamma=GAMMA, step=STEP, n_beta=N_BETA, draws=draws, burn_in=0, chains=chains, batch=BATCH,
                        baseline="full-batch")  # fmt: skip
    found = llc(problem, settings, seed)
    assert isinstance(found, LLC)
    return found


def devinterps(model: torch.nn.Module, draws: int, chains: int, seed: int) -> Any:
    peer = pytest.importorskip("devinterp.slt.llc", reason="devinterp is no dependency: install it to compare")
    from datasets import Dataset

    ids, targets = padded()
    width = ids.shape[1]
    # one column is all its data set has: ids and targets side by side, targets moved to be token numbers
    data = Dataset.from_dict({"input_ids": torch.cat([ids, targets - IGNORED], 1).tolist()}).with_format("torch")

    def loss(module: torch.nn.Module, both: Tensor) -> Tensor:
        losses = mean_loss(module(both[:, :width]), both[:, width:] + IGNORED)
        return losses[:, None].expand(-1, both.shape[1] - 1)

    return peer.llc(model, data, {}, lr=STEP, n_beta=N_BETA, localization=GAMMA, num_chains=chains, num_draws=draws,
                    batch_size=BATCH, num_burnin_steps=0, num_init_loss_batches=30, init_seed=seed,
                    match_sampling_input_ids_across_chains=False, loss_fn=loss,
                    device="cpu")  # fmt: skip


def error_of(per_chain: list[float]) -> float:
    return statistics.stdev(per_chain) / math.sqrt(len(per_chain))


def report(own: list[float], theirs: list[float], name: str) -> None:
    """Print both, and hold them to four standard errors of their difference."""
    error = math.hypot(error_of(own), error_of(theirs))
    apart = (statistics.mean(own) - statistics.mean(theirs)) / error
    shown = (f"{statistics.mean(values):.3f} +- {error_of(values):.3f}" for values in (own, theirs))
    print(f"\nours, {name}: {', '.join(shown)}: {apart:+.1f} standard errors apart")
    assert abs(apart) < 4


def test_agreement_with_devinterp_and_draws_a_second() -> None:
    model = trained()
    problem = mixture(model)
    mine = ours(problem, 150, CHAINS, 0)
    peer = devinterps(model, 150, CHAINS, 0)
    theirs = [float(value) for value in peer["llc_per_chain"]]
    own = [value for value in mine.per_chain if value is not None]
    report(own, theirs, "devinterp")
    draws, wall, cpu = 60, [], []
    for seed in range(PAIRS):
        spent: dict[str, tuple[float, float]] = {}
        for name, run in (("ours", lambda: ours(problem, draws, 1, seed)),  # noqa: B023
                          ("devinterp", lambda: devinterps(model, draws, 1, seed))):  # noqa: B023  # fmt: skip
            begun = time.perf_counter(), time.process_time()
            run()
            spent[name] = time.perf_counter() - begun[0], time.process_time() - begun[1]
        wall.append(spent["devinterp"][0] / spent["ours"][0])
        cpu.append(spent["devinterp"][1] / spent["ours"][1])
    for unit, ratios in (("wall", wall), ("cpu", cpu)):
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"devinterp / ours, {draws} draws, {PAIRS} pairs, {unit}: {middle:.2f} [{low:.2f}, {high:.2f}]")


def test_agreement_with_canonical_interp() -> None:
    if not hasattr(itertools, "batched"):  # it says it runs on Python 3.10, and needs 3.12

        def batched(items: Any, size: int) -> Iterator[tuple[Any, ...]]:
            waiting = iter(items)
            while part := tuple(itertools.islice(waiting, size)):
                yield part

        itertools.batched = batched  # type: ignore[attr-defined]
    peer = pytest.importorskip("canonical_interp", reason="canonical-interp is no dependency: install it to compare")
    model = trained()
    problem = mixture(model)
    ids, targets = padded()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(ids, targets), batch_size=BATCH, shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    estimator = peer.LLCEstimator(draws=150, chains=1, burnin_steps=0, steps_bw_draws=1, learning_rate=STEP,
                                  localization=GAMMA, nbeta=N_BETA)  # fmt: skip

    def one(seed: int) -> float:
        found = estimator.estimate_llc(
            model, loader, lambda logits, wanted: mean_loss(logits, wanted).mean(), seed=seed, compile=False,
            show_progress=False,
        )  # fmt: skip
        return float(torch.as_tensor(found).mean())

    theirs = [one(seed) for seed in range(CHAINS)]
    own = [value for value in ours(problem, 150, CHAINS, 0).per_chain if value is not None]
    report(own, theirs, "canonical-interp")
