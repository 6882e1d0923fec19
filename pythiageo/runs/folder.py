"""A run's folder: manifest, lock, observations, checkpoints, training state. Every write is whole or not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from pythiageo.config.renamed import with_new_keys
from pythiageo.config.runs import RunConfig
from pythiageo.errors import MachineError, UserError
from pythiageo.measurement.result import CheckpointResult
from pythiageo.observations import SCHEMA_VERSION, ObservationStore, read_manifest
from pythiageo.runs.provenance import provenance

MANIFEST = "manifest.json"
AUDIT = "audit.json"
STATE = "state.safetensors"
LOG = "log.jsonl"
HASHES = "hashes.json"
TENSORBOARD = "tensorboard"
_OWN = (MANIFEST, AUDIT, "observations", "observations.parquet", "checkpoints", STATE, "downloads", LOG,
        HASHES, TENSORBOARD)  # fmt: skip
_PASSING = ("unreadable", "corrupt", "too-large")
_SOUND = ("ok", "same-as-neighbour")
_MAY_CHANGE = ("training.stop", "training.checkpoints")
"""A resumed training run may go on for longer, and be looked at more or less often from there on."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class RunFolder:
    """The folder of one run, opened for writing. Use ``open_run_folder``."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.observations = ObservationStore(path)
        self.checkpoints = path / "checkpoints"
        self.state = path / STATE
        self.log = path / LOG
        """One line a checkpoint: when, and how long its parts took."""
        self.tensorboard = path / TENSORBOARD
        """Event files, where they were asked for."""
        self.hashes = path / HASHES
        """Hashes of a series' files, for a resumed run."""
        self.downloads = path / "downloads"
        """Checkpoints on their way through; whatever a killed run left here is used or removed."""

    def update(self, **fields: Any) -> None:
        """Change fields of the manifest and write it."""
        self.manifest.update(fields)
        _write_json(self.path / MANIFEST, self.manifest)

    def add_checkpoint(self, step: int, label: str, weight_sha: str | None, status: str, reason: str | None) -> None:
        """Note in the manifest how a checkpoint went, in place of what an earlier try noted."""
        entry = {"step": step, "label": label, "weight_sha": weight_sha, "status": status, "reason": reason}
        others = [known for known in self.manifest["checkpoints"] if known["step"] != step]
        self.update(checkpoints=sorted([*others, entry], key=lambda known: known["step"]))

    def keep_all(self, results: Iterable[CheckpointResult], kept: Callable[[CheckpointResult], None]) -> None:
        """Write each result as it comes, call ``kept`` with it, and only then ask for the next one.

        This is the loop of every run, of a saved series as of a model in training.
        """
        for result in results:
            self.observations.write(result.step, result.rows)
            if result.model is not None:
                self.manifest["model"] = result.model
            self.add_checkpoint(result.step, result.label, result.weight_sha, result.status, result.reason)
            kept(result)

    def forget_after(self, step: int) -> list[int]:
        """Remove what was measured at later steps, weights too; return these steps."""
        later = [known["step"] for known in self.manifest["checkpoints"] if known["step"] > step]
        self.update(checkpoints=[known for known in self.manifest["checkpoints"] if known["step"] <= step])
        self.observations.drop_after(step)
        for known in later:
            shutil.rmtree(self.checkpoints / f"step{known}", ignore_errors=True)
        return later

    def worth_retrying(self) -> set[int]:
        """Return the steps that could not be fetched or read: a resumed run tries them again."""
        return {entry["step"] for entry in self.manifest["checkpoints"] if entry["status"] in _PASSING}

    def drop_downloads(self) -> None:
        """Remove what fetching left behind."""
        shutil.rmtree(self.downloads, ignore_errors=True)

    def add_audit(self, audit: dict[str, Any]) -> None:
        """Keep the audit of the series that the run measures."""
        _write_json(self.path / AUDIT, audit)

    @property
    def device(self) -> str:
        """The device of the forward passes."""
        return str(self.manifest["provenance"]["device"])

    @property
    def sound(self) -> bool:
        """Whether no checkpoint needs a look: each was measured, or holds the weights of one that was."""
        return all(entry["status"] in _SOUND for entry in self.manifest["checkpoints"])

    @contextmanager
    def new_checkpoint(self, step: int) -> Iterator[Path]:
        """Give a path to write checkpoint ``step`` to; it appears as ``checkpoints/stepN`` once it is whole."""
        self.checkpoints.mkdir(exist_ok=True)
        final = self.checkpoints / f"step{step}"
        temporary = self.checkpoints / f".writing-step{step}"
        shutil.rmtree(temporary, ignore_errors=True)
        yield temporary
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)


@contextmanager
def open_run_folder(path: Path, config: RunConfig, resume: bool, overwrite: bool, device: str) -> Iterator[RunFolder]:
    """Open ``path`` for ``config`` on ``device``, new or to be resumed, and hold its lock meanwhile.

    An interrupted or failed run is left with its status in the manifest and can be resumed. A full disk becomes a
    ``MachineError``.

    Raises:
        UserError: the folder holds something else, a run of another config, or a run and neither ``resume`` nor
            ``overwrite`` was asked for; or another process works on it.
    """
    if (path / MANIFEST).exists() or not path.exists() or not any(path.iterdir()):
        path.mkdir(parents=True, exist_ok=True)
    else:
        raise UserError(f"{path}: not a run folder, and not empty: choose another with --out")
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{path}: another process is working on this run") from None
    try:
        folder = RunFolder(path, _manifest(path, config, resume, overwrite, device))
        folder.update(status="running")
        try:
            yield folder
        except KeyboardInterrupt:
            folder.update(status="interrupted")
            raise
    except OSError as error:
        if error.errno in _FULL:
            raise MachineError(
                f"{path}: the disk is full ({error.strerror}); what was measured is kept: free space, then --resume"
            ) from None
        raise
    finally:
        lock.release()


def _manifest(path: Path, config: RunConfig, resume: bool, overwrite: bool, device: str) -> dict[str, Any]:
    resolved = config.model_dump(mode="json")
    if (path / MANIFEST).exists():
        old = read_manifest(path)
        if overwrite:
            for name in _OWN:
                target = path / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
        elif not resume:
            raise UserError(
                f"{path}: holds a run already ({old.get('status')}): --resume goes on with it, --overwrite starts anew"
            )
        else:
            changed = sorted({*_differences(_completed(old.get("config", {}), config), resolved)} - set(_MAY_CHANGE))
            if changed:
                raise UserError(
                    f"{path}: holds a run of another config; {', '.join(changed)} differ: "
                    f"choose another folder with --out, or --overwrite"
                )
            before = old.get("provenance", {}).get("device", device)
            if before != device:
                raise UserError(
                    f"{path}: was measured on {before} so far, this is {device}: numbers of one table come from one "
                    f"device: choose another folder with --out, or --overwrite"
                )
            now = provenance(config.compute, device)
            return {**old, "config": resolved, "provenance": now, "earlier_provenance": _earlier(old, now)}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "kind": config.kind,
        "status": "running",
        "config": resolved,
        "provenance": provenance(config.compute, device),
        "probe_sets": [],
        "checkpoints": [],
        "corpus": None,
        "training": None,
    }


def _earlier(old: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what other code and machines the run's earlier checkpoints come from, each with the last step it made."""
    before = old.get("provenance", {})
    told = list(old.get("earlier_provenance", []))
    steps = [checkpoint["step"] for checkpoint in old.get("checkpoints", [])]
    if steps and {**before, "command": None} != {**now, "command": None}:
        told.append({**before, "last_step": max(steps)})
    return told


def _completed(old: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return an older config with the defaults of settings that did not exist yet; itself where it is no config now."""
    try:
        return type(config).model_validate(with_new_keys(old)).model_dump(mode="json")
    except ValidationError:
        return old


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
