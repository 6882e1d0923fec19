"""What is called kept is on the disk, and a resumed run goes on from what is really there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from pythiageo.cli.app import run as cli
from pythiageo.durable_files import new_file, new_folder, replace_file
from pythiageo.errors import CheckpointError, MachineError, UserError, machine_trouble, raise_if_memory
from pythiageo.observations import read_manifest
from pythiageo.runs.lock import held
from pythiageo.series.files.load import open_folder
from pythiageo.series.hub import failures, fetch

SETS = ["model.layers=2", "model.d_model=16", "model.heads=2", "model.d_ff=32", "training.stop=6", "name=tiny",
        'training.checkpoints="0,2,4,6"', "probes.tasks=['ADD']", "probes.score_examples=4",
        "probes.geometry_examples=6"]  # fmt: skip
TRAIN = ["train", "demo/tasks.toml", "--quiet", *(part for one in SETS for part in ("--set", one))]
PROBES = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=6", "--quiet"]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lasting") / "run"
    assert cli([*TRAIN, "--out", str(out)]) == 0
    return out


def same(run: Path, other: Path) -> None:
    """Assert that two training runs hold the same table, manifest of checkpoints, weights and state."""
    names = ["observations.parquet"]
    names += [f"checkpoints/step{step}/{name}" for step in (0, 2, 4, 6) for name in (WEIGHTS, "config.json")]
    for name in names:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    states = [safe_open(one / "state.safetensors", framework="pt") for one in (run, other)]
    assert states[0].metadata() == states[1].metadata()  # its sha256 of all tensors among them
    assert read_manifest(run)["checkpoints"] == read_manifest(other)["checkpoints"]
    assert read_manifest(run)["status"] == "complete"
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]


# on the disk before it has its name


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and renamed, in order."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def watched_sync(handle: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        sync(handle)

    def watched_replace(source: Path, target: Path) -> None:
        done.append(f"rename {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return done


def test_files_and_folders_are_on_the_disk_before_they_have_their_names(tmp_path: Path, order: list[str]) -> None:
    replace_file(tmp_path / "a.json", b"{}")
    assert [word.split()[0] for word in order] == ["sync", "rename", "sync"]
    assert order[1:] == ["rename a.json", f"sync {tmp_path.name}"]
    order.clear()
    with new_folder(tmp_path / "step1") as folder:
        (folder / "inner").mkdir(parents=True)
        (folder / "weights").write_bytes(b"w")
        (folder / "inner" / "config").write_bytes(b"c")
    at = order.index("rename step1")
    assert set(order[:at]) == {"sync .writing-step1", "sync inner", "sync weights", "sync config"}
    assert order[at + 1 :] == [f"sync {tmp_path.name}"]
    assert (tmp_path / "step1" / "inner" / "config").read_bytes() == b"c"


def test_a_training_run_syncs_all_it_keeps(tmp_path: Path, order: list[str]) -> None:
    assert cli([*TRAIN, "--set", "training.stop=2", "--out", str(tmp_path / "run")]) == 0
    for step in (0, 2):
        at = order.index(f"rename step{step}")
        assert {f"sync {WEIGHTS}", "sync config.json", "sync training.json", "sync tokenizer.json"} <= set(order[:at])
        assert order[at + 1] == "sync checkpoints"
    for number, done in enumerate(order):
        if done == "rename state.safetensors":
            assert order[number - 1].startswith("sync .state.safetensors.")
            assert order[number + 1] == "sync run"
    assert "rename state.safetensors" in order


def test_what_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with new_file(tmp_path / "a") as temporary:
            temporary.write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (tmp_path / "a").is_symlink()


# what is really there


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def zero(path: Path) -> None:
    """Keep the beginning and the size: what some file systems leave after a power cut."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def flip(path: Path) -> None:
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1
    save_file(tensors, path, metadata={"format": "pt"})


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("checkpoints/step2/model.safetensors", empty, "1 of 4 kept checkpoints are not whole: step2"),
    ("checkpoints/step2/model.safetensors", zero, "its weights are not those that were measured"),
    ("checkpoints/step2/model.safetensors", flip, "its weights are not those that were measured"),
    ("checkpoints/step4/config.json", empty, "step4: config.json cannot be read"),
    ("checkpoints/step0", shutil.rmtree, "step0: not a checkpoint"),
    ("checkpoints/step6/tokenizer.json", Path.unlink, "step6: not a checkpoint"),
    ("observations/step-00000002.parquet", cut, ""),
    ("state.safetensors", empty, "training starts at step 0 again"),
    ("state.safetensors", zero, "its content is not what was written"),
    ("state.safetensors", Path.unlink, "state.safetensors is not there: training starts at step 0 again"),
]


@pytest.mark.parametrize(("name", "damage", "told"), DAMAGES)
def test_a_training_run_makes_anew_what_was_lost(
    name: str, damage: Callable[[Path], object], told: str, trained: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    damage(run / name)
    untouched = run / "checkpoints" / "step2" / "training.json"
    before = untouched.stat().st_mtime_ns
    assert cli([*TRAIN, "--resume", "--out", str(run)]) == 0
    assert told in caplog.text
    same(run, trained)
    if "step2" not in name and "state" not in name:
        assert untouched.stat().st_mtime_ns == before  # what is whole is kept


def test_lost_observations_without_a_whole_table_are_measured_again(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    empty(run / "observations.parquet")
    empty(run / "observations" / "step-00000002.parquet")
    assert cli([*TRAIN, "--resume", "--out", str(run)]) == 0
    assert "the manifest calls step 2 measured, but the observations are cut, empty or not there" in caplog.text
    assert "to make step 2 anew" in caplog.text
    same(run, trained)


def test_another_training_is_never_mixed_in(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Made anew by code or a machine that trains otherwise, all from the first difference on is of one training."""
    run, other = tmp_path / "run", tmp_path / "other"
    assert cli([*TRAIN, "--set", "seed=7", "--out", str(other)]) == 0
    shutil.copytree(trained, run)
    shutil.rmtree(run / "checkpoints" / "step4")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["seed"] = manifest["config"]["seed"] = 7  # as if the seed's training were another one now
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert cli([*TRAIN, "--set", "seed=7", "--resume", "--out", str(run)]) == 0
    assert "step 0 has other weights than before: it and all after it are measured again" in caplog.text
    same(run, other)


@pytest.fixture(scope="module")
def analysed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lasting") / "a"
    assert cli(["analyze", str(trained), "--name", "a", "--out", str(out), *PROBES]) == 0
    return out


def break_part(run: Path) -> None:
    cut(run / "observations" / "step-00000004.parquet")
    (run / "observations.parquet").unlink()


def break_table(run: Path) -> None:
    empty(run / "observations.parquet")


def break_both(run: Path) -> None:
    empty(run / "observations" / "step-00000000.parquet")
    zero(run / "observations.parquet")


def lose_parts(run: Path) -> None:
    shutil.rmtree(run / "observations")


def stop_before_the_manifest_knows(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["checkpoints"] = manifest["checkpoints"][:2]
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    (run / "observations.parquet").unlink()
    (run / ".manifest.json.1234.tmp").write_text("{")


@pytest.mark.parametrize("damage", [break_part, break_table, break_both, lose_parts, stop_before_the_manifest_knows])
def test_an_analysis_measures_again_what_was_lost(
    damage: Callable[[Path], None], trained: Path, analysed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(analysed, run)
    damage(run)
    assert cli(["analyze", str(trained), "--name", "a", "--out", str(run), "--resume", *PROBES]) == 0
    assert (run / "observations.parquet").read_bytes() == (analysed / "observations.parquet").read_bytes()
    assert read_manifest(run)["checkpoints"] == read_manifest(analysed)["checkpoints"]
    assert sorted(path.name for path in (run / "observations").iterdir()) == sorted(
        path.name for path in (analysed / "observations").iterdir()
    )
    assert not list(run.glob(".*.tmp"))


@pytest.mark.parametrize("option", [[], ["--resume"], ["--overwrite"]])
def test_a_folder_of_a_run_that_was_killed_at_once_is_taken(option: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()
    (run / ".manifest.json.abc.tmp").write_text("{")
    assert cli([*TRAIN, "--set", "training.stop=2", *option, "--out", str(run)]) == 0
    assert not list(run.glob(".*.tmp"))


def test_an_overwriting_that_was_cut_off_can_be_gone_on_with(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    from pythiageo.runs import folder

    def killed(path: Path) -> None:
        if path.name == "checkpoints":
            raise KeyboardInterrupt
        remove(path)

    remove = folder.remove
    monkeypatch.setattr(folder, "remove", killed)
    assert cli([*TRAIN, "--overwrite", "--out", str(run)]) == 130
    monkeypatch.undo()
    assert read_manifest(run)["status"] == "interrupted"
    assert cli([*TRAIN, "--resume", "--out", str(run)]) == 0
    same(run, trained)


# the machine's trouble


@pytest.mark.parametrize("name", ["pythiageo.synthetic.trainable.save_file", "pythiageo.synthetic.trainer.save_file"])
def test_a_full_disk_is_one_sentence_whatever_library_meets_it(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    run = tmp_path / "run"
    monkeypatch.setattr(name, full)
    assert cli([*TRAIN, "--out", str(run)]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"pythiageo: {run}: the disk is full; what was measured is kept: free space, then --resume"
    assert read_manifest(run)["status"] == "interrupted"
    monkeypatch.undo()
    assert cli([*TRAIN, "--resume", "--out", str(run)]) == 0
    same(run, trained)


def test_trouble_of_the_machine_is_told_from_other_errors() -> None:
    assert machine_trouble(OSError(errno.ENOSPC, "no")) == "the disk is full"
    assert machine_trouble(RuntimeError("Task error: I/O: (os error 122)")) == "the disk quota is used up"
    assert machine_trouble(MemoryError()) == "memory ran out"
    assert machine_trouble(torch.OutOfMemoryError()) == "memory ran out"
    assert machine_trouble(RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you")) is not None
    assert machine_trouble(SafetensorError("I/O error: Cannot allocate memory (os error 12)")) == "memory ran out"
    assert machine_trouble(OSError(errno.ENOENT, "no")) is None
    assert machine_trouble(RuntimeError("size mismatch (os error 2)")) is None
    wrapped = ValueError("cannot load")
    wrapped.__cause__ = MemoryError()
    assert machine_trouble(wrapped) == "memory ran out"
    with pytest.raises(MachineError, match="memory ran out while step1 was opened"):
        raise_if_memory(RuntimeError("you tried to allocate 4096 bytes. (Cannot allocate memory)"), "step1 was opened")
    # a size that no memory of this machine could hold is the config's fault
    raise_if_memory(RuntimeError(f"can't allocate memory: you tried to allocate {2**60} bytes"), "step1 was opened")


def test_memory_that_runs_out_is_not_called_damage(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")

    monkeypatch.setattr("pythiageo.series.files.tensor_files._safetensors", out_of_memory)
    with pytest.raises(MachineError, match="memory ran out while step0 was opened"):
        open_folder(trained / "checkpoints" / "step0", "step0")


# one writer


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def nothing(*_: object) -> None:
    """A lock that keeps nobody out."""


@pytest.mark.parametrize(("flock", "why"), [(no_locks, "has no locks"), (nothing, "locks do nothing on this disk")])
def test_where_locks_fail_or_do_nothing_a_file_takes_their_place(
    flock: Callable[..., None], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(fcntl, "flock", flock)
    with held(tmp_path):
        assert why in caplog.text
        told = json.loads((tmp_path / ".owner").read_text())
        assert (told["host"], told["pid"]) == (socket.gethostname(), os.getpid())
        with (
            pytest.raises(UserError, match=f"another process is working on this run: process {os.getpid()} on this"),
            held(tmp_path),
        ):
            pass
    assert not (tmp_path / ".owner").exists()
    with held(tmp_path):
        pass


def test_an_owner_that_has_ended_is_followed_and_one_elsewhere_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    owner = tmp_path / ".owner"
    owner.write_text(json.dumps({"host": socket.gethostname(), "pid": int(ended.stdout), "started": 1.0}))
    with held(tmp_path):
        assert json.loads(owner.read_text())["pid"] == os.getpid()
    # the same number, another process
    owner.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0}))
    with held(tmp_path):
        pass
    owner.write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": 1.0}))
    with (
        pytest.raises(UserError, match=r"process 7 on elsewhere; remove \.owner in it if that process has ended"),
        held(tmp_path),
    ):
        pass
    owner.write_text("")
    with pytest.raises(UserError, match=r"remove \.owner in it if that is not so"), held(tmp_path):
        pass
    # a host whose locks work heeds the file of one whose locks do not
    monkeypatch.undo()
    owner.write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": 1.0}))
    with pytest.raises(UserError, match="process 7 on elsewhere"), held(tmp_path):
        pass


def test_a_lock_that_works_leaves_no_owner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with held(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        with pytest.raises(UserError, match="another process is working on this run"), held(tmp_path):
            pass
    assert not caplog.records


# a transfer that fails


def test_an_error_of_xet_is_its_checkpoints_while_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "list_refs", lambda repo: None)
    with (
        pytest.raises(CheckpointError, match="a/b step1: could not be fetched: Task error: File reconstruction"),
        failures.told("a/b", "step1"),
    ):
        raise RuntimeError("Task error: File reconstruction error: CAS Client Error: (404 Not Found)")


def test_a_hub_that_is_gone_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(repo: str) -> None:
        raise MachineError(f"{repo}: the Hub cannot be reached: Connection refused")

    monkeypatch.setattr(failures, "list_refs", gone)
    monkeypatch.setattr(failures.constants, "HF_HUB_OFFLINE", False)
    with (
        pytest.raises(MachineError, match="the Hub cannot be reached: Connection refused; fetching step1 was given up"),
        failures.told("a/b", "step1"),
    ):
        raise RuntimeError("Task error")


def test_a_corrupt_file_leaves_no_content_in_the_cache(tmp_path: Path) -> None:
    """A blob of a repository leads to one of the whole cache, where the file came by Xet."""
    store = tmp_path / "hub" / "blobs" / "3e" / "3eba"
    blob = tmp_path / "hub" / "models--a--b" / "blobs" / "7967"
    name = tmp_path / "hub" / "models--a--b" / "snapshots" / "c" / WEIGHTS
    mine = tmp_path / "mine" / "weights"
    for path in (store, blob, name, mine):
        path.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(b"wrong")
    blob.symlink_to("../../blobs/3e/3eba")
    name.symlink_to("../../blobs/7967")
    fetch.remove(name)
    assert not store.exists()
    assert not blob.is_symlink()
    assert not name.is_symlink()
    mine.write_bytes(b"somebody's")
    name.symlink_to(mine)
    fetch.remove(name)
    assert mine.exists()


def test_a_proxy_that_cannot_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from pythiageo.series.hub.retry import _client

    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    with pytest.raises(OSError, match="the proxy that the environment names cannot be used: Unknown scheme"):
        _client()
