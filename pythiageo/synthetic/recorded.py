"""An optimiser step as one recorded graph: a GPU replays it whole, and does not wait for kernels one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.errors import MachineError, raise_if_memory
from pythiageo.probes.tokenizer import PAD
from pythiageo.synthetic.batches import IGNORED, Batch
from pythiageo.synthetic.trainable import Trainable

Step = Callable[[], Tensor]
"""A step on what lies in fixed tensors; returns its loss."""
State = Callable[[], dict[str, Tensor]]
"""All tensors that a step changes and that stay, by name, as many as there are by now."""
Record = Callable[[Step, State], Step]
"""From a step to what does the same from then on, without doing any."""
PaddedLoss = Callable[[Trainable, Tensor, Tensor], Tensor]
"""From a model, token ids and targets of fixed shapes to the loss; see ``padded_loss``."""
_RECORDING = Lock()
WIDTHS = 8
"""Widths that batches are padded to are multiples of it."""
WARM_UP = 3
"""Steps before a graph is recorded, as torch asks for; they are taken back."""


@dataclass(frozen=True)
class Recording:
    """How steps are recorded.

    A graph has fixed shapes, so batches are padded to (``batch_size``, width), the width a multiple of ``WIDTHS`` up to
    ``context``; each width has a graph of its own. ``loss_of``: of token ids and targets. ``record``:
    ``record_cuda_graph``, unless there is no GPU to try it on.
    """

    batch_size: int
    context: int
    loss_of: PaddedLoss
    record: Record


class RecordedSteps:
    """Steps of one trainer, recorded at the first of each width.

    Args:
        recording: how.
        trainable: the model.
        lr: the tensor that the optimiser reads its learning rate from.
        update: takes a step, given what computes the loss.
        state: see ``State``.
    """

    def __init__(
        self, recording: Recording, trainable: Trainable, lr: Tensor, update: Callable[[Step], Tensor], state: State
    ) -> None:
        self._recording = recording
        self._lr = lr
        self._state = state
        shape = recording.batch_size, recording.context
        self._both = torch.zeros(2, *shape, dtype=torch.int32, device=lr.device)
        self._trainable = trainable
        self._update = update
        self._replays: dict[tuple[int, bool], Step] = {}

    def forget(self) -> None:
        """Record anew from the next step on: tensors that the optimiser keeps have been replaced."""
        self._replays.clear()

    def take(self, batch: Batch, lr: float, frozen: bool) -> Tensor:
        """Take a step and return its loss, in a tensor that the next one writes over."""
        width = min(-(-batch.ids.shape[1] // WIDTHS) * WIDTHS, self._recording.context)
        missing = (0, width - batch.ids.shape[1], 0, self._recording.batch_size - len(batch.ids))
        padded = F.pad(batch.ids, missing, value=PAD), F.pad(batch.targets, missing, value=IGNORED)
        self._both[:, :, :width].copy_(torch.stack(padded).to(torch.int32))
        self._lr.fill_(lr)
        if (width, frozen) not in self._replays:
            self._replays[width, frozen] = self._recording.record(partial(self._step, width), self._state)
        return self._replays[width, frozen]()

    def _step(self, width: int) -> Tensor:
        ids, targets = self._both[:, :, :width].long().unbind()
        return self._update(lambda: self._recording.loss_of(self._trainable, ids, targets))


def padded_loss(
    trainable: Trainable, ids: Int[Tensor, "example position"], targets: Int[Tensor, "example position"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the targets that are not ``IGNORED``; nothing is read back from a GPU."""
    logits = trainable.unembed(trainable.final_norm(trainable.residual_stream(ids)[-1]))
    summed = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return summed / (targets != IGNORED).sum()


def record_cuda_graph(step: Step, state: State) -> Step:
    """Record a step as a CUDA graph; the steps that torch needs for it are taken back.

    Raises:
        MachineError: this version of torch or of the model's code cannot be recorded.
    """
    before = {name: tensor.clone() for name, tensor in state().items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
        take_back(before, state())
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        # other threads train on the same card meanwhile
        with _RECORDING, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            loss = step()
    except RuntimeError as error:
        raise_if_memory(error, "a training step was recorded")
        raise MachineError(f"a step cannot be recorded here ({error}): --set training.cuda_graphs=false") from None

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def take_back(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """Give tensors the values that they had; those that have come since begin at zero, as an optimiser's do."""
    with torch.no_grad():
        for name, tensor in after.items():
            if name in before:
                tensor.copy_(before[name])
            else:
                tensor.zero_()
