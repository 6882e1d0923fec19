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
    assert [name for name, task in tasks.items() if isinstance(task, DatasetTask)] == sorted(GROUPS["benchmarks"])
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
