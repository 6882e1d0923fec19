"""Opening a model through TransformerLens without reading its weights twice, and taking it apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pythiageo.lens.placing import SPLIT

# transformer-lens brings wandb, which must never be asked to phone home
os.environ.setdefault("WANDB_MODE", "disabled")


def boot(model: nn.Module, folder: Path, tokenizer: Any, device: str, dtype: torch.dtype, earlier: list[Any]) -> Any:
    """Return a model opened through TransformerLens, with the weights of an ``earlier`` one where there is one."""
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - takes seconds to import
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    where = None if device == SPLIT else device
    # the modules that take parts of a joint matrix would be filled at random first, a fifth of all weights
    with no_init_weights():
        bridge: Any = TransformerBridge.boot_transformers(
            str(folder), hf_model=model, tokenizer=tokenizer, device=where, dtype=dtype
        )
    _free_joint_weights(bridge)
    for module in bridge.modules():
        if hasattr(module, "_pattern"):
            module.register_forward_hook(_forget_pattern)
    for other in earlier:
        weights = dict(other.named_parameters())
        for name, parameter in bridge.named_parameters():
            parameter.data = weights[name].data
    return bridge


def take_apart(*roots: nn.Module) -> None:
    """Empty every module of these, so that nothing keeps their weights.

    TransformerBridge stands in reference cycles (functions that call themselves, and classes, made within its methods):
    left as it is, it holds its weights and the model's until the garbage collector comes by, which counts objects and
    not bytes. Where the models of several checkpoints wait for it, they are in memory together.
    """
    for module in {module for root in roots for module in root.modules()}:
        vars(module).clear()


def _forget_pattern(attention: Any, _inputs: object, _output: object) -> None:
    """Let go of the attention pattern that a block keeps of its last pass, which nothing in TransformerLens reads."""
    attention._pattern = None


def _free_joint_weights(bridge: Any) -> None:
    """Empty the joint q-k-v matrices that the bridge has split into copies and no longer reads.

    They are a fifth of Pythia-2.8b: 2.5 GB in float32.
    """
    for block in bridge.blocks:
        attention: Any = getattr(block, "attn", None)
        if not all(hasattr(attention, name) for name in ("qkv", "q", "k", "v")):
            continue
        parts = [*attention.q.parameters(), *attention.k.parameters(), *attention.v.parameters()]
        kept = {part.untyped_storage().data_ptr() for part in parts}
        for joint in attention.qkv.parameters():
            if joint.untyped_storage().data_ptr() not in kept:
                joint.data = joint.data.new_empty(0)
