"""Places that cannot be written to, and folders of runs of which one cannot be read: a sentence, before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import rows, write_run
from tinyseries import write_series

from pythiageo import locations
from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError
from pythiageo.locations import check_file, check_folder, make_folder
from pythiageo.probes.task import read_task

COMMANDS = {
    "analyze": "analyze {series} --tasks ADD --quiet --out {out}",
    "plan": "plan {series} --tasks ADD --quiet --out {out}",
    "train": "train demo/tasks.toml --quiet --out {out}",
    "report": "report {run} --out {out}.html",
    "export": "export {run} --out {out}",
    "figures": "figures {run} --out {out}",
    "compare": "compare {run} {run} --out {out}",
    "claims": "claims {run} --out {out}",
    "published": "published {run} --out {out}.csv",
    "readout": "readout {run} --out {out}",
    "excerpt": "runs excerpt {run} --out {out}",
    "import": "import {run}/x.csv --map {run}/m.toml --out {out}",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "one", rows())


def refused(command: str, run: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = sorted(out.parent.parent.rglob("*"))
    series = write_series(run.parent / "series", () if (run.parent / "series").exists() else (0,))
    assert cli(command.format(series=series, run=run, out=out).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("pythiageo: ")
    assert error.count("\n") == 1
    assert "cannot be written" in error
    assert sorted(out.parent.parent.rglob("*")) == before
    return error


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_output_below_a_file_is_one_sentence(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}" in refused(command, run, tmp_path / "file" / "x", capsys)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_output_with_too_long_a_name_is_one_sentence(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "File name too long" in refused(command, run, tmp_path / ("x" * 300) / "y", capsys)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_output_that_may_not_be_made_is_one_sentence(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locations.os, "access", lambda place, _: str(place) != str(tmp_path))  # root may do all
    said = refused(command, run, tmp_path / "new" / "x", capsys)
    assert f"the folder {tmp_path} may not be written to" in said


def test_what_can_be_written_is_looked_at_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    check_folder(tmp_path / "a" / "b")
    check_file(tmp_path / "a" / "b")
    check_file(tmp_path / "file")
    assert not (tmp_path / "a").exists()
    assert make_folder(tmp_path / "a" / "b").is_dir()
    wrong: list[tuple[Callable[[Path], object], Path, str]] = [
        (check_folder, tmp_path / "file", "it is there and is no folder"),
        (check_file, tmp_path / "a", "it is a folder, and a file is to be written"),
        (check_folder, tmp_path / "loop" / "x", "symbolic links"),
        (make_folder, tmp_path / "file" / "x" / "y", f"{tmp_path / 'file'} is there and is no folder"),
        (check_folder, tmp_path / "a\0b", "cannot be written"),
    ]
    for check, path, message in wrong:
        with pytest.raises(UserError, match=message.replace("(", r"\(")):
            check(path)


def test_one_run_that_cannot_be_read_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "good", rows())
    for name, text in {
        "alien": '{"schema_version": "1", "checkpoints": 7, "name": ["a"]}',
        "damaged": "{",
        "list": "[]",
        "newer": '{"schema_version": "99"}',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text)
    (tmp_path / "empty").mkdir()
    assert cli(["runs", "list", str(tmp_path), "--json"]) == 1
    found = {Path(one["folder"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert found["good"]["observations"] == len(rows())
    assert {name for name, one in found.items() if one["status"] == "unreadable"} == {"damaged", "list", "newer"}
    assert "update pythiageo" in found["newer"]["problem"]
    assert cli(["runs", "list", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "nano-42" in shown.out
    assert shown.err.count(f"pythiageo: {tmp_path}/") == 3
    for name in ("alien", "damaged", "list", "newer"):
        (tmp_path / name / "manifest.json").unlink()
    assert cli(["runs", "list", str(tmp_path)]) == 0


TASK = 'name="u"\nversion=1\nkind="items"\ndescription="x"\nsource="own"\n[levels.L1]\nchance=0.1\nfile="u.jsonl"\n'


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\u000b"])
def test_json_lines_are_cut_at_newlines_alone(character: str, tmp_path: Path) -> None:
    (tmp_path / "u.toml").write_text(TASK)
    first = json.dumps({"prompt": f"A{character}B ", "answer": "C"}, ensure_ascii=False)
    second = json.dumps({"prompt": "D ", "answer": "E"})
    (tmp_path / "u.jsonl").write_bytes(f"{first}\r\n\n{second}\n".encode())
    items = read_task(tmp_path / "u.toml").levels["L1"].items  # type: ignore[union-attr]
    assert [(item.prompt, item.answer) for item in items] == [(f"A{character}B ", "C"), ("D ", "E")]
    (tmp_path / "u.jsonl").write_bytes(f"{first}\n\n{{\n".encode())
    with pytest.raises(UserError, match=r"u\.jsonl:3: not a JSON object"):
        read_task(tmp_path / "u.toml")
