"""Task files, probe sets, tokenisation and scoring."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythiageo.cli.app import run as cli
from pythiageo.config.tables import ProbeConfig
from pythiageo.errors import UserError
from pythiageo.measurement.probe_sets import choose_probes, describe_probes
from pythiageo.probes import tokenizer
from pythiageo.probes.encoding import CharacterTokenizer, FileTokenizer, encode_example
from pythiageo.probes.generators import GENERATORS
from pythiageo.probes.probeset import PROBE_STREAM, TRAIN_STREAM, Example, draw, make_probe_set, stream
from pythiageo.probes.scoring import NonfiniteLogitsError, Predictions, predict, score
from pythiageo.probes.task import GeneratorTask, get_task, load_tasks, read_task
from pythiageo.study.tasks import TASKS as ALGORITHMIC

TASKS = load_tasks()
COMBINATIONS = [(name, level) for name in ALGORITHMIC for level in TASKS[name].levels]
PYTHIA_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "pythia_tokenizer.json"


def solve(prompt: str) -> str:
    """The right answer, worked out from the prompt's text alone."""
    name, *words = prompt.removesuffix("= ").split()
    numbers = [int(word) for word in words]
    solutions = {
        "COPY": lambda: " ".join(words),
        "REV": lambda: " ".join(words[::-1]),
        "SORT": lambda: " ".join(sorted(words)),
        "CMP": lambda: ["EQUAL", "GREATER", "LESS"][(numbers[0] > numbers[1]) - (numbers[0] < numbers[1])],
        "PAR": lambda: ["EVEN", "ODD"][sum(numbers) % 2],
        "ADD": lambda: str(sum(numbers)),
        "MUL": lambda: str(math.prod(numbers)),
        "MOD": lambda: str(numbers[0] % numbers[1]),
    }
    return solutions[name]()


def test_the_vocabulary_has_41_tokens() -> None:
    assert tokenizer.VOCAB_SIZE == 41
    assert tokenizer.decode(tokenizer.encode("MOD 17 = 3")) == "MOD 17 = 3"
    with pytest.raises(ValueError, match="character '\\+' is not among the 41 tokens"):
        tokenizer.encode("1+1")


@given(st.text())
def test_normalised_text_can_be_encoded_and_is_a_fixed_point(text: str) -> None:
    plain = tokenizer.normalise(text)
    assert tokenizer.decode(tokenizer.encode(plain)) == plain
    assert tokenizer.normalise(plain) == plain


@given(st.text(alphabet=tokenizer.CHARACTERS, min_size=1))
def test_the_saved_tokenizer_is_the_tokenizer(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        assert FileTokenizer(Path(folder)).tokenize(text) == CharacterTokenizer().tokenize(text)


@pytest.mark.parametrize(("name", "level"), COMBINATIONS)
def test_every_answer_is_right(name: str, level: str) -> None:
    probe_set = make_probe_set(TASKS[name], level, 300, seed=3)
    assert all(example.answer == solve(example.prompt) for example in probe_set.examples)


@pytest.mark.parametrize(("name", "level"), COMBINATIONS)
def test_declared_chance_is_the_frequency_of_the_most_common_answer(name: str, level: str) -> None:
    task = TASKS[name]
    assert isinstance(task, GeneratorTask)
    rng = stream(11, PROBE_STREAM, name, level)
    n = 20_000
    counts = Counter(draw(task, level, rng).answer for _ in range(n))
    expected = task.chance(level) * n
    # the most common of several equally common answers comes out above its mean: allow five standard deviations
    assert counts.most_common(1)[0][1] <= expected + 5 * math.sqrt(expected) + 5
    if expected > 500:
        assert counts.most_common(1)[0][1] >= expected - 5 * math.sqrt(expected)


def test_chances_by_full_count() -> None:
    def most_common(answers: list) -> float:
        return Counter(answers).most_common(1)[0][1] / len(answers)

    digits, pairs = range(10), list(itertools.product(range(10, 100), repeat=2))
    chance = {(name, level): TASKS[name].chance(level) for name, level in COMBINATIONS}
    assert chance["ADD", "L1"] == most_common([a + b for a in digits for b in digits])
    assert chance["ADD", "L2"] == pytest.approx(most_common([a + b for a, b in pairs]))
    assert chance["MUL", "L1"] == most_common([a * b for a in digits for b in digits])
    assert chance["MUL", "L2"] == most_common([a * b for a in digits for b in range(10, 100)])
    assert chance["MUL", "L3"] == pytest.approx(most_common([a * b for a, b in pairs]))
    assert chance["CMP", "L2"] == pytest.approx(most_common([(a > b) - (a < b) for a, b in pairs]))
    assert chance["SORT", "L1"] == most_common([tuple(sorted(t)) for t in itertools.product(digits, repeat=3)])
    for level, moduli in {"L1": (2, 3, 5, 7), "L2": (7, 11, 13), "L3": (13, 17, 19, 23)}.items():
        zero = sum(11 / (10 * p + 1) for p in moduli) / len(moduli)
        assert chance["MOD", level] == pytest.approx(zero)


def test_a_probe_set_is_fixed_by_task_seed_and_size() -> None:
    one = make_probe_set(TASKS["ADD"], "L2", 50, seed=0)
    assert one == make_probe_set(load_tasks()["ADD"], "L2", 50, seed=0)
    assert one.sha != make_probe_set(TASKS["ADD"], "L2", 50, seed=1).sha
    assert one.sha != make_probe_set(TASKS["ADD"], "L3", 50, seed=0).sha
    # a golden hash: changing generators, streams or task files silently would change every published number.
    # Made by make_probe_set(load_tasks()["ADD"], "L2", 50, seed=0), numpy 2.4.6; exact, being a hash.
    assert one.sha == "56422b7b4f42"


def test_mixed_sets_take_levels_in_equal_parts() -> None:
    mixed = make_probe_set(TASKS["COPY"], "mixed", 200, seed=0)
    lengths = Counter(len(example.answer.split()) for example in mixed.examples)
    assert lengths == {3: 67, 5: 67, 8: 66}


def test_training_and_probe_streams_are_disjoint() -> None:
    keys = [(TRAIN_STREAM, step) for step in range(200)]
    keys += [(PROBE_STREAM, *combination) for combination in COMBINATIONS]
    first = [tuple(stream(42, *key).integers(0, 2**63, size=4)) for key in keys]
    assert len(set(first)) == len(first)
    assert stream(1, 0, 0).integers(2**63) != stream(0, 1, 0).integers(2**63)


def test_answer_positions_predict_the_answer_and_the_end() -> None:
    encoded = encode_example(Example("ADD 7 5 = ", "12"), CharacterTokenizer())
    fed = tokenizer.decode(list(encoded.ids))
    assert fed == "[BOS]ADD 7 5 = 12"
    assert [tokenizer.decode([i]) for i in encoded.targets] == ["1", "2", "[EOS]"]
    assert encoded.answer_positions == (10, 11, 12)
    assert encoded.ids[encoded.equals_position] == tokenizer.VOCABULARY["="]
    assert all(
        encoded.ids[p + 1] == t for p, t in zip(encoded.answer_positions[:-1], encoded.targets[:-1], strict=True)
    )


@pytest.mark.skipif(not PYTHIA_TOKENIZER.exists(), reason="the real Pythia tokenizer is not beside the checkout")
def test_answer_positions_under_the_real_pythia_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(PYTHIA_TOKENIZER.read_bytes())
    pythia = FileTokenizer(tmp_path)
    encoded = encode_example(Example("ADD 617 992 = ", "1609"), pythia)
    # the separating space belongs to the answer's first token there, and no end token is added
    assert "".join(pythia.show(t) for t in encoded.targets) == " 1609"
    assert pythia.show(encoded.ids[encoded.equals_position]).strip() == "="
    assert encoded.answer_positions[0] == encoded.equals_position
    whole, _ = pythia.tokenize("ADD 617 992 = 1609")
    assert list(encoded.ids) == whole[:-1]
    assert [whole[p + 1] for p in encoded.answer_positions] == list(encoded.targets)


def test_a_prompt_that_runs_into_its_answer_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"2": 0, "=12": 1, "12": 2}, unk_token="2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="holds the end of the prompt and the start of the answer in '2 =12'"):
        encode_example(Example("2 =", "12"), FileTokenizer(tmp_path))
    with pytest.raises(UserError, match="expected a prompt and an answer"):
        encode_example(Example("  ", "12"), FileTokenizer(tmp_path))


def test_scores_against_counting_by_hand() -> None:
    # example 0: both tokens right; example 1: one of two wrong; uniform logits elsewhere
    logits = torch.zeros(4, 3)
    logits[0, 1] = logits[1, 2] = logits[2, 0] = 2.0
    logits[3, 1] = 2.0

    def scores(rows: torch.Tensor, targets: list[int], owner: list[int]) -> list:
        return score("exact", Predictions(*predict(rows, torch.tensor(targets)), torch.tensor(owner)))

    accuracy, log_prob = scores(logits, [1, 2, 0, 2], [0, 0, 1, 1])
    assert (accuracy.value, accuracy.n) == (0.5, 2)
    norm = math.log(math.exp(2) + 2)
    assert log_prob.value == pytest.approx((2 - norm + ((2 - norm) + (0 - norm)) / 2) / 2)
    assert accuracy.stderr == pytest.approx(0.5)
    assert scores(logits[:1], [1], [0])[0].stderr is None
    with pytest.raises(ValueError, match="logits hold NaN"):
        predict(torch.full((1, 3), math.nan), torch.tensor([1]))


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from([1, 63, 64, 130]),
    vocab=st.sampled_from([1, 2, 50_304]),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
@settings(max_examples=25, deadline=None)
def test_log_probabilities_are_those_of_float64(
    seed: int, rows: int, vocab: int, scale: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocab, generator=generator, dtype=torch.float64) * scale - 5 * scale).to(dtype)
    targets = torch.randint(vocab, (rows,), generator=generator)
    log_prob, hit = predict(logits, targets)
    expected = torch.log_softmax(logits.double(), dim=-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(log_prob, expected, rtol=1e-12, atol=1e-6)
    assert torch.equal(hit, logits.argmax(dim=-1) == targets)
    for bad in (math.nan, math.inf, -math.inf):
        spoilt = logits.clone()
        spoilt[-1, seed % vocab] = bad
        with pytest.raises(NonfiniteLogitsError):
            predict(spoilt, targets)


TASK = """
name = "DOUBLE"
version = 1
kind = "items"
description = "twice"
source = "here"
[levels.L1]
chance = 0.5
items = [{ prompt = "DOUBLE 1 = ", answer = "2" }, { prompt = "DOUBLE 2 = ", answer = "4" }]
"""


def test_adding_a_task_takes_one_file(tmp_path: Path) -> None:
    (tmp_path / "double.toml").write_text(TASK)
    tasks = load_tasks(tmp_path)
    probe_set = make_probe_set(tasks["DOUBLE"], "L1", 2, seed=0)
    assert probe_set.examples == (Example("DOUBLE 1 = ", "2"), Example("DOUBLE 2 = ", "4"))
    with pytest.raises(UserError, match="task DOUBLE has 2 items at level L1, but 3 were asked for"):
        make_probe_set(tasks["DOUBLE"], "L1", 3, seed=0)


def test_fewer_items_than_are_usual_are_all_taken_unless_a_number_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "\n[levels.L2]\nchance = 0\nitems = [" + ", ".join(
        f'{{ prompt = "DOUBLE {n} = ", answer = "{2 * n}" }}' for n in range(3, 9)
    )
    (tmp_path / "double.toml").write_text(TASK + more + "]\n")
    task = load_tasks(tmp_path)["DOUBLE"]
    mixed = make_probe_set(task, "mixed", 200, 0, exactly=False)
    assert mixed.levels == ("L1", "L2", "L1", "L2")
    assert mixed == replace(make_probe_set(task, "mixed", 4, 0), asked=200)
    assert mixed.fewer == (
        "task DOUBLE, level mixed: 4 examples, as many as there are in equal parts of its levels, not 200"
    )
    with pytest.raises(UserError, match=r"2 items at level L1, but 3 were asked for: lower .* to 4 or fewer"):
        make_probe_set(task, "mixed", 5, 0)
    config = ProbeConfig(tasks=("DOUBLE",), tasks_folder=tmp_path)
    described = describe_probes(choose_probes(config))
    assert [(one["level"], one["examples"], one["asked"]) for one in described] == [
        ("L1", 2, 200), ("L2", 6, 200), ("mixed", 4, 200)
    ]  # fmt: skip
    with pytest.raises(UserError, match="but 200 were asked for: lower the number of examples to 2 or fewer"):
        choose_probes(ProbeConfig(tasks=("DOUBLE",), tasks_folder=tmp_path, score_examples=200))
    assert cli(["tasks", "show", "DOUBLE", "--tasks-folder", str(tmp_path), "--json"]) == 0
    levels = json.loads(capsys.readouterr().out)["levels"]
    # what is shown is the probe set of a run, and not one of the few examples that are shown
    assert [level["probe_set"] for level in levels] == [one["hash"] for one in described[:2]]
    assert [(level["probe_set_examples"], len(level["examples"])) for level in levels] == [(2, 2), (6, 3)]
    assert cli(["tasks", "show", "DOUBLE", "--tasks-folder", str(tmp_path)]) == 0
    assert "DOUBLE 5 = " in "".join(capsys.readouterr().out.split("│")).replace("␣", " ")
    assert cli(["tasks", "show", "DOUBLE", "--tasks-folder", str(tmp_path), "--examples", "3"]) == 2
    assert "lower the number of examples to 2 or fewer" in capsys.readouterr().err


def test_items_may_lie_beside_the_task_file(tmp_path: Path) -> None:
    head = TASK.split("items =", maxsplit=1)[0]
    (tmp_path / "double.toml").write_text(head + 'file = "double.jsonl"\n')
    (tmp_path / "double.jsonl").write_text('{"prompt": "DOUBLE 3 = ", "answer": "6"}\n')
    assert make_probe_set(load_tasks(tmp_path)["DOUBLE"], "L1", 1, 0).examples == (Example("DOUBLE 3 = ", "6"),)
    (tmp_path / "double.jsonl").write_text('{"prompt": "DOUBLE 3 = ", "anwser": "6"}\n')
    with pytest.raises(UserError, match=r"double\.jsonl:1: "):
        load_tasks(tmp_path)
    (tmp_path / "double.toml").write_text(head + 'file = "../secret.jsonl"\n')
    with pytest.raises(UserError, match="expected a JSONL file in the folder of the task"):
        load_tasks(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("version = 1", "", "missing key 'version'"),
        ('source = "here"', 'sources = "here"', r"key 'sources?'"),
        ('kind = "items"', 'kind = "item"', "kind must be one of generator, items, dataset, got 'item'"),
        ("chance = 0.5", "chance = 1.5", r"levels\.L1\.chance: .*less than 1"),
        ('name = "DOUBLE"', 'name = "<b>"', "name: expected at most 64 letters, .* got '<b>'"),
        ('name = "DOUBLE"', 'name = "ADD"', "a task 'ADD' is already defined in"),
        ("[levels.L1]", "[levels.mixed]", "'mixed' is reserved"),
        ("version = 1", "version = ", "not a TOML file"),
    ],
)
def test_a_malformed_task_file_names_file_and_key(tmp_path: Path, before: str, after: str, message: str) -> None:
    (tmp_path / "double.toml").write_text(TASK.replace(before, after, 1))
    with pytest.raises(UserError, match=message) as caught:
        load_tasks(tmp_path)
    assert "double.toml" in str(caught.value)


def test_generator_mistakes_are_named(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "tasks" / "MOD.toml").read_text()
    cases = {
        'generator = "modulo"|generator = "module"': r"no generator 'module' \(did you mean 'modulo'\?\)",
        "moduli = [2, 3, 5, 7]|modul = [2, 3, 5, 7]": "moduli",
        "{input}|{inputs}": r"prompt must hold \{input\} exactly once",
    }
    for change, message in cases.items():
        path = tmp_path / "task.toml"
        path.write_text(text.replace(*change.split("|"), 1))
        with pytest.raises(UserError, match=message):
            read_task(path)


def test_unknown_names_are_met_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no task 'ADDD' \(did you mean 'ADD'\?\); there are ADD, "):
        get_task(TASKS, "ADDD")
    with pytest.raises(
        UserError, match=r"task ADD has no level 'L4' \(did you mean 'L\d'\?\); it has L1, L2, L3, mixed"
    ):
        make_probe_set(TASKS["ADD"], "L4", 5, 0)
    assert set(GENERATORS) == {task.generator for task in TASKS.values() if isinstance(task, GeneratorTask)}
