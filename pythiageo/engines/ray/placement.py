"""How many workers a node of a cluster has room for, and what each is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pythiageo.estimate.plan import Needs
from pythiageo.measurement.checkpoint import MeasurementSpec


@dataclass(frozen=True)
class Capacity:
    """Room for ``workers`` on a node, each with ``gpus`` GPUs or a part of one."""

    workers: int
    gpus: float


def share_cores(spec: MeasurementSpec) -> MeasurementSpec:
    """Return a specification for one of many workers: a core each where no number of threads was asked for."""
    compute = spec.config.compute.model_copy(update={"threads": spec.config.compute.threads or 1})
    return replace(spec, config=spec.config.model_copy(update={"compute": compute}))


def capacity_of(resources: Mapping[str, float], spec: MeasurementSpec, needs: Needs, gpu_bytes: int) -> Capacity:
    """Return what a node of these resources has room for, if nothing else runs there.

    Workers share a GPU of ``gpu_bytes`` where ``needs`` lets several fit (0: not known, one worker a GPU). The memory
    that a checkpoint takes is counted whole: its spectra are taken on the GPU, too. A model that is
    divided has all GPUs of its node.
    """
    gpus = int(resources.get("GPU", 0))
    counts = [int(resources.get("CPU", 0) // (spec.config.compute.threads or 1))]
    if needs.memory:
        counts.append(int(resources.get("memory", 0) // needs.memory))
    each = 0.0
    if spec.device == "split":
        each = float(max(2, gpus))
        counts.append(int(gpus // each))
    elif spec.device != "cpu":
        sharing = max(1, gpu_bytes // needs.memory if needs.memory else 1)
        # no more to a GPU than there are workers for it
        sharing = max(1, min(sharing, -(-min(counts) // gpus))) if gpus else 1
        each = 1 / sharing
        counts.append(gpus * sharing)
    budget = spec.fetch.bytes
    if budget is not None and needs.disk:
        counts.append(max(1, budget // needs.disk))  # one that fits nowhere is told by its worker, as it is locally
    return Capacity(min(counts), each)
