"""The optimiser loop: AdamW, warm-up, cosine; every step a pure function of state and step, so it can be resumed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pythiageo.durable_files import new_file
from pythiageo.errors import UserError, raise_if_memory
from pythiageo.synthetic.batches import IGNORED, Batch, Batches
from pythiageo.synthetic.exposure import Exposure
from pythiageo.synthetic.recorded import RecordedSteps, Recording
from pythiageo.synthetic.trainable import Trainable
from pythiageo.synthetic.workers import ALONE, Workers

_FIRST_MET = "exposure/first_met"


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0 over ``warmup`` steps to ``peak_lr``, then a cosine to 0 at ``steps``."""

    peak_lr: float
    warmup: int
    steps: int

    def lr(self, step: int) -> float:
        """Return the learning rate of the update that follows ``step`` updates; the first one is 0, as in Pythia."""
        if step < self.warmup:
            return self.peak_lr * step / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True)
class Optimiser:
    """AdamW settings. Weight decay acts on matrices only; gradients are clipped to the norm ``clip``."""

    betas: tuple[float, float]
    weight_decay: float
    clip: float


LossOf = Callable[[Trainable, Batch], torch.Tensor]
"""From a model and a batch to the mean cross-entropy over the batch's scored tokens, in nats, with gradient."""
LOOK = 16
"""Steps between two losses that are read back from a GPU: reading one waits for all that it was given."""


@dataclass(frozen=True)
class Freeze:
    """The block of index ``block`` stands still for the first ``until`` updates: no step, no decay, no moments.

    Its gradient does not count when gradients are clipped.
    """

    block: int
    until: int


class Trainer:
    """Trains one model in place. ``step`` counts updates, ``tokens`` the training tokens seen (no padding).

    ``loss_of`` is how a batch's loss is computed, ``batch_loss`` by default; ``recording``, on a GPU, how a whole step
    is recorded, in place of it. ``exposure`` is told the prompts that are drawn, and is part of the saved state.
    """

    def __init__(
        self,
        trainable: Trainable,
        batches: Batches,
        schedule: Schedule,
        optimiser: Optimiser,
        freeze: Freeze | None = None,
        workers: Workers = ALONE,
        loss_of: LossOf | None = None,
        exposure: Exposure | None = None,
        recording: Recording | None = None,
    ) -> None:
        self._trainable = trainable
        self._loss_of = loss_of or batch_loss
        self._workers = workers
        self.exposure = exposure
        self._freeze = freeze
        self._frozen = [] if freeze is None else list(trainable.block(freeze.block).parameters())
        self.batches = batches
        self.schedule = schedule
        self.settings = optimiser
        self._parameters = dict(trainable.module.named_parameters())
        matrices = [p for p in self._parameters.values() if p.ndim >= 2]
        vectors = [p for p in self._parameters.values() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": optimiser.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        place = matrices[0].device
        lr = 0.0 if recording is None else torch.zeros((), device=place)
        self._adamw = torch.optim.AdamW(
            groups, lr=lr, betas=optimiser.betas, fused=True, capturable=recording is not None and place.type == "cuda"
        )
        self._recorded: RecordedSteps | None = None
        if recording is not None:
            assert isinstance(lr, torch.Tensor)
            self._recorded = RecordedSteps(recording, trainable, lr, self._update, self._state)
        self._every = 1 if place.type == "cpu" else LOOK
        self._loss: float | torch.Tensor = math.nan
        self.step = 0
        self.tokens = 0
        self.recent_loss: float | None = None
        """The newest training loss that is known without waiting for a GPU, if any; on the CPU the last batch's."""

    def advance(self) -> None:
        """Take one optimiser step."""
        batch, lr = self.batches(self.step), self.schedule.lr(self.step)
        if self.exposure is not None:
            self.exposure.note(batch.prompts, self.step)
        if self._recorded is not None:
            self._loss = self._recorded.take(batch, lr, self._is_frozen)
        else:
            for group in self._adamw.param_groups:
                group["lr"] = lr
            self._loss = self._update(lambda: self._loss_of(self._trainable, self._workers.share(batch)))
        self.step += 1
        self.tokens += batch.tokens
        if self.step % self._every == 0:
            self.recent_loss = self.loss

    @property
    def loss(self) -> float:
        """Training loss of the last batch, in nats per scored token; NaN before the first step."""
        return float(self._loss)

    @property
    def _is_frozen(self) -> bool:
        return self._freeze is not None and self.step < self._freeze.until

    def _update(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Take a step on the loss that ``compute`` gives, and return it."""
        self._adamw.zero_grad(set_to_none=True)
        loss = compute()
        loss.backward()
        if self._is_frozen:
            for parameter in self._frozen:
                parameter.grad = None
        loss = loss.detach()
        self._workers.add_up([*(p.grad for p in self._parameters.values() if p.grad is not None), loss])
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.settings.clip)
        self._adamw.step()
        return loss

    def _state(self) -> dict[str, torch.Tensor]:
        """Return the weights, and what the optimiser keeps of each that has had a step, as they are saved."""
        tensors = {f"weight/{name}": parameter.detach() for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            if parameter in self._adamw.state:
                tensors |= {f"{key}/{name}": value for key, value in self._adamw.state[parameter].items()}
        return tensors

    def save(self, path: Path) -> None:
        """Write weights, optimiser moments and counters to one file, which replaces ``path`` once it is on the disk."""
        tensors = {name: tensor.contiguous() for name, tensor in self._state().items()}
        if self.exposure is not None:
            tensors[_FIRST_MET] = self.exposure.steps()
        counters = {"step": str(self.step), "tokens": str(self.tokens), "loss": self.loss.hex()}
        with new_file(path) as temporary:
            save_file(tensors, temporary, metadata={**counters, "sha256": _digest(tensors, tensors.__getitem__)})

    def load(self, path: Path) -> None:
        """Go back to a saved state.

        Raises:
            UserError: the file is damaged or belongs to another model; this trainer is then of no more use.
        """
        try:
            with safe_open(path, framework="pt") as file, torch.no_grad():
                counters = file.metadata() or {}
                keys = set(file.keys())
                # states of earlier versions have none
                if counters.get("sha256") not in (None, _digest(keys, file.get_tensor)):
                    raise ValueError("its content is not what was written")
                for name, parameter in self._parameters.items():
                    parameter.copy_(file.get_tensor(f"weight/{name}"))
                    saved = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in keys]
                    self._adamw.state[parameter] = {
                        key: file.get_tensor(f"{key}/{name}").to(parameter.device) for key in saved
                    }
                self.step, self.tokens = int(counters["step"]), int(counters["tokens"])
                self._loss = self.recent_loss = float.fromhex(counters["loss"])
                if self._recorded is not None:
                    self._recorded.forget()
                if self.exposure is not None:
                    if _FIRST_MET in keys:
                        self.exposure.restore(file.get_tensor(_FIRST_MET))
                    else:
                        self._replay(self.exposure)
        except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
            raise_if_memory(error, f"{path.name} was read")
            raise UserError(f"{path}: not the training state of this model ({error}): start the run anew") from None

    def _replay(self, exposure: Exposure) -> None:
        """Draw the batches before the state's step again: states of earlier versions do not say what was met."""
        for step in range(self.step):
            exposure.note(self.batches(step).prompts, step)


def _digest(names: Iterable[str], tensor: Callable[[str], torch.Tensor]) -> str:
    """Return a sha256 over tensors, read one at a time."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode())
        digest.update(tensor(name).detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def batch_loss(trainable: Trainable, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy over a batch's scored tokens, in nats, with gradient."""
    scored = batch.targets != IGNORED
    logits = trainable.scored_logits(batch.ids, scored)
    targets = batch.targets[scored].to(logits.device)
    return F.cross_entropy(logits, targets, reduction="sum") / batch.scored
