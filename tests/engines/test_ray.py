"""The same run on a Ray cluster of two nodes: the same table, whatever ends on the way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import psutil
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from tinyseries import write_series

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.config.runs import make_config
from pythiageo.config.tables import ComputeConfig
from pythiageo.engines.ray import cluster as clusters
from pythiageo.engines.ray import pool as engine
from pythiageo.engines.ray import sweep
from pythiageo.engines.ray.cluster import TRIES, WorkerInfo, check_welcome, device_on
from pythiageo.engines.ray.placement import Capacity, capacity_of
from pythiageo.engines.ray.worker import SCRATCH, Scratch, Worker
from pythiageo.errors import UserError
from pythiageo.estimate.plan import Needs
from pythiageo.measurement.checkpoint import MeasurementSpec
from pythiageo.observations import read_manifest, read_observations
from pythiageo.runs.provenance import versions
from pythiageo.series.hub.loopback import LoopbackHub, serve_folder

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
ray = pytest.importorskip("ray", reason="the extra pythiageo[ray]")

PROBES = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9", "--quiet",
          "--spectra", "--sketch", "5"]  # fmt: skip
STEPS = (0, 10, 20, 30, 40)
SCRIPT = Path(__file__).parents[2] / "configs" / "cluster" / "slurm.sh"
TRAIN = sweep._train
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("series"), STEPS)


@pytest.fixture(scope="module")
def locally(series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "run"
    assert cli(["analyze", str(series), "--name", "same", "--out", str(out), *PROBES]) == 0
    return out


@contextlib.contextmanager
def started(environment: dict[str, str], **head: Any) -> Iterator[Any]:
    """Start a cluster of one node, whose workers see this folder's modules too."""
    from ray.cluster_utils import Cluster

    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here, here.parent / "support"))),
            **environment,
        }.items():
            patch.setenv(name, value)
        patient = {"health_check_period_ms": 1000, "health_check_failure_threshold": 20}  # of a busy machine
        settings = {**patient, **head.pop("_system_config", {})}
        nodes = Cluster(initialize_head=True, head_node_args={**NODE, **head, "_system_config": settings})
        yield nodes
        nodes.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of this machine, with room for one worker each."""
    with started({}) as nodes:
        nodes.add_node(**{key: value for key, value in NODE.items() if key != "include_dashboard"})
        yield nodes


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that tells ``Mortal`` workers, who take the workers' place, when to end."""
    folder = tmp_path / "orders"
    folder.mkdir()
    monkeypatch.setenv("PYTHIAGEO_TEST_ORDERS", str(folder))
    monkeypatch.setattr(clusters, "_HANDED_ON", (*clusters._HANDED_ON, "PYTHIAGEO_TEST_ORDERS"))
    monkeypatch.setattr(engine, "Worker", Mortal)
    return folder


def analyze(cluster: Any, series: Path, out: Path, *arguments: str) -> int:
    where = ["--engine", "ray", "--address", cluster.address]
    return cli(["analyze", str(series), "--name", "same", "--out", str(out), *where, *PROBES, *arguments])


def told(run: Path) -> dict[str, Any]:
    """Return what a manifest says of the measuring itself, and not of where and when it was done."""
    manifest = read_manifest(run)
    return {key: manifest[key] for key in ("series", "size", "steps", "checkpoints", "model", "probe_sets", "config")}


@pytest.mark.slow
def test_the_table_is_the_local_engines(cluster: Any, series: Path, locally: Path, tmp_path: Path) -> None:
    assert analyze(cluster, series, tmp_path / "run") == 0
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(locally), check_exact=True)
    assert told(tmp_path / "run") == told(locally)


@pytest.mark.slow
def test_an_error_over_one_checkpoint_is_a_row_there_too(cluster: Any, series: Path, tmp_path: Path) -> None:
    broken = tmp_path / "series"
    shutil.copytree(series, broken)
    config = broken / "step20" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": 5}))
    assert cli(["analyze", str(broken), "--name", "same", "--out", str(tmp_path / "local"), *PROBES]) == 1
    assert analyze(cluster, broken, tmp_path / "run") == 1
    table = read_observations(tmp_path / "run")
    assert_frame_equal(table, read_observations(tmp_path / "local"), check_exact=True)
    (row,) = table.filter(table["step"] == 20).rows(named=True)
    assert (row["measure"], row["status"]) == ("checkpoint", "unreadable")
    assert "not a tokenizer: Special token bos_token has to be" in row["reason"]


class Mortal(Worker):
    """Ends its process over a checkpoint: always over step 20 where the file ``poison`` is there, else once a file."""

    def take(self, given):
        self.taken = [*getattr(self, "taken", []), *(checkpoint.step for checkpoint in given)]
        orders = Path(os.environ["PYTHIAGEO_TEST_ORDERS"])
        if self.taken.pop(0) == 20:
            if (orders / "once").exists():
                (orders / "once").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if (orders / "poison").exists():
                (orders / "poison").write_text((orders / "poison").read_text() + "x")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().take(given)


@pytest.mark.slow
def test_a_killed_worker_costs_what_it_was_at(
    cluster: Any, series: Path, locally: Path, tmp_path: Path, orders: Path
) -> None:
    (orders / "once").touch()
    assert analyze(cluster, series, tmp_path / "run") == 0
    assert not (orders / "once").exists()
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(locally), check_exact=True)


@pytest.mark.slow
def test_a_checkpoint_that_always_ends_its_worker_is_told_once_and_resumed_locally(
    cluster: Any, series: Path, locally: Path, tmp_path: Path, orders: Path
) -> None:
    (orders / "poison").touch()
    assert analyze(cluster, series, tmp_path / "run") == 1
    assert len((orders / "poison").read_text()) == TRIES
    table = read_observations(tmp_path / "run")
    told_of = table.filter(table["step"] == 20)
    assert told_of["status"].to_list() == ["unreadable"]
    assert "3 workers ended over it" in told_of["reason"][0]
    others = read_observations(locally)
    assert_frame_equal(table.filter(table["step"] != 20), others.filter(others["step"] != 20), check_exact=True)
    # the other engine ends what this one began
    assert cli(["analyze", str(series), "--name", "same", "--out", str(tmp_path / "run"), "--resume", *PROBES]) == 0
    assert_frame_equal(read_observations(tmp_path / "run"), others, check_exact=True)


class Hungry(Worker):
    """Takes memory over step 20 until it is killed, unless its batches were halved; tells how long they are."""

    def take(self, given):
        if given[0].step == 20:
            batch = self._spec.config.compute.batch_tokens
            with (Path(os.environ["PYTHIAGEO_TEST_ORDERS"]) / "batches").open("a") as told:
                told.write(f"{batch} ")
            if batch == ComputeConfig().batch_tokens:
                taken, most = [], 0.8 * psutil.virtual_memory().available
                while len(taken) * 2**26 < most:
                    taken.append(bytearray(b"x") * 2**26)
                time.sleep(20)  # for the node's monitor to look
        return super().take(given)


@pytest.mark.slow
def test_a_worker_that_ray_ends_for_want_of_memory_is_followed_by_one_with_smaller_batches(
    series: Path, locally: Path, tmp_path: Path, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Worker", Hungry)
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + 0.4 * memory.available) / memory.total
    watched = {"memory_usage_threshold": limit, "memory_monitor_refresh_ms": 100}
    with started({}, _system_config=watched) as nodes:
        assert analyze(nodes, series, tmp_path / "run") == 0
    whole = ComputeConfig().batch_tokens
    assert (orders / "batches").read_text().split() == [str(whole), str(whole // 2)]
    # batches of another size sum in another order
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(locally), rel_tol=1e-5)


class OnGpu(Worker):
    """Says which GPUs it was given, and measures on the CPU in their place."""

    def begin(self, spec, *more):
        assert spec.device == "cuda:0"
        with (Path(os.environ["PYTHIAGEO_TEST_ORDERS"]) / "gpus").open("a") as told:
            told.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\n")
        return super().begin(replace(spec, device="cpu"), *more)


@pytest.mark.slow
def test_workers_are_given_a_gpu_each_or_share_one_that_has_room(
    series: Path, locally: Path, tmp_path: Path, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs as the scheduler sees them; their memory is what ``nvidia-smi`` says."""
    monkeypatch.setattr(engine, "Worker", OnGpu)
    monkeypatch.setattr(clusters, "_HANDED_ON", (*clusters._HANDED_ON, "CUDA_VISIBLE_DEVICES"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = tmp_path / "nvidia-smi"
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with started(path, num_cpus=4, num_gpus=2, memory=64 * 2**30) as nodes:
        for run, mebibytes, expected in (("whole", 1, "01"), ("shared", 2**20, "0011")):
            driver.write_text(f"#!/bin/sh\necho {mebibytes}\necho {2 * mebibytes}\n")
            driver.chmod(0o755)
            assert analyze(nodes, series, tmp_path / run, "--device", "cuda") == 0
            assert "".join(sorted((orders / "gpus").read_text().split())) == expected
            (orders / "gpus").unlink()
            assert read_manifest(tmp_path / run)["provenance"]["device"] == "cuda:0"
            assert_frame_equal(read_observations(tmp_path / run), read_observations(locally), check_exact=True)
        assert analyze(nodes, series, tmp_path / "third", "--device", "cuda:1") == 2
        assert not (tmp_path / "third").exists()


HOLD = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False)
class Held:
    def here(self):
        return True
held = [ray.remote(Held).options(num_cpus=1).remote() for _ in range(int(ray.cluster_resources()["CPU"]))]
assert all(ray.get([one.here.remote() for one in held]))
print("held", flush=True)
time.sleep(8)
"""


@pytest.mark.slow
def test_a_run_waits_for_its_place_while_others_use_the_cluster(
    cluster: Any, series: Path, locally: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 2.0)
    with subprocess.Popen([sys.executable, "-c", HOLD, cluster.address], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert analyze(cluster, series, tmp_path / "run") == 0
        assert other.poll() == 0, "the other was still there: nothing was waited for"
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(locally), check_exact=True)


@contextlib.contextmanager
def node_apart(cluster: Any, hidden: Path, by: Path) -> Iterator[None]:
    """Add a node to which ``hidden`` looks like ``by``, as on a machine with other disks."""
    shell = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    before = nodes_of(cluster)
    with joining(cluster, "unshare", "--mount", "sh", "-c", shell, "sh", str(by), str(hidden)) as node:
        until = time.monotonic() + 60
        while nodes_of(cluster) <= before:
            assert node.poll() is None
            assert time.monotonic() < until, "the node did not join"
            time.sleep(0.2)
        yield


@contextlib.contextmanager
def joining(cluster: Any, *under: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node by Ray's own command, ``under`` another one."""
    node = ["--block", f"--address={cluster.address}", "--num-cpus=1", f"--object-store-memory={80 * 2**20}"]
    ray_start = [str(Path(sys.executable).parent / "ray"), "start", *node]
    process = subprocess.Popen([*under, *ray_start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def nodes_of(cluster: Any) -> int:
    """Return how many nodes of a cluster are there."""
    from ray._private.state import GlobalState
    from ray._raylet import GcsClientOptions

    state = GlobalState()
    state._initialize_global_state(
        GcsClientOptions.create(cluster.address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
    )
    return sum(node["Alive"] for node in state.node_table())


MOUNTS = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0
TORCH = Path(str(distribution("torch").locate_file(f"torch-{distribution('torch').version}.dist-info/METADATA")))


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="needs leave to mount, for a node with other disks")
@pytest.mark.parametrize("what", ["series", "torch", "pythiageo"])
def test_a_node_that_differs_is_told_before_work_starts(
    what: str, cluster: Any, series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, other = tmp_path / "empty", tmp_path / "METADATA"
    empty.mkdir()
    other.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.1\n")
    hidden, by, message = {
        "series": (series, empty, f"does not see {series}"),
        "torch": (TORCH, other, "has torch 2.0.1 where this machine has"),
        "pythiageo": (Path(pythiageo.__file__).parent, empty, "cannot load pythiageo"),
    }[what]
    with node_apart(cluster, hidden, by):
        assert analyze(cluster, series, tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_slurm_script_makes_a_cluster_and_ends_it(series: Path, locally: Path, tmp_path: Path) -> None:
    """``srun`` and ``scontrol`` are stood in for; on SLURM 22.05 with two nodes it was tried by hand (docs/ray.md)."""
    commands = tmp_path / "bin"
    commands.mkdir()
    host = ray.util.get_node_ip_address()
    srun = f'#!/bin/bash\necho "$*" >> {tmp_path}/steps\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    for name, script in (("srun", srun), ("scontrol", f"#!/bin/bash\necho {host}\necho other\n")):
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    job = {"JOB_ID": str(os.getpid()), "JOB_NODELIST": "given", "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "1"}
    path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), "analyze", str(series), "--name", "same", "--out", str(tmp_path / "run"), *PROBES],
        env={**os.environ, "PATH": path} | {f"SLURM_{name}": value for name, value in job.items()},
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(locally), check_exact=True)
    head, joining = (tmp_path / "steps").read_text().splitlines()
    assert f"--nodelist={host} ray start" in head
    assert f"--nodes=1 --ntasks=1 --exclude={host} ray start" in joining
    # told by the job: another test beside this one may have a Ray of its own
    left = [process for process in psutil.process_iter(["name", "environ"]) if process.info["name"] == "raylet"]
    own = str(os.getpid())
    assert not [process for process in left if (process.info["environ"] or {}).get("SLURM_JOB_ID") == own]


@pytest.mark.slow
def test_a_ray_for_one_run_listens_here_alone_and_leaves_nothing_at_home(
    series: Path, locally: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pythiageo", "analyze", str(series), "--name", "same", *PROBES]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run"), "--engine", "ray", "--address", "local"],
        env=environment | {"HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    listening: set[tuple[str, str]] = set()
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            own = {one.pid: one.name() for one in psutil.Process(process.pid).children(recursive=True)}
            open_ports = [one for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            listening |= {(own[one.pid], one.laddr.ip) for one in open_ports if one.pid in own}
        time.sleep(0.2)
    assert process.stderr is not None
    assert (process.returncode, process.stderr.read()) == (0, "")
    assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
    assert {ip.removeprefix("::ffff:") for _, ip in listening} <= {"127.0.0.1", "::1"}
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(locally), check_exact=True)
    assert not list((tmp_path / "home").rglob("*token*"))


@pytest.mark.slow
def test_a_cluster_that_does_not_know_the_commands_token_is_told(cluster: Any, series: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pythiageo", "analyze", str(series), "--out", str(tmp_path / "run"), *PROBES]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(
        [*command, "--engine", "ray", "--address", cluster.address, "--quiet"],
        env={**os.environ, **token}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "set RAY_AUTH_MODE to what the cluster was started with" in done.stderr


def test_a_worker_that_is_cancelled_once_is_no_stranger() -> None:
    error = RuntimeError("The actor never ran - it was cancelled before it started running.")
    check_welcome(error, 1)
    with pytest.raises(UserError, match="token"):
        check_welcome(error, TRIES)
    check_welcome(RuntimeError("The actor died."), TRIES)


def test_ray_that_is_absent_is_one_sentence(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli(["analyze", str(series), "--engine", "ray", "--out", str(tmp_path / "run"), *PROBES]) == 2
    assert "pip install 'pythiageo[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "ray", "--address", "127.0.0.1:9"], "no Ray cluster at '127.0.0.1:9'"),
        (["--engine", "ray", "--address", "here"], "no Ray cluster at 'here'"),
        (["--engine", "ray", "--address", "ray://127.0.0.1:10001"], "not ray://"),
        (["--address", "auto"], "--engine ray"),
        (["--engine", "rya"], "did you mean 'ray'"),
    ],
)
def test_a_wrong_engine_or_address_is_one_sentence(
    arguments: list[str], message: str, series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["analyze", str(series), *arguments, "--out", str(tmp_path / "run"), *PROBES]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": {**versions(), "torch": "1.0"}}, "torch 1.0"),
        ({"unseen": "/data/runs"}, "does not see /data/runs"),
    ],
)
def test_a_worker_whose_numbers_could_be_others_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clusters.check(WorkerInfo(**{"host": "b", "versions": versions(), "unseen": None, **change}))


def test_a_node_has_as_many_workers_as_its_scarcest_resource_allows() -> None:
    config = make_config({"name": "a", "target": "b"}, ['fetch.disk_budget="10GB"'], "analyze", "analyze")
    spec = MeasurementSpec(config, {}, [], "cuda:0", [0])
    node = {"CPU": 8.0, "GPU": 4.0, "memory": 64e9}
    assert capacity_of(node, spec, Needs(memory=10**9, disk=10**9), 0) == Capacity(4, 1)
    assert capacity_of(node, spec, Needs(memory=20 * 10**9, disk=10**9), 0) == Capacity(3, 1)
    assert capacity_of(node, spec, Needs(memory=10**9, disk=4 * 10**9), 0) == Capacity(2, 1)
    assert capacity_of(node, spec, Needs(memory=10**9, disk=20 * 10**9), 0) == Capacity(1, 1)
    assert capacity_of({"CPU": 8.0, "memory": 64e9}, spec, Needs(memory=10**9, disk=0), 0).workers == 0


def test_workers_share_a_gpu_where_a_checkpoint_takes_a_part_of_its_memory() -> None:
    config = make_config({"name": "a", "target": "b"}, [], "analyze", "analyze")
    spec = MeasurementSpec(config, {}, [], "cuda:0", [0])
    node, needs = {"CPU": 32.0, "GPU": 4.0, "memory": 512e9}, Needs(memory=14 * 10**9, disk=0)
    assert capacity_of(node, spec, needs, 80 * 10**9) == Capacity(20, 1 / 5)
    assert capacity_of({**node, "CPU": 10.0}, spec, needs, 80 * 10**9) == Capacity(
        10, 1 / 3
    )  # the CPUs have no more workers
    assert capacity_of({**node, "CPU": 2.0}, spec, needs, 80 * 10**9) == Capacity(2, 1)
    assert capacity_of(node, spec, Needs(memory=90 * 10**9, disk=0), 80 * 10**9) == Capacity(
        4, 1
    )  # at most that much: tried
    divided = MeasurementSpec(config, {}, [], "split", [0])
    assert capacity_of(node, divided, needs, 80 * 10**9) == Capacity(1, 4)
    assert capacity_of({**node, "GPU": 1.0}, divided, needs, 80 * 10**9).workers == 0


@pytest.mark.parametrize(
    ("gpus", "wanted", "device"),
    [
        ((), "auto", "cpu"),
        ((0, 0), "auto", "cpu"),
        ((0, 4), "auto", "cuda:0"),
        ((0, 1), "cuda", "cuda:0"),
        ((4,), "cpu", "cpu"),
        ((0, 2), "split", "split"),
    ],
)
def test_the_device_is_the_clusters(gpus: tuple[int, ...], wanted: str, device: str) -> None:
    assert device_on([{"CPU": 8.0, "GPU": float(count)} for count in gpus], wanted) == device


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        ((0,), "cuda", "no node of the Ray cluster has a GPU"),
        ((1, 1), "split", "two GPUs"),
        ((4,), "cuda:1", "a GPU of its own: --device cuda"),
    ],
)
def test_a_device_that_no_node_has_is_refused(gpus: tuple[int, ...], wanted: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        device_on([{"GPU": float(count)} for count in gpus], wanted)


def test_a_killed_workers_downloads_are_removed_by_the_next(tmp_path: Path) -> None:
    left, used = tmp_path / "left", Scratch(tmp_path)
    left.mkdir()
    left.with_suffix(".lock").touch()
    used.path.mkdir()
    other = Scratch(tmp_path)
    assert not left.exists()
    assert used.path.exists()
    used.remove()
    other.remove()
    assert list(tmp_path.iterdir()) == []


def start(cluster: Any, series: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pythiageo", "analyze", str(series), "--name", "same", "--out", str(out), *PROBES]
    return subprocess.Popen([*command, "--engine", "ray", "--address", cluster.address, *arguments], text=True)


def wait_for_a_piece(out: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while time.monotonic() < until:
        if (out / "manifest.json").exists() and read_manifest(out)["checkpoints"]:
            return
        assert process.poll() is None, "it ended before it was to be disturbed"
        time.sleep(0.02)
    raise AssertionError("no result came")


@pytest.mark.slow
def test_a_killed_driver_is_resumed_and_a_killed_node_is_done_without(
    cluster: Any, series: Path, locally: Path, tmp_path: Path
) -> None:
    many = tmp_path / "series"
    many.mkdir()
    for step in range(8):
        shutil.copytree(series / "step40", many / f"step{step}")
        (many / f"step{step}" / "training.json").unlink(missing_ok=True)
    without_audit = ["--no-audit", "--set", "probes.geometry_examples=60"]
    assert cli(["analyze", str(many), "--name", "same", "--out", str(tmp_path / "local"), *PROBES, *without_audit]) == 0
    killed = start(cluster, many, tmp_path / "run", *without_audit)
    wait_for_a_piece(tmp_path / "run", killed)
    killed.kill()
    killed.wait()
    before = {entry["step"] for entry in read_manifest(tmp_path / "run")["checkpoints"]}
    assert 0 < len(before) < 8
    again = start(cluster, many, tmp_path / "run", "--resume", *without_audit)
    while len(read_manifest(tmp_path / "run")["checkpoints"]) == len(before):
        assert again.poll() is None
        time.sleep(0.02)
    node = next(iter(cluster.worker_nodes))
    cluster.remove_node(node, allow_graceful=False)
    assert again.wait(timeout=200) == 0
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(tmp_path / "local"), check_exact=True)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    told = [json.loads(line)["step"] for line in lines]
    assert len(told) == len(set(told))
    # the first driver may have been killed between writing a result and telling of it
    assert {*range(8)} - {*told} <= before


class Sociable(Worker):
    """Begins when there are two of its kind."""

    def take(self, given):
        told = Path(os.environ["PYTHIAGEO_TEST_ORDERS"]) / "there"
        if not hasattr(self, "told"):
            with told.open("a") as there:
                there.write(".")
            self.told = True
        while len(told.read_text()) < 2:
            time.sleep(0.1)
        return super().take(given)


@pytest.mark.slow
def test_a_node_that_joins_is_given_work(
    series: Path, locally: Path, tmp_path: Path, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Worker", Sociable)
    with started({}) as nodes, contextlib.ExitStack() as ends:

        def join() -> None:
            while not (orders / "there").exists():
                time.sleep(0.1)
            ends.enter_context(joining(nodes))

        later = threading.Thread(target=join)
        later.start()
        assert analyze(nodes, series, tmp_path / "run") == 0
        later.join()
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(locally), check_exact=True)


@pytest.mark.slow
def test_a_series_on_the_hub_comes_within_each_nodes_budget_and_goes(
    cluster: Any, series: Path, tmp_path: Path
) -> None:
    one = sum(file.stat().st_size for file in (series / "step0").iterdir())
    root = Path(gettempdir()) / SCRATCH
    with LoopbackHub(serve_folder(series, "test/a")) as hub:
        command = [sys.executable, "-m", "pythiageo", "analyze", "test/a", "--name", "hub", *PROBES]
        environment = {**os.environ, **hub.environment(tmp_path / "cache")}
        budget = ["--disk-budget", f"{int(1.5 * one)}B"]
        assert (
            subprocess.run(
                [*command, "--out", str(tmp_path / "local"), *budget], env=environment, check=False
            ).returncode
            == 0
        )
        hub.requests.clear()
        where = ["--engine", "ray", "--address", cluster.address]
        done = subprocess.Popen([*command, "--out", str(tmp_path / "run"), *budget, *where], env=environment)
        peak = 0
        while done.poll() is None:
            for folder in root.glob("*/"):
                peak = max(peak, bytes_in(folder))
            time.sleep(0.01)
        assert done.returncode == 0
        fetched = [r for r in hub.requests if r.method == "GET" and r.path.endswith("model.safetensors")]
    assert len(fetched) == len(STEPS)
    assert one / 2 < peak <= 1.5 * one
    assert_frame_equal(read_observations(tmp_path / "run"), read_observations(tmp_path / "local"), check_exact=True)
    assert not [folder for folder in root.glob("*/") if bytes_in(folder)]


def bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # dropped while we looked
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


SWEEP = [
    "demo/tasks.toml", "--size", "nano", "--seed", "1,2", "--set", "model.layers=2", "--set", "model.d_model=16",
    "--set", "model.heads=2", "--set", "model.d_ff=32", "--set", "training.stop=40",
    "--set", 'training.checkpoints="0-40:10"', "--set", "probes.score_examples=4",
    "--set", "probes.geometry_examples=6", "--quiet",
]  # fmt: skip


@pytest.mark.slow
def test_a_sweep_of_trainings_is_the_local_one_and_goes_on_where_a_worker_ended(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seeds, a node each; the worker of one is killed half way, and its run goes on from its last checkpoint."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli(["train", *SWEEP]) == 0
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv("PYTHIAGEO_TEST_ORDERS", str(tmp_path / "killed"))
    monkeypatch.setattr(clusters, "_HANDED_ON", (*clusters._HANDED_ON, "PYTHIAGEO_TEST_ORDERS"))
    monkeypatch.setattr(sweep, "_train", train_and_end)
    assert cli(["train", *SWEEP, "--engine", "ray", "--address", cluster.address]) == 0
    assert (tmp_path / "killed").exists()
    for name in ("demo-tasks-1", "demo-tasks-2"):
        runs = [tmp_path / place / "outputs" / name for place in ("here", "there")]
        assert_frame_equal(*map(read_observations, runs), check_exact=True)
        assert read_manifest(runs[1])["status"] == "complete"
        states = [load_file(run / "state.safetensors") for run in runs]
        assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    assert not list((tmp_path / "there/outputs").glob(".pythiageo-*"))
    # one that is there is refused, the others go on; a node has room for one CPU, not two
    capsys.readouterr()
    shutil.rmtree(tmp_path / "there/outputs/demo-tasks-2")
    assert cli(["train", *SWEEP, "--engine", "ray", "--address", cluster.address]) == 2
    assert "demo-tasks-1: holds a run already (complete)" in capsys.readouterr().err
    assert read_manifest(tmp_path / "there/outputs/demo-tasks-2")["status"] == "complete"
    wide = ["--set", "compute.threads=2", "--overwrite"]
    assert cli(["train", *SWEEP, *wide, "--engine", "ray", "--address", cluster.address]) == 2
    assert "demo-tasks-1: no node of the Ray cluster has room for it: it takes 2 CPUs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_goes_on_without_a_node_that_is_killed(cluster: Any, tmp_path: Path) -> None:
    seeds = ",".join(str(seed) for seed in range(1, nodes_of(cluster) + 2))
    lost = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    command = [sys.executable, "-m", "pythiageo", "train", *SWEEP, "--seed", seeds, "--engine", "ray"]
    sweeping = subprocess.Popen([*command, "--address", cluster.address], cwd=tmp_path, stdout=subprocess.PIPE)
    outputs = tmp_path / "outputs"
    while len(list(outputs.glob("*/observations/*"))) < len(seeds.split(",")):  # each is under way
        assert sweeping.poll() is None
        time.sleep(0.02)
    cluster.remove_node(lost, allow_graceful=False)
    assert sweeping.wait(timeout=200) == 0
    runs = [read_manifest(outputs / f"demo-tasks-{seed}") for seed in seeds.split(",")]
    assert all(run["status"] == "complete" for run in runs)
    assert [len(run["checkpoints"]) for run in runs] == [5] * len(runs)


@pytest.mark.slow
def test_a_sweep_on_a_cluster_that_does_not_know_its_token_is_told(cluster: Any, tmp_path: Path) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(
        [sys.executable, "-m", "pythiageo", "train", *SWEEP, "--engine", "ray", "--address", cluster.address],
        env={**os.environ, **token}, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "set RAY_AUTH_MODE to what the cluster was started with" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="needs leave to mount, for a node with other disks")
@pytest.mark.parametrize("what", ["outputs", "pythiageo"])
def test_a_node_where_a_sweep_cannot_run_is_told(
    what: str, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, outputs = tmp_path / "empty", tmp_path / "outputs"
    empty.mkdir()
    outputs.mkdir()
    monkeypatch.chdir(tmp_path)
    hidden, message = {
        "outputs": (outputs, f"does not see {outputs}"),
        "pythiageo": (Path(pythiageo.__file__).parent, "cannot load pythiageo"),
    }[what]
    where = ["--engine", "ray", "--address", cluster.address]
    with node_apart(cluster, hidden, empty):  # a run for every node
        seeds = ",".join(str(seed) for seed in range(nodes_of(cluster)))
        assert cli(["train", *SWEEP, "--seed", seeds, *where]) == 2
    assert message in capsys.readouterr().err


def train_and_end(given: Any, messages: Any, sign: str, mine: Any) -> Any:
    """Train, and end the process once at step 20 of seed 1: the orders name a file that says it was done."""
    killed = Path(os.environ["PYTHIAGEO_TEST_ORDERS"])

    class Told:
        def put(self, progress: Any) -> None:
            messages.put(progress)
            if progress.run == "demo-tasks-1" and progress.done >= 20 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return TRAIN(given, Told(), sign, mine)
