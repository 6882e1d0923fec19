"""A plain GPT-2 style decoder: the model that is trained, read and exported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pythiageo.synthetic.packing import Packed, pack


@dataclass(frozen=True)
class Shape:
    """Shape of a decoder. ``context`` is the number of learned positions; ``bias`` adds GPT-2's biases everywhere.

    ``residual_scaling`` divides the initial residual projections by sqrt(2 layers), as GPT-2 does; the study's collapse
    floors are met without it.
    """

    layers: int
    d_model: int
    heads: int
    d_ff: int
    context: int
    vocab: int
    bias: bool
    residual_scaling: bool = False

    @property
    def parameters(self) -> int:
        """Parameters of the plain decoder, the tied output embedding counted once.

        With vocabulary V, context C, L layers, width d and d_ff f: ``(V + C) d + L (4 d^2 + 2 d f + 2 d) + d``; biases
        add ``L (7 d + f) + d``.
        """
        d, f = self.d_model, self.d_ff
        block = 4 * d * d + 2 * d * f + 2 * d
        biases = 4 * d + f + d + 2 * d  # qkv and projection, MLP in and out, two LayerNorms
        return (self.vocab + self.context) * d + self.layers * (block + self.bias * biases) + d + self.bias * d


class Attention(nn.Module):
    """Causal multi-head attention, written out: faster here than the fused kernel, and twice differentiable."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.d_model, 3 * shape.d_model, bias=shape.bias)
        self.proj = nn.Linear(shape.d_model, shape.d_model, bias=shape.bias)

    def forward(
        self, x: Float[Tensor, "example position d_model"], mask: Float[Tensor, "position position"]
    ) -> Float[Tensor, "example position d_model"]:
        """Return the attention output; ``mask`` is 0 where a position may look and -inf where it may not."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(self.look(q, k, v, mask))

    def look(
        self,
        q: Float[Tensor, "example query d_model"],
        k: Float[Tensor, "example position d_model"],
        v: Float[Tensor, "example position d_model"],
        mask: Float[Tensor, "*example query position"],
    ) -> Float[Tensor, "example query d_model"]:
        """Return what the heads bring to each query, side by side, before the output projection."""
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        pattern = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask, dim=-1)
        return (pattern @ v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Pre-norm block: attention, then MLP, each added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.d_model, bias=shape.bias)
        self.attn = Attention(shape)
        self.ln_2 = nn.LayerNorm(shape.d_model, bias=shape.bias)
        self.fc = nn.Linear(shape.d_model, shape.d_ff, bias=shape.bias)
        self.proj = nn.Linear(shape.d_ff, shape.d_model, bias=shape.bias)

    def forward(
        self, x: Float[Tensor, "example position d_model"], mask: Float[Tensor, "position position"]
    ) -> Float[Tensor, "example position d_model"]:
        """Return the residual stream after this block (resid_post)."""
        return self._with_mlp(x + self.attn(self.ln_1(x), mask))

    def on_tree(
        self, x: Float[Tensor, "node d_model"], packed: Packed, mask: Float[Tensor, "position position"]
    ) -> Float[Tensor, "node d_model"]:
        """Return resid_post at every node of a prefix tree."""
        qkv = self.attn.qkv(self.ln_1(x))
        looked = []
        for grid in packed.grids:
            width = grid.nodes.shape[1]
            q, k, v = F.embedding(grid.nodes, qkv).chunk(3, dim=-1)
            looked.append(self.attn.look(q, k, v, mask[:width, :width]).flatten(0, 1))
        return self._with_mlp(x + self.attn.proj(torch.cat(looked).index_select(0, packed.cells)))

    def at_queries(self, x: Float[Tensor, "node d_model"], packed: Packed) -> Float[Tensor, "scored d_model"]:
        """Return resid_post at the grids' scored queries alone: keys and values are all it takes of the rest."""
        weight, bias = self.attn.qkv.weight, self.attn.qkv.bias
        d_model = x.shape[1]
        normed = self.ln_1(x)
        asking = normed.index_select(0, packed.scored)
        queries = F.linear(asking, weight[:d_model], None if bias is None else bias[:d_model])
        both = F.linear(normed, weight[d_model:], None if bias is None else bias[d_model:])
        looked = []
        for grid in packed.grids:
            k, v = F.embedding(grid.nodes, both).chunk(2, dim=-1)
            found = self.attn.look(F.embedding(grid.queries, queries), k, v, grid.mask)
            looked.append(found.flatten(0, 1).index_select(0, grid.picked))
        return self._with_mlp(x.index_select(0, packed.scored) + self.attn.proj(torch.cat(looked)))

    def _with_mlp(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return the residual stream after the MLP, from that after attention."""
        return x + self.proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


def additive_mask(visible: Bool[Tensor, "query position"]) -> Float[Tensor, "query position"]:
    """Return what is added to attention scores: 0 where a query may look, -inf where it may not."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)


class Decoder(nn.Module):
    """Token and position embeddings, blocks, final LayerNorm, unembedding tied to the token embedding.

    Initialised with a normal of standard deviation 0.02, gains one, biases zero; see ``Shape.residual_scaling``.
    """

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        self.wte = nn.Embedding(shape.vocab, shape.d_model)
        self.wpe = nn.Embedding(shape.context, shape.d_model)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.d_model, bias=shape.bias)
        mask = torch.full((shape.context, shape.context), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scaled = shape.residual_scaling and name.endswith("proj.weight")
                std = 0.02 / math.sqrt(2 * shape.layers) if scaled else 0.02
                nn.init.normal_(parameter, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def ordered_blocks(self) -> Iterator[Block]:
        """Yield the blocks, first to last."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def residual_stream(
        self,
        ids: Int[Tensor, "example position"],
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> list[Float[Tensor, "example position d_model"]]:
        """Return resid_post of every block, first to last, before the final LayerNorm.

        ``depths``: where each position counts as standing, if not one behind the other. ``visible``: which positions
        (columns) each position (row) looks at, if not all up to it.
        """
        positions = ids.shape[1]
        x = self.wte(ids) + (self.wpe.weight[:positions] if depths is None else self.wpe(depths))
        mask = self.get_buffer("mask")[:positions, :positions] if visible is None else additive_mask(visible)
        states = []
        for block in self.ordered_blocks():
            x = block(x, mask)
            states.append(x)
        return states

    def unembed(self, normed: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows vocab"]:
        """Return the logits of states taken after the final LayerNorm."""
        return normed @ self.wte.weight.T

    def scored_logits(
        self, ids: Int[Tensor, "example position"], scored: Bool[Tensor, "example position"]
    ) -> Float[Tensor, "answer vocab"]:
        """Return the logits at the scored positions, example by example, and compute nothing that they do not need.

        ``ids`` may be padded behind an example's last scored position. The same as ``forward(ids)[scored]`` up to
        rounding, at a third to a half of its cost; every example needs a scored position. ``ids`` and ``scored`` are
        on the CPU wherever the model is, and nothing waits for a GPU.
        """
        packed = pack(ids, scored).to(self.wte.weight.device)
        x = self.wte(packed.ids) + self.wpe(packed.positions)
        *blocks, last = self.ordered_blocks()
        for block in blocks:
            x = block.on_tree(x, packed, self.get_buffer("mask"))
        return self.unembed(self.ln_f(last.at_queries(x, packed))).index_select(0, packed.answers)

    def forward(self, ids: Int[Tensor, "example position"]) -> Float[Tensor, "example position vocab"]:
        """Return the logits at every position."""
        return self.unembed(self.ln_f(self.residual_stream(ids)[-1]))
