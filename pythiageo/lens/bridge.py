"""Reading a checkpoint's states through TransformerLens hooks, with the weights as they were saved."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pythiageo.errors import CheckpointError

# transformer-lens brings wandb, which must never be asked to phone home
os.environ.setdefault("WANDB_MODE", "disabled")

LN_FINAL = "ln_final.hook_out"


class BridgeReader:
    """A checkpoint opened through ``TransformerBridge``: no LayerNorm folding, no centring, no compatibility mode.

    Booting changes ``model`` (attention implementation, parameter names): fingerprint and save it before.

    Raises:
        CheckpointError: TransformerLens has no adapter for this architecture.
    """

    def __init__(self, model: nn.Module, folder: Path) -> None:
        from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - takes seconds to import
        from transformers import AutoTokenizer  # noqa: PLC0415

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self._bridge = TransformerBridge.boot_transformers(
                str(folder), hf_model=model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise CheckpointError(
                f"{folder.name}: TransformerLens cannot open a {type(model).__name__}: {error}"
            ) from None
        self._layers = len(self._bridge.blocks)
        # the unembedding is the waste of a large vocabulary: most architectures can leave positions out of it
        self._keeps_logits = "logits_to_keep" in inspect.signature(self._bridge.original_model.forward).parameters

    def sites(self) -> dict[str, int]:
        """Return every default site with its layer: resid_post of each block, and the final LayerNorm's output."""
        sites = {f"blocks.{layer}.hook_resid_post": layer for layer in range(self._layers)}
        return {**sites, LN_FINAL: self._layers - 1}

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
    ) -> tuple[dict[str, Float[Tensor, "example position d_model"]], Float[Tensor, "example scored vocab"] | None]:
        """Run one forward pass over examples of equal length.

        Args:
            ids: token ids, no padding.
            sites: hook names, a subset of ``sites()``.
            logit_positions: ascending positions at which logits are wanted, or ``None`` for no logits.
        """
        states: dict[str, Tensor] = {}

        def keep(site: str) -> tuple[str, object]:
            def hook(value: Tensor, hook: object) -> None:
                states[site] = value.detach().float()

            # resid_post is an alias in TransformerBridge: the hook that fires is the block's output
            return site.replace("hook_resid_post", "hook_out"), hook

        wanted = torch.tensor([0]) if logit_positions is None else logit_positions
        options = {"logits_to_keep": wanted} if self._keeps_logits else {}
        with torch.inference_mode():
            logits = self._bridge.run_with_hooks(
                ids, return_type="logits", fwd_hooks=[keep(site) for site in sites], **options
            )
        if logit_positions is None:
            return states, None
        return states, (logits if self._keeps_logits else logits[:, wanted]).float()
