"""What the optimiser loop, the live reader and the export ask of a model that is trained here."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from pythiageo.probes import tokenizer
from pythiageo.synthetic.model import Decoder, Shape, additive_mask
from pythiageo.synthetic.packing import PIECES

_ALONE = Lock()


@runtime_checkable
class Trainable(Protocol):
    """A model with its states in reach and an export that plain transformers opens."""

    architecture: str
    module: nn.Module

    def scored_logits(
        self, ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]
    ) -> Float[Tensor, "answer vocab"]:
        """Return the logits at the scored positions, example by example, with gradient; see ``Decoder``.

        ``ids`` and ``scored`` are on the CPU, the logits where the model is.
        """

    def residual_stream(
        self,
        ids: Int[Tensor, "example position"],
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> list[Float[Tensor, "example position d_model"]]:
        """Return resid_post of every block, before the final LayerNorm.

        ``depths``: where each position counts as standing, if not one behind the other. ``visible``: which positions
        (columns) each position (row) looks at, if not all up to it.
        """

    def final_norm(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return states after the final LayerNorm."""

    def unembed(self, normed: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows vocab"]:
        """Return the logits of states taken after the final LayerNorm."""

    def block(self, index: int) -> nn.Module:
        """Return a block of the model."""

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json and the tensors of model.safetensors, under transformers' names."""


class GPT2:
    """The plain ``Decoder``, exported as ``GPT2LMHeadModel``. Biases that the model lacks are exported as zeros."""

    architecture = "GPT2LMHeadModel"

    def __init__(self, shape: Shape, seed: int) -> None:
        self._decoder = Decoder(shape, torch.Generator().manual_seed(seed))
        self.module: nn.Module = self._decoder

    def scored_logits(
        self, ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]
    ) -> Float[Tensor, "answer vocab"]:
        """Return the logits at the scored positions, example by example, with gradient."""
        return self._decoder.scored_logits(ids, scored)

    def residual_stream(
        self,
        ids: Int[Tensor, "example position"],
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> list[Float[Tensor, "example position d_model"]]:
        """Return resid_post of every block, before the final LayerNorm."""
        return self._decoder.residual_stream(ids, depths, visible)

    def final_norm(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return states after the final LayerNorm."""
        return self._decoder.ln_f(x)

    def unembed(self, normed: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows vocab"]:
        """Return the logits of states taken after the final LayerNorm."""
        return self._decoder.unembed(normed)

    def block(self, index: int) -> nn.Module:
        """Return a block of the model."""
        return list(self._decoder.ordered_blocks())[index]

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json and tensors of a GPT2LMHeadModel; its Conv1D weights are (in, out)."""
        shape = self._decoder.shape
        config = {
            "architectures": [self.architecture],
            "model_type": "gpt2",
            "vocab_size": shape.vocab,
            "n_positions": shape.context,
            "n_embd": shape.d_model,
            "n_layer": shape.layers,
            "n_head": shape.heads,
            "n_inner": shape.d_ff,
            "activation_function": "gelu_pytorch_tanh",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.BOS,
            "eos_token_id": tokenizer.EOS,
            "dtype": "float32",
        }
        tensors = {
            "transformer.wte.weight": self._decoder.wte.weight,
            "transformer.wpe.weight": self._decoder.wpe.weight,
            **_to_norm("transformer.ln_f", self._decoder.ln_f),
        }
        for layer, block in enumerate(self._decoder.ordered_blocks()):
            prefix = f"transformer.h.{layer}"
            tensors |= _to_norm(f"{prefix}.ln_1", block.ln_1) | _to_norm(f"{prefix}.ln_2", block.ln_2)
            tensors |= _to_conv1d(f"{prefix}.attn.c_attn", block.attn.qkv)
            tensors |= _to_conv1d(f"{prefix}.attn.c_proj", block.attn.proj)
            tensors |= _to_conv1d(f"{prefix}.mlp.c_fc", block.fc) | _to_conv1d(f"{prefix}.mlp.c_proj", block.proj)
        return config, _copy(tensors)


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as they are now, in the CPU's memory."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _to_norm(name: str, norm: nn.LayerNorm) -> dict[str, Tensor]:
    bias = norm.bias if norm.bias is not None else torch.zeros_like(norm.weight)
    return {f"{name}.weight": norm.weight, f"{name}.bias": bias}


def _to_conv1d(name: str, linear: nn.Linear) -> dict[str, Tensor]:
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
    return {f"{name}.weight": linear.weight.T, f"{name}.bias": bias}


class NeoX:
    """transformers' own ``GPTNeoXForCausalLM`` in Pythia's shape: parallel residual, rotary on a quarter, untied."""

    architecture = "GPTNeoXForCausalLM"

    def __init__(self, shape: Shape, seed: int) -> None:
        with _ALONE:  # its lazy imports fail in several threads at once
            from transformers import GPTNeoXConfig, GPTNeoXForCausalLM  # noqa: PLC0415 - takes seconds, GPT2 needs none

        config = GPTNeoXConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.d_model,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.d_ff,
            max_position_embeddings=shape.context,
            attention_bias=shape.bias,
            use_parallel_residual=True,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.BOS,
            eos_token_id=tokenizer.EOS,
            attn_implementation="eager",
        )
        with _ALONE, torch.random.fork_rng(devices=[]):  # transformers initialises from the global generator
            torch.manual_seed(seed)
            self.module: nn.Module = GPTNeoXForCausalLM(config).float()
        self._config = config
        self._body = self.module.get_submodule("gpt_neox")

    def scored_logits(
        self, ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]
    ) -> Float[Tensor, "answer vocab"]:
        """Return the logits at the scored positions, example by example, with gradient.

        Examples are taken in pieces of similar length, so that little is padded.
        """
        device = next(self.module.parameters()).device
        lengths = scored.shape[1] - scored.flip(1).long().argmax(1)
        by_length = lengths.argsort(stable=True)
        logits = []
        for piece in by_length.chunk(PIECES):
            width = int(lengths[piece[-1]])
            states = self._body(ids[piece, :width].to(device), use_cache=False).last_hidden_state
            rows = scored[piece, :width].flatten().nonzero().squeeze(1).to(device)
            logits.append(self.unembed(states.flatten(0, 1).index_select(0, rows)))
        # the answers of each example, wherever its piece put them
        place = torch.empty(len(by_length), dtype=torch.int64)
        counts = scored.sum(1)
        place[by_length] = counts[by_length].cumsum(0) - counts[by_length]
        within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        return torch.cat(logits).index_select(0, (place.repeat_interleave(counts) + within).to(device))

    def residual_stream(
        self,
        ids: Int[Tensor, "example position"],
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> list[Float[Tensor, "example position d_model"]]:
        """Return resid_post of every block.

        ``hidden_states`` of transformers has the embeddings first and the last block after the final LayerNorm, so
        the last block is read where it comes out.
        """
        states: list[Tensor] = []

        def keep(_module: nn.Module, _arguments: object, output: Any) -> None:
            states.append(output[0] if isinstance(output, tuple) else output)

        layers = self._body.get_submodule("layers")
        handles = [layer.register_forward_hook(keep) for layer in layers.children()]
        try:
            if visible is None:  # what transformers makes of none, it copies from the CPU
                visible = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
            mask = additive_mask(visible)[None, None]
            self._body(ids, attention_mask=mask, position_ids=depths, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return states

    def final_norm(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return states after the final LayerNorm."""
        return self._body.get_submodule("final_layer_norm")(x)

    def unembed(self, normed: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows vocab"]:
        """Return the logits of states taken after the final LayerNorm."""
        return self.module.get_output_embeddings()(normed)  # type: ignore[operator]

    def block(self, index: int) -> nn.Module:
        """Return a block of the model."""
        return list(self._body.get_submodule("layers").children())[index]

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json and tensors under the names that Pythia's files have (and ``save_pretrained`` writes)."""
        config = {**self._config.to_diff_dict(), "architectures": [self.architecture], "dtype": "float32"}
        # in memory transformers 5 calls the unembedding lm_head
        state = self.module.state_dict()
        return config, _copy({name.replace("lm_head.", "embed_out."): tensor for name, tensor in state.items()})


ARCHITECTURES: dict[str, type[GPT2] | type[NeoX]] = {"gpt2": GPT2, "gpt_neox": NeoX}


def write_checkpoint(folder: Path, trainable: Trainable, step: int, tokens: int) -> None:
    """Write a checkpoint folder that plain transformers opens, with its tokenizer and ``training.json``."""
    config, tensors = trainable.export()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(folder)
    (folder / "training.json").write_text(json.dumps({"step": step, "tokens": tokens}) + "\n", encoding="utf-8")
