"""Items that a model's tokenizer or context cannot take: scored as lm-evaluation-harness does, or left out by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inmemory import FEW, characters, neox
from planted import observation
from test_rules import Bigram, rows_of

from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError
from pythiageo.geometry.readout import Layout
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Prepared, Probe, check_left, name_items, prepare
from pythiageo.observations import read_observations
from pythiageo.probes.context import cut_left, windows
from pythiageo.probes.encoding import CharacterTokenizer, Encoded, FileTokenizer, encode_compared
from pythiageo.probes.probeset import Example, ProbeSet

PYTHIA_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "pythia_tokenizer.json"
needs_pythia = pytest.mark.skipif(not PYTHIA_TOKENIZER.exists(), reason="the real Pythia tokenizer is not beside")


@pytest.fixture(scope="module")
def pythia() -> FileTokenizer:
    return FileTokenizer(PYTHIA_TOKENIZER)


def harness_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """What the harness feeds and scores: trailing white space of the context is the continuation's."""
    kept = context.rstrip()
    whole = tokenizer.encode(kept + context[len(kept) :] + continuation).ids
    fed = tokenizer.encode(kept).ids
    return fed, whole[len(fed) :]


CLASHES = [
    Example("Capital? Answer: ", "中国", ("USA",)),
    Example("Capital? Answer: ", "USA", ("中国", "日本国")),
    Example("Capital? Answer: ", "\n1", ("2",)),
    Example("Capital? Answer: ", "<|endoftext|>", ("b",)),
]


@needs_pythia
@pytest.mark.parametrize("example", CLASHES)
def test_white_space_is_scored_with_the_answer_as_the_harness_does(example: Example, pythia: FileTokenizer) -> None:
    from tokenizers import Tokenizer

    right, wrong = encode_compared(example, pythia, "choice")
    plain = Tokenizer.from_file(str(PYTHIA_TOKENIZER))
    for text, ours in zip((example.answer, *example.wrong), (right, *wrong), strict=True):
        fed, scored = harness_pair(plain, example.prompt, text)
        assert list(ours.targets) == scored
        assert list(ours.ids) == (fed + scored)[:-1]
        assert list(ours.answer_positions) == list(range(len(fed) - 1, len(fed) + len(scored) - 1))


@needs_pythia
def test_options_that_agree_on_their_white_space_are_as_they_were(pythia: FileTokenizer) -> None:
    from pythiageo.probes.encoding import encode_example, encode_wrong

    for example in (Example("Answer: ", "Paris", ("Rome",)), Example("= ", "中", ("国",))):
        right = encode_example(example, pythia)
        assert encode_compared(example, pythia, "choice") == (right, encode_wrong(example, right, pythia))


@given(fed=st.integers(2, 40), answer=st.integers(1, 12), context=st.integers(1, 40), start=st.integers(0, 10**6))
def test_a_long_prompt_is_cut_where_the_harness_cuts_it(fed: int, answer: int, context: int, start: int) -> None:
    prompt, targets = [start + i for i in range(fed)], [-start - i for i in range(answer)]
    positions = tuple(range(fed - 1, fed + answer - 1))
    whole = Encoded(tuple(prompt + targets)[:-1], positions, tuple(targets), fed - 1)
    if answer > context:
        with pytest.raises(UserError, match=f"takes {answer} positions, but the model's context is {context}"):
            cut_left(whole, context)
        return
    cut = cut_left(whole, context)
    assert list(cut.ids) == (prompt + targets)[-(context + 1) :][:-1]
    assert cut.targets == whole.targets
    assert [cut.ids[p] for p in cut.answer_positions] == [whole.ids[p] for p in whole.answer_positions]


@given(tokens=st.integers(2, 60), context=st.integers(1, 20))
def test_a_long_text_is_read_in_windows_that_predict_each_token_once(tokens: int, context: int) -> None:
    ids = tuple(range(tokens))
    parts = list(windows(Encoded(ids[:-1], tuple(range(tokens - 1)), ids[1:], 0), context))
    assert [target for part in parts for target in part.targets] == list(range(1, tokens))
    for part in parts:
        assert len(part.ids) == min(context, tokens - 1)
        assert [part.ids[p] + 1 for p in part.answer_positions] == list(part.targets)
        assert list(part.ids) == list(range(part.ids[0], part.ids[0] + len(part.ids)))


def probe(rule: str, examples: Sequence[Example], purpose: str = SCORE, generated: bool = False) -> Probe:
    chance = None if rule == "text" else 0.5
    return Probe(ProbeSet("T", "L1", rule, tuple(examples), chance, "0" * 12, generated), purpose)


def prepared(*arguments: Any, context: int | None = None, **options: Any) -> Prepared:
    return prepare([probe(*arguments, **options)], CharacterTokenizer(), context, strict=False)[0]


def by_measure(one: Prepared) -> dict[str, Any]:
    return {row.measure: row for row in rows_of(one, Bigram())}


LONG = [Example(f"{'A' * i}B = ", "C", ("D",)) for i in (1, 2, 30)]


def test_items_left_out_are_counted_and_named_and_the_others_score_as_without_them() -> None:
    good = [Example("A = ", "B", ("C",)), Example("B = ", "B", ("A",))]
    bad = Example("é = ", "B", ("C",))
    one = prepared("choice", [good[0], bad, good[1], Example(" ", "x", ("y",))])
    alone = by_measure(prepared("choice", good))
    found = by_measure(one)
    told = found.pop("items_left_out")
    assert (told.value, told.n, told.status) == (2.0, 4, "ok")
    assert told.reason is not None
    assert told.reason.startswith("2 of 4 items left out (items 2, 4); item 2: character 'é' is not among the 41")
    assert found == alone
    assert {row.n for row in found.values()} == {2}
    assert found["majority_rate"].value == 1.0
    assert one.kept == (0, 2)
    assert one.layout.lengths.tolist() == prepared("choice", good).layout.lengths.tolist()


def test_nothing_changes_where_every_item_can_be_measured() -> None:
    for purpose in (SCORE, GEOMETRY):
        one = prepared("choice", LONG, purpose)
        assert (one.loss, one.cuts, one.owner, one.kept) == (None, None, None, (0, 1, 2))
        assert "items_left_out" not in by_measure(one)
        strict = prepare([probe("choice", LONG, purpose)], CharacterTokenizer(), 48)[0]
        assert (one.encoded, one.wrong) == (strict.encoded, strict.wrong)


def test_each_rule_has_its_way_with_a_prompt_that_is_too_long() -> None:
    for rule in ("exact", "next-token", "choice", "minimal-pair"):
        examples = LONG if rule in {"choice", "minimal-pair"} else [one._replace(wrong=()) for one in LONG]
        found = by_measure(prepared(rule, examples, context=12))
        for measure in ("accuracy", "log_prob"):
            assert found[measure].n == 3
            assert found[measure].reason == "1 of 3 prompts are cut on the left to the model's context (item 3)"
        # with the last characters alone the next one is what it was
        assert found["log_prob"].value == pytest.approx(by_measure(prepared(rule, examples))["log_prob"].value)
        # what is left of a generated question is another question; the states of a part are another text's
        for options in ({"generated": True}, {"purpose": GEOMETRY}):
            told = by_measure(prepared(rule, examples, context=12, **options))["items_left_out"]
            assert told.reason.startswith("1 of 3 items left out (item 3); item 3: takes ")
            assert told.reason.endswith("positions, but the model's context is 12")


def test_a_long_text_has_the_perplexity_of_all_its_tokens() -> None:
    texts = [Example("", "RAIN FELL ON THE ROOF"), Example("", "AB")]
    short, whole = prepared("text", texts, context=5), prepared("text", texts)
    assert short.owner == (0, 0, 0, 0, 0, 1)
    found, expected = by_measure(short), by_measure(whole)
    for measure in ("log_prob", "perplexity"):  # a bigram model sees no further than one token
        assert found[measure].value == pytest.approx(expected[measure].value, rel=1e-12)
        assert found[measure].stderr == pytest.approx(expected[measure].stderr, rel=1e-12)
        assert found[measure].n == 2
        assert found[measure].reason == "1 of 2 texts are read in windows of the model's context (item 1)"


def test_a_probe_set_of_which_nothing_is_left_has_its_rows_without_values() -> None:
    bad = [Example("é = ", "B", ("C",))]
    geometry = {"rankme", "covariance_effective_rank", "participation_ratio"}
    for purpose, measures in ((SCORE, {"accuracy", "accuracy_normalised", "log_prob"}), (GEOMETRY, geometry)):
        one = prepared("choice", bad, purpose)
        found = rows_of(one, Bigram())
        assert {row.measure for row in found} == {"items_left_out", *measures}
        lost = [row for row in found if row.measure != "items_left_out"]
        assert {(row.status, row.reason) for row in lost} == {("undefined", "no item of the probe set can be measured")}
        with pytest.raises(UserError, match="task T, level L1: this model can take none of its items: 1 of 1"):
            check_left([one])


def test_a_strict_set_names_the_item() -> None:
    with pytest.raises(UserError, match=r"task T, level L1, item 3: takes 36 positions, but the model's context is 24"):
        prepare([probe("choice", LONG)], CharacterTokenizer(), 24)


def test_an_empty_layout_has_no_rows() -> None:
    layout = Layout.of([], [], [])
    assert (layout.lengths.dtype, len(layout.answer), len(layout.equals)) == (torch.long, 0, 0)
    assert [name_items(numbers) for numbers in ([2], [1, 2, 3, 7], [1, 3])] == ["item 2", "items 1-3, 7", "items 1, 3"]


TASK = """
name = "z"
version = 1
kind = "items"
description = "x"
source = "own"
rule = "choice"
[levels.L1]
chance = 0.5
items = [
  { prompt = "A = ", answer = "B", options = ["B", "C"] },
  { prompt = "a = ", answer = "B", options = ["B", "C"] },
]
"""


def test_it_is_told_before_and_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tinyseries import write_series

    (tmp_path / "z.toml").write_text(TASK)
    series = write_series(tmp_path / "series", (0, 10))
    said = "1 of 2 items left out (item 2); item 2: 'a' is not in the tokenizer's vocabulary, in 'a = B'"
    check = ["tasks", "check", str(tmp_path / "z.toml")]
    assert cli(check) == 0
    capsys.readouterr()
    for target in (series, series / "step10", series / "step0" / "tokenizer.json"):
        assert cli([*check, "--tokenizer", str(target)]) == 1
        assert f"z.toml: task z, level L1, score: {said}" in capsys.readouterr().out
    assert cli([*check, "--tokenizer", str(tmp_path / "nowhere")]) == 2
    few = ["--set", "probes.score_examples=2", "--set", "probes.geometry_examples=2", "--readouts", "answer/centred"]
    run = ["analyze", str(series), "--tasks", "z", "--tasks-folder", str(tmp_path), *few, "--out", str(tmp_path / "a")]
    capsys.readouterr()
    assert cli([*run, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["probes"]["tasks"] == ["z"]
    assert [line.split(": ", 2)[2] for line in shown.err.splitlines()] == [
        f"task z, level L1, score: {said}", f"task z, level mixed, geometry: {said}"
    ]  # fmt: skip
    assert not (tmp_path / "a").exists()
    assert cli(["plan", *run[1:], "--quiet"]) == 0
    assert said in capsys.readouterr().err
    assert cli([*run, "--quiet"]) == 0
    table = read_observations(tmp_path / "a")
    told = table.filter(table["measure"] == "items_left_out")
    assert told.select("step", "level", "value", "n", "reason").rows() == [
        (step, level, 1.0, 2, said) for step in (0, 10) for level in ("L1", "mixed")
    ]
    assert set(table.filter(measure="accuracy")["n"]) == {1}


def test_a_set_that_the_model_cannot_read_at_all_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyseries import write_series

    series = write_series(tmp_path / "series", (0, 10))
    out = ["--out", str(tmp_path / "a"), "--quiet"]
    for extra in ([], ["--dry-run"]):
        assert cli(["analyze", str(series), "--tasks", "ADD,facts", *out, "--overwrite", *extra]) == 2
        error = capsys.readouterr().err
        assert "task facts, level L1: this model can take none of its items: " in error
        assert "items left out (items 1-" in error
    assert not (tmp_path / "a" / "observations").exists()
    # a damaged first checkpoint says nothing of the request
    (series / "step0" / "tokenizer.json").unlink()
    few = ["--set", "probes.score_examples=2", "--set", "probes.geometry_examples=4", "--readouts", "answer/centred"]
    assert cli(["analyze", str(series), "--tasks", "ADD", *few, *out, "--overwrite"]) == 1
    table = read_observations(tmp_path / "a")
    assert set(table.filter(step=0)["status"]) == {"unreadable"}
    assert set(table.filter(step=10)["status"]) == {"ok"}


def test_a_model_in_memory_is_asked_nothing_that_it_cannot_read(tmp_path: Path) -> None:
    import pythiageo

    with pytest.raises(UserError, match="task facts, level L1: this model can take none of its items"):
        pythiageo.measure(neox(), characters(tmp_path), ["ADD", "facts"], settings=FEW)


def test_compare_says_where_a_run_rests_on_fewer_items() -> None:
    from pythiageo.compare.warnings import pair_warnings
    from pythiageo.events import Run
    from pythiageo.observations import table_of

    def run(name: str, n: int) -> Run:
        rows = [observation(n=n, run=name), observation(measure="log_prob", n=n, value=-1.0, run=name)]
        return Run(None, table_of(0, rows))

    said = "accuracy of MOD L1 rests on 200 items in a and on 198 in b: see items_left_out."
    assert [text for text in pair_warnings(run("a", 200), run("b", 198)) if "rests on" in text] == [said]
    assert not [text for text in pair_warnings(run("a", 200), run("b", 200)) if "rests on" in text]
