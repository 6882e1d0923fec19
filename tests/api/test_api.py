"""From Python: a run opened, a model in memory measured as its checkpoint would be, and nothing of either changed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import polars as pl
import pytest
import torch
from inmemory import FEW, characters, neox
from transformers import GPTNeoXForCausalLM, GPTNeoXForSequenceClassification, PreTrainedTokenizerFast

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import CheckpointError, UserError
from pythiageo.events import PROTOCOLS, events
from pythiageo.observations import COLUMNS, ObservationStore, read_observations

MEASURES = ["rankme", "linear_probe", "gradient_rank"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return characters(tmp_path_factory.mktemp("tokenizer"))


def measured(model: torch.nn.Module, tokenizer: Any, **changed: Any) -> pl.DataFrame:
    asked: dict[str, Any] = {"tasks": "ADD", "measures": "rankme", "readouts": "answer/centred", "settings": FEW}
    return pythiageo.measure(model, tokenizer, **{**asked, **changed})


def test_importing_pythiageo_loads_no_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import pythiageo; dir(pythiageo);"
        "print({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names));"
        "pythiageo.open_run; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["{'pythiageo'}", "[]"]


def test_every_public_name_is_there() -> None:
    assert set(pythiageo.__all__) <= set(dir(pythiageo))
    assert all(getattr(pythiageo, name) is not None for name in pythiageo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'open_runs'"):
        pythiageo.open_runs  # noqa: B018


def test_a_run_folder_is_opened_and_left_as_it_is(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path)
    rows = planted.rows(steps=[0, 100, 200])
    for step in (0, 100, 200):
        store.write(step, [row for row in rows if row.step == step])
    (tmp_path / "manifest.json").write_text('{"schema_version": "1", "config": {"seed": 3}}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run = pythiageo.open_run(str(tmp_path))
    assert run.observations.equals(read_observations(tmp_path))
    assert run.config == {"seed": 3}
    assert run.manifest["schema_version"] == "1"
    assert run.events("billa-v4").equals(events(run.observations, "billa-v4"))
    assert set(run.events()["protocol"]) == set(PROTOCOLS)
    with pytest.raises(UserError, match="did you mean 'billa-v4'"):
        run.events("billa-v5")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_wrong_with_a_folder_is_said_when_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        pythiageo.open_run(tmp_path / "none")
    run = pythiageo.open_run(tmp_path)
    with pytest.raises(UserError, match="not a run folder"):
        run.observations  # noqa: B018
    with pytest.raises(UserError, match="not a run folder"):
        run.manifest  # noqa: B018
    (tmp_path / "manifest.json").write_text('{"schema_version": "1", "config": [1]}')
    with pytest.raises(UserError, match="holds no config"):
        run.config  # noqa: B018


def test_a_model_in_memory_gives_the_table_of_its_checkpoint(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = neox()
    found = measured(model, tokenizer, tasks=["ADD"], measures=MEASURES, name="here", step=7)
    assert found.schema == COLUMNS
    assert set(found["weight_sha"].drop_nulls()) == set(found["weight_sha"])
    model.save_pretrained(tmp_path / "step7")
    tokenizer.save_pretrained(tmp_path / "step7")
    few = [part for key, value in FEW.items() for part in ("--set", f"{key}={value}")]
    code = cli(["analyze", str(tmp_path), "--tasks", "ADD", "--measures", ",".join(MEASURES), "--readouts",
                "answer/centred", "--name", "here", "--out", str(tmp_path / "run"), "--quiet", *few])  # fmt: skip
    assert code == 0
    other = ["series", "size", "run"]
    assert found.drop(other).equals(read_observations(tmp_path / "run").drop(other))


def test_nothing_of_the_model_or_the_process_changes(tokenizer: PreTrainedTokenizerFast) -> None:
    model = neox(dropout=0.1)
    batch = torch.arange(12).view(2, 6)
    model(batch, labels=batch).loss.backward()

    def state() -> list[Any]:
        tensors = [t.clone() for p in model.parameters() for t in (p.data, p.grad)]
        drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        return [*tensors, *drawn, model.training, {**vars(model.config)}, torch.get_num_threads(),
                torch.is_grad_enabled(), torch.get_default_dtype()]  # fmt: skip

    before = state()
    measured(model, tokenizer, threads=2)
    for was, now in zip(before, state(), strict=True):
        assert torch.equal(was, now) if isinstance(was, torch.Tensor) else was == now


def test_surroundings_do_not_change_the_numbers(tokenizer: PreTrainedTokenizerFast) -> None:
    model = neox()
    alone = measured(model, tokenizer, measures=["rankme", "gradient_rank"])
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            within = measured(torch.compile(model), tokenizer, measures=["rankme", "gradient_rank"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert within.equals(alone)


def shrunk(model: GPTNeoXForCausalLM) -> GPTNeoXForCausalLM:
    model.resize_token_embeddings(9)
    return model


def subclassed(model: GPTNeoXForCausalLM) -> GPTNeoXForCausalLM:
    class Mine(GPTNeoXForCausalLM):
        pass

    return Mine(model.config)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: 3, UserError, "expected a causal language model of transformers, got a int"),
        (lambda m: torch.nn.Linear(2, 2), UserError, "got a Linear"),
        (lambda m: GPTNeoXForSequenceClassification(m.config), UserError, "expected a GPTNeoXForCausalLM"),
        (subclassed, UserError, "expected a GPTNeoXForCausalLM as transformers opens it from a checkpoint, got a Mine"),
        (shrunk, CheckpointError, "the model has embeddings for 9 tokens"),
        (lambda m: m.to("meta"), UserError, "not whole in this process"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tokenizer: PreTrainedTokenizerFast,
    make: Callable[[GPTNeoXForCausalLM], Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        measured(make(neox()), tokenizer)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer": 3}, "expected a tokenizer of transformers, got a int"),
        ({"tasks": "ADDD"}, "did you mean 'ADD'"),
        ({"measures": ["rankmee"]}, "did you mean 'rankme'"),
        ({"layers": "9"}, "not within the model's layers"),
        ({"settings": {"probes.score_exampels": 3}}, "did you mean 'score_examples'"),
        ({"settings": {"probes.tasks": ["ADD"]}}, "set by the keyword tasks already"),
        ({"settings": {"probes.seed": None}}, "probes.seed: expected a text, number"),
        ({"step": -1}, "expected a whole number from 0"),
    ],
)
def test_a_mistake_in_the_keywords_is_one_sentence(
    tokenizer: PreTrainedTokenizerFast, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        measured(neox(), **{"tokenizer": tokenizer, **changed})


def test_weights_that_are_no_numbers_are_told(tokenizer: PreTrainedTokenizerFast) -> None:
    model = neox()
    torch.nn.init.constant_(model.get_output_embeddings().weight, float("nan"))
    table = measured(model, tokenizer)
    assert set(table.filter(pl.col("status") != "ok")["status"]) == {"nonfinite"}
    assert set(table.filter(pl.col("status") == "ok")["measure"]) == {"chance_accuracy", "majority_rate"}
