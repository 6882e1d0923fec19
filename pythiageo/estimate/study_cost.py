"""What the study costs on this machine: how long a step and a checkpoint's measures take, times how many there are."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from pythiageo.compute.device import resolve_device, wait_for_device
from pythiageo.config.landscape import LandscapeConfig
from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.estimate.timer import scale, time_items
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_loss import live_logits
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Prepared, choose_probes, prepare
from pythiageo.measurement.result import Origin
from pythiageo.measurement.task_forest import grow
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.runs.build_training import build_model, checkpoint_steps, make_trainer, resolve
from pythiageo.synthetic.live import LiveReader
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import Trainable

PROTOCOL = "billa-v4"
EXPENSIVE = ("gradient_rank", "gradient_covariance_rank", "hessian")
"""Of every task at every checkpoint; of nano the LLC too, as in the study."""


@dataclass(frozen=True)
class Price:
    """What one seed of one size takes, in seconds: a step, a checkpoint's cheap measures, and its expensive ones.

    On ``device``, with ``threads`` threads.

    ``cheap``: scores of 1,000 examples a task and level, and geometry of 200 a task under every readout. ``expensive``:
    gradient ranks, Hessian and (nano) LLC of 200 examples of every task; ``None`` where they were not timed. On the CPU
    both from a sample of the examples, and so at most: what examples share is less in a sample.
    """

    size: str
    device: str
    threads: int
    steps: int
    checkpoints: int
    step: float
    cheap: float
    expensive: float | None

    @property
    def parts(self) -> tuple[float, float, float]:
        """Hours of training, of cheap measures and of expensive ones."""
        cheap, expensive = (self.checkpoints * seconds / 3600 for seconds in (self.cheap, self.expensive or 0.0))
        return self.steps * self.step / 3600, cheap, expensive

    @property
    def hours(self) -> float:
        """Hours altogether."""
        return sum(self.parts)


def find_cheapest(prices: list[Price]) -> list[Price]:
    """Return of each size the price with fewest hours."""
    sizes = dict.fromkeys(one.size for one in prices)
    return [min((one for one in prices if one.size == size), key=lambda one: one.hours) for size in sizes]


def time_size(sets: list[str], steps: int, sample: int, expensive: bool) -> Price:
    """Time a size on this machine: the median of ``steps`` optimiser steps, and measures of ``sample`` examples.

    ``sets`` (``key=value``) say which size, and how it is computed.

    Raises:
        UserError: no such size, or a GPU that is not there.
        MachineError: it does not fit into memory.
    """
    config = _load(sets)
    size = config.model.size
    device = resolve_device(config.compute.device)
    trainable, shape, step = _time_step(config, steps)
    plan = GeometryPlan.of(config.measures)
    origin = Origin("price", "price", config.regime, size, config.seed, 0, None, None)
    whole = {SCORE: config.probes.score_examples, GEOMETRY: config.probes.geometry_examples}

    def read(probes: list[Prepared]) -> None:
        reader = LiveReader(trainable, shape.layers)
        observe(Reading.of(reader, config.measures, config.compute, grow(probes, False)), probes, plan, origin)

    if device == "cpu":
        timed = time_items(_sample(config, sample), lambda probe: read([probe]), math.inf)
        cheap = sum(seconds * whole[probe.probe.purpose] / len(probe.encoded) for probe, seconds in timed)
    else:  # it takes hardly longer for all examples than for a few
        probes = prepare(choose_probes(config.probes), CharacterTokenizer(), config.model.context)
        read(_sample(config, sample))
        cheap = time_items([probes], read, math.inf)[0][1]
    seconds = _time_expensive(config, trainable, shape, sample) if expensive else None
    assert config.training.steps is not None
    return Price(
        size=size,
        device=device,
        threads=config.compute.thread_count,
        steps=config.training.steps,
        checkpoints=len(checkpoint_steps(config)),
        step=step,
        cheap=cheap,
        expensive=seconds,
    )


def time_step(sets: list[str], steps: int) -> float:
    """Return the median seconds of an optimiser step alone; see ``time_size``."""
    return _time_step(_load(sets), steps)[-1]


def _load(sets: list[str]) -> TrainConfig:
    config = load_config(Path(f"{PROTOCOL}.toml"), sets, "train")
    assert isinstance(config, TrainConfig)
    return resolve(config)


def _time_step(config: TrainConfig, steps: int) -> tuple[Trainable, Shape, float]:
    """Return a model, its shape, and the median seconds of an optimiser step.

    A GPU is waited for after several of them, not after each: a training does not wait for it either.
    """
    torch.set_num_threads(config.compute.thread_count)
    trainable, shape = build_model(config)
    trainer, device = make_trainer(config, trainable, shape, None), resolve_device(config.compute.device)
    together = 1 if device == "cpu" else min(10, steps)

    def advance(_: int) -> None:
        for _ in range(together):
            trainer.advance()
        wait_for_device(device)

    timed = time_items(range(max(1, steps // together)), advance, math.inf, warm_up=True)
    return trainable, shape, statistics.median(seconds for _, seconds in timed) / together


def _time_expensive(config: TrainConfig, trainable: Trainable, shape: Shape, sample: int) -> float:
    """Return seconds a checkpoint of the expensive measures: one task's, times the number of tasks.

    Gradients and Hessian products cost in proportion to the examples; the draws of the LLC do not, so it has them all.
    """
    logits = live_logits(trainable)

    def seconds(measures: tuple[str, ...], examples: int) -> float:
        settings = LandscapeConfig(measures=measures, steps="0", examples=examples, batch=max(1, examples // 2))
        geometry = [probe for probe in _sample(config, examples) if probe.probe.purpose == GEOMETRY]
        landscape = Landscape.of(settings, [0], [probe.probe for probe in geometry])
        origin = Origin("price", "price", config.regime, config.model.size, config.seed, 0, None, None)

        def measure(probe: Prepared) -> None:
            landscape.rows(trainable.module, logits, shape.layers, [probe], origin, None, trainable.scored_logits)

        return scale(time_items(geometry[:1], measure), lambda _: 1, len(geometry))

    whole = config.probes.geometry_examples
    found = seconds(EXPENSIVE, sample) * whole / sample
    return found + seconds(("llc",), whole) if config.model.size == "nano" else found


def _sample(config: TrainConfig, sample: int) -> list[Prepared]:
    probes = config.probes.model_copy(update={"score_examples": sample, "geometry_examples": sample})
    return prepare(choose_probes(probes), CharacterTokenizer(), config.model.context)
