"""Other ways to a batch's loss: in fewer digits, and on a GPU as one recorded graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pythiageo.synthetic.batches import IGNORED, Batch
from pythiageo.synthetic.trainable import Trainable
from pythiageo.synthetic.trainer import LossOf

LogitsOf = Callable[[Tensor], Tensor]
Record = Callable[[nn.Module, Tensor], LogitsOf]
"""From a module, and token ids of the only shape that it will be given, to what computes the same from then on."""


def lower_to_bfloat16(loss_of: LossOf) -> LossOf:
    """Return ``loss_of`` with matrix products in bfloat16; weights, gradients, moments and the loss stay float32."""

    def lowered(trainable: Trainable, batch: Batch) -> Tensor:
        device = next(trainable.module.parameters()).device.type
        # without its cache of lowered weights, which a graph would keep from the step that was recorded
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            return loss_of(trainable, batch)

    return lowered


def record_graphs(batch_size: int, context: int, record: Record | None = None) -> LossOf:
    """Return the loss of batches padded to (``batch_size``, ``context``), whose passes a GPU replays as one graph each.

    A small model on a GPU spends its time on starting kernels; a graph starts all of them at once. It needs fixed
    shapes, so that the prefix tree has no place here. ``record`` is ``torch.cuda.make_graphed_callables`` by default.
    """
    record = record or _cuda_graphs
    logits_of: list[LogitsOf] = []

    def loss(trainable: Trainable, batch: Batch) -> Tensor:
        device = next(trainable.module.parameters()).device
        missing = (0, context - batch.ids.shape[1], 0, batch_size - len(batch.ids))
        ids = F.pad(batch.ids, missing).to(device)
        targets = F.pad(batch.targets, missing, value=IGNORED).to(device)
        if not logits_of:
            logits_of.append(record(_Logits(trainable), ids))
        logits = logits_of[0](ids).flatten(0, 1)
        summed = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return summed / batch.scored

    return loss


class _Logits(nn.Module):
    """A model in training as a module from token ids to logits everywhere."""

    def __init__(self, trainable: Trainable) -> None:
        super().__init__()
        self.module = trainable.module
        self._trainable = trainable

    def forward(self, ids: Int[Tensor, "example position"]) -> Float[Tensor, "example position vocab"]:
        """Return the logits at every position."""
        return self._trainable.unembed(self._trainable.final_norm(self._trainable.residual_stream(ids)[-1]))


def _cuda_graphs(module: nn.Module, ids: Tensor) -> LogitsOf:
    graphed: Any = torch.cuda.make_graphed_callables(module, (ids,))
    return graphed
