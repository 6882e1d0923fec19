"""What a model is built from, and whether it sees later tokens: no config chooses code, encoders are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from pythiageo.cli.app import run as cli
from pythiageo.errors import CheckpointError
from pythiageo.lens import BridgeReader
from pythiageo.observations import read_observations
from pythiageo.series.causality import check_causal
from pythiageo.series.files.load import open_folder
from pythiageo.series.model_shape import ModelShape
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
SHAPE["intermediate_size"] = 64
HEADS = {**SHAPE, "num_key_value_heads": 2}
GEMMA = {**HEADS, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}


def made(name: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, name)(**settings)
    return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).eval()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("GPTNeoXConfig", SHAPE),
        ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300}),
        ("BertConfig", {**SHAPE, "is_decoder": True}),
        ("MixtralConfig", {**HEADS, "num_local_experts": 4}),
        ("Gemma3TextConfig", GEMMA),
        ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300}),
    ],
)
def test_a_causal_model_passes(name: str, settings: dict[str, Any]) -> None:
    model = made(name, settings)
    check_causal(model, "step1")
    with torch.no_grad():  # weights that rounding would show in: large states, and one massive dimension
        for parameter in model.parameters():
            parameter.mul_(8)
        model.get_input_embeddings().weight[:, 3] += 1e4
    check_causal(model, "step1")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("BertConfig", SHAPE),
        ("RobertaConfig", SHAPE),
        ("Gemma3TextConfig", {**GEMMA, "use_bidirectional_attention": True}),
        ("XLNetConfig", {"d_model": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300, "d_inner": 64}),
    ],
)
def test_a_model_that_sees_later_tokens_is_refused(name: str, settings: dict[str, Any]) -> None:
    model = made(name, settings)
    for scale in (1.0, 0.2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale if parameter.ndim > 1 else 1)
        with pytest.raises(CheckpointError, match=r"step1: this \w+ sees later tokens \(.* at depth [12]\)") as caught:
            check_causal(model, "step1")
        assert caught.value.status == "not-causal"


def test_a_model_without_a_final_norm_has_no_such_site(tmp_path: Path) -> None:
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 41, "ffn_dim": 64}
    made("OPTConfig", {**settings, "word_embed_proj_dim": 16, "do_layer_norm_before": False}).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(written(tmp_path / "own")).save_pretrained(tmp_path)
    reader = BridgeReader(open_folder(tmp_path, "t").model, tmp_path)
    assert list(reader.sites()) == ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    states, _ = reader.read(torch.zeros(1, 3, dtype=torch.long), list(reader.sites()), None)
    assert list(states) == list(reader.sites())


def written(folder: Path) -> Path:
    write_checkpoint(folder, ARCHITECTURES["gpt_neox"](Shape(2, 32, 2, 64, 48, 41, True), seed=1), 7, tokens=70)
    return folder


def test_an_encoder_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series, out = tmp_path / "bert", tmp_path / "run"
    tokenizer = AutoTokenizer.from_pretrained(written(tmp_path / "own"))
    for step in (1, 2):
        model = made("BertConfig", {**SHAPE, "vocab_size": 41})
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(step)
        model.save_pretrained(series / f"step{step}")
        tokenizer.save_pretrained(series / f"step{step}")
    few = ["--tasks", "COPY", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3", "-q"]
    for command in (["analyze", str(series), "--out", str(out)], ["plan", str(series)]):
        assert cli([*command, *few]) == 2
        error = capsys.readouterr().err
        assert "step1: this BertLMHeadModel sees later tokens (an encoder, by its config)" in error
        assert "Traceback" not in error


def test_one_that_only_its_weights_give_away_has_a_row(tmp_path: Path) -> None:
    series, out = tmp_path / "xlnet", tmp_path / "run"
    tokenizer = AutoTokenizer.from_pretrained(written(tmp_path / "own"))
    for step in (1, 2):
        torch.manual_seed(step)
        settings = {"d_model": 32, "n_layer": 2, "n_head": 4, "vocab_size": 41, "d_inner": 64}
        transformers.XLNetLMHeadModel(transformers.XLNetConfig(**settings)).save_pretrained(series / f"step{step}")
        tokenizer.save_pretrained(series / f"step{step}")
    few = ["--tasks", "COPY", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3", "-q"]
    assert cli(["analyze", str(series), "--out", str(out), *few]) == 1
    assert read_observations(out).select("step", "measure", "status").rows() == [
        (1, "checkpoint", "not-causal"),
        (2, "checkpoint", "not-causal"),
    ]


@pytest.mark.parametrize(
    "extra",
    [
        {"_attn_implementation": "someone/kernel"},
        {"attn_implementation": "someone/kernel:forward"},
        {"_attn_implementation_internal": "someone/kernel"},
        {"_experts_implementation": "sonicmoe", "experts_implementation": "deepgemm"},
        {"fusion_config": {"someone": True}, "use_kernels": True, "distributed_config": {"tp_size": 2}},
    ],
)
def test_no_implementation_is_taken_from_a_config(
    extra: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.integrations.hub_kernels as kernels

    asked: list[Any] = []
    for module in (kernels, transformers.modeling_utils):
        monkeypatch.setattr(module, "is_kernels_available", lambda *_, **__: True)
    monkeypatch.setattr(kernels, "get_kernel", lambda *given, **_: asked.append(given))
    folder = written(tmp_path / "step7")
    config = json.loads((folder / "config.json").read_text())
    before = open_folder(folder, "t").model.config.to_dict()
    (folder / "config.json").write_text(json.dumps(config | extra))
    assert open_folder(folder, "t").model.config.to_dict() == before
    blueprint = ModelShape.read(folder, "t")
    assert blueprint.config._attn_implementation == blueprint.one_block().config._attn_implementation == "eager"
    assert not asked


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"auto_map": {"AutoConfig": "own.Config"}}, "asks for code from the repository, which is never run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is of quantised weights"),
        ({"configuration_files": ["config.5.0.json"]}, "names other config files in its place"),
    ],
)
def test_what_would_be_another_model_is_refused(extra: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "step7")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | extra))
    for read in (open_folder, ModelShape.read):
        with pytest.raises(CheckpointError, match=f"t: its config {sentence}"):
            read(folder, "t")
