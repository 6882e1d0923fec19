"""What is fed is what transformers' own tokenizer of the folder feeds, at every checkpoint and within its context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, GPT2Config, GPTNeoXConfig, LlamaConfig

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_manifest, read_observations
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.series.files.load import open_folder

TEXTS = ("a b", " a  b\n", "ADD 12 7 = 19", "é😀 x")


def byte_tokenizer(folder: Path, around: bool, **settings: Any) -> Path:
    """A byte tokenizer that joins a space to the letter after it; ``around``: its file puts tokens around a text."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("Ġ", letter) for letter in "abADNx"]
    vocabulary = {token: i for i, token in enumerate([*characters, *map("".join, pairs), "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if around:
        special = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if settings:
        known = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "</s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(known | settings))
    return folder


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("config", [None, GPTNeoXConfig, GPT2Config, LlamaConfig])
@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {"tokenizer_class": "GPTNeoXTokenizer", "add_prefix_space": True},
        {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": True},
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True},
        {},
    ],
)
def test_ids_are_those_of_transformers(settings: dict[str, Any], config: Any, around: bool, tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path, around, **settings)
    if config is not None:
        config().save_pretrained(folder)
    if not settings and config is None:
        theirs: Any = None  # nothing but the file: transformers needs more
    else:
        theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = FileTokenizer(folder)
    for text in TEXTS:
        ids, spans = ours.tokenize(text)
        expected = (
            theirs(text).input_ids if theirs else Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
        )
        assert ids == expected
        added = [token for token, span in zip(ids, spans, strict=True) if span is None]
        assert tuple(map(ours.show, added)) == ours.around
    assert ours.kind == (type(theirs).__name__ if theirs else "tokenizer.json")


def test_a_file_alone_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path, True, tokenizer_class="GPTNeoXTokenizer")
    assert (FileTokenizer(folder).around, FileTokenizer(folder / "tokenizer.json").around) == ((), ("<s>", "</s>"))


def test_each_checkpoint_has_its_own_tokenizer_and_context(tmp_path: Path) -> None:
    from transformers import GPTNeoXForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    for step, (context, settings) in enumerate([(64, {}), (64, {"add_prefix_space": True}), (8, {})], start=1):
        torch.manual_seed(step)
        folder = byte_tokenizer(tmp_path / "s" / f"step{step}", False, tokenizer_class="GPTNeoXTokenizer", **settings)
        GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, max_position_embeddings=context, **shape)).save_pretrained(
            folder
        )
    one = open_folder(tmp_path / "s" / "step2", "step2")
    few = ["--tasks", "ADD", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3", "-q"]
    out = tmp_path / "run"
    assert cli(["analyze", str(tmp_path / "s"), "--out", str(out), *few]) == 1
    found = read_observations(out)
    assert found.filter(measure="rankme", status="ok")["step"].unique().to_list() == [1, 2]
    (row,) = found.filter(step=3).rows(named=True)
    assert row["status"] == "unreadable"
    assert "nothing of what is asked can be measured" in row["reason"]
    assert "the model's context is 8" in row["reason"]
    told = read_manifest(out)["model"]["tokenizer"]
    assert (told["kind"], told["around"]) == ("GPTNeoXTokenizer", [])
    assert told["texts_unlike_file"] > 0  # step 2, the last that was measured, has a space before each

    # the second one's score is of what transformers feeds: a space before the text
    from pythiageo.probes.probeset import make_probe_set
    from pythiageo.probes.task import get_task, load_tasks

    probe_set = make_probe_set(get_task(load_tasks(None), "ADD"), "L1", 2, 0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "s" / "step2")
    expected = []
    for example in probe_set.examples:
        ids = torch.tensor([tokenizer(example.prompt + example.answer).input_ids])
        answer = len(example.answer)  # digits are a token each
        logs = one.model(ids).logits.double().log_softmax(-1)[0, -answer - 1 : -1]
        expected.append(float(logs.gather(1, ids[0, -answer:, None]).mean()))
    value = found.filter(step=2, measure="log_prob", level="L1")["value"].item()
    assert value == pytest.approx(sum(expected) / len(expected), rel=1e-6)
