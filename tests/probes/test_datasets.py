"""Data sets through the real ``datasets`` library: small files of the same columns as the sets on the Hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pythiageo.cli.app import run as cli
from pythiageo.errors import MachineError, UserError
from pythiageo.measurement.probe_sets import GROUPS
from pythiageo.probes.probeset import Example, make_probe_set
from pythiageo.probes.rows import fill
from pythiageo.probes.task import DatasetTask, load_tasks, read_task

TASKS = Path(__file__).parents[2] / "tasks"
ORDER = "Three birds sit on a branch. The owl is left of the crow.\nOptions:\n(A) owl first\n(B) crow first\n(C) none"
# rows of our own, with the columns that the data sets have
ROWS: dict[str, list[dict[str, Any]]] = {
    "logical-deduction": [{"input": ORDER, "target": "(A)"}, {"input": ORDER + "?", "target": "(C)"}],
    "lambada": [{"text": "she put the kettle on and made some tea"}, {"text": "Say it again, said the {odd} old man"}],
    "sciq": [
        {
            "question": "What do plants take in?",
            "distractor1": "gold",
            "distractor2": "sand",
            "distractor3": "smoke",
            "correct_answer": "water",
            "support": "Roots take in water.",
        }
    ],
    "arc-easy": [
        {
            "id": "x",
            "question": "What is hot?",
            "choices": {"text": ["ice", "fire"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        {
            "id": "y",
            "question": "What flies?",
            "choices": {"text": ["a bird", "a stone"], "label": ["1", "2"]},
            "answerKey": "1",
        },
    ],
    "piqa": [{"goal": "dry a cup", "sol1": "use a towel", "sol2": "use a river", "label": 0}],
}
EXPECTED: dict[str, list[Example]] = {
    "logical-deduction": [
        Example(f"Q: {ORDER}\nA: ", "(A)", ("(B)", "(C)"), 0),
        Example(f"Q: {ORDER}?\nA: ", "(C)", ("(A)", "(B)"), 2),
    ],
    "lambada": [
        Example("she put the kettle on and made some ", "tea"),
        Example("Say it again, said the {odd} old ", "man"),
    ],
    "sciq": [
        Example("Roots take in water.\nQuestion: What do plants take in?\nAnswer: ", "water", ("gold", "sand", "smoke"))
    ],
    "arc-easy": [
        Example("Question: What is hot?\nAnswer: ", "fire", ("ice",)),
        Example("Question: What flies?\nAnswer: ", "a bird", ("a stone",)),
    ],
    "piqa": [Example("Question: dry a cup\nAnswer: ", "use a towel", ("use a river",))],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def locally(name: str, kind: str, folder: Path, rows: list[dict[str, Any]] | None = None) -> DatasetTask:
    """The shipped task file, reading a file of ``rows`` beside it in place of the Hub; nothing else is changed."""
    shipped = (TASKS / f"{name}.toml").read_text()
    path = next(line for line in shipped.splitlines() if line.startswith("path"))
    text = shipped.replace(path, f'path = "{kind}"').replace('split = "', f'file = "rows.{kind}"\nsplit = "')
    text = "\n".join(line for line in text.splitlines() if not line.startswith("config"))
    for split in ("test", "validation"):
        text = text.replace(f'split = "{split}"', 'split = "train"')
    rows = ROWS[name] if rows is None else rows
    folder.mkdir(exist_ok=True)
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(folder / "rows.parquet")
    else:
        (folder / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.toml").write_text(text)
    task = read_task(folder / "task.toml")
    assert isinstance(task, DatasetTask)
    return task


@pytest.mark.parametrize(
    ("support", "expected"),
    [("  \n Roots ", "Roots \nQuestion: What"), ("", "\nQuestion: What"), (" ", "\nQuestion: What")],
)
def test_white_space_before_a_passage_is_left_out(support: str, expected: str, tmp_path: Path) -> None:
    task = locally("sciq", "json", tmp_path, [ROWS["sciq"][0] | {"support": support}])
    (example,) = make_probe_set(task, "L1", 1, 0).examples
    assert example.prompt.startswith(expected)


@pytest.mark.parametrize("kind", ["parquet", "json"])
@pytest.mark.parametrize("name", ROWS)
def test_rows_become_examples(name: str, kind: str, tmp_path: Path) -> None:
    task = locally(name, kind, tmp_path)
    probe_set = make_probe_set(task, "L1", len(ROWS[name]), 0)
    assert list(probe_set.examples) == EXPECTED[name]
    assert probe_set.chance == task.chance("L1")
    # the content decides the hash, not where it came from
    assert probe_set.sha == make_probe_set(locally(name, "json", tmp_path / "b"), "L1", len(ROWS[name]), 0).sha
    with pytest.raises(UserError, match=f"has {len(ROWS[name])} items at level L1, but 9 were asked for"):
        make_probe_set(task, "L1", 9, 0)


def test_the_shipped_files_are_the_benchmarks_and_are_read_without_the_library() -> None:
    code = "import sys; from pythiageo.probes.task import load_tasks; load_tasks(); sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    tasks = load_tasks()
    shipped = [name for name, task in tasks.items() if isinstance(task, DatasetTask)]
    assert shipped == sorted([*GROUPS["benchmarks"], "fineweb"])
    assert list(tasks["logical-deduction"].levels) == ["L1", "L2", "L3"]
    chances = [tasks["logical-deduction"].chance(level) for level in ("L1", "L2", "L3")]
    assert chances == [1 / 3, 1 / 5, 1 / 7]
    for task in tasks.values():
        if isinstance(task, DatasetTask):
            for level in task.levels.values():
                assert (level.config, level.split) != (None, "train")


def test_listing_tasks_asks_the_network_nothing(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert cli(["tasks", "list"]) == 0
    assert cli(["tasks", "check", str(TASKS / "sciq.toml")]) == 0
    assert "its rows are fetched when it is used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("arc-easy", {"answerKey": "D"}, r"row 0 of json: expected 'D' once among \['A', 'B'\]"),
        ("sciq", {"correct_answer": ""}, "row 0 of json: '{correct_answer}' gives an empty text"),
        ("sciq", {"distractor1": "water"}, "row 0 of json: expected 'water' once among"),
        ("piqa", {"label": 2}, "row 0 of json: expected a number from 0 to 1 in 'label', got 2"),
        ("piqa", {"goal": None}, "row 0 of json: column 'goal' holds NoneType, expected text or a number"),
        ("lambada", {"text": "alone"}, "row 0 of json: expected at least two words in column 'text'"),
        ("logical-deduction", {"target": "(D)"}, r"row 0 of json: expected '\(D\)' once among"),
    ],
)
def test_a_row_that_is_no_example_is_named(name: str, change: dict, message: str, tmp_path: Path) -> None:
    task = locally(name, "json", tmp_path, [{**ROWS[name][0], **change}])
    with pytest.raises(UserError, match=message):
        make_probe_set(task, "L1", 1, 0)


def test_a_wrong_column_or_split_is_met_with_what_there_is(tmp_path: Path) -> None:
    rows = [{key.replace("goal", "goals"): value for key, value in ROWS["piqa"][0].items()}]
    with pytest.raises(
        UserError, match=r"no column 'goal' \(did you mean 'goals'\?\); it has goals, sol1, sol2, label"
    ):
        make_probe_set(locally("piqa", "json", tmp_path, rows), "L1", 1, 0)
    locally("piqa", "json", tmp_path)
    text = (tmp_path / "task.toml").read_text()
    (tmp_path / "task.toml").write_text(text.replace('split = "train"', 'split = "tests"'))
    with pytest.raises(UserError, match=r"task piqa, level L1: data set rows\.json: .*split.*tests"):
        make_probe_set(read_task(tmp_path / "task.toml"), "L1", 1, 0)


def test_a_hub_that_cannot_be_reached_is_the_machines_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'allenai/sciq' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(MachineError, match="task sciq, level L1: data set allenai/sciq could not be fetched: Couldn't"):
        make_probe_set(load_tasks()["sciq"], "L1", 1, 0)


def test_the_library_itself_refuses_a_data_set_that_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a data set with a loading script ends in: the library's refusal, as one sentence, and nothing was run."""
    import datasets

    repository = tmp_path / "owner" / "name"
    repository.mkdir(parents=True)
    (repository / "name.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **more: real(str(repository), split=more["split"]))
    with pytest.raises(UserError, match=r"task sciq, level L1: data set allenai/sciq: .*script"):
        make_probe_set(load_tasks()["sciq"], "L1", 1, 0)
    assert not (tmp_path / "ran").exists()


def test_of_a_stream_the_first_rows_are_read_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of two files, of which the second cannot be read: whoever takes rows of the first does not meet it."""
    import datasets

    pl.DataFrame({"text": [f"text {number}" for number in range(5)]}).write_parquet(tmp_path / "0.parquet")
    (tmp_path / "1.parquet").write_bytes(b"no")
    real, asked = datasets.load_dataset, []

    def local(path: str, **more: Any) -> Any:
        asked.append((path, more))
        files = [str(tmp_path / f"{number}.parquet") for number in (0, 1)]
        return real("parquet", data_files=files, split=more["split"], streaming=more["streaming"])

    monkeypatch.setattr(datasets, "load_dataset", local)
    text = (TASKS / "fineweb.toml").read_text().replace('path = "H', 'revision = "abc"\npath = "H')
    (tmp_path / "own.toml").write_text(text)
    task = read_task(tmp_path / "own.toml")
    assert [one.answer for one in make_probe_set(task, "L1", 5, 0).examples] == [f"text {i}" for i in range(5)]
    said = {"name": "sample-10BT", "split": "train", "revision": "abc", "streaming": True}
    assert asked == [("HuggingFaceFW/fineweb", said)]
    with pytest.raises(UserError, match=r"task fineweb, level L1: data set HuggingFaceFW/fineweb: .*arquet"):
        make_probe_set(task, "L1", 6, 0)
    (tmp_path / "1.parquet").unlink()
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **more: real("json", data_files=str(tmp_path / "a.json"),
                        split="train", streaming=True))  # fmt: skip
    (tmp_path / "a.json").write_text('{"text": "one"}\n{"text": 2.50}\n')
    assert make_probe_set(task, "L1", 1, 0).examples[0].answer == "one"
    with pytest.raises(UserError, match=r"came from a JSON file on the Hub as 2\.5"):
        make_probe_set(task, "L1", 2, 0)


def test_a_folder_with_the_data_sets_name_is_not_read_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "allenai" / "sciq").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a folder allenai/sciq lies here and would be read in its place"):
        make_probe_set(load_tasks()["sciq"], "L1", 1, 0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"allenai/sciq"', '"../allenai"', "path must be owner/name on the Hub, or one of json, parquet, csv"),
        ('"allenai/sciq"', '"/etc/passwd"', "path must be owner/name on the Hub"),
        ('"allenai/sciq"', '"json"', r"levels\.L1: file goes with the paths json, parquet, csv"),
        ('answer = "{correct_answer}"', "", "columns of rule 'choice' must be .*; got options, prompt"),
        ('answer = "{correct_answer}"', 'answr = "{a}"', r"unknown key 'columns\.answr' \(did you mean 'answer'\?\)"),
        ("{question}", "{question!r}", "expected a name and nothing else in the braces"),
        ("{question}", "{question", r"unmatched '\{' in format spec, in '\{support\}"),
        ('rule = "choice"', 'rule = "text"', "columns of rule 'text' must be text"),
        ('rule = "choice"', 'rule = "choice"\nfolder = "/"', "unknown key 'folder'"),
        ('path = "allenai/sciq"', 'path = "json"\nstreaming = true', "streaming is for a data set on the Hub, not for"),
        ('rule = "choice"', 'rule = "exact"\nlisted = true', "listed is for rule 'choice', not 'exact'"),
    ],
)
def test_a_malformed_mapping_names_file_and_key(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((TASKS / "sciq.toml").read_text().replace(before, after, 1))
    with pytest.raises(UserError, match=message) as caught:
        read_task(path)
    assert "mine.toml" in str(caught.value)


def test_files_outside_the_tasks_folder_are_not_read(tmp_path: Path) -> None:
    locally("piqa", "json", tmp_path / "inside")
    (tmp_path / "inside" / "rows.json").rename(tmp_path / "rows.json")
    path = tmp_path / "inside" / "task.toml"
    path.write_text(path.read_text().replace('"rows.json"', '"../rows.json"'))
    with pytest.raises(UserError, match="expected a json file in the folder of the task"):
        make_probe_set(read_task(path), "L1", 1, 0)


def test_values_are_put_in_as_they_are() -> None:
    row = {"a": "{b} {{", "b": 3, "c": {"d": "deep"}}
    assert fill("{a}|{b}|{c.d}|{{x}}", row) == "{b} {{|3|deep|{x}"
    with pytest.raises(ValueError, match=r"no column 'c\.e'.*it has d"):
        fill("{c.e}", row)


PAIRS = """
name = "pairs"
version = 1
kind = "dataset"
path = "{kind}"
description = "x"
source = "own"
rule = "exact"
[columns]
prompt = "{{q}}: "
answer = "{{a}}"
[levels.L1]
chance = 0.1
split = "{split}"
file = "rows.{kind}"
"""


def answers(folder: Path, kind: str, content: str, count: int, split: str = "train") -> list[str]:
    """The answers of a file's first rows, through a task that is read anew."""
    (folder / f"rows.{kind}").write_bytes(content.encode())
    (folder / "pairs.toml").write_text(PAIRS.format(kind=kind, split=split))
    return [one.answer for one in make_probe_set(read_task(folder / "pairs.toml"), "L1", count, 0).examples]


@pytest.mark.parametrize(
    ("kind", "content", "written"),
    [
        ("csv", "q,a\nx,007\ny,02134\nz,5\n", ["007", "02134", "5"]),
        ("csv", "q,a\nx,1\ny,2.50\nz,1e5\n", ["1", "2.50", "1e5"]),
        ("csv", "q,a\nx,1\ny,2\nz,\n", ["1", "2"]),
        ("csv", "q,a\nx,Na\ny,NA\n\nz,null\n", ["Na", "NA", "null"]),
        ("csv", "q,a\nx,True\ny,2020-01-02\n", ["True", "2020-01-02"]),
        ("csv", '\ufeffq,a\r\n"x ""y""\nz",  1 \r\n', ["  1 "]),
        ("csv", "q,a\nx,a\u2028b\u0085c\n", ["a\u2028b\u0085c"]),
        ("json", '{"q":"x","a":"2020-01-02"}\n{"q":"y","a":"2021-01-02"}\n', ["2020-01-02", "2021-01-02"]),
        ("json", '{"q":"x","a":1}\n{"q":"y","a":2.50}\n{"q":"z","a":null}\n', ["1", "2.50"]),
        ("json", '{"q":"x","a":"007"}\n\n{"q":"y","a":"a\u2028b"}\n', ["007", "a\u2028b"]),
        ("json", '[{"q":"x","a":1e5},\n {"q":"y","a":9007199254740993}]', ["1e5", "9007199254740993"]),
    ],
)
def test_text_is_the_text_that_is_written(kind: str, content: str, written: list[str], tmp_path: Path) -> None:
    assert answers(tmp_path, kind, content, len(written)) == written


def test_a_replaced_file_with_the_same_times_is_read_anew(tmp_path: Path) -> None:
    import os

    for word in ("one", "two"):
        (tmp_path / "rows.json").write_text("")
        found = answers(tmp_path, "json", json.dumps({"q": "x", "a": word}), 1)
        os.utime(tmp_path / "rows.json", (10**9, 10**9))
        assert found == answers(tmp_path, "json", json.dumps({"q": "x", "a": word}), 1) == [word]


def test_a_part_of_a_file_is_its_part(tmp_path: Path) -> None:
    rows = "q,a\n" + "".join(f"x{number},{number}\n" for number in range(10))
    assert answers(tmp_path, "csv", rows, 3, "train[2:5]") == ["2", "3", "4"]
    assert answers(tmp_path, "csv", rows, 5, "train[50%:]") == ["5", "6", "7", "8", "9"]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("csv", "q,a\nx,1,2\n", "data set rows.csv: cannot be read as csv: found more fields"),
        ("csv", "q,a\nx,\n", "row 0 of csv: '{a}' gives an empty text"),
        ("json", '{"q":"x"\n', "data set rows.json: cannot be read as json: line 1: Expecting"),
        ("json", '{"q":"x","a":NaN}\n', "line 1: NaN is no JSON"),
        ("json", "3\n", "line 1: expected an object with a value for each column, got int"),
        ("json", "[" * 100_000, "nested too deeply to be a table"),
        ("json", '{"q":"x","a":true}\n', "row 0 of json: column 'a' holds bool, expected text or a number"),
        ("parquet", "no", "data set rows.parquet: cannot be read as parquet"),
    ],
)
def test_a_file_that_is_no_table_is_told(kind: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        answers(tmp_path, kind, content, 1)
    assert message in str(told.value)


def test_a_number_that_was_guessed_on_the_hub_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``datasets`` guesses the types of a CSV file there: what it took for a number is not known as text."""
    import datasets

    task = load_tasks()["piqa"]
    assert isinstance(task, DatasetTask)
    real = datasets.load_dataset

    def load(path: str, **asked: Any) -> Any:
        return real("csv", data_files=str(tmp_path / "rows.csv"), split="train")

    monkeypatch.setattr(datasets, "load_dataset", load)
    (tmp_path / "rows.csv").write_text("goal,sol1,sol2,label\nhow many,seven,eight,1\n")
    assert make_probe_set(task, "L1", 1, 0).examples[0].answer == "eight"
    (tmp_path / "rows.csv").write_text("goal,sol1,sol2,label\nhow many,007,8,1\n")
    with pytest.raises(
        UserError, match=r"row 0 of baber/piqa: column 'sol1' came from a CSV file on the Hub as 7, and"
    ):
        make_probe_set(task, "L1", 1, 0)


def test_a_missing_option_is_not_the_word_none(tmp_path: Path) -> None:
    row = {**ROWS["arc-easy"][0], "choices": {"text": ["ice", None], "label": ["A", "B"]}}
    with pytest.raises(UserError, match=r"column 'choices\.text' holds NoneType"):
        make_probe_set(locally("arc-easy", "json", tmp_path, [row]), "L1", 1, 0)
