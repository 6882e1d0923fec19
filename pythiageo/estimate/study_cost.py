"""What the study costs on this machine: how long a step and a checkpoint's measures take, times how many there are."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from pythiageo.compute.device import resolve_device
from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.config.tables import LandscapeConfig
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import GeometryPlan, observe
from pythiageo.measurement.landscape import Landscape
from pythiageo.measurement.probe_loss import live_logits
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Prepared, choose_probes, prepare
from pythiageo.measurement.rows import Origin
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.runs.build_training import build_model, checkpoint_steps, make_trainer, resolve
from pythiageo.synthetic.live import LiveReader
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import Trainable

PROTOCOL = "billa-v4"
DEAR = ("gradient_rank", "gradient_covariance_rank", "hessian")
"""Of every task at every checkpoint; of nano the LLC too, as in the study."""


@dataclass(frozen=True)
class Price:
    """What one seed of one size takes, in seconds: a step, a checkpoint's cheap measures, and its expensive ones.

    On ``device``, with ``threads`` threads.

    ``cheap``: scores of 1,000 examples a task and level, and geometry of 200 a task under every readout. ``expensive``:
    gradient ranks, Hessian and (nano) LLC of 200 examples of every task; ``None`` where they were not timed. Both from
    a sample of the examples, and so at most: what examples share is less in a sample.
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


def cheapest(prices: list[Price]) -> list[Price]:
    """Return of each size the price with fewest hours."""
    sizes = dict.fromkeys(one.size for one in prices)
    return [min((one for one in prices if one.size == size), key=lambda one: one.hours) for size in sizes]


def price(sets: list[str], steps: int, sample: int, expensive: bool) -> Price:
    """Time a size on this machine: the median of ``steps`` optimiser steps, and measures of ``sample`` examples.

    ``sets`` (``key=value``) say which size, and how it is computed.

    Raises:
        UserError: no such size, or a GPU that is not there.
        MachineError: it does not fit into memory.
    """
    config = load_config(Path(f"{PROTOCOL}.toml"), sets, "train")
    assert isinstance(config, TrainConfig)
    config = resolve(config)
    size = config.model.size
    torch.set_num_threads(config.compute.thread_count)
    trainable, shape = build_model(config)
    trainer = make_trainer(config, trainable, shape, None)
    trainer.advance()
    spent = []
    for _ in range(steps):
        begun = time.perf_counter()
        trainer.advance()
        spent.append(time.perf_counter() - begun)
    reading = Reading.of(LiveReader(trainable, shape.layers), config.measures, config.compute)
    instruments = GeometryPlan.of(config.measures)
    origin = Origin("price", "price", config.regime, size, config.seed, 0, None, None)
    cheap = 0.0
    prepared = _sampled(config, sample)
    for probe in prepared:
        whole = config.probes.score_examples if probe.probe.purpose == SCORE else config.probes.geometry_examples
        begun = time.perf_counter()
        observe(reading, [probe], instruments, origin)
        cheap += (time.perf_counter() - begun) * whole / len(probe.encoded)
    seconds = _expensive(config, trainable, shape, sample) if expensive else None
    assert config.training.steps is not None
    return Price(
        size=size,
        device=resolve_device(config.compute.device),
        threads=config.compute.thread_count,
        steps=config.training.steps,
        checkpoints=len(checkpoint_steps(config)),
        step=statistics.median(spent),
        cheap=cheap,
        expensive=seconds,
    )


def _expensive(config: TrainConfig, trainable: Trainable, shape: Shape, sample: int) -> float:
    """Return seconds a checkpoint of the expensive measures: one task's, times the number of tasks.

    Gradients and Hessian products cost in proportion to the examples; the draws of the LLC do not, so it has them all.
    """
    logits = live_logits(trainable)

    def seconds(measures: tuple[str, ...], examples: int) -> float:
        settings = LandscapeConfig(measures=measures, steps="0", examples=examples, batch=max(1, examples // 2))
        geometry = [probe for probe in _sampled(config, examples) if probe.probe.purpose == GEOMETRY]
        landscape = Landscape.of(settings, [0], [probe.probe for probe in geometry])
        origin = Origin("price", "price", config.regime, config.model.size, config.seed, 0, None, None)
        begun = time.perf_counter()
        landscape.rows(trainable.module, logits, shape.layers, geometry[:1], origin, None, trainable.scored_logits)
        return (time.perf_counter() - begun) * len(geometry)

    whole = config.probes.geometry_examples
    found = seconds(DEAR, sample) * whole / sample
    return found + seconds(("llc",), whole) if config.model.size == "nano" else found


def _sampled(config: TrainConfig, sample: int) -> list[Prepared]:
    probes = config.probes.model_copy(update={"score_examples": sample, "geometry_examples": sample})
    return prepare(choose_probes(probes), CharacterTokenizer(), config.model.context)
