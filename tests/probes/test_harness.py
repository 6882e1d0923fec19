"""Scores against lm-evaluation-harness: its own task definitions, the same items, one local model.

``make agree`` runs this; 0.4.13 is the version that agreed. Zero shots and no description: that is what our tasks ask.
Per item, the two log-likelihoods differ by rounding alone: float32 log-softmax there, float64 here, and batches of
other lengths. So accuracies, which only compare them, are equal.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_datasets import locally

from pythiageo.measurement.forward import Reading
from pythiageo.measurement.probe_sets import SCORE, Probe, prepare
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.scoring import score

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: make agree")
pytestmark = pytest.mark.bench

PYTHIA_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "pythia_tokenizer.json"
FRUITS = "On a shelf, there are three fruits: a pear, a lime and a fig. The {} is leftmost.\nOptions:\n"
ROWS: dict[str, list[dict[str, Any]]] = {
    "lambada": [
        {"text": "she put the kettle on and made some tea"},
        {"text": "Nobody in the village had ever met Tobermory"},
        {"text": "“Wait for me,” she said , and then called out for Anastasia"},
        {"text": "they walked the whole night through until morning"},
    ],
    "sciq": [
        {
            "question": question,
            "distractor1": "carbon monoxide",
            "distractor2": "sand",
            "distractor3": "naïve T-cells",
            "correct_answer": answer,
            "support": support,
        }
        for question, answer, support in [
            ("What do roots take in?", "water", "Roots take in water."),
            ("What is hot?", "the sun's outer corona", "  A passage that starts with white space.\n\nAnd goes on."),
            ("What is Ångström's unit?", "10⁻¹⁰ metres", ""),
            ("What do plants give off?", "oxygen", "Leaves are green. "),
        ]
    ],
    "arc-easy": [
        {"question": question, "choices": {"text": texts, "label": labels}, "answerKey": key}
        for question, texts, labels, key in [
            ("What flies?", ["a bird", "a stone", "12 shoes", "the old mill"], ["A", "B", "C", "D"], "A"),
            ("Which is warmest?", ["ice", "a fire that burns", "snow", "rain"], ["1", "2", "3", "4"], "2"),
            ("What is largest? ", ["an atom", "a cell", "the Earth", "a hippopotamus"], ["A", "B", "C", "D"], "C"),
            ("Which sinks?", ["cork", "foam", "air", "lead"], ["A", "B", "C", "D"], "D"),
        ]
    ],
    "piqa": [
        {"goal": "dry a cup", "sol1": "use a towel", "sol2": "use a river", "label": 0},
        {"goal": "How do I open a jar?", "sol1": "Ask.", "sol2": "Twist its lid, hard; wear a glove.", "label": 1},
        {"goal": "cool soup", "sol1": "blow on it – gently", "sol2": "boil it", "label": 0},
        {"goal": "ship a crate", "sol1": "nail it up ", "sol2": "nail it up", "label": 1},
    ],
    "logical-deduction": [
        {"input": FRUITS.format(fruit) + "(A) the pear\n(B) the lime\n(C) the fig", "target": target}
        for fruit, target in [("pear", "(A)"), ("lime", "(B)"), ("fig", "(C)"), ("pear again", "(A)")]
    ],
}
THEIRS = {
    "lambada": "lambada/lambada_openai.yaml",
    "sciq": "sciq/sciq.yaml",
    "arc-easy": "arc/arc_easy.yaml",
    "piqa": "piqa/piqa.yaml",
    "logical-deduction": "leaderboard/bbh_mc/logical_deduction_three_objects.yaml",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PYTHIA_TOKENIZER.is_file():
        pytest.skip("the real Pythia tokenizer is not beside the checkout")
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tmp_path_factory.mktemp("harness") / "model"
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = GPTNeoXConfig(vocab_size=50304, max_position_embeddings=512, initializer_range=0.3, **shape)
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    shutil.copy(PYTHIA_TOKENIZER, folder / "tokenizer.json")
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


def their_task(name: str, rows: Path) -> dict[str, Any]:
    """The harness's own definition, reading ``rows`` in place of the Hub, without few-shot examples."""
    file = Path(lm_eval.__file__).parent / "tasks" / THEIRS[name]
    task = yaml.safe_load(file.read_text())
    if included := task.pop("include", None):
        task = yaml.safe_load((file.parent / included).read_text()) | task
    for key in ("dataset_name", "training_split", "validation_split", "fewshot_config", "description", "tag"):
        task.pop(key, None)
    local = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}, "test_split": "test"}
    return task | local | {"num_fewshot": 0, "task": f"local_{name}"}


def theirs(name: str, rows: Path, model: Path) -> tuple[list[list[float]], dict[str, float]]:
    """Each item's log-likelihoods, one an option, and the scores."""
    from lm_eval.models.huggingface import HFLM

    model_ = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=2)
    task = their_task(name, rows)
    found = lm_eval.simple_evaluate(model_, tasks=[task], num_fewshot=0, bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"][task["task"]], key=lambda sample: sample["doc_id"])
    values = [[float(reply[0]) for reply in sample["filtered_resps"]] for sample in samples]
    scores = {key.removesuffix(",none"): value for key, value in found["results"][task["task"]].items()}
    return values, scores


@pytest.mark.parametrize("name", ROWS)
def test_scores_are_those_of_the_harness(name: str, model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from pythiageo.lens.bridge import BridgeReader
    from pythiageo.probes.encoding import FileTokenizer

    task = locally(name, "json", tmp_path / "rows", ROWS[name])
    values, expected = theirs(name, tmp_path / "rows" / "rows.json", model)

    probe_set = make_probe_set(task, "L1", len(ROWS[name]), 0)
    (prepared,) = prepare([Probe(probe_set, SCORE)], FileTokenizer(model), None)
    reader = BridgeReader(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), model)
    reading = Reading(reader, {}, 4096, 2**30)
    right, options = reading.predictions(prepared.encoded), reading.options(prepared)
    ours = {result.measure: result.value for result in score(probe_set.rule, right, options)}

    sums = right.per_owner(right.log_prob).tolist()
    if options is None:
        assert sums == pytest.approx([value for (value,) in values], rel=1e-5)
        assert math.exp(-sum(sums) / len(sums)) == pytest.approx(expected["perplexity"], rel=1e-4)
        assert ours["accuracy"] == expected["acc"]
        return
    wrong = options.predictions.per_owner(options.predictions.log_prob)
    for item, (value, found) in enumerate(zip(sums, values, strict=True)):
        others = wrong[options.example == item].tolist()
        assert sorted([value, *others]) == pytest.approx(sorted(found), rel=1e-5)
    assert ours["accuracy_normalised"] == expected["acc_norm"]
    if "acc" in expected:  # the leaderboard's definition has acc_norm alone
        assert ours["accuracy"] == expected["acc"]


def test_a_checkpoint_of_a_series_is_scored_by_the_harness(model: Path, tmp_path: Path) -> None:
    import pythiageo

    locally("sciq", "json", tmp_path / "rows", ROWS["sciq"])
    rows = tmp_path / "rows" / "rows.json"
    _, expected = theirs("sciq", rows, model)
    with pythiageo.checkpoints(model) as series:
        table = next(iter(series)).harness([their_task("sciq", rows)], num_fewshot=0, batch_size=2)
    found = dict(table.select("measure", "value").rows())
    assert found["accuracy"] == expected["acc"]
    assert found["accuracy_normalised"] == expected["acc_norm"]
    assert set(table["task"]) == {"local_sciq"}
    assert table["n"].to_list() == [len(ROWS["sciq"])] * len(table)


def test_a_task_of_the_harness_is_scored_in_the_pass_of_an_analysis(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``analyze --harness sciq`` with the library itself, its data set from here."""
    import datasets

    from pythiageo.cli.app import run as cli
    from pythiageo.observations import read_observations

    locally("sciq", "json", tmp_path / "rows", ROWS["sciq"])
    _, expected = theirs("sciq", tmp_path / "rows" / "rows.json", model)
    rows = datasets.Dataset.from_list(ROWS["sciq"])
    found = datasets.DatasetDict(dict.fromkeys(("train", "validation", "test"), rows))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: found)
    few = ["--tasks", "ADD", "--examples", "6", "--measures", "rankme", "--quiet"]
    assert cli(["analyze", str(model), "--harness", "sciq", "--out", str(tmp_path / "run"), *few]) == 0
    table = read_observations(tmp_path / "run").filter(task="sciq")
    assert dict(table.filter(measure="accuracy").select("measure", "value").rows())["accuracy"] == expected["acc"]
