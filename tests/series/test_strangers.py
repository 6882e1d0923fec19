"""Files and folders that strangers made: nothing blocks, nothing drowns, nothing is written or read elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import planted
import polars as pl
import pytest
import torch
from tinyseries import write_series

from pythiageo.cli.app import run
from pythiageo.config.runs import AnalyzeConfig, load_config
from pythiageo.durable_files import replace_file
from pythiageo.errors import CheckpointError, PythiageoError, UserError
from pythiageo.events.run import open_runs
from pythiageo.importers.mapping import load_mapping
from pythiageo.importers.results import Request, import_results
from pythiageo.observations import extent, read_manifest, read_observations, reader, write_table
from pythiageo.observations.excerpt import excerpt
from pythiageo.observations.store import write_whole
from pythiageo.probes.encoding import FileTokenizer
from pythiageo.probes.task import load_tasks, read_task
from pythiageo.runs.folder import HASHES, LOG, MANIFEST, STATE, open_run_folder
from pythiageo.series.files.hash_cache import HashMemory
from pythiageo.series.files.limits import check_counts
from pythiageo.series.files.load import open_folder, read_config
from pythiageo.series.files.tensor_files import stored_tensors
from pythiageo.series.names import StepNames
from pythiageo.series.sources.folder import read_tokens
from pythiageo.untrusted_files import (
    DEPTH,
    TOML_LIMIT,
    BadFileError,
    append_text,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    read_toml,
)
from pythiageo.untrusted_text import UNSAFE, escaped, visible, visible_all

DEEP = "[" * 100_000
BAD = "\x1b]0;evil\x07\x9b2J\u202egpj"
TASK = 'name="T"\nversion=1\ndescription="d"\nsource="s"\nkind="items"\n[levels.L1]\nchance=0.0\nfile="x.jsonl"\n'


@pytest.fixture(autouse=True)
def _no_test_hangs() -> Iterator[None]:
    def fail(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("series"), [0])


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "step0", tmp_path / "step0"))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _latin(path: Path) -> None:
    path.write_bytes(b'{"a": "caf\xe9"}')


def _deep(path: Path) -> None:
    path.write_text(f"a = {DEEP}" if path.suffix == ".toml" else DEEP)


KINDS = {
    _fifo: "is a FIFO, not a plain file",
    _folder: "is a folder, not a plain file",
    _device: "is a device, not a plain file",
    _loop: "is a link to itself",
    _latin: "is not UTF-8 text",
    _deep: f"nests deeper than {DEPTH}",
}


@pytest.mark.parametrize(("make", "said"), KINDS.items())
def test_what_is_no_plain_text_is_said_at_once(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "f.json")
    make(tmp_path / "f.toml")
    with pytest.raises(BadFileError, match=said):
        read_json(tmp_path / "f.json")
    with pytest.raises(BadFileError, match=said):
        read_toml(tmp_path / "f.toml")


def test_sizes_names_and_half_characters_are_bounded(tmp_path: Path) -> None:
    large = tmp_path / "large.toml"
    with large.open("wb") as file:
        file.truncate(TOML_LIMIT + 1)
    with pytest.raises(
        BadFileError, match=r"too large to be what its name says: 4,194,305 bytes, of at most 4,194,304"
    ):
        read_toml(large)
    with pytest.raises(BadFileError, match="too large"):
        read_bytes(Path("/proc/self/environ"), 1)  # it says that it has no bytes
    with pytest.raises(BadFileError, match="a name longer than the file system allows"):
        read_text(tmp_path / ("n" * 5000), 10)
    with pytest.raises(BadFileError, match="is no file's name"):
        read_text(tmp_path / "a\0b", 10)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none", 10)
    with pytest.raises(BadFileError, match="lone surrogate"):
        parse_json('{"a": "\\uD800"}')
    assert parse_json('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    deepest = "[" * DEPTH + "]" * DEPTH
    assert parse_json(deepest)
    with pytest.raises(BadFileError, match="deeper"):
        parse_json(f"[{deepest}]")
    dotted = tmp_path / "dotted.toml"
    dotted.write_text(".".join("a" * 5000) + " = 1\n")
    with pytest.raises(BadFileError, match="deeper"):
        read_toml(dotted)


def _items(folder: Path) -> Any:
    (folder / "t.toml").write_text(TASK)
    return read_task(folder / "t.toml")


def _run_of(folder: Path) -> Path:
    write_whole(folder, planted.table(planted.rows(steps=[0, 1])))
    (folder / MANIFEST).write_text(json.dumps({"schema_version": "1", "name": "r", "config": {}, "checkpoints": []}))
    return folder


PLACES: dict[str, Callable[[Path], Any]] = {
    "t.toml": lambda folder: read_task(folder / "t.toml"),
    "tasks.toml": load_tasks,
    "x.jsonl": _items,
    "c.toml": lambda folder: load_config(folder / "c.toml", [], "analyze"),
    "m.toml": lambda folder: load_mapping(folder / "m.toml"),
    "step1.json": lambda folder: import_results(Request(folder), folder / "out"),
    MANIFEST: read_manifest,
    "tokenizer.json": FileTokenizer,
}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", PLACES)
def test_every_reader_takes_plain_files_alone(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError) as error:
        PLACES[name](tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [_fifo, _folder, _loop])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_are_plain_files(tmp_path: Path, make: Callable[[Path], None], ending: str) -> None:
    make(tmp_path / f"t.{ending}")
    request = Request(tmp_path / f"t.{ending}", load_mapping(Path("import/pythia-layer-mteb.toml")))
    with pytest.raises(UserError, match="is a"):
        import_results(request, tmp_path / "out")
    (tmp_path / "run").mkdir()
    _run_of(tmp_path / "run")
    (tmp_path / "run" / "observations.parquet").unlink()
    make(tmp_path / "run" / "observations.parquet")
    with pytest.raises(UserError):
        read_observations(tmp_path / "run")


@pytest.mark.parametrize("make", [_fifo, _folder, _loop, _latin, _deep])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_no_file_of_a_checkpoint_blocks(checkpoint: Path, name: str, make: Callable[[Path], None]) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    make(checkpoint / name)
    with pytest.raises(CheckpointError, match=rf"s: {name} cannot be read: it "):
        open_folder(checkpoint, "s")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "vocab.json", "chat_template.jinja", "notes"])
def test_no_fifo_beside_the_weights_blocks(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    _fifo(checkpoint / name)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read: it is a FIFO"):
        open_folder(checkpoint, "s")


def test_a_folder_of_links_to_plain_files_is_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    links = tmp_path / "snapshot"
    links.mkdir()
    for file in checkpoint.iterdir():
        (links / file.name).symlink_to(file)
    (links / "gone.txt").symlink_to(tmp_path / "nothing")
    assert open_folder(links, "s").weight_sha == open_folder(checkpoint, "s").weight_sha


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 1_000_000}, "says num_hidden_layers = 1,000,000, more than any model has"),
        ({"num_hidden_layers": 10**400}, "a number of more than 18 digits, more than any model has"),
        ({"num_labels": 10**9}, "says num_labels = 1,000,000,000"),
        ({"text_config": {"n_layer": 10**7}}, r"says text_config\.n_layer = 10,000,000"),
        ({"num_hidden_layers": 2000, "num_local_experts": 2000}, "2,000 layers and 2,000 experts"),
        ({"attention_types": [[["global"], 10**9]]}, r"attention_types\[\] = 1,000,000,000"),
        ({"vocab_size": 10**12}, r"asks for a model of 128,000,000,\d+,?\d* numbers, and the weight files hold \d+,"),
        ({"hidden_size": 10**6}, r"asks for a model of [\d,]+ numbers, and the weight files hold"),
        ({"hidden_size": 10**12}, "transformers cannot open this gpt_neox checkpoint: Storage size"),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_built(
    checkpoint: Path, changes: dict[str, Any], said: str
) -> None:
    _edit(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=said):
        open_folder(checkpoint, "s")


def test_sizes_of_real_models_pass(checkpoint: Path) -> None:
    for real in (
        {"num_hidden_layers": 61, "n_routed_experts": 384, "num_experts_per_tok": 8, "hidden_size": 7168},
        {"num_hidden_layers": 24, "num_experts": 60, "shared_expert_intermediate_size": 5632, "vocab_size": 151_936},
        {"max_position_embeddings": 10_485_760, "eos_token_id": [128_001, 128_009], "max_window_layers": 28},
        {"layer_norm_eps": 1e-5, "layer_types": ["full_attention"] * 126, "num_hidden_layers": 126},
    ):
        check_counts(real, "s")
    assert read_config(checkpoint, "s")["num_hidden_layers"] == 2


def test_a_zip_bomb_is_refused_by_its_directory(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    bomb = checkpoint / "pytorch_model.bin"
    whole = checkpoint.parent / "whole.bin"
    torch.save({"a": torch.zeros(1000)}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for record in archive.infolist():
            packed.writestr(record.filename, archive.read(record))
        packed.writestr("whole/data/9", bytes(100_000_000))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds compressed records, which torch never writes"):
        stored_tensors(checkpoint, "s")
    content = bytearray(whole.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 20 : place + 28] = (2**31).to_bytes(4, "little") * 2
    bomb.write_bytes(content)
    with pytest.raises(CheckpointError, match="says that it holds more than its"):
        stored_tensors(checkpoint, "s")


def test_a_tensor_repeated_from_one_number_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1).expand(10**12)}, checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds tensors that take far more than its"):
        stored_tensors(checkpoint, "s")
    tied = torch.zeros(1000)
    torch.save({"a": tied, "b": tied}, checkpoint / "pytorch_model.bin")
    assert set(stored_tensors(checkpoint, "s")) == {"a", "b"}


def test_counts_beyond_a_table_are_none(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text('{"tokens": 99999999999999999999}')
    assert read_tokens(tmp_path) is None
    (tmp_path / "training.json").write_text('{"tokens": 300000000000}')
    assert read_tokens(tmp_path) == 300_000_000_000
    named = StepNames(r"s(?P<step>\d+)-t(?P<tokens>\d+T?)")
    assert named.parse("s12-t99999T")[:2] == (12, None)  # type: ignore[index]
    assert named.parse(f"s12-t{'9' * 4400}")[:2] == (12, None)  # type: ignore[index]
    with pytest.raises(UserError, match="more than 15 digits"):
        named.parse(f"s{'9' * 16}-t1")


CONFIG = AnalyzeConfig(name="r", target="t")


def _open(path: Path, resume: bool = False, overwrite: bool = False) -> None:
    with open_run_folder(path, CONFIG, resume, overwrite, "cpu") as folder:
        folder.update(status="complete")


@pytest.mark.parametrize(("resume", "overwrite"), [(True, False), (False, True)])
@pytest.mark.parametrize(
    "name",
    [
        ".lock", f".{MANIFEST}.tmp", HASHES, f".{HASHES}.tmp", LOG, "audit.json", ".audit.json.tmp", STATE,
        f"{STATE}.tmp", "observations.parquet", "observations", "observations/step-00000000.parquet", "checkpoints",
        "checkpoints/.writing-step0", "downloads", "downloads/step0/.cache", "tensorboard",
    ],
)  # fmt: skip
def test_a_run_writes_through_no_link(tmp_path: Path, name: str, resume: bool, overwrite: bool) -> None:
    path, outside = tmp_path / "run", tmp_path / "outside"
    _open(path)
    outside.mkdir()
    (outside / "kept").write_text("mine")
    link = path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside if "." not in Path(name).name[1:] and name not in {".lock"} else outside / "kept")
    with pytest.raises(UserError, match=r"is a link: a run's folder holds plain files and folders of its own"):
        _open(path, resume, overwrite)
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("kept", "mine")]


def test_a_fifo_or_a_folder_in_a_file_s_place_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "run"
    _open(path)
    _fifo(path / LOG)
    with pytest.raises(UserError, match="is a FIFO"):
        _open(path, resume=True)
    (path / LOG).unlink()
    (path / LOG).mkdir()
    with pytest.raises(UserError, match="is a folder"):
        _open(path, resume=True)
    (path / LOG).rmdir()
    (path / "downloads").write_text("")
    with pytest.raises(UserError, match="is a plain file"):
        _open(path, resume=True)
    (path / "downloads").unlink()
    (path / "notes.md").symlink_to(tmp_path)  # a name that no run writes to
    _open(path, resume=True)


def test_what_writes_follows_no_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("{}")
    for link in ("a.json", ".a.json.tmp", "log"):
        (tmp_path / link).symlink_to(mine)
    replace_file(tmp_path / "a.json", b"1")
    memory = HashMemory(tmp_path / "a.json")
    memory.keep()
    with pytest.raises(UserError, match="is not a plain file"):
        append_text(tmp_path / "log", "x")
    assert mine.read_text() == "{}"
    assert json.loads((tmp_path / "a.json").read_text()) == {}
    (tmp_path / "log").unlink()
    append_text(tmp_path / "log", "x\n")
    append_text(tmp_path / "log", "y\n")
    assert (tmp_path / "log").read_text() == "x\ny\n"


def test_export_and_excerpt_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").mkdir()
    path = _run_of(tmp_path / "run")
    (path / "tables").symlink_to(tmp_path / "outside")
    assert run(["export", str(path)]) == 2
    assert not list((tmp_path / "outside").iterdir())
    (path / "observations.parquet").rename(tmp_path / "outside" / "o.parquet")
    (path / "observations.parquet").symlink_to(tmp_path / "outside" / "o.parquet")
    for read in (lambda: excerpt(path, tmp_path / "part"), lambda: open_runs([path]), lambda: read_observations(path)):
        with pytest.raises(UserError, match="leads outside the run folder"):
            read()
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("provenance", []), ("config", "x"), ("checkpoints", [1]), ("checkpoints", [{"step": 10**30}]), ("model", 3)],
)
def test_a_manifest_is_of_its_kind_where_it_is_taken_apart(tmp_path: Path, key: str, value: Any) -> None:
    path = _run_of(tmp_path)
    manifest = json.loads((path / MANIFEST).read_text()) | {key: value}
    (path / MANIFEST).write_text(json.dumps(manifest))
    assert run(["runs", "show", str(path)]) == 2
    with pytest.raises(UserError, match=r"must be"):
        excerpt(path, tmp_path / "part")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("layer", 2_000_000_000, "layer 2,000,000,000 cannot be: expected 0 to 9,999"),
        ("layer", -1, "layer -1 cannot be"),
        ("step", 2**60, "step 1,152,921,504,606,846,976 cannot be"),
        ("step", -5, "step -5 cannot be"),
        ("tokens", 2**62, "tokens 4,611"),
    ],
)
def test_numbers_that_cannot_be_are_refused_in_a_table(tmp_path: Path, column: str, value: int, said: str) -> None:
    table = planted.table(planted.rows(steps=[0]))
    write_whole(tmp_path, table.with_columns(pl.lit(value).cast(table.schema[column]).alias(column)))
    with pytest.raises(UserError, match=said):
        read_observations(tmp_path)


def test_a_run_too_large_to_be_looked_at_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _run_of(tmp_path)
    monkeypatch.setattr(extent, "STEPS", 1)
    for command in (["report", str(path)], ["compare", str(path), str(path)], ["claims", str(path)]):
        assert run(command) == 2
        assert "holds 2 checkpoints, and 1 are the most" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(extent, "TASKS", 0)
    assert run(["report", str(path)]) == 2
    assert "--tasks A,B" in capsys.readouterr().err
    monkeypatch.setattr(reader, "_ROWS", 3)
    with pytest.raises(UserError, match="observations, and 3 are read at most"):
        read_observations(path)


def test_an_excerpt_takes_tasks(tmp_path: Path) -> None:
    path = _run_of(tmp_path)
    task = read_observations(path)["task"].drop_nulls()[0]
    part = excerpt(path, tmp_path / "part", tasks=[task])
    assert set(read_observations(part)["task"]) <= {task, None}
    assert read_manifest(part)["excerpt"]["tasks"] == [task]
    with pytest.raises(UserError, match="no task 'none'"):
        excerpt(path, tmp_path / "other", tasks=["none"])


def _evil(folder: Path) -> Path:
    folder.mkdir()
    table = planted.table(planted.rows(steps=[0, 1, 2, 3]))
    names = [name for name in ("series", "size", "task", "level", "reason") if table[name].drop_nulls().len()]
    write_whole(folder, table.with_columns((pl.col(name) + BAD).alias(name) for name in names))
    manifest = {"schema_version": "1", "name": BAD, "kind": BAD, "config": {BAD: BAD}, "model": {"architecture": BAD}}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"checkpoints": [{"step": 0, "label": BAD, "reason": BAD}]}))
    return folder


def test_control_characters_reach_no_terminal_and_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = _evil(tmp_path / "a"), _evil(tmp_path / "b")
    table = read_observations(other)
    write_whole(other, table.with_columns(pl.lit("other").alias("run"), pl.lit("task-aligned").alias("regime")))
    out = tmp_path / "out"
    for command in (
        ["runs", "show", str(path)],
        ["show", str(path)],
        ["runs", "list", str(tmp_path)],
        ["compare", str(path), str(other), "--out", str(out)],
        ["claims", str(path)],
        ["report", str(path), "--out", str(out / "r.html")],
        ["export", str(path), "--measures", BAD],
        ["export", str(path), "--out", str(out), "--format", "md,latex,json"],
        ["plot", str(path), "--measure", "rankme", "--by", "step", "--out", str(out / "p.svg")],
        ["figures", str(path), "--out", str(out / "figures"), "--format", "svg"],
    ):
        assert run(command) in {0, 2}
        shown = "".join(capsys.readouterr())
        assert shown
        assert not re.search(UNSAFE, shown), command
    for name in ("r.html", "per_layer.md", "per_layer.tex", "per_layer.json"):
        text = (out / name).read_text(encoding="utf-8")
        text = text.replace("\ufeff", "") if name == "r.html" else text  # the drawing library holds one
        own = text.split("<script", 1)[0] if name == "r.html" else text
        assert not re.search(UNSAFE, own), name
        assert ("evil" in text) == (
            name != "per_layer.md"
        )  # there a column that says the same in every row is left out
    texts = [*out.glob("*.txt"), *out.glob("figures/*.txt"), *out.glob("figures/*.tex"), *out.glob("*.svg")]
    assert out / "p.txt" in texts
    assert not [text.name for text in texts if re.search(UNSAFE, text.read_text(encoding="utf-8"))]
    assert read_observations(path)["task"].str.contains("\x1b").any()


def test_visible_spells_out_and_keeps_the_rest() -> None:
    assert visible(BAD) == "\\x1b]0;evil\\x07\\x9b2J\\u202egpj"
    assert visible("σ² é 漢 🙂\n\ttab") == "σ² é 漢 🙂\n\ttab"
    assert visible("\udc80") == "\\udc80"
    assert visible_all({BAD: [BAD, 1, None]}) == {visible(BAD): [visible(BAD), 1, None]}
    assert json.loads(escaped(json.dumps([BAD], ensure_ascii=False))) == [BAD]


def test_commands_print_in_one_place() -> None:
    import pythiageo.cli

    for file in Path(pythiageo.cli.__file__).parent.glob("*.py"):
        if file.name != "display.py":
            assert not re.search(r"(?<![\w.])print\(|typer\.(echo|secho)\(", file.read_text()), file.name


def test_csv_and_parquet_keep_every_character(tmp_path: Path) -> None:
    frame = pl.DataFrame({"task": [BAD]})
    assert BAD in write_table(frame, tmp_path / "t.csv", "csv").read_text(encoding="utf-8")
    assert pl.read_parquet(write_table(frame, tmp_path / "t.parquet", "parquet")).equals(frame)


LONG = "n" * 5000


@pytest.mark.parametrize(
    "command",
    [
        ["tasks", "check", LONG], ["analyze", LONG, "-q"], ["analyze", f"{LONG}.toml", "-q"], ["report", LONG],
        ["export", LONG], ["import", LONG, "--out", "x"], ["import", "x", "--map", LONG, "--out", "x"],
        ["tasks", "list", "--tasks-folder", LONG], ["runs", "list", LONG], ["audit", LONG],
    ],
)  # fmt: skip
def test_a_name_too_long_for_the_file_system_is_one_sentence(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(command) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_long_names_inside_strangers_files(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": LONG, "b": "a\0b"}}))
    with pytest.raises(CheckpointError, match="is missing") as error:
        open_folder(checkpoint, "s")
    assert len(str(error.value)) < 300
    (tmp_path / "t.toml").write_text(TASK.replace("x.jsonl", LONG))
    with pytest.raises(UserError, match="expected a JSONL file in the folder of the task"):
        read_task(tmp_path / "t.toml")


def test_items_of_half_a_gigabyte_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(TASK)
    with (tmp_path / "x.jsonl").open("wb") as file:
        file.truncate(500_000_000)
    with pytest.raises(
        UserError, match=r"500,000,000 bytes, of at most 67,108,864; .* kind 'dataset' with path 'json'"
    ):
        read_task(tmp_path / "t.toml")


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_a_series_with_one_bad_checkpoint_is_measured_in_the_rest(made: Path, tmp_path: Path) -> None:
    series = tmp_path / "series"
    shutil.copytree(made / "step0", series / "step0")
    shutil.copytree(made / "step0", series / "step1")
    (series / "step1" / "config.json").unlink()
    _fifo(series / "step1" / "config.json")
    out = tmp_path / "run"
    small = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=6", "-q"]
    try:
        code = run(["analyze", str(series), "--out", str(out), "--no-audit", *small])
    except PythiageoError as error:  # pragma: no cover - the command tells its errors itself
        raise AssertionError(str(error)) from error
    assert code == 1
    rows = read_observations(out).filter(pl.col("step") == 1).rows(named=True)
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("unreadable", "step1: config.json cannot be read: it is a FIFO, not a plain file")
    ]
