"""Scores under every rule, against closed forms, planted models, and transformers without any of this code."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.cli.app import run as cli
from pythiageo.config.tables import MeasureConfig
from pythiageo.errors import UserError
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.geometry import observe
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.probe_sets import DIAGNOSTIC, GEOMETRY, SCORE, Prepared, Probe, prepare
from pythiageo.measurement.result import Origin
from pythiageo.observations import read_observations
from pythiageo.probes.encoding import CharacterTokenizer, FileTokenizer
from pythiageo.probes.kinds import RULES
from pythiageo.probes.probeset import Example, ProbeSet
from pythiageo.probes.scoring import MEASURES, PIECE, Options, Predictions, predict, score
from pythiageo.probes.task import load_tasks, read_task

PYTHIA_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "pythia_tokenizer.json"
VOCAB = 41
TABLE = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))


class Bigram:
    """A model whose next token depends on the last one alone, and whose one state is that token's row."""

    def __init__(self, table: Tensor = TABLE) -> None:
        self.table = table

    def sites(self) -> dict[str, int]:
        return {"blocks.0.hook_resid_post": 0}

    def read(
        self, ids: Int[Tensor, "example position"], sites: list[str], logit_positions: Int[Tensor, " scored"] | None
    ) -> tuple[dict[str, Float[Tensor, "example position d_model"]], Float[Tensor, "example scored vocab"] | None]:
        logits = None if logit_positions is None else self.table[ids[:, logit_positions]]
        return {site: self.table[ids] for site in sites}, logits


def by_hand(text: str, start: int) -> list[float]:
    """Each character's log-probability under the table, from ``start`` on and with the end, in plain Python."""
    ids, _ = CharacterTokenizer().tokenize(text)
    found = []
    for previous, token in list(itertools.pairwise(ids))[start:]:
        row = [float(v) for v in TABLE[previous]]
        found.append(row[token] - math.log(sum(math.exp(v) for v in row)))
    return found


def prepared(rule: str, *examples: Example) -> Prepared:
    probe_set = ProbeSet("T", "L1", rule, examples, None if rule == "text" else 0.5, "0" * 12)
    return prepare([Probe(probe_set, SCORE)], CharacterTokenizer(), None)[0]


def scores(probe: Prepared, reader: Bigram, batch_tokens: int = 64) -> dict[str, float]:
    reading = Reading(reader, {}, batch_tokens, 2**30)
    right, options = reading.predictions(probe.encoded), reading.options(probe)
    rule = probe.probe.probe_set.rule
    found = score(rule, right, options)
    assert tuple(result.measure for result in found) == MEASURES[rule]
    return {result.measure: result.value for result in found}


WORDS = ["AB", "C", "DOG", "E E", "HORSE", "12", "Z9Z9", "Q"]
CHOICES = tuple(
    Example(f"ASK {i} = ", word, tuple(w for k, w in enumerate(WORDS) if (k - i) % 4 == 1))
    for i, word in enumerate(WORDS)
)


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_choice_against_counting_in_plain_python(batch_tokens: int) -> None:
    raw = normalised = 0
    mean = []
    for prompt, answer, wrong, _ in CHOICES:
        start = len(prompt)
        right, *others = (by_hand(prompt + text, start) for text in (answer, *wrong))
        raw += all(sum(right) > sum(other) for other in others)
        per_character = [sum(o) / len(w) for o, w in zip(others, wrong, strict=True)]
        normalised += all(sum(right) / len(answer) > value for value in per_character)
        mean.append(sum(right) / len(right))
    found = scores(prepared("choice", *CHOICES), Bigram(), batch_tokens)
    assert found["accuracy"] == raw / len(CHOICES)
    assert found["accuracy_normalised"] == normalised / len(CHOICES)
    assert raw != normalised  # or this test would not tell the two apart
    assert found["log_prob"] == pytest.approx(sum(mean) / len(mean), abs=1e-6)


def test_next_token_and_exact_match_differ_by_the_tokens_after_the_first() -> None:
    table = torch.zeros(VOCAB, VOCAB)
    ids, _ = CharacterTokenizer().tokenize("= AX")
    table[ids[2], ids[3]] = 5.0  # after a space comes A; nothing else is known
    example = Example("1 = ", "AX")
    assert scores(prepared("next-token", example), Bigram(table))["accuracy"] == 1
    assert scores(prepared("exact", example), Bigram(table))["accuracy"] == 0
    log_prob = scores(prepared("next-token", example), Bigram(table))["log_prob"]
    assert log_prob == pytest.approx(5 - math.log(math.exp(5) + VOCAB - 1))


def test_perplexity_is_that_of_all_tokens_and_of_a_uniform_model_the_vocabulary() -> None:
    texts = ["THE RAIN FELL", "A", "ON THE ROOF ALL NIGHT"]
    probe = prepared("text", *(Example("", text) for text in texts))
    every = [value for text in texts for value in by_hand(text, 0)]
    found = scores(probe, Bigram())
    assert found["log_prob"] == pytest.approx(sum(every) / len(every), abs=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(-sum(every) / len(every)), rel=1e-6)
    assert scores(probe, Bigram(torch.zeros(VOCAB, VOCAB)))["perplexity"] == pytest.approx(VOCAB, rel=1e-12)


def test_ties_are_shared_so_that_a_model_that_knows_nothing_is_at_chance() -> None:
    equal = Bigram(torch.zeros(VOCAB, VOCAB))
    choice = prepared("choice", *(Example("A = ", w, tuple(o for o in "WXYZ" if o != w)) for w in "WXYZ"))
    assert scores(choice, equal)["accuracy"] == scores(choice, equal)["accuracy_normalised"] == 0.25
    assert scores(prepared("minimal-pair", Example("A = ", "X", ("Y",))), equal)["accuracy"] == 0.5


def test_a_planted_preference_decides_a_minimal_pair() -> None:
    table = torch.zeros(VOCAB, VOCAB)
    ids, _ = CharacterTokenizer().tokenize("= IA")
    table[ids[2], ids[3]] = 3.0
    knows = scores(prepared("minimal-pair", Example("A = ", "IS", ("ARE",))), Bigram(table))
    errs = scores(prepared("minimal-pair", Example("A = ", "ARE", ("IS",))), Bigram(table))
    assert (knows["accuracy"], errs["accuracy"]) == (1, 0)


def test_the_standard_error_of_perplexity_is_what_resampling_says() -> None:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 60, (400,), generator=generator)
    owner = torch.repeat_interleave(torch.arange(400), tokens)
    level = torch.randn(400, generator=generator, dtype=torch.float64) * 0.5 - 3
    values = level[owner] + 0.3 * torch.randn(len(owner), generator=generator, dtype=torch.float64)
    log_prob, perplexity = score("text", Predictions(values, torch.zeros(len(owner), dtype=torch.bool), owner))
    sums = torch.zeros(400, dtype=torch.float64).index_add_(0, owner, values)
    drawn = torch.randint(400, (4000, 400), generator=generator)
    resampled = sums[drawn].sum(1) / tokens.double()[drawn].sum(1)
    # 4,000 resamples know a standard error to about 1.2%
    assert log_prob.stderr == pytest.approx(float(resampled.std()), rel=0.05)
    assert perplexity.stderr == pytest.approx(float((-resampled).exp().std()), rel=0.07)


def test_a_perplexity_beyond_float64_is_an_observation_without_a_value() -> None:
    table = torch.zeros(VOCAB, VOCAB)
    table[:, 0] = 1e6
    rows = rows_of(prepared("text", Example("", "AB")), Bigram(table))
    assert [(row.measure, row.status) for row in rows] == [("log_prob", "ok"), ("perplexity", "nonfinite")]
    assert rows[1].value is None
    assert rows[1].reason == "the value is beyond float64"


ORIGIN = Origin("r", "s", "naturalistic", "nano", None, 0, None, None)


def rows_of(probe: Prepared, reader: Bigram, nonfinite: str | None = None) -> list:
    return observe(
        Reading(reader, {**reader.sites()}, 64, 2**30), [probe], GeometryPlan.of(MeasureConfig()), ORIGIN, nonfinite
    )


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_says_the_same_measures_with_and_without_a_value(rule: str) -> None:
    wrong = {"choice": ("X", "YY"), "minimal-pair": ("X",)}.get(rule, ())
    probe = prepared(rule, Example("" if rule == "text" else "A = ", "B", wrong))
    sound = rows_of(probe, Bigram())
    assert [row.status for row in sound] == ["ok"] * len(sound)
    controls = [] if rule == "text" else ["chance_accuracy", "majority_rate"]
    assert [row.measure for row in sound] == [*controls, *MEASURES[rule]]
    for broken in (rows_of(probe, Bigram(TABLE * math.nan)), rows_of(probe, Bigram(), "weights hold NaN")):
        assert [row.measure for row in broken] == [row.measure for row in sound]
        assert [row.status for row in broken] == ["ok"] * len(controls) + ["nonfinite"] * len(MEASURES[rule])


def test_options_that_cannot_be_scored_leave_no_number_at_all() -> None:
    table = TABLE.clone()
    ids, _ = CharacterTokenizer().tokenize("X")
    table[ids[1]] = math.nan  # met only after the wrong continuation's X
    rows = rows_of(prepared("choice", Example("A = ", "B", ("X",))), Bigram(table))
    assert {row.status for row in rows if row.measure in MEASURES["choice"]} == {"nonfinite"}


def test_geometry_is_taken_with_the_right_answer_fed_and_of_all_positions_of_text() -> None:
    choice = ProbeSet("T", "L1", "choice", CHOICES, 0.5, "0" * 12)
    exact = ProbeSet("T", "L1", "exact", tuple(e._replace(wrong=()) for e in CHOICES), 0.5, "0" * 12)
    text = ProbeSet("T", "L1", "text", (Example("", "RAIN FELL"), Example("", "ON THE ROOF")), None, "0" * 12)
    one, two, three = prepare([Probe(s, GEOMETRY) for s in (choice, exact, text)], CharacterTokenizer(), None)

    def numbers(probe: Prepared) -> list:
        return [(row.readout, row.measure, row.n, row.value) for row in rows_of(probe, Bigram())]

    assert numbers(one) == numbers(two)
    by_readout = {(readout, measure): (n, value) for readout, measure, n, value in numbers(three)}
    assert by_readout["answer/centred", "rankme"] == by_readout["all/centred", "rankme"]
    assert by_readout["answer/centred", "rankme"][0] == len("RAIN FELL") + len("ON THE ROOF") + 2


def test_a_text_the_tokenizer_cannot_read_is_refused_and_not_made_a_number(tmp_path: Path) -> None:
    from pythiageo.probes import tokenizer

    tokenizer.save(tmp_path)
    probe = Probe(ProbeSet("facts", "L1", "exact", (Example("red is ", "a"),), 0.5, "0" * 12), SCORE)
    for chosen in (CharacterTokenizer(), FileTokenizer(tmp_path)):
        with pytest.raises(UserError, match=r"task facts, level L1 cannot be read by this model's tokenizer: .*'r'"):
            prepare([probe], chosen, None)


ITEMS = """
name = "T"
version = 1
kind = "items"
rule = "choice"
description = "d"
source = "s"
[levels.L1]
chance = 0.5
items = [{ prompt = "A = ", answer = "B", options = ["B", "C"] }]
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            'options = ["B", "C"]',
            'wrong = "C"',
            r"levels\.L1: item 1: an item of rule 'choice' has prompt, answer, opt",
        ),
        ('options = ["B", "C"]', 'options = ["D", "C"]', "expected different options, with the answer 'B' among them"),
        ('options = ["B", "C"]', 'options = ["B", "C", "C"]', "expected different options"),
        ('options = ["B", "C"]', 'options = ["B"]', "expected something wrong beside the answer 'B'"),
        ('rule = "choice"', 'rule = "minimal-pair"', "an item of rule 'minimal-pair' has prompt, answer, wrong"),
        ('rule = "choice"', 'rule = "pairs"', "rule: Input should be 'exact', 'choice', 'minimal-pair'"),
        ('rule = "choice"', "", "an item of rule 'exact' has prompt, answer and nothing else, but 'options' is given"),
        ("chance = 0.5", "", r"levels\.L1: missing key 'chance'"),
    ],
)
def test_items_that_do_not_fit_their_rule_are_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(ITEMS)
    assert read_task(path).rule == "choice"
    path.write_text(ITEMS.replace(before, after, 1))
    with pytest.raises(UserError, match=message) as caught:
        read_task(path)
    assert "t.toml" in str(caught.value)


def test_items_beside_the_file_are_checked_against_the_rule_too(tmp_path: Path) -> None:
    head = ITEMS.split("items =", maxsplit=1)[0]
    (tmp_path / "t.toml").write_text(head + 'file = "t.jsonl"\n')
    (tmp_path / "t.jsonl").write_text('{"prompt": "A = ", "answer": "B"}\n')
    with pytest.raises(UserError, match=r"t\.jsonl:1: an item of rule 'choice' has .*, but 'options' is missing"):
        load_tasks(tmp_path)
    text = head.replace("choice", "text")
    (tmp_path / "t.toml").write_text(text + 'file = "t.jsonl"\n')
    (tmp_path / "t.jsonl").write_text('{"text": "Rain fell."}\n')
    with pytest.raises(UserError, match=r"levels\.L1: no chance for running text"):
        load_tasks(tmp_path)


def test_the_most_common_place_in_a_list_counts_as_a_constant_reply() -> None:
    listed = tuple(Example("A = ", word, ("X",), place=0) for word in ("B", "C", "D"))
    assert ProbeSet("T", "L1", "choice", listed, 0.5, "").majority_rate == 1
    assert ProbeSet("T", "L1", "choice", tuple(e._replace(place=-1) for e in listed), 0.5, "").majority_rate == 1 / 3
    assert ProbeSet("T", "L1", "text", listed, None, "").majority_rate is None


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series of one small GPT-NeoX checkpoint with random weights and Pythia's tokenizer."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    if not PYTHIA_TOKENIZER.exists():
        pytest.skip("the real Pythia tokenizer is not beside the checkout")
    folder = tmp_path_factory.mktemp("series") / "step0"
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = GPTNeoXConfig(vocab_size=50304, max_position_embeddings=512, initializer_range=1.0, **shape)
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    shutil.copy(PYTHIA_TOKENIZER, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


@pytest.mark.slow
def test_the_seven_sets_score_as_transformers_alone_says(neox: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    n, out = 12, tmp_path / "run"
    arguments = ["--tasks", "diagnostic", "--readouts", "answer/centred", "--out", str(out), "--quiet"]
    sizes = ["--set", f"probes.score_examples={n}", "--set", f"probes.geometry_examples={n}"]
    assert cli(["analyze", str(neox.parent), *arguments, *sizes]) == 0
    table = read_observations(out)
    assert set(table["status"]) == {"ok"}
    assert set(table["task"]) == set(DIAGNOSTIC)
    model = AutoModelForCausalLM.from_pretrained(neox, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(neox)

    def log_probs(prompt: str, answer: str) -> Tensor:
        """The usual way: the prompt's own tokens first, all the rest is the answer."""
        ids = tokenizer(prompt + answer, return_tensors="pt").input_ids
        start = max(1, len(tokenizer(prompt.rstrip()).input_ids))
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double().log_softmax(-1)
        return logits.gather(1, ids[0, 1:, None])[start - 1 :, 0]

    for name in DIAGNOSTIC:
        task, expected = load_tasks()[name], {"accuracy": [], "accuracy_normalised": [], "log_prob": []}
        tokens: list[Tensor] = []
        for item in task.levels["L1"].items[:n]:
            answer = item.answer or item.text
            ours = log_probs(item.prompt or "", answer)[: 1 if task.rule == "next-token" else None]
            tokens.append(ours)
            expected["log_prob"].append(float(ours.mean()))
            wrong = [o for o in (*item.options, item.wrong) if o not in {None, answer}]
            theirs = [log_probs(item.prompt, option).sum() for option in wrong]
            if wrong:
                expected["accuracy"].append(float(all(ours.sum() > other for other in theirs)))
                rates = [other / len(w) for other, w in zip(theirs, wrong, strict=True)]
                expected["accuracy_normalised"].append(float(all(ours.sum() / len(answer) > r for r in rates)))
        found = dict(
            table.filter((pl.col("task") == name) & pl.col("readout").is_null())["measure", "value"].iter_rows()
        )
        if task.rule == "text":
            mean = float(torch.cat(tokens).mean())
            assert found["log_prob"] == pytest.approx(mean, rel=1e-5)
            assert found["perplexity"] == pytest.approx(math.exp(-mean), rel=1e-4)
            continue
        assert found["log_prob"] == pytest.approx(sum(expected["log_prob"]) / n, rel=1e-5)
        for measure in ("accuracy", "accuracy_normalised") if task.rule == "choice" else ("accuracy",):
            if expected[measure]:
                assert found[measure] == pytest.approx(sum(expected[measure]) / n), (name, measure)
        assert found["chance_accuracy"] == task.chance("L1")
        geometry = table.filter((pl.col("task") == name) & (pl.col("measure") == "rankme"))
        assert set(geometry["n"]) == {sum(len(t) for t in tokens)}


def test_tasks_show_and_list_say_what_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["tasks", "list", "--json"]) == 0
    listed = {row["task"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["syllogisms"]["levels"] == {"L1": {"items": 240, "chance": 0.5, "majority_rate": 0.5}}
    assert listed["running-text"]["levels"]["L1"] == {"items": 225, "chance": None, "majority_rate": None}
    assert listed["facts"]["groups"] == ["diagnostic"]
    assert listed["sciq"]["levels"]["L1"]["items"] is None
    assert cli(["tasks", "list"]) == 0
    assert "group diagnostic: syntactic-agreement, analogies" in capsys.readouterr().out
    assert cli(["tasks", "show", "syllogisms", "--examples", "1"]) == 0
    assert "name a tokenizer that can, with --tokenizer" in capsys.readouterr().out
    if not PYTHIA_TOKENIZER.exists():
        pytest.skip("the real Pythia tokenizer is not beside the checkout")
    shown = {}
    for name in ("analogies", "syntactic-agreement", "running-text", "facts"):
        assert cli(["tasks", "show", name, "--tokenizer", str(PYTHIA_TOKENIZER), "--examples", "1", "--json"]) == 0
        shown[name] = json.loads(capsys.readouterr().out)["levels"][0]["examples"][0]
    assert [len(targets) for targets in shown["analogies"]["wrong_targets"]] == [1, 1, 1]
    assert shown["syntactic-agreement"]["targets"] == [" is"]
    assert shown["syntactic-agreement"]["wrong_targets"] == [[" are"]]
    assert shown["facts"]["targets"] == [" Paris"]
    text = shown["running-text"]
    assert text["targets"][:-1] == text["fed"][1:]
    assert cli(["tasks", "show", "analogies", "--tokenizer", str(PYTHIA_TOKENIZER), "--examples", "1"]) == 0
    out = capsys.readouterr().out
    assert "248 items  chance 0.25  majority rate 0.00806" in out
    assert out.count("  wrong  ␣") == 3


def test_options_holds_lengths_of_the_text_without_white_space_around_it() -> None:
    options = Reading(Bigram(), {}, 64, 2**30).options(prepared("choice", Example("A =", " BC ", (" D", "EEE"))))
    assert isinstance(options, Options)
    assert (options.right_characters.tolist(), options.characters.tolist()) == ([2], [1, 3])


def test_a_row_of_logits_is_asked_for_several_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 10 * torch.randn(2 * PIECE // 50 + 1, 50, generator=generator)
    rows, targets = (torch.randint(count, (200,), generator=generator) for count in logits.shape)
    log_prob, hit = predict(logits, targets, rows)
    expected = logits.double().log_softmax(-1)[rows, targets]
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=1e-6)  # as `predict` bounds it
    assert torch.equal(hit, logits.argmax(-1)[rows] == targets)
    each = predict(logits[rows], targets)
    assert torch.equal(log_prob, each[0])
    assert torch.equal(hit, each[1])
