"""A Ray cluster as an engine sees it: being connected, what its nodes have, whether a worker is one of ours."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pythiageo.errors import UserError, quote_error
from pythiageo.runs.provenance import versions

TRIES = 3
"""Workers that may end over one checkpoint, or one run, before it is given up."""
CONNECT = 5.0
"""Seconds to wait for a machine's first answer."""
_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Where it is 0, as on a laptop's system by default, Ray listens on the loopback address and on no other."""
_ASKING = 60.0
_TELLING = ("exit detail", "Error: ", "OOM kill reason")
_PERHAPS_A_TOKEN = "; if it asks for a token, RAY_AUTH_MODE=token is to be set here"
_HANDED_ON = (
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_DISABLE_TELEMETRY",
    "OMP_WAIT_POLICY",
    "PYTHIAGEO_HUB_WAITS",
    "PYTHIAGEO_HUB_LONGEST_WAIT",
    "PYTHIAGEO_HUB_STALL",
)


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself before it is given work: where it is, its versions, a folder that it lacks."""

    host: str
    versions: dict[str, str | None]
    unseen: str | None


def check(facts: WorkerInfo) -> None:
    """Refuse a worker whose numbers could be others, or who does not see a folder that it needs.

    Raises:
        UserError: it is one.
    """
    for package, version in versions().items():
        theirs = facts.versions.get(package)
        if theirs != version:
            raise UserError(
                f"the worker on {facts.host} has {package} {theirs} where this machine has {version}: numbers of one "
                "table come from one version"
            )
    if facts.unseen is not None:
        raise UserError(
            f"the worker on {facts.host} does not see {facts.unseen}: it must be on storage that every node has under "
            "the same path"
        )


def check_code(error: Exception) -> None:
    """Refuse a worker that ended because it has not our code.

    Raises:
        UserError: it is one.
    """
    if "failed to import on the worker" in str(error):
        raise UserError(
            f"a worker of the Ray cluster cannot load pythiageo ({cause(error)}): every node needs what this machine "
            "has, pythiageo[ray] of the same version"
        )


def check_welcome(error: Exception, in_a_row: int) -> None:
    """Refuse a cluster that cancels each of ``in_a_row`` workers before it begins; a node that ends does it once.

    Raises:
        UserError: it is one.
    """
    if in_a_row >= TRIES and "cancelled before it started running" in str(error):
        raise UserError(
            "the Ray cluster cancels this command's workers before they run, as it does where one of the two asks for "
            "a token and the other does not: set RAY_AUTH_MODE to what the cluster was started with, token or disabled"
        )


def cause(error: Exception) -> str:
    """Return the line of Ray's long message that says why a worker ended."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line.endswith("Error") or any(word in line for word in _TELLING)]
    return (telling[-1] if telling else quote_error(error))[:300]


def alive(ray: Any) -> dict[str, Mapping[str, float]]:
    """Return what each node that is there has, by its id: ``CPU``, ``GPU`` and bytes of ``memory``, in use or not."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def device_on(nodes: Sequence[Mapping[str, float]], wanted: str) -> str:
    """Return the device that a config's ``wanted`` stands for on nodes that have these resources.

    A worker is given its GPU, and sees no other: it is ``cuda:0`` there.

    Raises:
        UserError: no node has it, or a GPU is asked for by its number.
    """
    most = max((int(node.get("GPU", 0)) for node in nodes), default=0)
    if wanted == "auto":
        return "cuda:0" if most else "cpu"
    if wanted == "cpu":
        return wanted
    if wanted not in {"cuda", "cuda:0", "split"}:
        raise UserError(f"device {wanted!r}: on a Ray cluster every worker is given a GPU of its own: --device cuda")
    least = 2 if wanted == "split" else 1
    if most < least:
        wants = "two GPUs, which 'split' divides a model over" if least > 1 else "a GPU"
        raise UserError(f"device {wanted!r}: no node of the Ray cluster has {wants}")
    return "split" if wanted == "split" else "cuda:0"


def gpu_bytes_of(ray: Any, node: str) -> int:
    """Return the memory of a node's smallest GPU as its driver says it; 0 where it does not say."""
    asking = ray.remote(gpu_bytes).options(num_cpus=0, scheduling_strategy=on_node(node))
    try:
        return int(ray.get(asking.remote(), timeout=_ASKING))
    except (ray.exceptions.RayError, TimeoutError):
        return 0


def gpu_bytes() -> int:
    """Return the memory of this machine's smallest GPU; 0 where there is none, or no ``nvidia-smi``."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ASKING / 2)
        return min(int(line) for line in done.stdout.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def on_node(node: str) -> Any:
    """Return Ray's way of saying that something runs on this node or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415 - an extra

    return NodeAffinitySchedulingStrategy(node, soft=False)


def import_ray() -> Any:
    """Return Ray. Raises ``UserError`` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError("--engine ray: Ray is not installed here: pip install 'pythiageo[ray]'") from None
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give Ray, connected to the cluster at ``address``; ``local`` starts one on this machine that ends with it.

    Raises:
        UserError: Ray is not installed; there is no cluster, or one of another version.
    """
    alone = address == "local"
    if alone:
        os.environ[_ALONE] = "0"  # read when Ray is imported
    ray = import_ray()
    if address.startswith("ray://"):
        raise UserError("--address: run pythiageo on a machine of the cluster, with HOST:PORT or auto; not ray://")
    host, _, port = address.partition(":")
    if address not in {"auto", "local"}:
        try:
            socket.create_connection((host, int(port)), CONNECT).close()  # Ray itself would try for minutes
        except (OSError, ValueError, OverflowError):
            raise UserError(
                f"--address: there is no Ray cluster at {address!r}: expected HOST:PORT, auto or local"
            ) from None
    told = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    more = {"include_dashboard": False} if alone else {}
    if alone and not any(name.startswith("RAY_AUTH_") for name in os.environ):
        # Ray would leave one in the home folder, which every later cluster and command there would have to agree on
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, runtime_env={"env_vars": told}, log_to_driver=False, logging_level="ERROR", **more)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        said = quote_error(error)
        token = "" if "token" in said or address in {"auto", "local"} else _PERHAPS_A_TOKEN
        raise UserError(f"--engine ray: no Ray cluster at {address!r}: {said}{token}") from None
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own would exit without a word to the run
    try:
        yield ray
    finally:
        ray.shutdown()
