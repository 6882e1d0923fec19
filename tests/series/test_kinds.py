"""What cannot be measured is refused by config and file names alone: what it is, and what to do, in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from inmemory import FEW, characters, neox
from transformers import BertConfig, BertLMHeadModel

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import CheckpointError, UserError
from pythiageo.series.architecture import read_config
from pythiageo.series.files.load import open_folder
from pythiageo.series.kinds import KindError, describe_layout
from pythiageo.series.sources.folder import FolderSeries

OWN = {"model_type": "gpt_neox", "auto_map": {"AutoModelForCausalLM": "modeling_gpt_neox.GPTNeoXForCausalLM"}}


def written(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "sentence", "status"),
    [
        ({"model_type": "bert"}, "this BertLMHeadModel sees later tokens (an encoder, by its config)", "not-causal"),
        ({"model_type": "modernbert"}, "this modernbert sees later tokens (an encoder", "not-causal"),
        ({"model_type": "roberta", "is_decoder": False}, "this RobertaForCausalLM sees later tokens", "not-causal"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "attention in both directions",
         "not-causal"),
        ({"model_type": "qwen2", "is_causal": False}, "attention in both directions", "not-causal"),
        ({"model_type": "t5"}, "this t5 is an encoder-decoder", "unreadable"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "this bart is an encoder-decoder", "unreadable"),
        ({"model_type": "llava", "vision_config": {}}, "save its language model alone", "unreadable"),
        ({"model_type": "gemma3", "vision_config": {}, "text_config": {}}, "save its language model alone",
         "unreadable"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "awq"}}, "quantised weights (awq)",
         "unreadable"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "bitsandbytes"}}, "take the model as it was",
         "unreadable"),
        ({"model_type": "mine"}, "transformers cannot open this mine checkpoint: release", "unreadable"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "a.MineConfig"}}, "no such model_type, a newer one may",
         "unreadable"),
        ({"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "a.MyLlama"}},
         "asks for code from the repository, which is never run, and transformers has no MyLlama", "unreadable"),
        ({"model_type": "llama", "auto_map": "x"}, "asks for code from the repository", "unreadable"),
    ],
)  # fmt: skip
def test_a_config_is_refused(config: dict[str, Any], sentence: str, status: str, tmp_path: Path) -> None:
    with pytest.raises(KindError) as caught:
        read_config(written(tmp_path / "step1", config), "step1")
    assert str(caught.value).startswith("step1: ")
    assert sentence in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "is_decoder": True},
        {"model_type": "bart", "is_decoder": True, "is_encoder_decoder": False},
        {"model_type": "gemma3_text", "use_bidirectional_attention": False},
        {"model_type": "mpt", "auto_map": {"AutoModelForCausalLM": "modeling_mpt.MPTForCausalLM"}},
        {"model_type": "falcon", "auto_map": {"AutoModelForCausalLM": "tiiuae/falcon--modeling.FalconForCausalLM",
                                              "AutoModelForTokenClassification": "modeling.Other"}},
        OWN,
    ],
)  # fmt: skip
def test_a_decoder_passes(config: dict[str, Any], tmp_path: Path) -> None:
    assert "auto_map" not in read_config(written(tmp_path / "step1", config), "step1")


def test_an_unreadable_model_type_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="names no model_type"):
        read_config(written(tmp_path / "step1", {"model_type": ["bert"]}), "step1")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter (PEFT)"),
        (["latest", "zero_to_fp32.py", "global_step10"], "shards of a DeepSpeed training"),
        (["global_step10/layer_00-model_00-model_states.pt"], "shards of a DeepSpeed training"),
        (["layer_00-model_00-model_states.pt"], "shards of a DeepSpeed training"),
        (["global_step10/mp_rank_00_model_states.pt"], "shards of a Megatron or DeepSpeed training"),
        (["latest_checkpointed_iteration.txt", "iter_0000010"], "shards of a Megatron"),
        (["mp_rank_00/model_optim_rng.pt"], "shards of a Megatron"),
        (["model.nemo"], "a NeMo model"),
        (["__0_0.distcp", ".metadata"], "shards of a distributed torch training"),
        (["model.Q4_K_M.gguf"], "a GGUF file"),
        (["consolidated.00.pth", "params.json"], "its maker's own format"),
        (["tf_model.h5"], "TensorFlow or JAX"),
    ],
)
def test_foreign_files_are_called_by_their_name(names: list[str], what: str, tmp_path: Path) -> None:
    found = describe_layout(names)
    assert found is not None
    assert what in found
    for name in names:
        path = tmp_path / "step10" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    for read in (open_folder, read_config):
        with pytest.raises(KindError) as caught:
            read(tmp_path / "step10", "step10")
        assert str(caught.value) == f"step10: {found}"
    if any(name.startswith("global_step") for name in names):
        return  # a folder of its own for each step
    (tmp_path / "step10").rename(tmp_path / "plain")
    with pytest.raises(UserError) as of_series:
        FolderSeries(tmp_path / "plain")
    assert what in str(of_series.value)


def test_plain_folders_are_no_foreign_ones() -> None:
    assert describe_layout(["README.md", "step1", "step1/model.safetensors", "training.json"]) is None


def test_a_run_of_nothing_but_adapters_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (10, 20):
        folder = tmp_path / "series" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"")
    assert cli(["analyze", str(tmp_path / "series"), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "checkpoint-10: this is an adapter (PEFT)" in capsys.readouterr().err


def test_a_series_without_a_tokenizer_says_how_to_give_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    neox().save_pretrained(tmp_path / "series" / "step1")
    few = [part for key, value in FEW.items() for part in ("--set", f"{key}={value}")]
    command = ["analyze", str(tmp_path / "series"), "--tasks", "ADD", "--out", str(tmp_path / "run"), "-q", *few]
    assert cli(command) == 2
    assert "step1: there is no tokenizer.json beside its weights" in (error := capsys.readouterr().err)
    assert "--tokenizer OWNER/NAME" in error
    characters(tmp_path / "tokenizer")
    assert cli([*command, "--tokenizer", str(tmp_path / "tokenizer")]) == 0


def test_code_that_transformers_has_itself_is_taken_from_there_with_a_note(tmp_path: Path) -> None:
    folder = tmp_path / "series" / "step1"
    neox().save_pretrained(folder)
    characters(tmp_path / "tokenizer").save_pretrained(folder)
    plain = open_folder(folder, "step1")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | OWN))
    opened = open_folder(folder, "step1")
    assert (plain.note, opened.weight_sha) == (None, plain.weight_sha)
    assert opened.note is not None
    assert "GPTNeoXForCausalLM as transformers has it" in opened.note
    few = [part for key, value in FEW.items() for part in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    assert cli(["analyze", str(tmp_path / "series"), "--tasks", "ADD", "--out", str(run), "-q", *few]) == 0
    assert json.loads((run / "manifest.json").read_text())["model"]["note"] == opened.note


def test_an_encoder_in_memory_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertLMHeadModel(BertConfig(vocab_size=41, **shape))
    with pytest.raises(CheckpointError, match="this BertLMHeadModel sees later tokens") as caught:
        pythiageo.measure(model, characters(tmp_path), "ADD", settings=FEW)
    assert caught.value.status == "not-causal"
