"""The probe sets for language models: large, unique, balanced, and fair under Pythia's real tokenizer."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from pythiageo.config.tables import ProbeConfig
from pythiageo.errors import UserError
from pythiageo.measurement.probe_sets import GROUPS, choose_probes, choose_tasks
from pythiageo.probes.encoding import CharacterTokenizer, Encoded, FileTokenizer, encode_example, encode_wrong
from pythiageo.probes.kinds import Item, ItemTask
from pythiageo.probes.probeset import Example, get_majority_rate, make_probe_set, to_example
from pythiageo.probes.task import GeneratorTask, load_tasks
from pythiageo.study.tasks import DIAGNOSTIC
from pythiageo.study.tasks import TASKS as ALGORITHMIC

TASKS = load_tasks()
PYTHIA_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "pythia_tokenizer.json"
needs_pythia = pytest.mark.skipif(
    not PYTHIA_TOKENIZER.exists(), reason="the real Pythia tokenizer is not beside the checkout"
)
COMPARED = ["syntactic-agreement", "analogies", "in-context-labels", "syllogisms"]


@pytest.fixture(scope="module")
def pythia() -> FileTokenizer:
    return FileTokenizer(PYTHIA_TOKENIZER)


def items(name: str) -> tuple[Item, ...]:
    task = TASKS[name]
    assert isinstance(task, ItemTask)
    return task.levels["L1"].items


def frame(name: str, item: Item) -> object:
    """What stays of an item when its numbers, number of nouns, or the fact itself are taken away."""
    prompt = item.prompt or ""
    words = prompt.split()
    return {
        "syntactic-agreement": lambda: words[-1].removesuffix("s"),
        "analogies": lambda: frozenset(word.strip(",").lower() for word in words),
        "arithmetic-fewshot": lambda: re.sub(r"\d+", "#", prompt),
        "in-context-labels": lambda: prompt.splitlines()[-1].split()[0],
        "facts": lambda: (*words[:2], *words[-2:]),
        "syllogisms": lambda: frozenset(re.findall(r"(?:are|[Aa]ll|[Nn]o|[Ss]ome) (\w+)", prompt)),
        "running-text": lambda: (item.text or "").split(". ")[0],
    }[name]()


@pytest.mark.parametrize("name", DIAGNOSTIC)
def test_a_set_is_large_unique_and_varied(name: str) -> None:
    texts = [(item.prompt, item.answer, item.text) for item in items(name)]
    assert len(texts) >= 200
    assert len(set(texts)) == len(texts)
    assert len({item.prompt or item.text for item in items(name)}) == len(texts)
    assert len({frame(name, item) for item in items(name)}) >= 30
    # what a run takes by default is there, and is not the whole of a class first
    assert len(make_probe_set(TASKS[name], "L1", 200, 0).examples) == 200


@pytest.mark.parametrize("name", [name for name in DIAGNOSTIC if name != "running-text"])
def test_no_constant_reply_does_better_than_chance(name: str) -> None:
    task = TASKS[name]
    chance = task.chance("L1")
    assert chance is not None
    for examples in (make_probe_set(task, "L1", 200, 0).examples, [to_example(item, task) for item in items(name)]):
        assert get_majority_rate(examples) <= chance + 1 / 200
        if task.rule in {"choice", "minimal-pair"}:
            assert {1 / (1 + len(example.wrong)) for example in examples} == {chance}
    if task.rule in {"exact", "next-token"}:
        assert chance == get_majority_rate([to_example(item, task) for item in items(name)])


def test_agreement_is_right_and_balanced_over_both_nouns() -> None:
    cases = Counter()
    for item in items("syntactic-agreement"):
        prompt = (item.prompt or "").removeprefix("In the end, ")
        head = re.sub(r"^.*?\b[Tt]he ", "", prompt, count=1).split()[0]
        between = re.findall(r"\b(?:the|her) (\w+)", prompt)[-1]
        plurals = (head.endswith("s"), between == "children" or (between.endswith("s") and between != "witness"))
        assert {item.answer, item.wrong} == {"is", "are"}
        assert (item.answer == "are") == plurals[0], prompt
        cases[plurals] += 1
    # a plural subject takes "are" whatever stands between; each case of number is a quarter
    assert set(cases.values()) == {60}
    assert len(cases) == 4


def follows(premises: list[str], conclusion: str) -> bool:
    """Whether a conclusion holds in every world: all 2^7 sets of inhabited kinds of things that are A, B or C."""
    terms = sorted(
        set(re.findall(r"(\w+) are (\w+)", premises[0])[0]) | set(re.findall(r"(\w+) are (\w+)", premises[1])[0])
    )
    kinds = [kind for kind in itertools.product((False, True), repeat=3) if any(kind)]

    def holds(sentence: str, world: list[tuple[bool, ...]]) -> bool:
        quantifier, subject, predicate = re.findall(r"(all|no|some) (\w+) are (\w+)", sentence.lower())[0]
        s, p = terms.index(subject), terms.index(predicate)
        both = any(kind[s] and kind[p] for kind in world)
        return {"all": not any(kind[s] and not kind[p] for kind in world), "no": not both, "some": both}[quantifier]

    worlds = itertools.chain.from_iterable(itertools.combinations(kinds, n) for n in range(len(kinds) + 1))
    return all(holds(conclusion, w) for w in worlds if all(holds(p, w) for p in premises))


def test_every_syllogism_is_judged_rightly_by_counting_worlds() -> None:
    quantifiers = Counter()
    for item in items("syllogisms"):
        sentences = re.findall(r"(?:All|No|Some|all|no|some) \w+ are \w+", item.prompt or "")
        assert len(sentences) == 3
        assert follows(sentences[:2], sentences[2]) == (item.answer == "yes"), item.prompt
        quantifiers[sentences[2].split()[0].lower(), item.answer] += 1
    assert set(quantifiers.values()) == {40}  # the quantifier of the conclusion says nothing


def test_arithmetic_is_right_and_its_shots_do_not_give_the_answer_away() -> None:
    for item in items("arithmetic-fewshot"):
        wordings = (item.prompt or "") + (item.answer or "")
        numbers = [int(number) for number in re.findall(r"\d+", wordings)]
        assert len(numbers) == 12
        solved = [numbers[i : i + 3] for i in range(0, 12, 3)]
        for a, b, value in solved:
            assert value in {a + b, abs(a - b)}, wordings
        operations = {a + b == value for a, b, value in solved}
        assert len(operations) == 1
        assert len({tuple(sorted(row[:2])) for row in solved}) >= 3
        assert solved[3][2] not in {value for *_, value in solved[:3]}


def test_labels_are_as_the_shots_say_and_neither_first_nor_last_gives_them_away() -> None:
    last, first = 0, 0
    for item in items("in-context-labels"):
        lines = (item.prompt or "").splitlines()
        labels = [line.split()[-1] for line in lines[:4]]
        assert set(labels) == set(item.options)
        assert Counter(labels).most_common(1)[0][1] == 2
        last += labels[-1] == item.answer
        first += labels[0] == item.answer
        asked = lines[4].split()[0].strip(":")
        assert asked not in {line.split()[0].strip(":") for line in lines[:4]}
    assert (last, first) == (120, 120)


def test_running_text_is_paragraphs() -> None:
    for item in items("running-text"):
        text = item.text or ""
        assert 40 <= len(text.split()) <= 80
        assert text[0].isupper()
        assert text[-1] == "."
        assert not re.search(r"[{}|]|\s\s", text)
    words = Counter(word.strip(".,;:?").lower() for item in items("running-text") for word in (item.text or "").split())
    assert len(words) > 1400


@needs_pythia
@pytest.mark.parametrize("name", COMPARED)
def test_compared_continuations_have_equally_many_pythia_tokens(name: str, pythia: FileTokenizer) -> None:
    task = TASKS[name]
    for item in items(name):
        example = to_example(item, task)
        right = encode_example(example, pythia, task.rule)
        assert {len(wrong.targets) for wrong in encode_wrong(example, right, pythia)} == {len(right.targets)}, item


@needs_pythia
@pytest.mark.parametrize("name", [name for name in DIAGNOSTIC if name != "running-text"])
def test_the_scored_positions_spell_the_answer_under_pythia(name: str, pythia: FileTokenizer) -> None:
    for example in make_probe_set(TASKS[name], "L1", 200, 0).examples:
        encoded = encode_example(example, pythia, TASKS[name].rule)
        whole, _ = pythia.tokenize(example.prompt + example.answer)
        assert [whole[p + 1] for p in encoded.answer_positions] == list(encoded.targets)
        assert list(encoded.ids) == whole[: len(encoded.ids)]
        spelt = "".join(pythia.show(token) for token in encoded.targets)
        assert spelt.strip() == example.answer if TASKS[name].rule != "next-token" else spelt.strip() in example.answer
        # the first answer token is predicted where the prompt ends, white space left out
        prompt = pythia.tokenize(example.prompt.rstrip())[0]
        assert encoded.answer_positions[0] == len(prompt) - 1
        assert list(encoded.ids[: len(prompt)]) == prompt


@needs_pythia
def test_pythia_splits_numbers_and_words_and_every_part_is_scored(pythia: FileTokenizer) -> None:
    number = encode_example(Example("12345 + 1 = ", "12346"), pythia)
    assert len(number.targets) > 1
    assert "".join(map(pythia.show, number.targets)) == " 12346"
    first = encode_example(Example("12345 + 1 = ", "12346"), pythia, "next-token")
    assert (first.targets, first.answer_positions) == (number.targets[:1], number.answer_positions[:1])
    assert first.ids == number.ids[: first.answer_positions[0] + 1]
    quoted = encode_example(Example('The past tense of "go" is "', "went"), pythia)
    assert "".join(map(pythia.show, quoted.targets)) == "went"
    text = encode_example(Example("", "Rain fell on the roof."), pythia, "text")
    ids, _ = pythia.tokenize("Rain fell on the roof.")
    assert (list(text.ids), list(text.targets)) == (ids[:-1], ids[1:])
    assert text.answer_positions == tuple(range(len(ids) - 1))
    # with options that change the prompt's own tokens the comparison would be of different things
    clash = Example("a ", "\nb", ("\n\nb",))
    with pytest.raises(UserError, match=r"is tokenized in one way before .* and in another"):
        encode_wrong(clash, encode_example(clash, pythia), pythia)


def test_running_text_with_a_first_and_a_last_token_of_its_own() -> None:
    encoded = encode_example(Example("", "AB C"), CharacterTokenizer(), "text")
    assert isinstance(encoded, Encoded)
    assert (len(encoded.ids), len(encoded.targets), encoded.answer_positions[0]) == (5, 5, 0)
    assert encoded.equals_position == 0


@pytest.mark.parametrize("name", ALGORITHMIC)
def test_few_shot_forms_are_the_same_task_with_solved_examples_before_it(name: str) -> None:
    plain, few = TASKS[name], TASKS[f"{name}-fewshot"]
    assert isinstance(plain, GeneratorTask)
    assert isinstance(few, GeneratorTask)
    assert (few.levels, few.generator, few.prompt) == (plain.levels, plain.generator, plain.prompt)
    from test_probes import solve

    for level in few.levels:
        for prompt, answer, *_ in make_probe_set(few, level, 60, seed=1).examples:
            *shots, asked = prompt.split("\n")
            assert len(shots) == few.shots == 4
            assert answer == solve(asked)
            questions = [shot.partition("= ")[0] + "= " for shot in shots]
            assert asked not in questions
            assert len(set(questions)) == 4
            assert [shot.partition("= ")[2] for shot in shots] == [solve(question) for question in questions]


def test_more_shots_than_there_are_inputs_is_refused(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "tasks" / "PAR-fewshot.toml").read_text()
    text = text.replace("PAR-fewshot", "tiny").replace("length = 4", "length = 2").replace("shots = 4", "shots = 4")
    (tmp_path / "tiny.toml").write_text(text)
    with pytest.raises(
        UserError, match="task tiny asks for 4 shots beside the scored example, but level L1 has too few"
    ):
        make_probe_set(load_tasks(tmp_path)["tiny"], "L1", 1, 0)


def test_groups_stand_for_their_tasks(tmp_path: Path) -> None:
    assert all(name in TASKS for members in GROUPS.values() for name in members)
    assert [task.name for task in choose_tasks((), ProbeConfig())] == list(ALGORITHMIC)
    assert [task.name for task in choose_tasks(("algorithmic",), ProbeConfig())] == list(ALGORITHMIC)
    chosen = choose_tasks(("facts", "diagnostic", "ADD"), ProbeConfig())
    assert [task.name for task in chosen] == ["facts", *[n for n in DIAGNOSTIC if n != "facts"], "ADD"]
    probes = choose_probes(ProbeConfig(tasks=("diagnostic",), score_examples=5, geometry_examples=5))
    assert [(p.probe_set.task, p.purpose) for p in probes] == [
        (n, p) for n in DIAGNOSTIC for p in ("score", "geometry")
    ]
    with pytest.raises(
        UserError, match=r"no task 'diagnostics' \(did you mean 'diagnostic'\?\); there are .* and groups"
    ):
        choose_tasks(("diagnostics",), ProbeConfig())
    text = (Path(__file__).parents[2] / "tasks" / "ADD.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('name = "ADD"', 'name = "diagnostic"'))
    with pytest.raises(UserError, match="defines 'diagnostic', which is the name of a group"):
        choose_tasks(("ADD",), ProbeConfig(tasks_folder=tmp_path))


def test_a_small_model_is_not_trained_or_probed_on_what_it_cannot_read(tmp_path: Path, capsys) -> None:
    from pythiageo.cli.app import run as cli

    start = ["train", "demo/tasks.toml", "--set", "training.stop=1", "--quiet", "--out", str(tmp_path / "run")]
    for setting, message in {
        'data.tasks=["ADD-fewshot"]': "data.tasks: ADD-fewshot cannot be read by the synthetic models",
        'data.tasks=["facts"]': "data.tasks: facts is of kind items; only generated tasks can be trained on",
        'probes.tasks=["facts"]': "task facts, level L1 cannot be read by this model's tokenizer: character 'h'",
    }.items():
        assert cli([*start, "--set", setting, "--overwrite"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


def test_a_mixed_set_says_of_each_example_which_level_it_is_of() -> None:
    for name in ("MOD", "COPY"):
        mixed = make_probe_set(TASKS[name], "mixed", 20, seed=0)
        assert Counter(mixed.levels) == {"L1": 7, "L2": 7, "L3": 6}
        for level in ("L1", "L2", "L3"):
            alone = make_probe_set(TASKS[name], level, mixed.levels.count(level), seed=0)
            here = [each for each, of in zip(mixed.examples, mixed.levels, strict=True) if of == level]
            assert here == list(alone.examples)
            assert alone.levels == ()
