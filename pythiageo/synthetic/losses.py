"""Another way to a batch's loss: in fewer digits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pythiageo.synthetic.trainable import Trainable


def lower_to_bfloat16(loss_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``loss_of`` with matrix products in bfloat16; weights, gradients, moments and the loss stay float32."""

    def lowered(trainable: Trainable, *batch: object) -> Tensor:
        device = next(trainable.module.parameters()).device.type
        # without its cache of lowered weights, which a graph would keep from the step that was recorded
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            return loss_of(trainable, *batch)

    return lowered
