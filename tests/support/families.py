"""Decoder families, one tiny random model each: what docs/families.md lists is this list."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCAB = 41


@dataclass(frozen=True)
class Family:
    """A class of transformers, made tiny.

    ``config``: its configuration's class. ``example``: models that are of it. ``landscape``: whether loss, gradients
    and Hessian are held against plain automatic differentiation here; where not, states and logits are.
    """

    config: str
    example: str
    settings: dict[str, Any] = field(hash=False)
    variant: str = ""
    landscape: bool = False

    @property
    def name(self) -> str:
        """Its class and variant, for people."""
        return self.config.removesuffix("Config") + (f", {self.variant}" if self.variant else "")


_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
PLAIN = {**_SHAPE, "vocab_size": VOCAB, "max_position_embeddings": 48}
GROUPED = {**PLAIN, "num_key_value_heads": 2, "pad_token_id": 0}
HEADS = {**GROUPED, "head_dim": 4}
LOCAL = {**HEADS, "sliding_window": 8}
OLD = {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 48}
EXPERTS = {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}
NAMED = {**HEADS, "num_experts": 4, "num_experts_per_tok": 2}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
STATE = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}

FAMILIES = [
    Family("GPTNeoXConfig", "Pythia, PolyPythias", PLAIN, landscape=True),
    Family("GPTNeoXConfig", "RedPajama-INCITE", {**PLAIN, "use_parallel_residual": False}, "sequential", True),
    Family("GPT2Config", "GPT-2, Mistral's GPT-2 series", OLD, landscape=True),
    Family("OlmoConfig", "OLMo 1", GROUPED, landscape=True),
    Family("Olmo2Config", "OLMo 2", GROUPED),
    Family("Olmo3Config", "OLMo 3", {**GROUPED, "sliding_window": 8}, landscape=True),
    Family("OlmoeConfig", "OLMoE", NAMED, landscape=True),
    Family("OlmoHybridConfig", "Olmo Hybrid",
           {**GROUPED, "layer_types": ["linear_attention", "full_attention"]}, landscape=True),
    Family("LlamaConfig", "Llama, Amber, SmolLM2, TinyLlama, pico-decoder", GROUPED, landscape=True),
    Family("MistralConfig", "Mistral 7B", LOCAL),
    Family("MixtralConfig", "Mixtral", EXPERTS),
    Family("Qwen2Config", "Qwen2, Qwen2.5", GROUPED, landscape=True),
    Family("Qwen3Config", "Qwen3, Marin 32B", HEADS),
    Family("Gemma2Config", "Gemma 2", {**LOCAL, "query_pre_attn_scalar": 4}, landscape=True),
    Family("Gemma3TextConfig", "Gemma 3 (text)", {**LOCAL, "query_pre_attn_scalar": 4}),
    Family("SmolLM3Config", "SmolLM3", {**GROUPED, "no_rope_layer_interval": 2}),
    Family("ApertusConfig", "Apertus", GROUPED, landscape=True),
    Family("BloomConfig", "BLOOM", {"vocab_size": VOCAB, "hidden_size": 16, "n_layer": 2, "n_head": 4}, landscape=True),
    Family("OPTConfig", "OPT", {**PLAIN, "ffn_dim": 24, "word_embed_proj_dim": 16}, landscape=True),
    Family("PhiConfig", "Phi-1.5, Phi-2", GROUPED),
    Family("FalconConfig", "Falcon", PLAIN, landscape=True),
    Family("ModernBertDecoderConfig", "Ettin decoders", {**PLAIN, **ENDS, "local_attention": 8}, landscape=True),
    Family("Mamba2Config", "Mamba-2",
           {**STATE, "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 8}, landscape=True),
    Family("MambaConfig", "Mamba", STATE),
    Family("GPTNeoConfig", "GPT-Neo",
           {"vocab_size": VOCAB, "hidden_size": 16, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 48,
            "attention_types": [[["global", "local"], 1]], "window_size": 8}),
    Family("GPTJConfig", "GPT-J", {**OLD, "rotary_dim": 4}),
    Family("CodeGenConfig", "CodeGen", {**OLD, "rotary_dim": 4}),
    Family("GPTBigCodeConfig", "StarCoder", OLD),
    Family("Starcoder2Config", "StarCoder2", {**GROUPED, "sliding_window": 8}),
    Family("MptConfig", "MPT", {"vocab_size": VOCAB, "d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 48}),
    Family("XGLMConfig", "XGLM",
           {"vocab_size": VOCAB, "d_model": 16, "num_layers": 2, "attention_heads": 4, "ffn_dim": 24,
            "max_position_embeddings": 48}),
    Family("StableLmConfig", "StableLM", {**GROUPED, "num_attention_heads": 2}),
    Family("CohereConfig", "Command R", GROUPED),
    Family("GemmaConfig", "Gemma 1", HEADS),
    Family("Phi3Config", "Phi-3, Phi-4", GROUPED),
    Family("GraniteConfig", "Granite 3", GROUPED),
    Family("Glm4Config", "GLM-4", HEADS),
    Family("Exaone4Config", "EXAONE 4", {**LOCAL, "sliding_window_pattern": 2}),
    Family("SeedOssConfig", "Seed-OSS", HEADS),
    Family("ArceeConfig", "AFM 4.5B", HEADS),
    Family("NanoChatConfig", "nanochat", GROUPED),
    Family("GptOssConfig", "gpt-oss", {**EXPERTS, "sliding_window": 8}),
    Family("Qwen3MoeConfig", "Qwen3 with experts", {**NAMED, "moe_intermediate_size": 8}),
    Family("Lfm2Config", "LFM2", {**GROUPED, "full_attn_idxs": [1], "block_ff_dim": 24}),
    Family("RecurrentGemmaConfig", "RecurrentGemma", {**HEADS, "num_hidden_layers": 3}),
    Family("RwkvConfig", "RWKV-4",
           {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "context_length": 48}),
]  # fmt: skip


def write(family: Family, folder: Path) -> Path:
    """Write a random model of a family as transformers does, every parameter off its initial value."""
    import torch
    import transformers

    torch.manual_seed(0)
    settings = getattr(transformers, family.config)(**family.settings)
    model = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)](settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def table() -> str:
    """Return the list as docs/families.md has it."""
    rows = ["| class of transformers | such as | states, logits | loss, gradients, Hessian |", "|---|---|---|---|"]
    for family in FAMILIES:
        checked = "compared" if family.landscape else "not compared"
        rows.append(f"| {family.name} | {family.example} | compared | {checked} |")
    return "\n".join(rows) + "\n"
