"""Tables whose truth is known: noise, in which no claim holds, and planted truth, in which every claim does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pythiageo.names import BLOCK_END, FINAL_NORM, READOUT
from pythiageo.observations.schema import COLUMNS
from pythiageo.study.tasks import EASY, TASKS

WALK, REVERTING, JUMPS, TREND, DEPTH, ALIKE = (
    "random walks", "mean-reverting", "jumps", "common trend", "alike by depth", "alike in every run",
)  # fmt: skip
PROCESSES = (WALK, REVERTING, JUMPS, TREND, DEPTH, ALIKE)
"""How a quantity moves by itself: steps of a walk; pulled back to its start; one jump to anywhere; a fall and a rise
that all tasks, blocks and runs share, with noise; walks of neighbouring blocks, and of all tasks, that are related; a
walk of each task that comes back, nearly alike, in every run."""
STEPS = (*range(0, 201, 25), *range(300, 1001, 100), *range(1500, 10_001, 500), 12_000, 14_000)
PROBES = ("linear_probe", "linear_probe_model", "linear_probe_answer", "linear_probe_answer_model")
START = 20.0


@dataclass(frozen=True)
class OneRun:
    """A run to be filled: who it is, its checkpoints, its blocks."""

    run: str
    series: str
    regime: str
    size: str
    seed: int | None
    steps: tuple[int, ...]
    layers: int


@dataclass(frozen=True)
class Design:
    """What a table has: its runs, tasks and levels, and the measure and readout of its ranks."""

    runs: tuple[OneRun, ...]
    tasks: tuple[str, ...] = TASKS
    levels: tuple[str | None, ...] = ("L1",)
    measure: str = "covariance_effective_rank"
    readout: str = READOUT


@dataclass(frozen=True)
class Curves:
    """Values of one run: ``ability`` (task, level, step) and ``probe`` (task, step), shares between 0 and 1; ``rank``
    (task, site, step), the last site the final LayerNorm."""

    ability: np.ndarray
    probe: np.ndarray
    rank: np.ndarray


def design(seeds: int, sizes: int, steps: tuple[int, ...] = STEPS) -> Design:
    """Return the study's tasks in ``seeds`` runs of each of ``sizes`` sizes, of 4, 6 and 8 blocks."""
    names = ("micro", "small", "medium")
    return Design(
        tuple(
            OneRun(f"{name}-{seed}", f"{name}-{seed}", "task-aligned", name, seed, steps, 4 + 2 * index)
            for index, name in enumerate(names[:sizes])
            for seed in range(seeds)
        )
    )


def noise_table(process: str, asked: Design, rng: np.random.Generator) -> pl.DataFrame:
    """Return a table in which nothing is related to anything: ranks, scores, blocks, tasks and runs.

    The probe reads what the model knows, no more: both have the same expectation. Under ``ALIKE`` tasks differ, in the
    same way in every run; which differ how has to do with nothing else.
    """
    shared = np.random.default_rng(rng.integers(2**63))
    state = shared.bit_generator.state
    parts = []
    for run in asked.runs:
        shared.bit_generator.state = state  # what comes back in every run
        parts.append(_rows(run, asked, _noise(process, run, asked, rng, shared), rng))
    return pl.concat(parts)


def _noise(process: str, run: OneRun, asked: Design, rng: np.random.Generator, shared: np.random.Generator) -> Curves:
    tasks, points = len(asked.tasks), len(run.steps)
    draw = MOVES[process]
    able = draw(rng, shared, (tasks, len(asked.levels), points))
    # the sites' own draws come last: a deeper run shares those of its first blocks alone
    rank = np.stack([draw(rng, shared, (tasks, points)) for _ in range(run.layers + 1)], axis=1)
    if process == DEPTH:
        rank = _along_depth(0.8 * rank.mean(axis=0, keepdims=True) * np.sqrt(tasks) + 0.6 * rank)
    if process == JUMPS:
        late = rng.integers(1, points + points // 3, (tasks, len(asked.levels), 1))
        ability = np.where(np.arange(points) >= late, 0.93, 0.03)
    elif process == TREND:
        middle = points * rng.uniform(0.35, 0.65)
        ability = _share(6 * (np.arange(points) - middle) / points + 1.2 * able)
        rank += np.log(_fall(points))
    else:
        ability = _share((3.0 if process == REVERTING else 4.0) * able - (0.4 if process == REVERTING else 1.0))
    return Curves(ability, ability.mean(axis=1), START * np.exp(0.5 * rank))


def _along_depth(rank: np.ndarray, keep: float = 0.9) -> np.ndarray:
    """Return walks of which neighbouring sites' (axis 1) have a correlation of ``keep``, none wider than another."""
    result = rank.copy()
    for site in range(1, rank.shape[1]):
        result[:, site] = keep * result[:, site - 1] + np.sqrt(1 - keep**2) * rank[:, site]
    return result


def _walk(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    moves = rng.normal(size=shape)
    moves[..., 0] = 0
    return moves.cumsum(axis=-1) / np.sqrt(shape[-1])


def _revert(rng: np.random.Generator, shape: tuple[int, ...], keep: float = 0.6) -> np.ndarray:
    moves = rng.normal(size=shape) * np.sqrt(1 - keep**2)
    result = np.empty(shape)
    result[..., 0] = rng.normal(size=shape[:-1])
    for at in range(1, shape[-1]):
        result[..., at] = keep * result[..., at - 1] + moves[..., at]
    return 0.5 * result


def _jump(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    at = rng.integers(1, shape[-1], (*shape[:-1], 1))
    return rng.normal(size=at.shape) * (np.arange(shape[-1]) >= at) + 0.05 * rng.normal(size=shape)


MOVES: dict[str, Callable[[np.random.Generator, np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    WALK: lambda rng, shared, shape: _walk(rng, shape),
    REVERTING: lambda rng, shared, shape: _revert(rng, shape),
    JUMPS: lambda rng, shared, shape: _jump(rng, shape),
    TREND: lambda rng, shared, shape: 0.3 * _revert(rng, shape),
    DEPTH: lambda rng, shared, shape: _walk(rng, shape),
    ALIKE: lambda rng, shared, shape: _walk(shared, shape) + 0.2 * _walk(rng, shape),
}


def _share(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def _fall(points: int) -> np.ndarray:
    """Return a fall to a fifth at a third of the way, and a rise to two thirds."""
    at = np.arange(points) / (points - 1)
    return np.where(at < 1 / 3, 1 - 2.4 * at, 0.2 + 0.7 * (at - 1 / 3))


def true_table(asked: Design, rng: np.random.Generator) -> pl.DataFrame:
    """Return a table in which every claim holds, with noise.

    Easy tasks are acquired first, each six checkpoints after its own floor, the lower floor the earlier; sizes differ
    by some checkpoints for each task, and floors follow; later blocks fall earlier and deeper, the last one stays down;
    the probe is right in a tenth more; seeds differ by half a checkpoint.
    """
    easy = np.array([task in EASY["billa-v4"] for task in asked.tasks])
    place = np.where(easy, rng.uniform(10, 19, easy.size), rng.uniform(20, 28, easy.size))
    of_size = {size: rng.normal(0, 1.5, easy.size) for size in sorted({run.size for run in asked.runs})}
    parts = []
    for run in asked.runs:
        late = place + of_size[run.size] + rng.normal(0, 0.4, easy.size)
        parts.append(_rows(run, asked, _truth(run, asked, late, rng), rng))
    return pl.concat(parts)


def _truth(run: OneRun, asked: Design, late: np.ndarray, rng: np.random.Generator) -> Curves:
    points, tasks = len(run.steps), len(asked.tasks)
    at = np.arange(points)
    ability = _share(2.5 * (at - late[:, None, None] + rng.normal(0, 0.4, (tasks, len(asked.levels), 1))))
    ability = 0.03 + 0.9 * ability
    depth = np.append(np.arange(run.layers) / (run.layers - 1), 1.0)[None, :]
    bottom = (late[:, None] - 6) + 3.5 * (1 - depth) + rng.normal(0, 0.5, (tasks, run.layers + 1))
    low = np.log((0.12 + 0.008 * late[:, None]) * (2 - depth)) + rng.normal(0, 0.03, bottom.shape)
    end = low * np.where(depth == 1, 0.85, 0.35)
    rise = np.clip((at - bottom[:, :, None]) / (points - bottom[:, :, None]), 0, 1)
    rank = np.where(
        at < bottom[:, :, None],
        low[:, :, None] * at / bottom[:, :, None],
        low[:, :, None] + (end - low)[:, :, None] * rise,
    )
    probe = np.minimum(ability.mean(axis=1) + 0.1 + rng.normal(0, 0.03, (tasks, 1)), 1)
    return Curves(ability, probe, START * np.exp(rank + 0.01 * rng.normal(size=rank.shape)))


def _rows(run: OneRun, asked: Design, curves: Curves, rng: np.random.Generator, examples: int = 200) -> pl.DataFrame:
    """Return one run's rows: scores of ``examples`` examples with chance, ranks, and the linear probe's shares."""
    tasks, levels, points = curves.ability.shape
    sites = [*(f"blocks.{layer}{BLOCK_END}" for layer in range(run.layers)), FINAL_NORM]
    right = rng.binomial(examples, np.clip(curves.ability, 0, 1)) / examples
    log_prob = -3 * (1 - curves.ability) + 0.02 * rng.normal(size=curves.ability.shape)
    scores = {"accuracy": right, "log_prob": log_prob}
    scores |= {name: np.full_like(right, share) for name, share in (("chance_accuracy", 0.05), ("majority_rate", 0.05))}
    known = curves.ability.mean(axis=1)
    shares = dict(zip(PROBES, (curves.probe, known, curves.probe, known), strict=True))
    steps = np.array(run.steps)
    names = np.array(asked.tasks)
    block = np.arange(tasks)
    parts = [
        _part(steps, names[block.repeat(levels)], np.tile(np.array(asked.levels, dtype=object), tasks), measure,
              values.reshape(-1, points))
        for measure, values in scores.items()
    ]  # fmt: skip
    of_site = block.repeat(len(sites))
    layer = np.tile([*range(run.layers), run.layers - 1], tasks)
    parts.append(
        _part(steps, names[of_site], np.array("mixed"), asked.measure, curves.rank.reshape(-1, points), layer=layer,
              site=np.tile(sites, tasks), readout=np.array(asked.readout))
    )  # fmt: skip
    for measure, values in shares.items():
        seen = rng.binomial(examples // 5, np.clip(values, 0, 1)) / (examples // 5)
        place: dict[str, Any] = {}
        if not measure.endswith("_model"):
            place = {"layer": np.array(run.layers - 1), "site": np.array(sites[-2]), "readout": np.array("answer")}
        parts.append(_part(steps, names, np.array("mixed"), measure, seen, **place))
    same: dict[str, Any] = {name: getattr(run, name) for name in ("run", "series", "regime", "size", "seed")}
    same |= {"probe_set": "of noise", "n": examples, "status": "ok"}
    table = pl.concat(parts, how="diagonal").with_columns(pl.lit(value).alias(name) for name, value in same.items())
    table = table.with_columns(pl.format("{}-{}", "run", "step").alias("weight_sha"))
    lacking = [pl.lit(None).alias(name) for name in COLUMNS if name not in table.columns]
    return table.with_columns(lacking).select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def _part(
    steps: np.ndarray, task: np.ndarray, level: np.ndarray, measure: str, values: np.ndarray, **place: np.ndarray
) -> pl.DataFrame:
    """Return the rows of curves ``(curves, steps)``; what names a curve is one for all, or one a curve."""
    curves, points = values.shape
    columns = {"task": task, "level": level, "measure": np.array(measure), **place}
    frame = {name: np.broadcast_to(each, curves).repeat(points) for name, each in columns.items()}
    return pl.DataFrame(frame | {"step": np.tile(steps, curves), "value": values.ravel()}, strict=False)


def limit_table(asked: Design, rng: np.random.Generator, vary: float = 0.2, between: float = 0.1) -> pl.DataFrame:
    """Return a table in which claims that things are alike are false by nothing at all.

    The coefficient of variation of a task's floor over sizes is ``vary`` in the median task, and ``between`` of the
    variance of log(1 + acquisition step) is that of seeds.
    """
    tasks, points = len(asked.tasks), len(asked.runs[0].steps)
    sizes = sorted({run.size for run in asked.runs})
    spread = rng.normal(size=(tasks, len(sizes)))
    spread -= spread.mean(axis=1, keepdims=True)
    spread /= spread.std(axis=1, keepdims=True) if len(sizes) > 1 else 1
    cv = vary * np.exp(0.5 * rng.normal(size=(tasks, 1)))
    floor = rng.uniform(3, 6, (tasks, 1)) * (1 + np.minimum(cv, 0.6) * spread)
    easiness = rng.normal(0, np.sqrt(1 - between), tasks)
    parts = []
    for run in asked.runs:
        log_step = np.log(1500) + 0.5 * (easiness + rng.normal(0, np.sqrt(between), tasks))
        steps = np.array(run.steps)
        ability = 0.03 + 0.9 * (steps >= np.exp(log_step)[:, None, None]).repeat(len(asked.levels), axis=1)
        fall = np.log(floor[:, sizes.index(run.size)] / START)[:, None, None]
        at = np.arange(points) / points
        shape = np.where(at < 0.15, at / 0.15, 1 - 0.5 * (at - 0.15))
        rank = fall * shape + 0.02 * rng.normal(size=(tasks, run.layers + 1, points))
        parts.append(_rows(run, asked, Curves(ability, ability.mean(axis=1), START * np.exp(rank)), rng))
    return pl.concat(parts)
