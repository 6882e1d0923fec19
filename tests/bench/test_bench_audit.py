"""How often an audit by value is wrong: false alarms on sound series, and planted faults that it finds.

Series are walks that need no training, and tiny transformers that train: log-spaced and even checkpoints, a high
constant rate, decay to zero, spikes of the rate, stages with other data, soups. Figures are printed, not asserted.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch
from faults import FAULTS, Others, Series, cast, doubted
from trajectories import GRIDS, WALKS, train_every_kind, walk

pytestmark = pytest.mark.bench

SEEDS = int(os.environ.get("PYTHIAGEO_BENCH_SEEDS", "3"))
TRIES = int(os.environ.get("PYTHIAGEO_BENCH_TRIES", "3"))
TYPES = (torch.float32, torch.float16)


def walks() -> Iterator[tuple[str, Series, Others]]:
    for grid, steps in GRIDS.items():
        for kind, (drift, noise, pull) in WALKS.items():
            for number in range(TRIES):
                made = [walk(steps, torch.Generator().manual_seed(seed), drift, noise, pull, (48, 64)) for seed in
                        (number, number + 10_000)]  # fmt: skip
                yield f"walk: {kind}, {grid}", made[0], Others(made[1], None)


def trainings() -> Iterator[tuple[str, Series, Others]]:
    every = [train_every_kind(seed) for seed in range(SEEDS)]
    for seed, made in enumerate(every):
        other = every[(seed + 1) % SEEDS] if SEEDS > 1 else {}
        for kind, series in made.items():
            data = {"plain": made["data"], "data": made["plain"]}.get(kind)
            for thin in (1, 2, 3):
                steps = sorted(series)[::thin]
                few = [one and {step: one[step] for step in steps} for one in (series, other.get(kind), data)]
                yield f"training: {kind}, {len(steps)} steps", few[0], Others(few[1], few[2])


@pytest.mark.parametrize("source", [walks, trainings])
def test_false_alarms_and_power(source) -> None:
    alarms: dict[str, list[int]] = defaultdict(list)
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for kind, plain, others in source():
        for dtype in TYPES:
            series = cast(plain, dtype)
            away = Others(*(one and cast(one, dtype) for one in others))
            alarms[kind].append(len(doubted(series)))
            draw = torch.Generator().manual_seed(1 + (len(alarms[kind]) - 1) // len(TYPES))
            for name, fault in FAULTS.items():
                planted = fault(series, away, draw)
                if planted is not None:
                    told = doubted(planted.series)
                    group = f"{name} | {kind.split(',')[0]}"
                    found[group].append((bool(told & planted.wrong), told >= planted.wrong, len(told - planted.wrong)))
    print("\nsound series: kind, series, with an alarm, steps doubted")
    for kind, counts in alarms.items():
        print(f"  {kind:45s} {len(counts):4d} {sum(count > 0 for count in counts):4d} {sum(counts):4d}")
    print("planted: fault | kind, series, found, every wrong step named, sound steps doubted a series")
    for name, rows in sorted(found.items()):
        each = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        print(f"  {name:72s} {len(rows):4d} {each[0]:6.1%} {each[1]:6.1%} {each[2]:5.2f}")
