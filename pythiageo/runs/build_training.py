"""From a training config to what it trains: shape, model, batches, schedule."""

from __future__ import annotations

import hashlib
import json

from pythiageo.compute.device import count_cores, free_memory, make_repeatable, resolve_device
from pythiageo.config.runs import TrainConfig
from pythiageo.errors import MachineError, UserError, nearest
from pythiageo.measurement.probe_sets import choose_tasks
from pythiageo.probes.encoding import CharacterTokenizer, encode_probe_set
from pythiageo.probes.probeset import count_domain, make_probe_set
from pythiageo.probes.task import GeneratorTask
from pythiageo.probes.tokenizer import VOCAB_SIZE
from pythiageo.series.steps import select
from pythiageo.study.sizes import get_size
from pythiageo.synthetic.batches import Batches, TaskMix, mixed_batches, task_batches, text_batches
from pythiageo.synthetic.corpus import Corpus
from pythiageo.synthetic.exposure import Exposure, is_held_out
from pythiageo.synthetic.losses import lower_to_bfloat16
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.prefetch import Prefetched
from pythiageo.synthetic.recorded import Recording, padded_loss, record_cuda_graph
from pythiageo.synthetic.trainable import ARCHITECTURES, Trainable
from pythiageo.synthetic.trainer import Freeze, Optimiser, Schedule, Trainer, batch_loss
from pythiageo.synthetic.workers import ALONE, Workers

WIDE = 512
"""d_model from which on a training step gains by more threads than one: from medium on."""


def resolve(config: TrainConfig, at_once: int = 1) -> TrainConfig:
    """Fill in what the config leaves to the size, the study and the machine, so that the manifest says everything.

    ``at_once`` processes share the machine's cores.

    Raises:
        UserError: unknown size, task, level or step; a shape that does not fit.
    """
    size = get_size(config.model.size)
    d_model, heads = config.model.d_model or size.d_model, config.model.heads or size.heads
    neox = config.model.architecture == "gpt_neox"
    if d_model % heads or (neox and (d_model // heads) % 8):
        raise UserError(
            f"model: d_model {d_model} and heads {heads} do not fit: expected d_model divisible by heads"
            + (", into heads of a multiple of 8 (rotary on a quarter)" if neox else "")
        )
    model = config.model.model_copy(
        update={
            "layers": config.model.layers or size.layers,
            "d_model": d_model,
            "heads": heads,
            "d_ff": config.model.d_ff or size.d_ff,
        }
    )
    layers = model.layers or size.layers
    frozen = config.training.freeze_block
    if frozen is not None and not -layers <= frozen < layers:
        raise UserError(
            f"training.freeze_block: there is no block {frozen}: a model of {layers} has 0 to {layers - 1}, or -1 for "
            "the last"
        )
    steps = config.training.steps or size.steps
    training = config.training.model_copy(
        update={
            "steps": steps,
            "peak_lr": config.training.peak_lr or size.peak_lr,
            "stop": min(config.training.stop or steps, steps),
        }
    )
    threads = config.compute.threads or (1 if d_model < WIDE else max(1, count_cores() // at_once))
    compute = config.compute.model_copy(update={"threads": threads})
    return config.model_copy(update={"model": model, "training": training, "compute": compute})


def checkpoint_steps(config: TrainConfig) -> list[int]:
    """Return the steps at which a checkpoint is measured and saved; the last step is always among them."""
    assert config.training.stop is not None
    last = config.training.stop
    return select(f"{config.training.checkpoints},{last}", list(range(last + 1)), beyond="ignore")


def shape_of(config: TrainConfig) -> Shape:
    """Return the shape of a resolved config's model."""
    m = config.model
    assert m.layers is not None
    assert m.d_model is not None
    assert m.heads is not None
    assert m.d_ff is not None
    return Shape(m.layers, m.d_model, m.heads, m.d_ff, m.context, VOCAB_SIZE, m.bias, m.residual_scaling)


def build_model(config: TrainConfig) -> tuple[Trainable, Shape]:
    """Return the freshly initialised model of a resolved config, and its shape. Every device begins alike.

    Raises:
        MachineError: training it would take more memory than is free; nothing has been allocated then.
        UserError: a GPU that is not there.
    """
    shape, device = shape_of(config), check_fits(config)
    make_repeatable(device)
    trainable = new_model(config)
    trainable.module.to(device)
    return trainable, shape


def check_fits(config: TrainConfig) -> str:
    """Return the device that a resolved config's model is trained on here.

    Raises:
        MachineError: training it would take more memory than is free.
        UserError: a GPU that is not there.
    """
    shape, device = shape_of(config), resolve_device(config.compute.device)
    needed, free = training_memory(config, shape), free_memory(device)
    if needed > free:
        raise MachineError(
            f"{config.name}: training a model of size {config.model.size} takes about {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free on {device}: take a smaller size, or a smaller training.batch_size"
        )
    return device


def new_model(config: TrainConfig) -> Trainable:
    """Return the freshly initialised model of a resolved config, on the CPU."""
    return ARCHITECTURES[config.model.architecture](shape_of(config), config.seed)


def training_memory(config: TrainConfig, shape: Shape) -> int:
    """Return about how many bytes training takes: weights, gradient and two moments, and what the backward pass keeps.

    A block keeps some 8 vectors of d_model and 2 of d_ff for every token, all in float32; no token is padding.
    """
    kept = shape.layers * (8 * shape.d_model + 2 * shape.d_ff) + 2 * shape.d_model + 2 * shape.vocab
    return 4 * (4 * shape.parameters + config.training.batch_size * shape.context * kept)


def make_trainer(
    config: TrainConfig,
    trainable: Trainable,
    shape: Shape,
    corpus: Corpus | None,
    workers: Workers = ALONE,
    exposure: Exposure | None = None,
) -> Trainer:
    """Return the optimiser loop of a resolved config, at step 0; ``exposure`` is told which prompts it draws.

    Raises:
        UserError: CUDA graphs without a GPU.
    """
    t = config.training
    assert t.steps is not None
    assert t.peak_lr is not None
    batches = _make_batches(config, shape, corpus)
    return Trainer(
        trainable,
        batches if resolve_device(config.compute.device) == "cpu" else Prefetched(batches),
        Schedule(t.peak_lr, t.warmup, t.steps),
        Optimiser(t.betas, t.weight_decay, t.clip),
        None if t.freeze_block is None else Freeze(t.freeze_block % shape.layers, t.freeze_until),
        workers,
        lower_to_bfloat16(batch_loss) if t.dtype == "bfloat16" else batch_loss,
        exposure,
        _choose_recording(config, shape),
    )


def _choose_recording(config: TrainConfig, shape: Shape) -> Recording | None:
    t = config.training
    on_cpu = resolve_device(config.compute.device) == "cpu"
    if t.cuda_graphs is False or (t.cuda_graphs is None and on_cpu):
        return None
    if on_cpu:
        raise UserError(f"{config.name}: training.cuda_graphs needs a GPU: leave it out on the CPU")
    loss_of = lower_to_bfloat16(padded_loss) if t.dtype == "bfloat16" else padded_loss
    return Recording(t.batch_size, shape.context, loss_of, record_cuda_graph)


def _make_batches(config: TrainConfig, shape: Shape, corpus: Corpus | None) -> Batches:
    data, size, seed = config.data, config.training.batch_size, config.seed
    if data.source == "tasks":
        return task_batches(_make_mix(config), size, seed)
    assert corpus is not None
    if data.task_share is None:
        return text_batches(corpus.train, shape.context, size, seed)
    return mixed_batches(_make_mix(config), corpus.train, shape.context, size, data.task_share, seed)


def describe_data_tasks(config: TrainConfig) -> dict[str, str]:
    """Return the tasks that a config trains on, each with a hash of what its examples are drawn by; none for text."""
    if config.data.source == "text":
        return {}
    drawn_by = {"name", "version", "generator", "prompt", "answer", "shots", "separator", "levels"}
    described = {}
    for task in choose_tasks(config.data.tasks, config.probes):
        text = json.dumps(task.model_dump(mode="json", include=drawn_by), sort_keys=True)
        described[task.name] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return described


def _make_mix(config: TrainConfig) -> TaskMix:
    """Return the tasks that are trained on, each of which this vocabulary can write at every level."""
    tasks = []
    for task in choose_tasks(config.data.tasks, config.probes):
        if not isinstance(task, GeneratorTask):
            raise UserError(f"data.tasks: {task.name} is of kind {task.kind}; only generated tasks can be trained on")
        missing = [level for level in config.data.levels if level not in task.levels]
        if missing:
            raise UserError(
                f"data.levels: task {task.name} has no level {missing[0]!r}; it has {', '.join(task.levels)}"
            )
        for level in config.data.levels:
            try:
                encode_probe_set(make_probe_set(task, level, 1, config.seed), CharacterTokenizer())
            except ValueError as error:
                raise UserError(f"data.tasks: {task.name} cannot be read by the synthetic models: {error}") from None
            _check_holdout(task, level, config.data.holdout)
        tasks.append(task)
    names = [task.name for task in tasks]
    for name in config.data.shuffled:
        if name not in names:
            raise UserError(f"data.shuffled: {name!r} is not among the run's tasks{nearest(name, names)}")
    return TaskMix(tuple(tasks), config.data.levels, frozenset(config.data.shuffled), config.data.holdout)


def _check_holdout(task: GeneratorTask, level: str, share: float) -> None:
    """Raise ``UserError`` where a share of the prompts cannot be held out: nothing is left, or prompts show others."""
    if not share:
        return
    if task.shots:
        raise UserError(f"data.holdout: prompts of {task.name} show solved examples, which may be those held out")
    tried = make_probe_set(task, level, 1000, 0).examples
    if all(is_held_out(example.prompt, share) for example in tried):
        raise UserError(
            f"data.holdout: {share:g} leaves no prompt of task {task.name}, level {level}, to train on "
            f"({count_domain(task, level)} in all): lower it, or leave the level out of data.levels"
        )
